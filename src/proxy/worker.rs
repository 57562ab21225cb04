//! What one worker owns: nothing in it is locked, because nobody else touches it.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::access_log::AccessLog;
use super::snapshot::Snapshot;
use crate::config;
use crate::http::buffer::Buffer;
use crate::http::head::Field;
use crate::net::deadline::Clock;
use crate::net::tls::server::TlsServer;
use crate::stats::WorkerStats;
use crate::upstream::http2::Http2Pool;
use crate::upstream::pool::Pool;

/// The size of a buffer at first: most heads, and most bodies, fit in one read.
pub const SMALL: usize = 16 * 1024;

/// The size of a buffer once a read has filled a small one: large bodies cost half as much in
/// 256 KiB reads as in 16 KiB ones.
pub const LARGE: usize = 256 * 1024;

/// Small buffers that are kept though nobody has needed them for a while, 1 MiB: given
/// back and asked for again with every wave of requests, they would leave holes in the heap that
/// weigh more.
const ALWAYS_KEPT: usize = 64;

/// How long a connection that is idle while the process is ending is left for one more request:
/// long enough for one that is on its way, so that it is not lost.
pub const DRAIN_IDLE_GRACE: Duration = Duration::from_secs(1);

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// The name of this instance in `Via`: unique, so that chained balancers are no loop.
    pub pseudonym: String,
    /// The workers' counters.
    pub stats: Vec<WorkerStats>,
    /// Has each worker [attend](Worker::attend) to what has changed about endpoints.
    pub nudges: Vec<Notify>,
    /// How often endpoints were lost that requests may have waited for.
    lost: AtomicU64,
}

impl Shared {
    /// For so many workers, under a pseudonym of its own.
    pub fn new(workers: usize) -> Self {
        Self {
            pseudonym: format!("tinylb-{:016x}", fastrand::u64(..)),
            stats: std::iter::repeat_with(WorkerStats::default).take(workers).collect(),
            nudges: std::iter::repeat_with(Notify::new).take(workers).collect(),
            lost: AtomicU64::new(0),
        }
    }

    /// An endpoint is gone that requests may be waiting for.
    pub fn endpoint_lost(&self) {
        self.lost.fetch_add(1, Relaxed);
        self.nudge();
    }

    /// A connection that lies idle with some worker may be wanted by another.
    pub fn nudge(&self) {
        self.nudges.iter().for_each(Notify::notify_one);
    }
}

/// One worker.
#[derive(Debug)]
pub struct Worker {
    /// Which of them.
    pub index: usize,
    /// What it shares with the others.
    pub shared: Arc<Shared>,
    /// Idle connections to endpoints.
    pub pool: RefCell<Pool>,
    /// Connections to endpoints in HTTP/2.
    pub http2: RefCell<Http2Pool>,
    /// Buffers for reuse.
    pub buffers: Buffers,
    /// The due times of its waits.
    pub clock: Rc<Clock>,
    /// Its part of the access log.
    pub log: AccessLog,
    /// Since when the process is ending.
    pub draining: Cell<Option<Instant>>,
    /// Whether tunnels are closed, since they would be cut in a moment.
    pub closes_tunnels: Cell<bool>,
    #[expect(clippy::redundant_allocation, reason = "requests count references without an atomic")]
    snapshot: RefCell<Rc<Arc<Snapshot>>>,
    /// How many losses of endpoints it has attended to.
    lost: Cell<u64>,
    date: RefCell<(u64, String)>,
}

impl Worker {
    /// The worker `index`.
    pub fn new(index: usize, shared: Arc<Shared>, snapshot: Arc<Snapshot>, log: AccessLog) -> Self {
        Self {
            index,
            shared,
            pool: RefCell::new(Pool::new(index)),
            http2: RefCell::default(),
            buffers: Buffers::default(),
            clock: Clock::new(),
            log,
            draining: Cell::new(None),
            closes_tunnels: Cell::new(false),
            snapshot: RefCell::new(Rc::new(snapshot)),
            lost: Cell::new(0),
            date: RefCell::default(),
        }
    }

    /// What is in force; a request keeps what was when it began. The count of references is this
    /// worker's own, so taking one touches no memory of another core.
    pub fn snapshot(&self) -> Rc<Arc<Snapshot>> {
        Rc::clone(&self.snapshot.borrow())
    }

