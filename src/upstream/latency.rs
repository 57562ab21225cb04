//! How fast an endpoint answers, from asked to the answer's head: what the policies that go by time
//! go by.
//!
//! Two estimates over time: a *peak*, which a slower answer raises at once and which only time
//! lowers, so that an endpoint that stalls is left alone with its first slow answer (the peak-EWMA
//! of Finagle and Linkerd); and a *mean*, in which each answer weighs as much as the time since the
//! one before. Both fade while nothing is observed, so that an endpoint that was slow is asked again
//! some time, with one request, whose answer brings back what it was.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// The time in which what was observed fades to 1/e, in seconds: as Linkerd has it. Much longer
/// than a request, so that one answer is not all that is known, and short enough to try again.
const FADING: f64 = 10.0;

/// Ages above this many [`FADING`]s count as this many, so that what is known stays above 0 and
/// endpoints that were all idle keep their order.
const OLDEST: f64 = 30.0;

/// What an endpoint that only failed is taken to need, in seconds; as Tower's for an unknown one.
const UNKNOWN: f64 = 1.0;

/// The most doublings for failures: a thousandfold, which is as good as never, and 46 s to forget.
const MOST_DOUBLINGS: f64 = 10.0;

/// What a success takes off the doublings: a tenth of the estimate. Where fewer than about one in
/// eight fail, failures don't add up.
const RELIEF: f64 = 0.15;

/// Fewer doublings are none, so that failures are forgotten some time.
const FORGOTTEN: f64 = 0.1;

/// The response times of one endpoint, which all workers observe and read.
///
/// An update is a load and a store: of two at once, one may be lost, which an estimate of thousands
/// bears better than all workers would a locked instruction for each answer.
#[derive(Debug)]
pub struct Latency {
    epoch: Instant,
    peak: Estimate,
    mean: Estimate,
    /// By how many doublings failures make it look slower.
    doublings: Estimate,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            peak: Estimate::default(),
            mean: Estimate::default(),
            doublings: Estimate::default(),
        }
    }
}

impl Latency {
    /// The head of an answer came, `took` after it was asked for.
    pub fn observe(&self, now: Instant, took: Duration) {
        let now = self.millis(now);
        self.record(now, took);
        let doublings = self.doublings.at(now);
        if doublings > 0.0 {
            self.doublings.set(now, doublings - RELIEF);
        }
    }

    /// An attempt failed, `took` after it began: no answer, or one that says that the endpoint
    /// itself failed.
    ///
    /// Failing is often faster than answering, and an endpoint that fails has little in flight, so
    /// it would look like the best of all. Each failure therefore doubles what the endpoint seems
    /// to need, each success takes a tenth off, and the doublings fade with time. That is in
    /// proportion: one failure among many costs half of the share for a few requests, while an
    /// endpoint that fails always has lost its traffic after a handful and is then asked a few
    /// times a minute. The time itself counts only where it is longer than what was known: a
    /// timeout was slow, a reset says nothing of speed.
    pub fn observe_failure(&self, now: Instant, took: Duration) {
        let now = self.millis(now);
        let peak = self.peak.at(now);
        if peak > 0.0 && took.as_secs_f64() > peak {
            self.record(now, took);
        }
        self.doublings.set(now, (self.doublings.at(now) + 1.0).min(MOST_DOUBLINGS));
    }

    /// The peak in seconds at `now`, with what failures make of it; 0 where nothing is known.
    pub fn peak(&self, now: Instant) -> f64 {
        self.estimate(&self.peak, now)
    }

    /// The mean in seconds at `now`, with what failures make of it; 0 where nothing is known.
    pub fn mean(&self, now: Instant) -> f64 {
        self.estimate(&self.mean, now)
    }

    fn record(&self, now: u32, took: Duration) {
        let took = took.as_secs_f64().max(1e-6);
        if took >= self.peak.last() {
            self.peak.set(now, took);
        } else {
            self.peak.approach(now, took);
        }
        self.mean.approach(now, took);
    }

    fn estimate(&self, of: &Estimate, now: Instant) -> f64 {
        let now = self.millis(now);
        let doublings = match self.doublings.at(now) {
            few if few < FORGOTTEN => 0.0,
            doublings => doublings,
        };
        match of.at(now) {
            known if known > 0.0 => known * doublings.exp2(),
            _ if doublings > 0.0 => UNKNOWN * doublings.exp2(),
            _ => 0.0,
        }
    }

    /// Since the epoch; it wraps after 49 days, which only the difference of two is asked of.
    fn millis(&self, now: Instant) -> u32 {
        let millis = now.saturating_duration_since(self.epoch).as_millis();
        u32::try_from(millis & u128::from(u32::MAX)).unwrap_or(0)
    }
}

/// A number that fades, and the millisecond at which it was what it says; both in one word, so
/// that nobody reads one without the other. All zero where nothing is known.
#[derive(Debug, Default)]
struct Estimate(AtomicU64);

impl Estimate {
    /// The number and its time.
    fn load(&self) -> (f64, u32) {
        let [a, b, c, d, stamp @ ..] = self.0.load(Relaxed).to_be_bytes();
        (f32::from_be_bytes([a, b, c, d]).into(), u32::from_be_bytes(stamp))
    }

    /// What was last set.
    fn last(&self) -> f64 {
        self.load().0
    }

    /// What is left of it at `now`.
    fn at(&self, now: u32) -> f64 {
        match self.load() {
            (0.0, _) => 0.0,
            (value, stamp) => value * left(now, stamp),
        }
    }

    fn set(&self, now: u32, value: f64) {
        #[expect(clippy::cast_possible_truncation, reason = "seven digits of an estimate will do")]
        let value = u64::from((value.max(0.0) as f32).to_bits());
        self.0.store(value << 32 | u64::from(now), Relaxed);
    }

