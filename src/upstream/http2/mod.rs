//! Connections in HTTP/2 to endpoints: a few for each, whose streams the requests of one worker share.

mod link;

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use foldhash::fast::FixedState;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use super::Upstream;
use super::endpoint::{Endpoint, Place};
use super::pool::Connected;
use crate::net::dial::Address;
use link::Link;
pub use link::{Begun, Lease};

/// Connections that one worker has to one endpoint; another is made only where all streams of those
/// there are in use.
pub const MAX_CONNECTIONS: usize = 4;

/// The connection that a request needs for its stream.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// Whether the kernel is asked if the connection is still open.
    pub is_sure: bool,
    /// Whether the request has the turn to connect.
    pub has_turn: bool,
    /// Whether the request is a retry. Then it avoids connections whose last stream the endpoint has reset, as long
    /// as another one may be made.
    pub is_retry: bool,
}

/// The connections of one worker, by endpoint.
#[derive(Debug, Default)]
pub struct Http2Pool {
    endpoints: HashMap<u64, Known, FixedState>,
}

/// What is known of one endpoint.
#[derive(Debug)]
struct Known {
    links: Vec<Rc<Link>>,
    /// Whether it spoke HTTP/2 the last time that it could choose.
    speaks: bool,
    turn: Turn,
}

/// Whose turn it is to connect to an endpoint, or to wait for a stream of a connection to it. Others wait
/// behind, and share what it gets.
#[derive(Debug, Clone)]
pub struct Turn {
    gate: Rc<Semaphore>,
    /// Tells that a stream has ended.
    freed: Rc<Notify>,
    /// Whether that is waited for.
    is_awaited: Rc<Cell<bool>>,
}

impl Default for Turn {
    fn default() -> Self {
        let gate = Rc::new(Semaphore::new(1));
        Self { gate, freed: Rc::default(), is_awaited: Rc::default() }
    }
}

impl Turn {
    /// Waits for one's turn, which lasts until what this returns is dropped.
    pub async fn come(&self) -> impl Drop + use<'_> {
        // Never closed.
        Taken { turn: self, _permit: self.gate.acquire().await.ok() }
    }

    /// Waits until a stream has ended, or for as `long`. Whoever's turn it is gets it before others do.
    pub async fn stream_ends(&self, long: Duration) {
        self.is_awaited.set(true);
        let _ = timeout(long, self.freed.notified()).await;
    }
}

/// A turn that has come.
struct Taken<'t> {
    turn: &'t Turn,
    _permit: Option<SemaphorePermit<'t>>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.turn.is_awaited.set(false);
    }
}

impl Known {
    /// A stream on the least used connection to `endpoint` that fits the `need`.
    fn take(
        &mut self,
        endpoint: &Endpoint,
        now: Instant,
        need: Need,
    ) -> Option<(Connected, Duration)> {
        let avoids_resets = need.is_retry && self.links.len() < MAX_CONNECTIONS;
        let fits = |link: &Link| link.has_room() && !(avoids_resets && link.has_just_reset());
        loop {
            let with_room = self.links.iter().enumerate().filter(|(_, link)| fits(link));
            let (at, link) = with_room.min_by_key(|(_, link)| link.streams())?;
            let takes =
                if need.is_sure { link.surely_takes_streams() } else { link.takes_streams() };
            if takes && link.is_to(endpoint) {
                return Some(link.stream(now));
            }
            self.links.swap_remove(at);
        }
    }

    /// The streams of its least used connection, where it has any.
    fn fewest_streams(&self) -> Option<usize> {
        self.links.iter().map(|link| link.streams()).min()
    }

    /// Takes no more streams on the least used connection, which ends with the last of its streams.
    fn give_up(&mut self) {
        let links = self.links.iter().enumerate();
        if let Some((at, _)) = links.min_by_key(|(_, link)| link.streams()) {
            self.links.swap_remove(at);
        }
    }
}

