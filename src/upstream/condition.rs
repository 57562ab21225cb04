//! What the standing of an endpoint is, in the words of metrics, of the admin address and of the log.

use std::time::Duration;

use tokio::time::Instant;

use super::endpoint::Endpoint;
use crate::config::SlowStart;

/// What the standing of an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Requests go there.
    Up,
    /// It has not been checked yet.
    Unknown,
    /// Its checks fail, or it has no address.
    Down,
    /// It cannot be connected to.
    Unreachable,
    /// It failed in traffic, and is left alone for a while.
    Ejected,
    /// One request finds out whether it is well again.
    Probation,
    /// Nothing new goes there.
    Draining,
    /// It is being eased in.
    Warming,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Up,
        Self::Unknown,
        Self::Down,
        Self::Unreachable,
        Self::Ejected,
        Self::Probation,
        Self::Draining,
        Self::Warming,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unknown => "unknown",
            Self::Down => "down",
            Self::Unreachable => "unreachable",
            Self::Ejected => "ejected",
            Self::Probation => "probation",
            Self::Draining => "draining",
            Self::Warming => "warming",
        }
    }
}

/// The standing of an endpoint.
#[derive(Debug, Clone)]
pub struct Description {
    /// What it is.
    pub condition: Condition,
    /// How long ago it changed.
    pub since: Duration,
    /// Why it changed; empty if it never has.
    pub why: String,
}

impl Endpoint {
    /// Its standing, with what the configuration and its name make of it.
    pub fn describe(&self, now: Instant, slow_start: Option<SlowStart>) -> Description {
        let (condition, since, why) = self.state.condition(now, slow_start);
        let is_well = matches!(condition, Condition::Up | Condition::Warming);
        let (condition, why) = match condition {
            _ if is_well && self.addresses.is_empty() => {
                (Condition::Down, "its name has no address".to_owned())
            }
            _ if is_well && self.drain => {
                (Condition::Draining, "the configuration drains it".to_owned())
            }
            condition => (condition, why),
        };
        Description { condition, since, why }
    }
}
