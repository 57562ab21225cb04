//! The checks of the endpoints in force, and what follows from their results.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::health::active::Checks;
use crate::health::check::Target;
use crate::health::checked::Change;
use crate::proxy::snapshot::Snapshot;
use crate::upstream::endpoint::State;

/// How long a start, or a reload, waits for endpoints to be checked for the first time. One that
/// takes longer gets nothing until it is.
pub(super) const FIRST_RESULTS: Duration = Duration::from_secs(1);

/// Checks that passed and failed, by the endpoint's number.
pub(super) type Tallies = HashMap<u64, (u64, u64)>;

/// The endpoints that are checked.
#[derive(Debug, Default)]
pub(super) struct Checkup {
    checks: Checks,
    states: HashMap<u64, Arc<State>>,
}

impl Checkup {
    /// Checks the endpoints of `snapshot` from now on, and no others.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        let mut targets = Vec::new();
        self.states.clear();
        for upstream in &snapshot.upstreams {
            let Some(health) = &upstream.config.health else { continue };
            for endpoint in &upstream.endpoints {
                self.states.insert(endpoint.state.id, Arc::clone(&endpoint.state));
                targets.push(Target {
                    id: endpoint.state.id,
                    label: endpoint.state.label.clone(),
                    addresses: endpoint.addresses.clone(),
                    protocol: endpoint.protocol.clone(),
                    proxy: upstream.config.proxy_protocol,
                    authority: endpoint.authority.clone(),
                    health: health.clone(),
                });
            }
        }
        self.checks.follow(targets);
    }

    /// Waits until each endpoint has been checked once, or for as long as one may wait.
    pub(super) async fn wait_for_first_results(&mut self) {
        for change in self.checks.wait_for_first_results(FIRST_RESULTS).await {
            self.apply(&change);
        }
    }

    /// Whether each endpoint has been checked once.
    pub(super) fn are_answered(&self) -> bool {
        self.checks.are_answered()
    }

    /// Says which endpoints have not been checked yet.
    pub(super) fn warn_of_unknown(&self) {
        for state in self.states.values().filter(|state| state.is_unknown()) {
            let (endpoint, upstream) = (&state.label, &state.upstream);
            tracing::warn!(%endpoint, %upstream, "not checked yet; it gets nothing until it is");
        }
    }

    /// Waits for the next result, and lets requests know of it. Returns whether some may be waiting for an
    /// endpoint that is gone.
    pub(super) async fn take(&mut self) -> bool {
        let change = self.checks.next().await;
        change.is_some_and(|change| self.apply(&change))
    }

    /// Lets requests know of `change`. Returns whether some may be waiting for an endpoint that is
    /// gone.
    fn apply(&self, change: &Change) -> bool {
        let Some(state) = self.states.get(&change.id) else { return false };
        state.checked(Instant::now(), change.is_up, &change.why)
    }

    /// How many checks passed and failed.
    pub(super) fn tallies(&self) -> Tallies {
        let tally =
            |id: &u64| self.checks.state(*id).map(|known| (*id, (known.passed, known.failed)));
        self.states.keys().filter_map(tally).collect()
    }
}
