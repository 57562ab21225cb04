//! Policies: which endpoint a request goes to. One file each, behind one function.

mod consistent_hash;
mod least_requests;
mod least_time;
mod p2c;
mod peak_ewma;
mod random;
mod round_robin;

use std::cmp::Ordering;

use tokio::time::Instant;

use super::endpoint::Endpoint;
use crate::config::{self, Policy};
use consistent_hash::ConsistentHash;
use random::Random;
use round_robin::RoundRobin;

pub use consistent_hash::key;

/// A policy over those endpoints of one upstream that have one priority.
#[derive(Debug)]
pub enum Balancer {
    /// Uniformly at random by weight.
    Random(Random),
    /// In turn.
    RoundRobin(RoundRobin),
    /// The least loaded of all.
    LeastRequests {
        /// The priority of those that it looks at; the others go by weights that leave out the rest.
        priority: u8,
    },
    /// The less loaded of two drawn at random.
    P2c(Random),
    /// Of two drawn at random the one where a request waits less.
    PeakEwma(Random),
    /// The one where a request takes the least time, of all.
    LeastTime {
        /// The priority of those that it looks at.
        priority: u8,
    },
    /// The same one for the same key.
    ConsistentHash(ConsistentHash),
}

impl Balancer {
    /// The policy of `upstream` over those of its `endpoints` that have this priority; indices are
    /// those in `endpoints`.
    pub fn new(upstream: &config::Upstream, endpoints: &[Endpoint], priority: u8) -> Self {
        let weight = |e: &Endpoint| if e.priority == priority { e.weight } else { 0 };
        let weights: Vec<u32> = endpoints.iter().map(weight).collect();
        match upstream.policy {
            Policy::Random => Self::Random(Random::new(&weights)),
            Policy::RoundRobin => Self::RoundRobin(RoundRobin::new(&weights)),
            Policy::LeastRequests => Self::LeastRequests { priority },
            Policy::P2c => Self::P2c(Random::new(&weights)),
            Policy::PeakEwma => Self::PeakEwma(Random::new(&weights)),
            Policy::LeastTime => Self::LeastTime { priority },
            Policy::ConsistentHash => {
                let labels = endpoints.iter().map(|e| e.state.label.as_str());
                Self::ConsistentHash(ConsistentHash::new(labels, &weights, upstream.hash.bound))
            }
        }
    }

    /// Picks one of the endpoints that `usable` (index and endpoint) says may be picked; each of
    /// them has a weight above 0. `None` if there is none.
    ///
    /// `key` is the request's for consistent hashing, as [`key`] makes it; all other policies look
    /// past it. `now` is looked at only where the policy [goes by time](Self::observes_latency).
    pub fn pick(
        &self,
        endpoints: &[Endpoint],
        key: Option<u64>,
        now: Instant,
        usable: impl Fn(usize, &Endpoint) -> bool,
    ) -> Option<usize> {
        let among = |priority: u8| {
            let usable = &usable;
            move |index: usize| {
                endpoints.get(index).is_some_and(|e| e.priority == priority && usable(index, e))
            }
        };
        let usable = |index: usize| endpoints.get(index).is_some_and(|e| usable(index, e));
        match self {
            Self::Random(random) => random.pick(usable),
            Self::RoundRobin(turns) => turns.pick(usable),
            Self::LeastRequests { priority } => least_requests::pick(endpoints, among(*priority)),
            Self::P2c(random) => p2c::pick(random, endpoints, usable),
            Self::PeakEwma(random) => peak_ewma::pick(random, endpoints, now, usable),
            Self::LeastTime { priority } => least_time::pick(endpoints, now, among(*priority)),
            Self::ConsistentHash(ring) => ring.pick(key, endpoints, usable),
        }
    }

    /// Whether somebody must [observe](super::latency::Latency) how long answers take.
    pub const fn observes_latency(&self) -> bool {
        matches!(self, Self::PeakEwma(_) | Self::LeastTime { .. })
    }
}

