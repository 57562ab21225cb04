//! Policies: which endpoint a request goes to. One file each, behind one function.

mod least_requests;
mod p2c;
mod random;
mod round_robin;

use super::endpoint::Endpoint;
use crate::config::Policy;
use random::Random;
use round_robin::RoundRobin;

/// A policy over the endpoints of one upstream.
#[derive(Debug)]
pub enum Balancer {
    /// Uniformly at random by weight.
    Random(Random),
    /// In turn.
    RoundRobin(RoundRobin),
    /// The least loaded of all.
    LeastRequests,
    /// The less loaded of two drawn at random.
    P2c(Random),
}

impl Balancer {
    /// The policy over these endpoints.
    pub fn new(upstream: &crate::config::Upstream, endpoints: &[Endpoint], priority: u8) -> Self {
        let weight = |e: &Endpoint| if e.priority == priority { e.weight } else { 0 };
        let weights: Vec<u32> = endpoints.iter().map(weight).collect();
        match upstream.policy {
            Policy::Random => Self::Random(Random::new(&weights)),
            Policy::RoundRobin => Self::RoundRobin(RoundRobin::new(&weights)),
            Policy::LeastRequests => Self::LeastRequests,
            Policy::P2c | Policy::PeakEwma | Policy::LeastTime | Policy::ConsistentHash => {
                Self::P2c(Random::new(&weights))
            }
        }
    }

    /// Picks one of the endpoints that `usable` (index and endpoint) says may be picked; each of
    /// them has a weight above 0. `None` if there is none.
    pub fn pick(
        &self,
        endpoints: &[Endpoint],
        _key: Option<u64>,
        _now: tokio::time::Instant,
        usable: impl Fn(usize, &Endpoint) -> bool,
    ) -> Option<usize> {
        let usable = |index: usize| endpoints.get(index).is_some_and(|e| usable(index, e));
        match self {
            Self::Random(random) => random.pick(usable),
            Self::RoundRobin(turns) => turns.pick(usable),
            Self::LeastRequests => least_requests::pick(endpoints, usable),
            Self::P2c(random) => p2c::pick(random, endpoints, usable),
        }
    }
}

/// Which of two has less in flight for its weight.
fn compare_load(a: &Endpoint, b: &Endpoint) -> std::cmp::Ordering {
    let load = |e: &Endpoint| u64::from(e.state.in_flight());
    // a / weight(a) against b / weight(b), without the division.
    (load(a) * u64::from(b.weight)).cmp(&(load(b) * u64::from(a.weight)))
}
