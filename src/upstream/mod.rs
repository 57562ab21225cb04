//! Where requests can go: upstreams, their endpoints, who is picked, and the connections kept.

pub mod backoff;
pub mod balance;
pub mod budget;
pub mod circuit;
pub mod condition;
pub mod description;
pub mod endpoint;
pub mod gradient;
pub mod hedging;
pub mod http2;
pub mod latency;
pub mod pool;
pub mod quantile;
pub mod queue;
pub mod standing;
pub mod sticky;

mod panic;
mod pick;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config;
use crate::stats::UpstreamStats;
use balance::Balancer;
use budget::Budget;
use endpoint::{Endpoint, Shares};
use hedging::Hedging;
use quantile::Latencies;
use queue::Queue;
use sticky::Sticky;

pub use pick::{How, NoPick, Picked, Wanted};

/// A named set of endpoints that can answer the same requests. Immutable, but for what is
/// [`Shared`]; a change makes a new one.
#[derive(Debug)]
pub struct Upstream {
    /// What the operator asked for.
    pub config: config::Upstream,
    /// The endpoints, one for each address in use of each configured one.
    pub endpoints: Vec<Endpoint>,
    /// What outlives changes, and all workers share.
    pub shared: Arc<Shared>,
    /// For each priority in use, the smallest first, the policy over the endpoints that have it.
    tiers: Vec<(u8, Balancer)>,
    /// Whether there is any limit that a request may have to wait for.
    is_limited: bool,
    /// Whether the policy goes by response times.
    observes_latency: bool,
    /// Whose clients stay with one endpoint.
    pub sticky: Option<Sticky>,
}

/// What all workers share about one upstream, however often the configuration around it changes.
#[derive(Debug)]
pub struct Shared {
    /// Its counters, one set a worker.
    pub stats: Box<[UpstreamStats]>,
    /// Its response times, one histogram a worker.
    pub latencies: Box<[Latencies]>,
    /// The requests that wait for a place.
    pub queue: Queue,
    /// The requests that are being sent again.
    pub budget: Budget,
    /// The requests that were sent to a second endpoint in vain.
    pub hedging: Hedging,
    /// Connections to all its endpoints, idle ones included.
    pub connections: Shares,
    /// Tells that one of them was closed.
    pub place_freed: Notify,
    /// Whether a request needs the place of one that lies idle, whichever endpoint it leads to.
    is_place_wanted: AtomicBool,
    /// Requests in flight; counted only where they are limited.
    in_flight: Shares,
    /// Whether too few endpoints are healthy, so that requests go to all of them.
    is_panicking: AtomicBool,
    /// The time within which 95 of 100 answers begin, in microseconds; 0 while it is not known.
    p95: AtomicU64,
}

impl Shared {
    /// Of an upstream that nothing is known of yet, for so many workers.
    pub fn new(workers: usize) -> Self {
        Self {
            stats: std::iter::repeat_with(UpstreamStats::default).take(workers).collect(),
            latencies: std::iter::repeat_with(Latencies::default).take(workers).collect(),
            queue: Queue::default(),
            budget: Budget::default(),
            hedging: Hedging::default(),
            connections: Shares::default(),
            place_freed: Notify::new(),
            is_place_wanted: AtomicBool::new(false),
            in_flight: Shares::default(),
            is_panicking: AtomicBool::new(false),
            p95: AtomicU64::new(0),
        }
    }

    /// Whether requests go to all endpoints, because too few of them are healthy.
    pub fn is_panicking(&self) -> bool {
        self.is_panicking.load(Relaxed)
    }

    /// Asks for one of the idle connections to be closed, whoever has it and wherever it leads.
    pub fn want_place(&self) {
        self.is_place_wanted.store(true, Relaxed);
    }

    /// Whether an idle connection is to be closed; the answer is true once for each time that one
    /// was wanted.
    pub fn is_place_wanted(&self) -> bool {
        self.is_place_wanted.load(Relaxed) && self.is_place_wanted.swap(false, Relaxed)
    }

    /// The time within which 95 of 100 answers begin, where it is known.
    pub fn p95(&self) -> Option<Duration> {
        Some(self.p95.load(Relaxed)).filter(|micros| *micros > 0).map(Duration::from_micros)
    }

    /// Sets that time.
    pub fn set_p95(&self, p95: Option<Duration>) {
        let micros = p95.map_or(0, |p95| u64::try_from(p95.as_micros()).unwrap_or(u64::MAX).max(1));
        self.p95.store(micros, Relaxed);
    }
}

