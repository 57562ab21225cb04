//! Counter cells: written by one worker without a lock or a fence, summed by whoever reads them.
//!
//! Nothing here knows how they are shown; that is [`control::metrics`](crate::control).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// A count with a single writer, so that adding is a plain load and store.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the worker that owns the cell may.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The count so far; any thread may ask.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The statuses that are counted one by one, in order; what endpoints and this proxy really send.
const CODES: [u16; 48] = [
    101, 200, 201, 202, 203, 204, 205, 206, 207, 300, 301, 302, 303, 304, 307, 308, 400, 401, 402,
    403, 404, 405, 406, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 422, 425, 426, 428,
    429, 431, 451, 499, 500, 501, 502, 503, 504, 505,
];

/// Classes of status, 0xx to 9xx.
const CLASSES: usize = 10;

/// Requests by status: one cell for each well-known one, one a class for all others, so that an
/// endpoint that makes up statuses cannot make up metrics.
#[derive(Debug)]
pub struct Codes([Counter; CODES.len() + CLASSES]);

impl Default for Codes {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Codes {
    /// Counts one request that was answered with `status`.
    pub fn count(&self, status: u16) {
        if let Some(cell) = self.0.get(Self::index(status)) {
            cell.add(1);
        }
    }

    fn index(status: u16) -> usize {
        // 200 first: it is nearly all of them.
        if status == 200 {
            return 1;
        }
        CODES
            .binary_search(&status)
            .unwrap_or_else(|_| CODES.len() + usize::from(status / 100).min(CLASSES - 1))
    }

    /// Every status that was counted, as a number or a class (`2xx`), and how often.
    pub fn each(&self) -> impl Iterator<Item = (String, u64)> {
        let names = CODES.iter().map(u16::to_string);
        let classes = (0..CLASSES).map(|class| format!("{class}xx"));
        names.chain(classes).zip(&self.0).map(|(n, c)| (n, c.get())).filter(|(_, n)| *n > 0)
    }
}

/// Upper bounds of the duration histogram's buckets, in microseconds: from an answer out of a
/// neighbour's cache to the default timeout of a response.
pub const BUCKETS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 10_000_000, 60_000_000,
];

/// A histogram of durations.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Observations in each bucket alone, the last one above every bound.
    pub buckets: [Counter; BUCKETS.len() + 1],
    /// The sum of all in microseconds.
    pub sum: Counter,
}

impl Histogram {
    /// Counts one observation.
    pub fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let index = BUCKETS.iter().position(|bound| micros <= *bound).unwrap_or(BUCKETS.len());
        if let Some(bucket) = self.buckets.get(index) {
            bucket.add(1);
        }
        self.sum.add(micros);
    }
}

/// Why something was asked of an endpoint once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryReason {
    /// No connection could be made.
    Connect,
    /// The endpoint turned the request away unread (REFUSED_STREAM, GOAWAY).
    RefusedStream,
    /// A kept connection turned out closed.
    StaleConnection,
    /// The connection ended before there was an answer.
    Reset,
    /// The answer was malformed.
    Malformed,
    /// There was no answer in time.
    Timeout,
    /// The answer had a status that is asked for again.
    Status,
    /// The call failed with a `grpc-status` that is asked for again.
    GrpcStatus,
    /// The endpoint was found down while the request waited for its answer.
    EndpointDown,
    /// An answer that was held ended early.
    Incomplete,
    /// There was no answer yet, and another endpoint was asked as well.
    Hedge,
}

impl RetryReason {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Connect,
        Self::RefusedStream,
        Self::StaleConnection,
        Self::Reset,
        Self::Malformed,
        Self::Timeout,
        Self::Status,
        Self::GrpcStatus,
        Self::EndpointDown,
        Self::Incomplete,
        Self::Hedge,
    ];

    /// Its name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::RefusedStream => "refused_stream",
            Self::StaleConnection => "stale_connection",
            Self::Reset => "reset",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::GrpcStatus => "grpc_status",
            Self::EndpointDown => "endpoint_down",
            Self::Incomplete => "incomplete",
            Self::Hedge => "hedge",
        }
    }
}

/// A set of reasons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetryReasons(u16);

impl RetryReasons {
    /// None.
    pub const NONE: Self = Self(0);

