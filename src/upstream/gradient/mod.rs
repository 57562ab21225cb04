//! Adaptive concurrency: how many requests one endpoint can work on at once before they only wait
//! there, found from how its latency changes.
//!
//! As in Netflix's Gradient2 and Envoy's adaptive concurrency, the limit is multiplied by how much
//! longer than its baseline an answer takes, and a headroom is added, its square root but a quarter
//! at most: where nothing waits it grows by that, where much waits it falls by half at most.
//!
//! The difficulty is the baseline, what an answer takes while nothing waits. Under a long overload
//! something always waits, so a mean over time (Gradient2) creeps up until all waiting looks
//! normal. Envoy therefore goes down to 3 requests at once every minute, which is an outage for an
//! endpoint that does a thousand. Here a probe *halves* the limit for some round trips: in balance
//! it is less than twice what the endpoint works on, so at half of it hardly anything waits, and
//! hardly anything is lost. And as latency is known before and after, it is told whether it had to
//! do with our requests at all:
//!
//! - Latency hardly falls: what we send makes no difference, the endpoint is as slow as that now.
//!   It is the new baseline, also if it is higher.
//! - Latency falls about as the limit does: something may still wait at half of it. The baseline is
//!   no higher than this; unless it was sure, the limit is halved once more.
//!
//! Something is learnt for nothing, if not for sure, while less than half of the limit is used.

use std::time::Duration;

use tokio::time::Instant;

/// How much longer than the baseline answers may take before the limit falls: what they vary by
/// from one window to the next (Envoy's buffer of 25 %).
const TOLERANCE: f64 = 1.25;

/// The least limit: an endpoint works on something while the next requests are on their way.
const LEAST: f64 = 4.0;

/// The first limit, as Gradient2's; it doubles while latency stays.
const FIRST: f64 = 20.0;

/// Answers that make a window: of fewer the mean says little.
const ENOUGH: u64 = 10;

/// Answers that make a baseline, whose error stays for long: 10 % if they vary as much as they are
/// long.
const ENOUGH_FOR_BASELINE: u64 = 100;

/// Latency at half of the limit that is above this share of what it was has hardly fallen. Where it
/// is all waiting, the share is a half; in balance 0.6 to 0.75.
const UNMOVED: f64 = 0.7;

/// A mean below this share of the baseline is no chance: the endpoint has become faster.
const FASTER: f64 = 0.8;

/// From one probe to the next: the time, and the least number of round trips, so that those of
/// probes are few among all.
const PROBE_EVERY: (Duration, f64) = (Duration::from_secs(30), 50.0);

/// To the next probe where there is reason to doubt the baseline.
const PROBE_SOON: Duration = Duration::from_secs(2);

/// A mean above this, in seconds, is as good as this.
const LONGEST: f64 = 3600.0;

/// What was seen of an endpoint since the last update.
#[derive(Debug, Clone, Copy, Default)]
pub struct Window {
    /// Answers.
    pub count: u64,
    /// Their mean time, from asked to the head received.
    pub mean: Duration,
    /// The most requests that were in flight at once, as far as that was looked at: how many are now
    /// will do.
    pub in_flight: u32,
}

/// The limit of one endpoint's requests in flight. A pure function of the time and of windows.
#[derive(Debug)]
pub struct Gradient {
    max: f64,
    limit: f64,
    /// What an answer takes while nothing waits, in seconds.
    baseline: Option<f64>,
    /// Whether the baseline was seen where halving the limit made no difference.
    is_sure: bool,
    /// Whether the limit has not met what the endpoint can do yet.
    starting: bool,
    /// Windows since the last one that was large enough.
    sample: Sample,
    /// The last update, at which the window began.
    updated: Instant,
    /// Windows that began before are of requests under an earlier limit.
    settled: Instant,
    probe: Option<Probe>,
    /// When the last probe ended, and the limit then.
    probed: (Instant, f64),
    /// When the next one is due.
    probe_at: Instant,
}

/// Several windows.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    count: u64,
    /// Seconds.
    sum: f64,
    in_flight: u32,
}

impl Sample {
    fn add(&mut self, window: Window) {
        self.count += window.count;
        self.sum += window.mean.as_secs_f64() * window.count as f64;
        self.in_flight = self.in_flight.max(window.in_flight);
    }