    /// Puts `snapshot` in force for requests to come.
    pub fn replace_snapshot(&self, snapshot: Arc<Snapshot>) {
        let endpoints = snapshot.upstreams.iter().flat_map(|upstream| &upstream.endpoints);
        let ids: Vec<u64> = endpoints.map(|endpoint| endpoint.state.id).collect();
        self.pool.borrow_mut().keep_only(|id| ids.contains(&id));
        self.http2.borrow_mut().keep_only(|id| ids.contains(&id));
        self.snapshot.replace(Rc::new(snapshot));
        // Requests that wait for room may find it there.
        self.clock.wake_all();
    }

    /// Its counters.
    pub fn stats(&self) -> &WorkerStats {
        // There is one for each worker; an index out of range would be a wrong count, not a crash.
        static NONE: std::sync::LazyLock<WorkerStats> =
            std::sync::LazyLock::new(WorkerStats::default);
        self.shared.stats.get(self.index).unwrap_or(&NONE)
    }

    /// One of the connections that its counters include is over.
    pub fn count_connection_closed(&self) {
        self.stats().connections.fetch_sub(1, Relaxed);
    }

    /// Makes every connection notice that the process is ending.
    pub fn drain(&self) {
        self.draining.set(Some(Instant::now()));
        self.clock.wake_all();
    }

    /// Makes every tunnel end in the words of its protocol, if it has any.
    pub fn close_tunnels(&self) {
        self.closes_tunnels.set(true);
        self.clock.wake_all();
    }

    /// Has every wait look whether its endpoint is lost, and closes idle connections whose place
    /// another worker needs.
    pub fn attend(&self) {
        let lost = self.shared.lost.load(Relaxed);
        if self.lost.replace(lost) != lost {
            self.clock.wake_all();
        }
        let (mut pool, mut http2) = (self.pool.borrow_mut(), self.http2.borrow_mut());
        let snapshot = self.snapshot();
        for upstream in snapshot.upstreams.iter().filter(|upstream| upstream.is_limited()) {
            for endpoint in &upstream.endpoints {
                pool.yield_one(endpoint);
                http2.yield_one(endpoint);
            }
            pool.yield_any(upstream);
            http2.yield_any(upstream);
        }
    }

    /// Looks after waits, and frees buffers and connections to endpoints that nobody has needed;
    /// to be done every [`TICK`](crate::net::deadline::TICK).
    pub fn tick(&self, now: Instant) {
        self.clock.tick(now);
        self.pool.borrow_mut().sweep(now);
        self.http2.borrow_mut().sweep(now);
        self.buffers.trim();
    }

    /// The time as a Date field has it (RFC 9110 5.6.7), made anew once a second.
    pub fn date(&self) -> String {
        let now = SystemTime::now();
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let mut date = self.date.borrow_mut();
        if date.0 != seconds {
            *date = (seconds, httpdate::fmt_http_date(now));
        }
        date.1.clone()
    }
}

/// A listener as its connections see it.
#[derive(Debug, Clone)]
pub struct Listener {
    /// What the operator asked for.
    pub config: config::Listener,
    /// How it speaks TLS, if it does.
    pub tls: Option<Arc<TlsServer>>,
}

impl Listener {
    /// For how long clients are told to come by HTTPS only, if they are.
    pub fn hsts(&self) -> Option<Duration> {
        self.config.tls.as_ref().and_then(|tls| tls.hsts)
    }

    /// Whether it listens on a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self.config.address, config::ListenAddress::Unix(_))
    }

    /// Whether `peer` begins each connection with a PROXY protocol header.
    pub fn is_proxied(&self, peer: IpAddr) -> bool {
        self.config.proxy_protocol.iter().any(|network| network.contains(&peer))
    }

    /// Whether `peer` is a proxy whose forwarding fields are believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.config.trusted_proxies.iter().any(|network| network.contains(&peer))
    }
}

/// What one exchange needs to work with; idle connections have none.
#[derive(Debug, Default)]
pub struct Scratch {
    /// What the client sent.
    pub input: Buffer,
    /// The fields of the request.
    pub fields: Vec<Field>,
    /// What is made of it.
    pub drafts: Drafts,
}

/// Room for what is made of a request and its response.
#[derive(Debug, Default)]
pub struct Drafts {
    /// What goes to the endpoint next.
    pub to_endpoint: Vec<u8>,
    /// What goes to the client next.
    pub to_client: Vec<u8>,
    /// The fields of the response.
    pub fields: Vec<Field>,
}

