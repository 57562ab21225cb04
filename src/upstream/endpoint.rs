//! Endpoints: what the configuration says of one, and what all workers share about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::latency::Latency;
use super::standing::Standing;
use crate::config;
use crate::net::dial::Address;
use crate::net::tls::client::TlsEndpoint;
use crate::stats::EndpointStats;

/// Connections to one endpoint that may be on their way at once, over all workers: enough for any
/// burst that it can take, and no storm where it has just come back.
const MAX_DIALS: usize = 128;

/// One place that requests can go to. Immutable, but for the [`State`] that outlives it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its share of the requests; 0 is none.
    pub weight: u32,
    /// Used only when all of smaller numbers are gone or full.
    pub priority: u8,
    /// Whether the configuration wants nothing new to go there.
    pub drain: bool,
    /// Requests in flight at once, as far as that is limited by itself; `u32::MAX` is no limit.
    max_requests: u32,
    /// Connections at once; `u32::MAX` is no limit.
    pub max_connections: u32,
    /// Where to connect: the address in use first, then its alternatives in the other family.
    /// Empty while its name does not resolve.
    pub addresses: Vec<Address>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Its own authority, for a Host field.
    pub authority: String,
    /// The base path that request paths are joined to.
    pub base_path: String,
    /// What all workers share about it.
    pub state: Arc<State>,
}

/// What is spoken with an endpoint.
#[derive(Debug, Clone)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, known beforehand.
    Http2,
    /// TLS, and in it what is agreed on by ALPN: HTTP/2 too only where it is offered.
    Tls {
        /// How.
        tls: Arc<TlsEndpoint>,
        /// Whether HTTP/2 is offered.
        http2: bool,
    },
}

impl Protocol {
    /// Whether it may be HTTP/2.
    pub const fn may_be_http2(&self) -> bool {
        matches!(self, Self::Http2 | Self::Tls { http2: true, .. })
    }
}

impl PartialEq for Protocol {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Http1, Self::Http1) | (Self::Http2, Self::Http2) => true,
            (Self::Tls { tls: a, http2: b }, Self::Tls { tls: c, http2: d }) => {
                Arc::ptr_eq(a, c) && b == d
            }
            _ => false,
        }
    }
}

impl Eq for Protocol {}

/// What is known of one endpoint, however often the configuration around it changes.
#[derive(Debug)]
pub struct State {
    /// Its number in this process, never given twice.
    pub id: u64,
    /// Its upstream's name; with the label it is the endpoint's identity.
    pub upstream: String,
    /// Its name in logs and metrics.
    pub label: String,
    /// Whether requests may go there.
    pub(super) standing: Standing,
    /// Its limit of requests in flight as its latency has it; `u32::MAX` is none.
    pub(super) adaptive_limit: AtomicU32,
    /// How fast it answers.
    pub latency: Latency,
    /// The mean time of its responses of late, in microseconds; 0 where there were none.
    recent_latency: AtomicU64,
    /// Its counters, one set a worker.
    pub stats: Box<[EndpointStats]>,
    /// Connections on their way to it.
    pub dials: Semaphore,
    /// Connections to it, idle ones included.
    connections: AtomicU32,
    /// Requests that would need one of its connections that lie idle with another worker.
    wanted: AtomicU32,
    /// Which of its addresses answered last, so that an alternative is not found anew each time.
    last_good: AtomicUsize,
    /// Whether it chose HTTP/2 the last time that it could.
    chose_http2: AtomicBool,
    /// Written with every request, so it has a cache line of its own.
    in_flight: Alone<AtomicU32>,
}

/// Something with a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Alone<T>(T);

impl State {
    /// The state of an endpoint that nothing is known of yet.
    pub fn new(id: u64, upstream: String, label: String, workers: usize) -> Self {
        Self {
            id,
            upstream,
            label,
            standing: Standing::default(),
            adaptive_limit: AtomicU32::new(u32::MAX),
            recent_latency: AtomicU64::new(0),
            latency: Latency::default(),
            stats: std::iter::repeat_with(EndpointStats::default).take(workers).collect(),
            dials: Semaphore::new(MAX_DIALS),
            connections: AtomicU32::new(0),
            wanted: AtomicU32::new(0),
            last_good: AtomicUsize::new(0),
            chose_http2: AtomicBool::new(false),
            in_flight: Alone::default(),
        }
    }