    fn mean(&self) -> f64 {
        (self.sum / self.count.max(1) as f64).clamp(1e-6, LONGEST)
    }
}

/// A time at one limit, then at half of it, and so on.
#[derive(Debug)]
struct Probe {
    /// The mean under twice the limit, in seconds; `None` while the whole limit is measured.
    before: Option<f64>,
    /// How often the limit is halved now.
    halvings: i32,
    /// From then on few answers will do as well.
    until: Instant,
}

impl Gradient {
    /// An endpoint that nothing is known of, with a limit of `max` at most.
    pub fn new(max: u32, now: Instant) -> Self {
        let max = f64::from(max.max(1));
        let limit = FIRST.min(max);
        Self {
            max,
            limit,
            baseline: None,
            is_sure: false,
            starting: true,
            sample: Sample::default(),
            updated: now,
            settled: now,
            probe: None,
            probed: (now, limit),
            probe_at: now + PROBE_SOON,
        }
    }

    /// Goes no higher than `max` from now on.
    pub fn set_max(&mut self, max: u32) {
        self.max = f64::from(max.max(1));
        self.limit = self.limit.min(self.max);
    }

    /// Learns from what was seen since the last update, and gives the limit from now on. To be
    /// called some times a second. `may_probe` says whether a probe may begin.
    pub fn update(&mut self, now: Instant, window: Window, may_probe: bool) -> u32 {
        let began = std::mem::replace(&mut self.updated, now);
        // A step needs windows that are mostly of its limit, a probe those that are of nothing else.
        let settled = if self.probe.is_some() { began } else { now } >= self.settled;
        if settled {
            self.sample.add(window);
        }
        let enough = match &self.probe {
            // Half as many with each halving after the first: they take as long to come.
            Some(probe) if now < probe.until => {
                (ENOUGH_FOR_BASELINE >> (probe.halvings - 1).max(0)).max(ENOUGH)
            }
            _ => ENOUGH,
        };
        if self.sample.count >= enough {
            let sample = std::mem::take(&mut self.sample);
            match self.probe.take() {
                None => self.step(now, &sample, may_probe),
                Some(probe) => match probe.before {
                    None => self.probe(now, 1, &sample),
                    Some(before) => self.conclude(now, before, probe.halvings, &sample),
                },
            }
        }
        self.limit()
    }