/// Which of two has less in flight for its weight.
fn compare_load(a: &Endpoint, b: &Endpoint) -> Ordering {
    let load = |e: &Endpoint| u64::from(e.state.in_flight());
    // a / weight(a) against b / weight(b), without the division.
    (load(a) * u64::from(b.weight)).cmp(&(load(b) * u64::from(a.weight)))
}

/// The latency of an endpoint that nothing is known of while it has its first requests, in seconds:
/// above all that are known, and by what it has in flight among its like.
const UNKNOWN: f64 = 1e9;

/// What a further request costs at an endpoint of this latency, 0 being an unknown one: the time
/// that it would take for the endpoint's weight.
///
/// An endpoint that nothing is known of is the best choice for a request, and none at all for a
/// second one until the first was answered, as in Finagle: it gets traffic, but not all at once.
fn cost(endpoint: &Endpoint, latency: f64) -> f64 {
    let in_flight = f64::from(endpoint.state.in_flight());
    let latency = match latency {
        known if known > 0.0 => known,
        _ if in_flight > 0.0 => UNKNOWN,
        _ => 0.0,
    };
    latency * (in_flight + 1.0) / f64::from(endpoint.weight.max(1))
}

/// The usable endpoint whose `key` is lowest of all; of equals one at random by weight.
fn lowest<'a, K>(
    endpoints: &'a [Endpoint],
    usable: impl Fn(usize) -> bool,
    key: impl Fn(&'a Endpoint) -> K,
    compare: impl Fn(&K, &K) -> Ordering,
) -> Option<usize> {
    let mut best: Option<(usize, K)> = None;
    let mut weight_of_equals = 0;
    for (index, endpoint) in endpoints.iter().enumerate().filter(|(i, _)| usable(*i)) {
        let key = key(endpoint);
        let order = best.as_ref().map_or(Ordering::Less, |(_, best)| compare(&key, best));
        // Each replaces the equals before it with the probability of its share among them, so in
        // the end each has its share.
        weight_of_equals = match order {
            Ordering::Less => endpoint.weight,
            Ordering::Equal => weight_of_equals.saturating_add(endpoint.weight),
            Ordering::Greater => continue,
        };
        if order.is_lt() || fastrand::u32(..weight_of_equals.max(1)) < endpoint.weight {
            best = Some((index, key));
        }
    }
    best.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::endpoint::tests::endpoints;

    #[test]
    fn every_policy_keeps_to_its_priority() {
        let mut endpoints = endpoints(&[1, 2, 1, 3]);
        endpoints[1].priority = 1;
        endpoints[3].priority = 1;
        let now = Instant::now();
        for policy in Policy::ALL {
            let mut config = config::Upstream::new("app", Vec::new());
            config.policy = policy;
            for (priority, members) in [(0, [0, 2]), (1, [1, 3])] {
                let balancer = Balancer::new(&config, &endpoints, priority);
                let mut seen = [false; 4];
                for key in 0..1000 {
                    let key = Some(super::key(&u32::to_be_bytes(key)));
                    let picked = balancer.pick(&endpoints, key, now, |_, _| true).unwrap();
                    seen[picked] = true;
                }
                let expected = [0, 1, 2, 3].map(|i| members.contains(&i));
                assert_eq!(seen, expected, "{policy:?} {priority}");
                let one = balancer.pick(&endpoints, None, now, |i, _| i == members[1]);
                assert_eq!(one, Some(members[1]), "{policy:?}");
                let others = balancer.pick(&endpoints, Some(7), now, |i, _| !members.contains(&i));
                assert_eq!(others, None, "{policy:?}");
            }
            assert_eq!(
                Balancer::new(&config, &endpoints, 2).pick(&endpoints, None, now, |_, _| true),
                None
            );
        }
    }
}