/// Things of one kind that nobody uses at the moment, kept for the next who needs one.
#[derive(Debug)]
struct Spares<T> {
    kept: Vec<T>,
    /// The fewest that were there since the last [`trim`](Self::trim): nobody needed these.
    fewest: usize,
}

impl<T> Default for Spares<T> {
    fn default() -> Self {
        Self { kept: Vec::new(), fewest: 0 }
    }
}

impl<T> Spares<T> {
    fn take(&mut self) -> Option<T> {
        let taken = self.kept.pop();
        self.fewest = self.fewest.min(self.kept.len());
        taken
    }

    /// Frees what nobody has needed since the last time, but the first `least`.
    fn trim(&mut self, least: usize) {
        let needed = self.kept.len().saturating_sub(self.fewest);
        self.kept.truncate(needed.max(least));
        self.fewest = self.kept.len();
    }
}

/// Buffers of one worker that nobody uses at the moment.
#[derive(Debug, Default)]
pub struct Buffers {
    scratch: RefCell<Spares<Scratch>>,
    small: RefCell<Spares<Buffer>>,
    large: RefCell<Spares<Buffer>>,
}

impl Buffers {
    /// What one exchange needs to work with.
    pub fn scratch(&self) -> Scratch {
        self.scratch
            .borrow_mut()
            .take()
            .unwrap_or_else(|| Scratch { input: self.small(), ..Scratch::default() })
    }

    /// Takes back what [`scratch`](Self::scratch) gave, if it is still of a usual size.
    pub fn recycle(&self, mut scratch: Scratch) {
        let Drafts { to_endpoint, to_client, .. } = &scratch.drafts;
        let outputs = to_endpoint.capacity().max(to_client.capacity());
        if scratch.input.capacity() == SMALL && outputs <= 2 * SMALL {
            scratch.input.clear();
            self.scratch.borrow_mut().kept.push(scratch);
        }
    }

    /// An empty small buffer.
    pub fn small(&self) -> Buffer {
        self.small.borrow_mut().take().unwrap_or_else(|| Buffer::with_capacity(SMALL))
    }

    /// An empty buffer for at least `size` bytes, small if that is enough.
    pub fn at_least(&self, size: usize) -> Buffer {
        if size <= SMALL { self.small() } else { Buffer::with_capacity(size) }
    }

    /// Makes `buffer`, which a read has filled, a large one.
    pub fn enlarge(&self, buffer: &mut Buffer) {
        let kept = self.large.borrow_mut().take();
        let mut large = kept.unwrap_or_else(|| Buffer::with_capacity(LARGE));
        large.append(buffer.filled());
        self.put(std::mem::replace(buffer, large));
    }

    /// Makes `buffer` one of exactly the size of what is in it.
    pub fn shrink(&self, buffer: &mut Buffer) {
        let mut exact = Buffer::with_capacity(buffer.len());
        exact.append(buffer.filled());
        self.put(std::mem::replace(buffer, exact));
    }

    /// Takes a buffer back.
    pub fn put(&self, mut buffer: Buffer) {
        buffer.clear();
        match buffer.capacity() {
            SMALL => self.small.borrow_mut().kept.push(buffer),
            LARGE => self.large.borrow_mut().kept.push(buffer),
            _ => {}
        }
    }

    /// Frees what nobody has needed since the last time; from time to time, so that a burst does
    /// not leave its memory behind.
    pub fn trim(&self) {
        self.scratch.borrow_mut().trim(ALWAYS_KEPT);
        self.small.borrow_mut().trim(ALWAYS_KEPT);
        self.large.borrow_mut().trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_needs_is_freed_and_what_is_in_use_again_and_again_is_kept() {
        let buffers = Buffers::default();
        let burst: Vec<_> = (0..100).map(|_| buffers.small()).collect();
        burst.into_iter().for_each(|buffer| buffers.put(buffer));
        buffers.trim();
        let kept = || buffers.small.borrow().kept.len();
        assert_eq!(kept(), 100, "all were in use since the last time");
        let needed: Vec<_> = (0..70).map(|_| buffers.small()).collect();
        needed.into_iter().for_each(|buffer| buffers.put(buffer));
        buffers.trim();
        assert_eq!(kept(), 70);
        let needed: Vec<_> = (0..3).map(|_| buffers.small()).collect();
        needed.into_iter().for_each(|buffer| buffers.put(buffer));
        buffers.trim();
        assert_eq!(kept(), ALWAYS_KEPT);
    }
}
