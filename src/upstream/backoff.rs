//! How long an endpoint that could not be reached is left alone.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// After the first failure. A process that is restarted is back within a few of these.
const SHORTEST: Duration = Duration::from_millis(100);

/// After many failures: the longest that an endpoint which is back waits for its next request.
const LONGEST: Duration = Duration::from_secs(10);

/// The pause after `failures` in a row: doubling, and spread by `jitter` (0 to 1) over half to
/// the whole of it, so that many balancers don't come back to one endpoint at once.
fn pause(failures: u32, jitter: f64) -> Duration {
    let doubled = SHORTEST.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(LONGEST).mul_f64(0.5 + jitter / 2.0)
}

/// What is known of failed connections to one endpoint; shared by all workers.
///
/// Without it a dead endpoint, which never has anything in flight, would look like the best
/// choice of all.
#[derive(Debug)]
pub struct Backoff {
    epoch: Instant,
    failures: AtomicU32,
    /// Milliseconds after `epoch`; 0 where nothing has failed, which is all that the request path
    /// has to look at.
    until: AtomicU64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { epoch: Instant::now(), failures: AtomicU32::new(0), until: AtomicU64::new(0) }
    }
}

impl Backoff {
    /// Whether the endpoint is being left alone.
    pub fn is_waiting(&self) -> bool {
        let until = self.until.load(Relaxed);
        until != 0 && self.millis(Instant::now()) < until
    }

    /// A connection could not be made. Returns how long the endpoint is left alone, where this
    /// failure is the one that decides it; many requests may fail at once.
    pub fn failed(&self) -> Option<Duration> {
        self.failed_at(Instant::now(), fastrand::f64())
    }

    fn failed_at(&self, now: Instant, jitter: f64) -> Option<Duration> {
        let now = self.millis(now);
        let until = self.until.load(Relaxed);
        if now < until {
            return None;
        }
        let failures = self.failures.load(Relaxed).saturating_add(1);
        let pause = pause(failures, jitter);
        let next = (now + u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)).max(1);
        self.until.compare_exchange(until, next, Relaxed, Relaxed).ok()?;
        self.failures.store(failures, Relaxed);
        Some(pause)
    }

    /// A connection was made. Returns whether it is the first after a failure.
    pub fn succeeded(&self) -> bool {
        if self.until.load(Relaxed) == 0 {
            return false;
        }
        self.failures.store(0, Relaxed);
        self.until.swap(0, Relaxed) != 0
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_are_spread() {
        let millis = |n, jitter| pause(n, jitter).as_millis();
        assert_eq!([1, 2, 3].map(|n| millis(n, 1.0)), [100, 200, 400]);
        assert_eq!(millis(1, 0.0), 50);
        assert_eq!(millis(30, 1.0), LONGEST.as_millis());
        assert_eq!(millis(u32::MAX, 0.0), LONGEST.as_millis() / 2);
    }

    #[test]
    fn failures_at_once_count_as_one_and_a_success_forgets_them() {
        let backoff = Backoff::default();
        let start = backoff.epoch;
        assert_eq!(backoff.failed_at(start, 1.0), Some(Duration::from_millis(100)));
        assert_eq!(backoff.failed_at(start + Duration::from_millis(99), 1.0), None);
        let later = start + Duration::from_millis(100);
        assert_eq!(backoff.failed_at(later, 1.0), Some(Duration::from_millis(200)));
        assert!(backoff.is_waiting());
        assert!(backoff.succeeded());
        assert!(!backoff.succeeded() && !backoff.is_waiting());
        let much_later = later + Duration::from_secs(5);
        assert_eq!(backoff.failed_at(much_later, 1.0), Some(Duration::from_millis(100)));
    }
}