    /// The limit now; at least 1.
    pub fn limit(&self) -> u32 {
        let halvings = self.probe.as_ref().map_or(0, |probe| probe.halvings);
        let limit = self.limit / 2f64.powi(halvings);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and a u32"
        )]
        let limit = limit.max(1.0) as u32;
        limit
    }

    /// The baseline: what an answer takes while nothing waits, as far as is known.
    pub fn baseline(&self) -> Option<Duration> {
        self.baseline.map(Duration::from_secs_f64)
    }

    /// Whether it has less than its limit for a while, to see what that changes.
    pub const fn is_probing(&self) -> bool {
        self.probe.is_some()
    }

    fn step(&mut self, now: Instant, sample: &Sample, may_probe: bool) {
        let mean = sample.mean();
        let baseline = self.baseline.get_or_insert(mean);
        let is_used = f64::from(sample.in_flight) * 2.0 > self.limit;
        if !is_used || mean < *baseline * FASTER {
            let weight = sample.count as f64 / (sample.count + ENOUGH_FOR_BASELINE) as f64;
            *baseline += (mean - *baseline) * weight;
            self.is_sure = false;
        }
        // A limit that is not needed has nothing to do with latency, and need not grow.
        if !is_used {
            return;
        }
        let is_met = f64::from(sample.in_flight) > self.limit * 0.9;
        let gradient = (TOLERANCE * *baseline / mean).clamp(0.5, 1.0);
        self.starting &= gradient >= 1.0;
        let headroom = self.limit.sqrt().min(self.limit / 4.0);
        let aim = if self.starting { self.limit * 2.0 } else { self.limit * gradient + headroom };
        self.limit = aim.max(LEAST).min(self.max);
        // Half of what the limit was, or the least, was not enough to bring latency down.
        let (probed, limit_then) = self.probed;
        let is_in_doubt = gradient < 1.0
            && self.limit <= (limit_then / 2.0).max(LEAST)
            && now.saturating_duration_since(probed) >= PROBE_SOON;
        if may_probe && is_met && (now >= self.probe_at || is_in_doubt) {
            self.probe(now, 0, sample);
        } else {
            self.settle(now, mean);
        }
    }

    /// Begins with a part of a probe, after a `sample` under twice its limit.
    fn probe(&mut self, now: Instant, halvings: i32, sample: &Sample) {
        let mean = sample.mean();
        self.settle(now, mean);
        let until = self.settled + PROBE_SOON + Duration::from_secs_f64(mean * 4.0);
        self.probe = Some(Probe { before: (halvings > 0).then_some(mean), halvings, until });
    }

    /// Ends a probe, before whose last halving answers took `before`, in seconds; or goes further.
    fn conclude(&mut self, now: Instant, before: f64, halvings: i32, sample: &Sample) {
        let mean = sample.mean();
        let was = self.baseline.unwrap_or(mean);
        if mean > before * UNMOVED {
            self.is_sure = true;
            // Means of near values vary less.
            let is_near = (0.75..1.33).contains(&(mean / was));
            self.baseline = Some(if is_near { f64::midpoint(was, mean) } else { mean });
        } else {
            self.is_sure &= mean > was * 0.9;
            self.baseline = Some(was.min(mean));
            if !self.is_sure && self.limit / 2f64.powi(halvings) > 2.0 {
                return self.probe(now, halvings + 1, sample);
            }
        }
        let (every, round_trips) = PROBE_EVERY;
        self.probe_at = now + every.max(Duration::from_secs_f64(mean * round_trips));
        self.probed = (now, self.limit);
        self.settle(now, mean);
    }

    /// Leaves out what answers to requests that were sent until now.
    fn settle(&mut self, now: Instant, mean: f64) {
        self.settled = now + Duration::from_secs_f64(mean * 2.0);
    }
}

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use super::*;

    /// A window for each of `millis`, a second apart, with this many in flight.
    fn updates(gradient: &mut Gradient, now: &mut Instant, in_flight: u32, millis: &[u64]) -> u32 {
        for millis in millis {
            *now += Duration::from_secs(1);
            let mean = Duration::from_millis(*millis);
            gradient.update(*now, Window { count: 200, mean, in_flight }, true);
        }
        gradient.limit()
    }

    #[test]
    fn what_is_not_used_does_not_grow_and_teaches_the_baseline() {
        let mut now = Instant::now();
        let mut gradient = Gradient::new(1000, now);
        assert_eq!((gradient.limit(), gradient.baseline()), (20, None));
        assert_eq!(updates(&mut gradient, &mut now, 10, &[20; 30]), 20);
        assert_eq!(gradient.baseline(), Some(Duration::from_millis(20)));
        assert_eq!(updates(&mut gradient, &mut now, 10, &[60; 30]), 20);
        assert!(gradient.baseline().unwrap() > Duration::from_millis(59));
    }

    #[test]
    fn it_stays_within_its_bounds() {
        for (max, least) in [(1000, 2), (30, 2), (3, 1), (1, 1), (0, 1)] {
            let mut now = Instant::now();
            let mut gradient = Gradient::new(max, now);
            let mut most = 0;
            for _ in 0..60 {
                most = most.max(updates(&mut gradient, &mut now, 1000, &[20]));
            }
            assert_eq!(most, max.max(1), "it grows while latency stays");
            for n in 0..200 {
                let limit = updates(&mut gradient, &mut now, 1000, &[20 << (n / 2).min(30)]);
                assert!(limit >= least && limit <= max.max(1), "{limit} of {max}");
            }
        }
    }

    #[test]
    fn windows_with_few_answers_are_taken_together() {
        let mut now = Instant::now();
        let mut gradient = Gradient::new(1000, now);
        for n in 1..=10 {
            now += Duration::from_secs(1);
            gradient.update(now, Window::default(), true);
            let window = Window { count: 1, mean: Duration::from_millis(n), in_flight: 1 };
            gradient.update(now, window, true);
            let known = gradient.baseline().map(|b| b.as_micros());
            assert_eq!(known, (n == 10).then_some(5500));
        }
    }
}
