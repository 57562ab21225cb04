//! Idle connections to endpoints, kept by the worker that made them for its next requests.

use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::FixedState;
use tokio::time::Instant;

use super::Upstream;
use super::endpoint::{Endpoint, Place, Protocol};
use super::http2::Lease;
use crate::net::dial::Address;
use crate::net::stream::{IdleState, Stream};

/// Idle connections that are kept for one endpoint by one worker; more than any worker uses at
/// once at the speed of one core, and a bound on what a burst leaves behind.
const MAX_IDLE: usize = 1024;

/// How long a connection must stay silent before it is used again, if its last response may be followed by a body
/// that does not belong there: servers that send one do so at once.
const QUARANTINE: Duration = Duration::from_millis(100);

/// How a connection is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// How long it is kept at most, idle.
    pub idle: Duration,
    /// Whether a body may still come that belongs to no response (behind the response to HEAD, or a 304). Then
    /// the connection is used again only after 100 ms of silence.
    pub is_quarantined: bool,
}

/// A connection to one address of an endpoint.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub stream: Stream,
    /// Where it leads.
    pub address: Address,
    /// What it takes while it is open.
    pub hold: Hold,
}

/// What a connection takes while it is open.
#[derive(Debug)]
pub enum Hold {
    /// A place under the limits, for itself alone.
    Place {
        /// The place.
        place: Place,
        /// How the endpoint was spoken to when it was made.
        protocol: Protocol,
    },
    /// A stream of a connection in HTTP/2 that others use too.
    Stream(Lease),
}

impl Connected {
    /// Whether the connection has failed, and not only a stream of it. To be asked where something has.
    pub fn is_over(&self) -> bool {
        match &self.hold {
            Hold::Place { .. } => true,
            Hold::Stream(lease) => lease.is_over(),
        }
    }

    /// Whether a failure on it is one of the endpoint's: where a connection fails that many share, only the
    /// first of them says so.
    pub fn is_to_blame(&self) -> bool {
        match &self.hold {
            Hold::Place { .. } => true,
            Hold::Stream(lease) => lease.is_to_blame(),
        }
    }

    /// An answer has not come in time on it.
    pub fn was_late(&self) {
        if let Hold::Stream(lease) = &self.hold {
            lease.was_late();
        }
    }
}

#[derive(Debug)]
struct Idle {
    connection: Connected,
    since: Instant,
    until: Instant,
    /// The end of its quarantine, if it is in one.
    quarantine: Option<Instant>,
}

impl Idle {
    fn is_to(&self, endpoint: &Endpoint) -> bool {
        let Connected { address, hold, .. } = &self.connection;
        let is_so = matches!(hold, Hold::Place { protocol, .. } if *protocol == endpoint.protocol);
        is_so && endpoint.addresses.contains(address)
    }

    fn is_usable(&self, now: Instant) -> bool {
        self.quarantine.is_none_or(|end| end <= now)
    }

    /// Checks that the connection is open and silent. Stray bytes are counted for this `worker`.
    fn check_quiet(&self, worker: usize) -> bool {
        let state = self.connection.stream.idle_state();
        if let (IdleState::Stray, Hold::Place { place, .. }) = (state, &self.connection.hold) {
            place.count_stray(worker);
        }
        state == IdleState::Quiet
    }
}

/// The idle connections of one worker, by endpoint.
#[derive(Debug, Default)]
pub struct Pool {
    worker: usize,
    idle: HashMap<u64, Vec<Idle>, FixedState>,
}

impl Pool {
    /// The empty pool of this `worker`.
    pub fn new(worker: usize) -> Self {
        Self { worker, idle: HashMap::default() }
    }

    /// The connection to `endpoint` that was used last, and how long ago, if one is left that its
    /// peer has not closed, and that leads where the endpoint still is, in the way that it is spoken to: its
    /// name may have moved, and a reload may ask for more of its certificate. To be `sure` costs a system
    /// call: what the runtime knows may be a moment old.
    pub fn take(
        &mut self,
        endpoint: &Endpoint,
        now: Instant,
        sure: bool,
    ) -> Option<(Connected, Duration)> {
        let idle = self.idle.get_mut(&endpoint.state.id)?;
        while let Some(at) = idle.iter().rposition(|kept| kept.is_usable(now)) {
            let kept = idle.remove(at);
            if kept.until > now
                && kept.is_to(endpoint)
                && kept.check_quiet(self.worker)
                && (!sure || kept.connection.stream.is_quiet_in_the_kernel())
            {
                return Some((kept.connection, now.saturating_duration_since(kept.since)));
            }
        }
        None
    }