    /// Comes nearer to `observed`, the more so the longer ago the last one was. Of many in one
    /// millisecond the first counts, which is as good a sample as any.
    fn approach(&self, now: u32, observed: f64) {
        match self.load() {
            (0.0, _) => self.set(now, observed),
            (value, stamp) if now != stamp => {
                let left = left(now, stamp);
                self.set(now, value.mul_add(left, observed * (1.0 - left)));
            }
            _ => {}
        }
    }
}

/// The share that is left at `now` of what was set at `stamp`. Another worker's `now` may be
/// earlier; then it is all of it.
fn left(now: u32, stamp: u32) -> f64 {
    let age = now.wrapping_sub(stamp).cast_signed().max(0);
    (-(f64::from(age) / 1000.0 / FADING).min(OLDEST)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Whether `a` is `b` but for 1 %.
    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= b * 0.01
    }

    #[test]
    fn nothing_is_known_at_first_and_something_for_ever_after() {
        let latency = Latency::default();
        let start = latency.epoch;
        assert_eq!((latency.peak(start), latency.mean(start)), (0.0, 0.0));
        latency.observe(start, Duration::ZERO);
        for seconds in [0, 1, 3600, 24 * 3600] {
            let now = start + Duration::from_secs(seconds);
            assert!(latency.peak(now) > 0.0 && latency.mean(now) > 0.0, "{seconds}");
        }
    }

    #[test]
    fn a_peak_rises_at_once_and_falls_with_time() {
        let latency = Latency::default();
        let start = latency.epoch;
        latency.observe(start, millis(10));
        latency.observe(start + millis(1), millis(500));
        assert!(near(latency.peak(start + millis(1)), 0.5));
        assert!(near(latency.mean(start + millis(1)), 0.01), "one answer in a millisecond");
        // With nothing observed, and with fast answers.
        let tau = Duration::from_secs(10);
        assert!(near(latency.peak(start + tau), 0.5 / std::f64::consts::E));
        for n in 1..=10_000 {
            latency.observe(start + millis(n), millis(10));
        }
        let fallen = 0.01 + 0.49 / std::f64::consts::E;
        assert!(near(latency.peak(start + tau), fallen), "{}", latency.peak(start + tau));
    }

    #[test]
    fn steady_answers_are_their_own_mean_however_often_they_come() {
        for every in [1, 10, 1000, 60_000] {
            let latency = Latency::default();
            let mut now = latency.epoch;
            for _ in 0..1000 {
                now += millis(every);
                latency.observe(now, millis(20));
            }
            assert!(near(latency.mean(now), 0.02), "{every}: {}", latency.mean(now));
            assert!(near(latency.peak(now), 0.02), "{every}: {}", latency.peak(now));
        }
    }

    #[test]
    fn a_mean_weighs_by_time() {
        let latency = Latency::default();
        let mut now = latency.epoch;
        for n in 0..20_000 {
            now += millis(10);
            latency.observe(now, millis(if n % 2 == 0 { 10 } else { 30 }));
        }
        assert!(near(latency.mean(now), 0.02), "{}", latency.mean(now));
        let before = now;
        latency.observe(now + Duration::from_secs(60), millis(100));
        assert!(near(latency.mean(before + Duration::from_secs(60)), 0.1));
    }

    #[test]
    fn failing_fast_does_not_look_fast() {
        let latency = Latency::default();
        let mut now = latency.epoch;
        latency.observe(now, millis(10));
        for n in 1..=20 {
            now += millis(1);
            latency.observe_failure(now, millis(1));
            let expected = 0.01 * f64::from(1 << n.min(10));
            assert!(
                (latency.peak(now) / expected - 1.0).abs() < 0.05,
                "{n}: {}",
                latency.peak(now)
            );
            assert!(
                (latency.mean(now) / expected - 1.0).abs() < 0.05,
                "{n}: {}",
                latency.mean(now)
            );
        }
        // It fades, and successes take it away.
        let later = now + Duration::from_secs(60);
        assert!(latency.peak(later) < 0.01, "{}", latency.peak(later));
        for _ in 0..70 {
            latency.observe(now, millis(10));
        }
        assert!(near(latency.peak(now), 0.01), "{}", latency.peak(now));
    }

    #[test]
    fn a_rare_failure_costs_little_and_a_timeout_is_slow() {
        let latency = Latency::default();
        let mut now = latency.epoch;
        let mut worst = 0.0f64;
        for n in 0..10_000 {
            now += millis(1);
            if n % 20 == 7 {
                latency.observe_failure(now, millis(1));
            } else {
                latency.observe(now, millis(10));
            }
            worst = worst.max(latency.peak(now));
        }
        assert!(worst < 0.021, "{worst}");
        latency.observe_failure(now, Duration::from_secs(2));
        assert!(latency.peak(now) > 3.9, "{}", latency.peak(now));
    }

    #[test]
    fn one_that_only_failed_is_slow_until_that_is_forgotten() {
        let latency = Latency::default();
        let now = latency.epoch;
        latency.observe_failure(now, millis(1));
        assert!(near(latency.peak(now), 2.0) && near(latency.mean(now), 2.0));
        let later = now + Duration::from_secs(30);
        assert_eq!((latency.peak(later), latency.mean(later)), (0.0, 0.0));
        latency.observe(now, millis(10));
        assert!(latency.peak(now) < 0.02, "the first answer says how fast it is");
    }

    #[test]
    fn time_that_goes_back_or_wraps_does_no_harm() {
        assert_eq!(left(5, 9), 1.0);
        assert!(near(left(3, u32::MAX), (-0.0004f64).exp()));
    }
}
