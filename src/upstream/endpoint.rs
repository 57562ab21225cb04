//! Endpoints: what the configuration says of one, and what all workers share about it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use super::backoff::Backoff;
use super::latency::Latency;
use crate::config::EndpointUrl;
use crate::stats::EndpointStats;

/// One place that requests can go to. Immutable, but for the [`State`] that outlives it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its share of the requests; 0 is none.
    pub weight: u32,
    /// Used only when all endpoints of smaller numbers are gone or full.
    pub priority: u8,
    /// Where to connect: the address in use first, then its alternatives in the other family.
    /// Empty while its name does not resolve.
    pub addresses: Vec<SocketAddr>,
    /// Its own authority, for a Host field.
    pub authority: String,
    /// The base path that request paths are joined to.
    pub base_path: String,
    /// What all workers share about it.
    pub state: Arc<State>,
}

/// What is known of one endpoint, however often the configuration around it changes.
#[derive(Debug)]
pub struct State {
    /// Its number in this process, never given twice.
    pub id: u64,
    /// Its upstream's name; with the label it is the endpoint's identity.
    pub upstream: String,
    /// Its name in logs and metrics.
    pub label: String,
    /// Whether it is left alone after a failed connection.
    pub backoff: Backoff,
    /// How fast it answers.
    pub latency: Latency,
    /// Its counters, one set a worker.
    pub stats: Box<[EndpointStats]>,
    in_flight: AtomicU32,
    /// Which of its addresses answered last, so that an alternative is not found anew each time.
    last_good: AtomicUsize,
}

impl State {
    /// The state of an endpoint that nothing is known of yet.
    pub fn new(id: u64, upstream: String, label: String, workers: usize) -> Self {
        Self {
            id,
            upstream,
            label,
            backoff: Backoff::default(),
            latency: Latency::default(),
            stats: std::iter::repeat_with(EndpointStats::default).take(workers).collect(),
            in_flight: AtomicU32::new(0),
            last_good: AtomicUsize::new(0),
        }
    }

    /// Requests that it is working on, over all workers.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Counts a request as in flight until the guard is dropped, at its body's end.
    pub fn start(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(self)
    }
}

impl Endpoint {
    /// The endpoint `url` with these addresses.
    pub fn new(
        url: &EndpointUrl,
        weight: u32,
        addresses: Vec<SocketAddr>,
        state: Arc<State>,
    ) -> Self {
        Self {
            weight,
            priority: 0,
            addresses,
            authority: url.authority(),
            base_path: url.base_path.clone(),
            state,
        }
    }

    /// Whether it may get requests at all.
    pub fn is_usable(&self) -> bool {
        self.weight > 0 && !self.addresses.is_empty()
    }

    /// Its addresses in the order to try them: the one that answered last, then the others.
    pub fn dial_order(&self) -> impl Iterator<Item = (usize, SocketAddr)> {
        let first = self.state.last_good.load(Relaxed).min(self.addresses.len().saturating_sub(1));
        let rotated = self.addresses.iter().copied().enumerate().cycle().skip(first);
        rotated.take(self.addresses.len())
    }

    /// Remembers that the address at `index` answered.
    pub fn answered(&self, index: usize) {
        if self.state.last_good.load(Relaxed) != index {
            self.state.last_good.store(index, Relaxed);
        }
    }
}

/// The same place with the same share, and the same state.
impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
            && self.weight == other.weight
            && self.priority == other.priority
            && self.addresses == other.addresses
    }
}

/// A request in flight.
#[derive(Debug)]
pub struct InFlight<'a>(&'a State);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Endpoints of these weights on made-up addresses.
    pub(crate) fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
        let endpoint = |(i, weight): (usize, &u32)| {
            let port = 9000 + u16::try_from(i).unwrap();
            let url: EndpointUrl = EndpointUrl {
                host: crate::config::EndpointHost::Ip([127, 0, 0, 1].into()),
                port,
                base_path: String::new(),
            };
            let state = State::new(i as u64, "u".into(), url.to_string(), 1);
            Endpoint::new(&url, *weight, vec![([127, 0, 0, 1], port).into()], Arc::new(state))
        };
        weights.iter().enumerate().map(endpoint).collect()
    }

    #[test]
    fn the_address_that_answered_is_tried_first() {
        let mut endpoint = endpoints(&[1]).remove(0);
        endpoint.addresses = (1..=3).map(|port| ([127, 0, 0, 1], port).into()).collect();
        let ports = |e: &Endpoint| e.dial_order().map(|(_, a)| a.port()).collect::<Vec<_>>();
        assert_eq!(ports(&endpoint), [1, 2, 3]);
        endpoint.answered(1);
        assert_eq!(ports(&endpoint), [2, 3, 1]);
        endpoint.addresses.truncate(1);
        assert_eq!(ports(&endpoint), [1], "fewer addresses than there were");
        endpoint.addresses.clear();
        assert!(ports(&endpoint).is_empty());
    }

    #[test]
    fn in_flight_ends_with_its_guard() {
        let endpoint = endpoints(&[1]).remove(0);
        let guards = [endpoint.state.start(), endpoint.state.start()];
        assert_eq!(endpoint.state.in_flight(), 2);
        drop(guards);
        assert_eq!(endpoint.state.in_flight(), 0);
    }
}