    /// Keeps `connection`, idle `since` then, for the next request to `endpoint`; unless a request on another
    /// worker needs its place, or it is a stream of HTTP/2, which is done.
    pub fn put(&mut self, endpoint: &Endpoint, connection: Connected, since: Instant, keep: Keep) {
        let Hold::Place { place, .. } = &connection.hold else { return };
        let idle = self.idle.entry(endpoint.state.id).or_default();
        if idle.len() < MAX_IDLE && !place.is_wanted() {
            let quarantine = keep.is_quarantined.then(|| since + QUARANTINE);
            idle.push(Idle { connection, since, until: since + keep.idle, quarantine });
        }
    }

    /// Closes connections whose time has passed, or whose peer has closed. Endpoints without
    /// connections are forgotten.
    pub fn sweep(&mut self, now: Instant) {
        self.idle.retain(|_, idle| {
            idle.retain(|idle| idle.until > now && idle.check_quiet(self.worker));
            !idle.is_empty()
        });
    }

    /// Closes one connection to `endpoint`, if there is one and another worker wants its place.
    pub fn yield_one(&mut self, endpoint: &Endpoint) {
        if let Some(idle) = self.idle.get_mut(&endpoint.state.id).filter(|idle| !idle.is_empty())
            && endpoint.state.is_connection_wanted()
        {
            // The one that has been idle for longest.
            idle.remove(0);
        }
    }

    /// Closes one connection to any endpoint of `upstream`, if there is one and another request
    /// wants its place.
    pub fn yield_any(&mut self, upstream: &Upstream) {
        // The one whose time is over first, which is about the one that has been idle for longest.
        let first = |e: &Endpoint| Some((self.idle.get(&e.state.id)?.first()?.until, e.state.id));
        let oldest = upstream.endpoints.iter().filter_map(first).min();
        if let Some((_, endpoint)) = oldest
            && upstream.shared.is_place_wanted()
            && let Some(idle) = self.idle.get_mut(&endpoint)
        {
            idle.remove(0);
        }
    }

