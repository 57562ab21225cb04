//! What the admin address shows of the balancer.

use std::sync::Arc;
use std::time::SystemTime;

use super::checkup::Tallies;
use super::upkeep::Told;
use crate::proxy::snapshot::Snapshot;
use crate::proxy::worker::Shared;

/// The state of the balancer, as the admin address shows it.
#[derive(Debug)]
pub(super) struct View {
    /// Whether new traffic is welcome; the first thing that a drain changes.
    pub is_ready: bool,
    /// What is in force.
    pub snapshot: Arc<Snapshot>,
    /// The workers' counters.
    pub shared: Arc<Shared>,
    /// The checks made.
    pub checks: Tallies,
    /// The certificates, and how often they were read again.
    pub certificates: Told,
    /// Whether the last reload, or the start, found a valid configuration.
    pub reload_succeeded: bool,
    /// When that was.
    pub reloaded_at: SystemTime,
}

impl View {
    pub(super) fn new(snapshot: Arc<Snapshot>, shared: Arc<Shared>) -> Self {
        let reloaded_at = SystemTime::now();
        let checks = Tallies::new();
        Self {
            is_ready: true,
            snapshot,
            shared,
            checks,
            certificates: Told::default(),
            reload_succeeded: true,
            reloaded_at,
        }
    }
}