impl Upstream {
    /// The upstream `config` over `endpoints`. `secret` is this process's own, for cookies.
    pub fn new(
        config: config::Upstream,
        endpoints: Vec<Endpoint>,
        shared: Arc<Shared>,
        secret: &[u8],
    ) -> Self {
        let mut priorities: Vec<u8> = endpoints.iter().map(|e| e.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let balancer = |priority| (priority, Balancer::new(&config, &endpoints, priority));
        let tiers: Vec<_> = priorities.into_iter().map(balancer).collect();
        let labels = || endpoints.iter().map(|e| e.state.label.as_str());
        let sticky = config.sticky.as_ref();
        let sticky = sticky.map(|sticky| Sticky::new(sticky, secret, &config.name, labels()));
        let observes_latency = tiers.iter().any(|(_, balancer)| balancer.observes_latency());
        let limits = &config.limits;
        let has_limit = |e: &Endpoint| e.is_limited();
        let is_limited = limits.requests.is_some()
            || limits.connections.is_some()
            || limits.adaptive
            || endpoints.iter().any(has_limit);
        Self { config, endpoints, shared, tiers, is_limited, observes_latency, sticky }
    }

    /// Whether requests in flight to all its endpoints are counted, since there may be a limit.
    pub fn counts_requests(&self) -> bool {
        let limits = &self.config.limits;
        limits.requests.is_some() || limits.connections.is_some()
    }

    /// How many requests may be in flight to all its endpoints; never more than connections where any
    /// endpoint needs one for each. `u32::MAX` is no limit.
    pub fn max_requests(&self) -> u32 {
        let limits = &self.config.limits;
        let requests = limits.requests.unwrap_or(u32::MAX);
        match limits.connections {
            Some(connections) if !self.endpoints.iter().all(Endpoint::shares_connections) => {
                requests.min(connections)
            }
            _ => requests,
        }
    }

    /// How many connections there may be to all its endpoints; `u32::MAX` is no limit.
    pub fn max_connections(&self) -> u32 {
        self.config.limits.connections.unwrap_or(u32::MAX)
    }

    /// Asks for an idle connection to be closed whose place `endpoint` needs: one of its own where
    /// it is at its own limit, otherwise any.
    pub fn want_place(&self, endpoint: &Endpoint) {
        if endpoint.state.connections() >= endpoint.max_connections {
            endpoint.state.want_connection();
        } else {
            self.shared.want_place();
        }
    }

    /// Requests in flight to all its endpoints.
    pub fn active(&self) -> u32 {
        self.endpoints.iter().fold(0, |sum, e| sum.saturating_add(e.state.in_flight()))
    }

    /// Counts an answer of `endpoint` that took so long to begin, on this worker.
    pub fn observe(&self, endpoint: &Endpoint, worker: usize, now: Instant, took: Duration) {
        if let Some(stats) = endpoint.state.stats.get(worker) {
            stats.responses.add(1);
            stats.response_time.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
        if let Some(latencies) = self.shared.latencies.get(worker) {
            latencies.observe(took);
        }
        if self.observes_latency {
            endpoint.state.latency.observe(now, took);
        }
    }

    /// Takes note that `endpoint` has taken so long without an answer, which was then not waited for
    /// any longer; without this the slowest would never be known.
    pub fn observe_unanswered(
        &self,
        endpoint: &Endpoint,
        worker: usize,
        now: Instant,
        took: Duration,
    ) {
        if let Some(latencies) = self.shared.latencies.get(worker) {
            latencies.observe(took);
        }
        if self.observes_latency {
            endpoint.state.latency.observe(now, took);
        }
    }

    /// Counts a failure of `endpoint` that took so long to show, on this worker.
    pub fn observe_failure(
        &self,
        endpoint: &Endpoint,
        worker: usize,
        now: Instant,
        took: Duration,
    ) {
        if let Some(stats) = endpoint.state.stats.get(worker) {
            stats.failures.add(1);
        }
        if self.observes_latency {
            endpoint.state.latency.observe_failure(now, took);
        }
    }

    /// Whether some limit may make a request wait.
    pub const fn is_limited(&self) -> bool {
        self.is_limited
    }

    /// Whether one more endpoint may be ejected without exceeding `max_share`. One endpoint may be ejected
    /// whatever the share, except with 0; the last healthy one never is.
    #[expect(clippy::cast_precision_loss, reason = "endpoints are counted in thousands at most")]
    pub fn may_eject_another(&self) -> bool {
        let Some(rules) = &self.config.ejection else { return false };
        let candidates = || self.endpoints.iter().filter(|e| e.is_candidate());
        let (all, well) =
            (candidates().count(), candidates().filter(|e| e.state.is_healthy()).count());
        let out = all + 1 - well;
        rules.max_share > 0.0 && well > 1 && out as f64 <= (all as f64 * rules.max_share).max(1.0)
    }
}