    /// With `reason` among them.
    #[must_use]
    pub const fn with(self, reason: RetryReason) -> Self {
        Self(self.0 | 1 << reason as u16)
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them, in the order of [`RetryReason::ALL`].
    pub fn iter(self) -> impl Iterator<Item = RetryReason> {
        RetryReason::ALL.into_iter().filter(move |reason| self.0 & (1 << *reason as u16) != 0)
    }
}

/// What one worker counts of one endpoint.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct EndpointStats {
    /// Answers that it gave, or that were given for it, by status.
    pub codes: Codes,
    /// Connections made to it.
    pub connects: Counter,
    /// Connections that could not be made.
    pub connect_failures: Counter,
    /// Requests that were sent on a kept connection.
    pub reuses: Counter,
    /// Connections closed because the endpoint sent bytes that belong to no response.
    pub stray: Counter,
    /// Answers whose head came.
    pub responses: Counter,
    /// The time that those took, from asked to the head, in microseconds, all together.
    pub response_time: Counter,
    /// Exchanges that failed by its fault, as far as the rules of ejection count them.
    pub failures: Counter,
}

/// What one worker counts of one upstream.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct UpstreamStats {
    /// Answers that no endpoint had a part in, by status.
    pub codes: Codes,
    /// From a request's head read to its response's last byte written.
    pub duration: Histogram,
    /// By [`RetryReason`], in the order of [`RetryReason::ALL`].
    pub retries: [Counter; RetryReason::ALL.len()],
    /// Retries that were not made for want of budget.
    pub retries_over_budget: Counter,
    /// Hedges whose second endpoint answered first, or was left when the first failed.
    pub hedges_won: Counter,
    /// Requests sent although no endpoint was healthy.
    pub panics: Counter,
    /// Requests that waited in the queue.
    pub queued: Counter,
    /// Requests refused because the queue was full.
    pub queue_full: Counter,
    /// Requests refused because they had waited for too long.
    pub queue_timeouts: Counter,
}

impl UpstreamStats {
    /// Counts one retry.
    pub fn count_retry(&self, reason: RetryReason) {
        if let Some(cell) = self.retries.get(reason as usize) {
            cell.add(1);
        }
    }
}

/// What one worker counts of itself.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerStats {
    /// Client connections that it has, those on their way to it from another worker included; the
    /// one cell here that others write.
    pub connections: AtomicUsize,
    /// Client connections that it accepted.
    pub accepted: Counter,
    /// Of these, the ones that it handed to a worker with fewer.
    pub handed_over: Counter,
    /// Times that accepting paused because descriptors ran out.
    pub accept_pauses: Counter,
    /// Client connections refused because their address had too many.
    pub refused: Counter,
    /// Client connections that did not begin with the PROXY protocol header that they had to.
    pub proxy_protocol_errors: Counter,
    /// Requests that no route was found for, or that were refused before, by status.
    pub codes: Codes,
    /// Lines of the access log that were dropped because the writer fell behind.
    pub log_dropped: Counter,
    /// TLS handshakes with clients that began a session.
    pub tls_full: Counter,
    /// TLS handshakes with clients that took up an earlier session.
    pub tls_resumed: Counter,
    /// TLS handshakes with clients that failed.
    pub tls_failed: Counter,
    /// Client connections that spoke HTTP/2.
    pub http2_connections: Counter,
    /// Of these, the ones that were cut off because they only made work.
    pub http2_floods: Counter,
    /// Requests in HTTP/2 that were none, and whose streams were reset.
    pub http2_malformed: Counter,
    /// Client connections that were closed although the client had not acknowledged everything.
    pub undelivered: Counter,
    /// Tunnels (101) opened.
    pub tunnels: Counter,
    /// Tunnels that are open.
    pub tunnels_open: AtomicUsize,
    /// Bytes of request bodies received from clients.
    pub received_bytes: Counter,
    /// Bytes of response bodies sent to clients.
    pub sent_bytes: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_cell_and_only_its_own() {
        assert!(CODES.is_sorted() && CODES[1] == 200);
        for status in 0..1000u16 {
            let codes = Codes::default();
            codes.count(status);
            let counted: Vec<_> = codes.each().collect();
            let exact = CODES.contains(&status);
            let name = if exact { status.to_string() } else { format!("{}xx", status / 100) };
            assert_eq!(counted, [(name, 1)]);
        }
    }

    #[test]
    fn durations_fall_into_the_bucket_that_bounds_them() {
        let histogram = Histogram::default();
        for micros in [500, 501, 61_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let counts: Vec<u64> = histogram.buckets.iter().map(Counter::get).collect();
        assert_eq!((counts[0], counts[1], counts[BUCKETS.len()]), (1, 1, 1));
        assert_eq!(histogram.sum.get(), 61_001_001);
    }
}