impl Http2Pool {
    /// A new stream on a connection to `endpoint` that has room for one, and how long that had none. To be
    /// `sure` that it is still open costs a system call. Who has the turn is first.
    pub fn take(
        &mut self,
        endpoint: &Endpoint,
        now: Instant,
        need: Need,
    ) -> Option<(Connected, Duration)> {
        let known = self.endpoints.get_mut(&endpoint.state.id)?;
        if known.turn.is_awaited.get() && !need.has_turn {
            return None;
        }
        known.take(endpoint, now, need)
    }

    /// Has one request at a time connect to `endpoint`; `None` where it spoke HTTP/1.1 the last time
    /// that it could choose, so that each needs a connection of its own.
    pub fn turn(&mut self, endpoint: &Endpoint) -> Option<Turn> {
        let known = self.known(endpoint);
        known.speaks.then(|| known.turn.clone())
    }

    /// How many connections there are to `endpoint`.
    pub fn connections(&self, endpoint: &Endpoint) -> usize {
        self.endpoints.get(&endpoint.state.id).map_or(0, |known| known.links.len())
    }

    /// Takes note of what `endpoint` has chosen.
    pub fn speaks(&mut self, endpoint: &Endpoint, http2: bool) {
        endpoint.state.speaks_http2(http2);
        self.known(endpoint).speaks = http2;
    }

    fn known(&mut self, endpoint: &Endpoint) -> &mut Known {
        let new = || Known { links: Vec::new(), speaks: true, turn: Turn::default() };
        self.endpoints.entry(endpoint.state.id).or_insert_with(new)
    }

    /// Shares a new connection to `endpoint`, for at most `idle` without streams, and returns the first
    /// stream on it; `None` where the endpoint takes none. Must be called on a local runtime.
    pub fn share(
        &mut self,
        endpoint: &Endpoint,
        begun: Begun,
        place: (Address, Place),
        idle: Duration,
    ) -> Option<Connected> {
        let known = self.known(endpoint);
        let freed = Rc::clone(&known.turn.freed);
        let link = Rc::new(Link::new(begun, endpoint, place, idle, freed));
        let stream = link.has_room().then(|| link.stream(Instant::now()).0);
        // Where nobody knew that it speaks HTTP/2, many may have connected at once.
        if known.links.len() < MAX_CONNECTIONS {
            known.links.push(link);
        }
        stream
    }

    /// Ends connections that are of no use any more; streams that are under way go on.
    pub fn sweep(&mut self, now: Instant) {
        for known in self.endpoints.values_mut() {
            known.links.iter().for_each(|link| link.look_after(now));
            known.links.retain(|link| link.takes_streams() && !link.has_been_idle(now));
        }
    }

    /// Gives up one connection to `endpoint`, if there is one and another worker wants its place.
    pub fn yield_one(&mut self, endpoint: &Endpoint) {
        if let Some(known) = self.endpoints.get_mut(&endpoint.state.id)
            && !known.links.is_empty()
            && endpoint.state.is_connection_wanted()
        {
            known.give_up();
        }
    }

    /// Gives up one connection to any endpoint of `upstream`, if there is one and another request wants
    /// its place.
    pub fn yield_any(&mut self, upstream: &Upstream) {
        let fewest = |e: &Endpoint| {
            let known = self.endpoints.get(&e.state.id)?;
            Some((known.fewest_streams()?, e.state.id))
        };
        let least_used = upstream.endpoints.iter().filter_map(fewest).min();
        if let Some((_, endpoint)) = least_used
            && upstream.shared.is_place_wanted()
            && let Some(known) = self.endpoints.get_mut(&endpoint)
        {
            known.give_up();
        }
    }

    /// Ends every connection to endpoints that `keep` does not know.
    pub fn keep_only(&mut self, keep: impl Fn(u64) -> bool) {
        self.endpoints.retain(|endpoint, _| keep(*endpoint));
    }
}