    /// Requests that it is working on, over all workers.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.0.load(Relaxed)
    }

    /// Counts one request more, unless that would be more than `limit`.
    pub(super) fn start(&self, limit: u32) -> bool {
        if limit == u32::MAX {
            self.in_flight.0.fetch_add(1, Relaxed);
            return true;
        }
        take(&self.in_flight.0, limit)
    }

    /// Counts one request less.
    pub(super) fn end(&self) {
        self.in_flight.0.fetch_sub(1, Relaxed);
    }

    /// Connections to it, over all workers, idle ones included.
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// The limit of requests in flight as its latency has it; `u32::MAX` is none.
    #[inline]
    pub fn adaptive_limit(&self) -> u32 {
        self.adaptive_limit.load(Relaxed)
    }

    /// Sets that limit.
    pub fn limit_adaptively(&self, limit: u32) {
        // Mostly nothing changes, and whoever picks reads it all the time.
        if self.adaptive_limit() != limit {
            self.adaptive_limit.store(limit, Relaxed);
        }
    }

    /// The mean time of its responses of late, from asked to the head, where there were any.
    pub fn recent_latency(&self) -> Option<Duration> {
        let micros = self.recent_latency.load(Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// Sets that time.
    pub fn set_recent_latency(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.recent_latency.store(micros.max(1), Relaxed);
    }

    /// Takes note of whether it has chosen HTTP/2, where it could choose.
    pub fn speaks_http2(&self, http2: bool) {
        if self.chose_http2.load(Relaxed) != http2 {
            self.chose_http2.store(http2, Relaxed);
        }
    }

    /// Asks for one of its idle connections to be closed, whoever has it.
    pub fn want_connection(&self) {
        self.wanted.store(1, Relaxed);
    }

    /// Whether an idle connection of it is to be closed; the answer is true once for each time
    /// that one was wanted.
    pub fn is_connection_wanted(&self) -> bool {
        self.wanted.load(Relaxed) != 0 && self.wanted.swap(0, Relaxed) != 0
    }
}

/// Adds one to `count`, unless it is at `limit`.
fn take(count: &AtomicU32, limit: u32) -> bool {
    let more = |count: u32| (count < limit).then_some(count + 1);
    count.try_update(Relaxed, Relaxed, more).is_ok()
}

/// A count with a limit that one upstream's endpoints share.
#[derive(Debug, Default)]
pub struct Shares(Alone<AtomicU32>);

impl Shares {
    /// How many there are.
    pub fn get(&self) -> u32 {
        self.0.0.load(Relaxed)
    }

    /// Takes one, unless there are as many as `limit`.
    pub fn take(&self, limit: u32) -> bool {
        take(&self.0.0, limit)
    }

    /// Gives one back.
    pub fn give(&self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// A connection's place under the limits of connections, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    state: Arc<State>,
    shared: Arc<super::Shared>,
}

impl Place {
    /// A place for a connection to `endpoint`, whose upstream may have `limit` of them; `None`
    /// where all are taken.
    pub fn take(endpoint: &Endpoint, shared: &Arc<super::Shared>, limit: u32) -> Option<Self> {
        if !take(&endpoint.state.connections, endpoint.max_connections) {
            return None;
        }
        let state = Arc::clone(&endpoint.state);
        if !shared.connections.take(limit) {
            state.connections.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Self { state, shared: Arc::clone(shared) })
    }

    /// Whether another request wants it, so that the connection, if it is idle, is to be closed; the
    /// answer is true once for each time that one was wanted.
    pub fn is_wanted(&self) -> bool {
        self.state.is_connection_wanted() || self.shared.is_place_wanted()
    }

    /// Counts, for this `worker`, that the endpoint sent bytes on the connection that belong to no response.
    pub fn count_stray(&self, worker: usize) {
        if let Some(stats) = self.state.stats.get(worker) {
            stats.stray.add(1);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.state.connections.fetch_sub(1, Relaxed);
        self.shared.connections.give();
        self.shared.place_freed.notify_waiters();
    }
}

impl Endpoint {
    /// The endpoint `config` of an upstream with these `limits`, at these addresses, with this
    /// share of the requests.
    pub fn new(
        config: &config::Endpoint,
        limits: &config::Limits,
        weight: u32,
        addresses: Vec<Address>,
        protocol: Protocol,
        state: Arc<State>,
    ) -> Self {
        let limit = |own: Option<u32>, all: Option<u32>| own.or(all).unwrap_or(u32::MAX);
        Self {
            weight,
            priority: config.priority,
            drain: config.drain,
            max_requests: limit(config.max_requests, limits.endpoint_requests),
            max_connections: limit(config.max_connections, limits.endpoint_connections),
            addresses,
            protocol,
            authority: config.url.authority(),
            base_path: config.url.base_path.clone(),
            state,
        }
    }

    /// Whether new requests may go there as far as the configuration and the names go.
    #[inline]
    pub fn is_usable(&self) -> bool {
        self.weight > 0 && !self.drain && !self.addresses.is_empty()
    }

    /// Whether it counts among those that requests go to if they are well.
    pub fn is_candidate(&self) -> bool {
        self.is_usable() && self.state.admits_in_panic()
    }

    /// Whether there is any limit that is always the same.
    pub fn is_limited(&self) -> bool {
        self.max_requests != u32::MAX || self.max_connections != u32::MAX
    }

    /// Whether requests share its connections, as far as is known.
    pub fn shares_connections(&self) -> bool {
        match self.protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Tls { http2, .. } => http2 && self.state.chose_http2.load(Relaxed),
        }
    }

    /// How many requests may be in flight to it whatever its latency is; `u32::MAX` is no limit. Where each
    /// needs a connection, never more than connections: so a request that is let in always finds one, if
    /// need be one that another worker has to give up.
    #[inline]
    pub fn max_requests(&self) -> u32 {
        match self.max_connections {
            u32::MAX => self.max_requests,
            _ if self.shares_connections() => self.max_requests,
            connections => self.max_requests.min(connections),
        }
    }

    /// How many requests may be in flight to it now; `u32::MAX` is no limit.
    #[inline]
    pub fn limit(&self) -> u32 {
        self.max_requests().min(self.state.adaptive_limit())
    }

    /// Its addresses in the order to try them: the one that answered last, then the others.
    pub fn dial_order(&self) -> impl Iterator<Item = (usize, Address)> {
        let first = self.state.last_good.load(Relaxed).min(self.addresses.len().saturating_sub(1));
        let rotated = self.addresses.iter().cloned().enumerate().cycle().skip(first);
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
        let of = |e: &Self| (e.weight, e.priority, e.drain, e.max_requests, e.max_connections);
        Arc::ptr_eq(&self.state, &other.state)
            && self.protocol == other.protocol
            && of(self) == of(other)
            && self.addresses == other.addresses
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Endpoints of these weights on made-up addresses.
    pub(crate) fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
        let endpoint = |(i, weight): (usize, &u32)| {
            let port = 9000 + u16::try_from(i).unwrap();
            let host = config::EndpointHost::Ip([127, 0, 0, 1].into());
            let url = config::EndpointUrl::http(host, port);
            let state = Arc::new(State::new(i as u64, "u".into(), url.to_string(), 1));
            let limits = config::Limits::default();
            let addresses = vec![address(port)];
            Endpoint::new(
                &config::Endpoint::new(url),
                &limits,
                *weight,
                addresses,
                Protocol::Http1,
                state,
            )
        };
        weights.iter().enumerate().map(endpoint).collect()
    }

    fn address(port: u16) -> Address {
        Address::Ip(([127, 0, 0, 1], port).into())
    }

    /// A request in flight until it is dropped.
    pub(crate) struct Busy(Arc<State>);

    impl Drop for Busy {
        fn drop(&mut self) {
            self.0.end();
        }
    }

    /// Puts a request in flight to `endpoint`.
    pub(crate) fn busy(endpoint: &Endpoint) -> Busy {
        assert!(endpoint.state.start(u32::MAX));
        Busy(Arc::clone(&endpoint.state))
    }

    #[test]
    fn the_address_that_answered_is_tried_first() {
        let mut endpoint = endpoints(&[1]).remove(0);
        endpoint.addresses = (1..=3).map(address).collect();
        let order = |e: &Endpoint| e.dial_order().map(|(_, a)| a).collect::<Vec<_>>();
        assert_eq!(order(&endpoint), [1, 2, 3].map(address));
        endpoint.answered(1);
        assert_eq!(order(&endpoint), [2, 3, 1].map(address));
        endpoint.addresses.truncate(1);
        assert_eq!(order(&endpoint), [address(1)], "fewer addresses than there were");
        endpoint.addresses.clear();
        assert!(order(&endpoint).is_empty());
    }

    #[test]
    fn limits_hold_for_requests_and_connections() {
        let mut endpoint = endpoints(&[1]).remove(0);
        assert!(endpoint.state.start(2) && endpoint.state.start(2) && !endpoint.state.start(2));
        assert!(endpoint.state.start(u32::MAX));
        endpoint.state.end();
        assert_eq!(endpoint.state.in_flight(), 2);
        endpoint.max_connections = 2;
        let shared = Arc::new(crate::upstream::Shared::new(1));
        let place = |limit| Place::take(&endpoint, &shared, limit);
        let places = [place(2), place(2)];
        assert!(places.iter().all(Option::is_some) && place(u32::MAX).is_none());
        drop(places);
        assert!(place(0).is_none());
        assert_eq!((endpoint.state.connections(), shared.connections.get()), (0, 0));
        let other = place(1);
        assert!(other.is_some() && place(1).is_none(), "the upstream's limit");
    }

    #[test]
    fn a_wanted_connection_is_given_up_once() {
        let state = &endpoints(&[1]).remove(0).state;
        assert!(!state.is_connection_wanted());
        state.want_connection();
        assert!(state.is_connection_wanted() && !state.is_connection_wanted());
    }
}
