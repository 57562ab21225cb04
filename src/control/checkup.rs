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
const FIRST_RESULTS: Duration = Duration::from_secs(1);

/// Checks that passed and failed, by the endpoint's number.
pub(super) type Tallies = HashMap<u64, (u64, u64)>;

/// The endpoints that are checked.
#[derive(Debug, Default)]
pub(super) struct Checkup {
    checks: Checks,
    states: HashMap<u64, Arc<State>>,
}

impl Checkup {
    /// Checks the endpoints of `snapshot` from now on, and waits until those that are new have been
    /// checked once, or for as long as one may wait. Returns whether requests may be waiting for an
    /// endpoint that is gone.
    pub(super) async fn follow(&mut self, snapshot: &Snapshot) -> bool {
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
        let changes = self.checks.wait_for_first_results(FIRST_RESULTS).await;
        let mut is_lost = false;
        for change in &changes {
            is_lost |= self.apply(change);
        }
        for state in self.states.values().filter(|state| state.is_unknown()) {
            let (endpoint, upstream) = (&state.label, &state.upstream);
            tracing::warn!(%endpoint, %upstream, "not checked yet; it gets nothing until it is");
        }
        is_lost
    }

    /// Waits for the next change.
    pub(super) async fn changed(&mut self) -> Change {
        self.checks.changed().await
    }

    /// Lets requests know of `change`. Returns whether some may be waiting for an endpoint that is
    /// gone.
    pub(super) fn apply(&self, change: &Change) -> bool {
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