    /// Closes every connection to endpoints that `keep` does not know.
    pub fn keep_only(&mut self, keep: impl Fn(u64) -> bool) {
        self.idle.retain(|endpoint, _| keep(*endpoint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::endpoint::tests::endpoints;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    /// Both ends of a connection to an address that `endpoint` then has.
    async fn pair(endpoint: &mut Endpoint) -> (Connected, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        endpoint.addresses.push(address.into());
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        let shared = std::sync::Arc::new(crate::upstream::Shared::new(1));
        let place = Place::take(endpoint, &shared, u32::MAX).unwrap();
        (
            Connected {
                stream: Stream::Tcp(ours.unwrap()),
                address: address.into(),
                hold: Hold::Place { place, protocol: Protocol::Http1 },
            },
            theirs.unwrap().0,
        )
    }

    async fn readable(connection: &Connected) {
        let Stream::Tcp(stream) = &connection.stream else { panic!("{connection:?}") };
        stream.readable().await.unwrap();
    }

    const fn keep(seconds: u64) -> Keep {
        Keep { idle: Duration::from_secs(seconds), is_quarantined: false }
    }

    const LONG: Keep = keep(60);

    #[tokio::test]
    async fn the_last_used_is_taken_first_and_closed_ones_never() {
        let mut endpoint = endpoints(&[1]).remove(0);
        let mut pool = Pool::default();
        let mut theirs = Vec::new();
        let mut addresses = Vec::new();
        for _ in 0..4 {
            let (ours, their) = pair(&mut endpoint).await;
            addresses.push(ours.address.clone());
            pool.put(&endpoint, ours, Instant::now(), LONG);
            theirs.push(their);
        }
        theirs[3].write_all(b"unasked").await.unwrap();
        drop(theirs.remove(2));
        for idle in &pool.idle[&endpoint.state.id][2..] {
            readable(&idle.connection).await;
        }
        let mut take = || pool.take(&endpoint, Instant::now(), false).map(|(c, _)| c.address);
        addresses.truncate(2);
        assert_eq!([take(), take(), take()], [addresses.pop(), addresses.pop(), None]);
    }

    #[tokio::test]
    async fn what_is_too_old_or_leads_where_the_endpoint_was_is_not_taken() {
        let mut endpoint = endpoints(&[1]).remove(0);
        let mut pool = Pool::default();
        let (old, _old) = pair(&mut endpoint).await;
        let (kept, _kept) = pair(&mut endpoint).await;
        let (moved, _moved) = pair(&mut endpoint).await;
        let address = kept.address.clone();
        endpoint.addresses.pop();
        pool.put(&endpoint, kept, Instant::now(), LONG);
        pool.put(&endpoint, moved, Instant::now(), LONG);
        pool.put(&endpoint, old, Instant::now(), keep(0));
        let mut take = || pool.take(&endpoint, Instant::now(), false).map(|(c, _)| c.address);
        assert_eq!([take(), take()], [Some(address), None]);
    }

    #[tokio::test]
    async fn a_connection_in_quarantine_is_used_once_it_has_been_silent_and_closed_if_it_has_not() {
        let mut endpoint = endpoints(&[1]).remove(0);
        let mut pool = Pool::default();
        let now = Instant::now();
        let quarantined = Keep { is_quarantined: true, ..LONG };
        let (silent, _silent) = pair(&mut endpoint).await;
        let (stray, mut straying) = pair(&mut endpoint).await;
        let (usual, _usual) = pair(&mut endpoint).await;
        let addresses = [&usual, &silent].map(|connected| connected.address.clone());
        pool.put(&endpoint, usual, now, LONG);
        pool.put(&endpoint, silent, now, quarantined);
        pool.put(&endpoint, stray, now, quarantined);
        straying.write_all(b"body").await.unwrap();
        readable(&pool.idle[&endpoint.state.id][2].connection).await;
        let mut take = |now| pool.take(&endpoint, now, false).map(|(c, _)| c.address);
        let [usual, silent] = addresses;
        assert_eq!([take(now), take(now)], [Some(usual), None]);
        let later = now + QUARANTINE;
        assert_eq!([take(later), take(later)], [Some(silent), None]);
        assert_eq!(endpoint.state.stats[0].stray.get(), 1);
    }

    #[tokio::test]
    async fn who_must_be_sure_is_told_before_the_runtime_knows() {
        let mut endpoint = endpoints(&[1]).remove(0);
        let mut pool = Pool::default();
        let (ours, theirs) = pair(&mut endpoint).await;
        pool.put(&endpoint, ours, Instant::now(), LONG);
        // Nothing is awaited from here on, so the runtime cannot learn of it.
        drop(theirs);
        assert!(
            pool.idle[&endpoint.state.id][0].connection.stream.idle_state() == IdleState::Quiet
        );
        assert!(pool.take(&endpoint, Instant::now(), true).is_none());
    }

    #[tokio::test]
    async fn what_is_old_or_closed_is_swept() {
        let now = Instant::now();
        let mut pool = Pool::default();
        let [mut one, mut two, mut three]: [Endpoint; 3] =
            endpoints(&[1, 1, 1]).try_into().unwrap();
        let (old, _old) = pair(&mut one).await;
        let (closed, closing) = pair(&mut two).await;
        let (kept, _kept) = pair(&mut three).await;
        pool.put(&one, old, now, keep(0));
        pool.put(&two, closed, Instant::now(), LONG);
        pool.put(&three, kept, Instant::now(), LONG);
        drop(closing);
        readable(&pool.idle[&two.state.id][0].connection).await;
        pool.sweep(now);
        assert_eq!(pool.idle.keys().collect::<Vec<_>>(), [&three.state.id]);
        pool.keep_only(|endpoint| endpoint != three.state.id);
        assert!(pool.idle.is_empty());
    }

    #[tokio::test]
    async fn a_connection_whose_place_another_worker_wants_is_given_up() {
        let mut endpoint = endpoints(&[1]).remove(0);
        let mut pool = Pool::default();
        let (first, _first) = pair(&mut endpoint).await;
        let (second, _second) = pair(&mut endpoint).await;
        pool.put(&endpoint, first, Instant::now(), LONG);
        endpoint.state.want_connection();
        pool.put(&endpoint, second, Instant::now(), LONG);
        assert_eq!(endpoint.state.connections(), 1, "the second was not kept");
        pool.yield_one(&endpoint);
        assert_eq!(endpoint.state.connections(), 1, "nobody wants it");
        endpoint.state.want_connection();
        pool.yield_one(&endpoint);
        assert_eq!(endpoint.state.connections(), 0);
    }

    #[tokio::test]
    async fn a_place_that_is_wanted_of_all_is_that_of_the_connection_that_is_over_first() {
        let mut all = endpoints(&[1, 1]);
        let mut pool = Pool::default();
        let (first, _first) = pair(&mut all[0]).await;
        let (second, _second) = pair(&mut all[1]).await;
        pool.put(&all[0], first, Instant::now(), keep(61));
        pool.put(&all[1], second, Instant::now(), LONG);
        let shared = std::sync::Arc::new(crate::upstream::Shared::new(1));
        let config = crate::config::Upstream::new("u", Vec::new());
        let upstream = Upstream::new(config, all, std::sync::Arc::clone(&shared), b"");
        let open = || upstream.endpoints.iter().map(|e| e.state.connections()).collect::<Vec<_>>();
        pool.yield_any(&upstream);
        assert_eq!(open(), [1, 1], "nobody wants one");
        for left in [[1, 0], [0, 0]] {
            shared.want_place();
            pool.yield_any(&upstream);
            pool.yield_any(&upstream);
            assert_eq!(open(), left, "one for each time");
        }
        shared.want_place();
        pool.yield_any(&upstream);
        assert!(shared.is_place_wanted(), "another worker may have one");
    }
}
