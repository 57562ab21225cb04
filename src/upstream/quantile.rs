//! How long 95 of 100 answers take to begin, of late: cells that workers count in, and what is read
//! from them.

use std::time::Duration;

use tokio::time::Instant;

use crate::stats::Counter;

/// The first bound: 64 µs, below what any network needs.
const FIRST: u32 = 6;

/// The last bound: 2^29 µs, nine minutes, above any patience.
const LAST: u32 = 29;

/// Buckets from one power of two to the next, as a power of two itself. Four are at most a fourth
/// as wide as their lower bound, so what is said of one is off by a ninth at most.
const PARTS: u32 = 2;

/// Below the first bound, between all bounds, and above the last one.
const BUCKETS: usize = 2 + ((LAST - FIRST) << PARTS) as usize;

/// Answers that must have been seen before anything is said: with fewer, one of them alone would
/// decide.
const LEAST: u64 = 20;

/// What is said is of the last one to two of these.
const SPAN: Duration = Duration::from_secs(10);

/// A fine histogram of response times, counted by one worker.
#[derive(Debug)]
#[repr(align(128))]
pub struct Latencies([Counter; BUCKETS]);

impl Default for Latencies {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Latencies {
    /// Counts one answer whose head came `took` after it was asked for.
    pub fn observe(&self, took: Duration) {
        if let Some(cell) = self.0.get(bucket(took)) {
            cell.add(1);
        }
    }

    /// The counts of all workers so far.
    pub fn sum<'a>(workers: impl Iterator<Item = &'a Self>) -> Counts {
        let mut sum = Counts::default();
        for worker in workers {
            sum.0.iter_mut().zip(&worker.0).for_each(|(n, cell)| *n = n.wrapping_add(cell.get()));
        }
        sum
    }
}

/// Counts by bucket.
#[derive(Debug, Clone)]
pub struct Counts([u64; BUCKETS]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Counts {
    /// What was counted after `earlier`; nothing where counting has begun anew in between.
    fn since<'a>(&'a self, earlier: &'a Self) -> impl Iterator<Item = u64> + 'a {
        self.0.iter().zip(&earlier.0).map(|(now, then)| now.saturating_sub(*then))
    }
}

/// The 95th percentile of the last 10 to 20 s; of a longer time where that has too few answers.
#[derive(Debug)]
pub struct Quantile {
    /// The counts where the window begins.
    start: Counts,
    /// Those where the next one will begin, and when they were taken.
    next: (Instant, Counts),
    p95: Option<Duration>,
}

impl Quantile {
    /// Of whatever is counted, also before it was first looked at.
    pub fn new(now: Instant) -> Self {
        Self { start: Counts::default(), next: (now, Counts::default()), p95: None }
    }

    /// Takes the counts of all workers, each second or so.
    pub fn update(&mut self, now: Instant, counts: Counts) {
        let total: u64 = counts.since(&self.start).sum();
        if total >= LEAST {
            self.p95 = Some(quantile(counts.since(&self.start), total - total / 20));
        }
        // The window only moves on where enough is left in it.
        let rest: u64 = counts.since(&self.next.1).sum();
        if now.saturating_duration_since(self.next.0) >= SPAN && rest >= LEAST {
            self.start = std::mem::replace(&mut self.next, (now, counts)).1;
        }
    }

    /// Within how long 95 of 100 answers begin, off by 12 % at most; `None` until 20 were seen.
    pub const fn p95(&self) -> Option<Duration> {
        self.p95
    }
}

/// The duration that the `rank`th of the counted ones had, from 1.
fn quantile(counts: impl Iterator<Item = u64>, rank: u64) -> Duration {
    let mut below = 0;
    let found = counts.take_while(|n| {
        below += n;
        below < rank
    });
    Duration::from_micros(middle(found.count()))
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    match micros.checked_ilog2() {
        Some(octave @ FIRST..LAST) => {
            let part = (micros >> (octave - PARTS)) & ((1 << PARTS) - 1);
            1 + (((octave - FIRST) << PARTS) as usize) + usize::try_from(part).unwrap_or(0)
        }
        Some(LAST..) => BUCKETS - 1,
        _ => 0,
    }
}

/// The lower bound of a bucket above the first, in microseconds.
fn lower(bucket: usize) -> u64 {
    let above = bucket.saturating_sub(1).min(BUCKETS - 2) as u64;
    let (octave, part) = (above >> PARTS, above & ((1 << PARTS) - 1));
    ((1 << PARTS) + part) << (octave + u64::from(FIRST - PARTS))
}

/// What is said of all in a bucket: the harmonic mean of its bounds, which is off by the same share
/// at both of them.
fn middle(bucket: usize) -> u64 {
    let (from, to) = (lower(bucket), lower(bucket + 1));
    if bucket == 0 { from } else { 2 * from * to / (from + to) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn what_is_said_of_a_bucket_is_off_by_twelve_percent_at_most() {
        let mut micros = 100;
        while micros < 500_000_000 {
            let said = middle(bucket(Duration::from_micros(micros))) as f64;
            let off = (said / micros as f64 - 1.0).abs();
            assert!(off <= 0.12, "{micros} µs: {said}");
            micros += 1 + micros / 97;
        }
        assert_eq!([0, 1].map(|n| bucket(Duration::from_micros(n))), [0, 0]);
        assert_eq!(bucket(Duration::from_micros(63)), 0);
        assert_eq!(bucket(Duration::from_micros(64)), 1);
        assert_eq!(bucket(Duration::from_micros((1 << LAST) - 1)), BUCKETS - 2);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn bounds_and_buckets_agree() {
        for index in 1..BUCKETS {
            assert_eq!(bucket(Duration::from_micros(lower(index))), index);
            assert_eq!(bucket(Duration::from_micros(lower(index) - 1)), index - 1);
        }
    }

    /// Cells of two workers, and what is read from them each second.
    struct Bench {
        workers: [Latencies; 2],
        now: Instant,
        quantile: Quantile,
    }

    impl Bench {
        fn new() -> Self {
            let now = Instant::now();
            let quantile = Quantile::new(now);
            Self { workers: std::array::from_fn(|_| Latencies::default()), now, quantile }
        }

        /// What is said after a second in which these were observed.
        fn second(&mut self, took: impl Iterator<Item = Duration>) -> Option<u64> {
            took.enumerate().for_each(|(n, took)| self.workers[n % 2].observe(took));
            self.now += Duration::from_secs(1);
            self.quantile.update(self.now, Latencies::sum(self.workers.iter()));
            self.quantile.p95().map(|p95| u64::try_from(p95.as_millis()).unwrap())
        }
    }

    #[test]
    fn nothing_is_said_of_fewer_than_twenty() {
        let mut bench = Bench::new();
        assert_eq!(bench.second((0..19).map(|_| millis(100))), None);
        assert_eq!(bench.second(std::iter::empty()), None);
        let said = bench.second(std::iter::once(millis(100))).unwrap();
        assert!((89..=112).contains(&said), "{said}");
    }

    #[test]
    fn it_is_the_95th_of_100() {
        let mut bench = Bench::new();
        let said = bench.second((1..=100).map(|n| millis(n * 10))).unwrap();
        assert!((850..=1060).contains(&said), "{said}");
        // 4 of 100 that are slow don't count, 6 do.
        let mixed = |slow: u64| {
            let mut bench = Bench::new();
            bench.second((0..100).map(|n| millis(if n < slow { 5000 } else { 10 }))).unwrap()
        };
        assert!(mixed(4) < 12 && mixed(6) > 4000);
    }

    #[test]
    fn only_the_last_ten_to_twenty_seconds_count() {
        let mut bench = Bench::new();
        for _ in 0..60 {
            bench.second((0..10).map(|_| millis(1000)));
        }
        let mut seconds = 0;
        while bench.second((0..10).map(|_| millis(10))).unwrap() > 12 {
            seconds += 1;
        }
        assert!((9..=20).contains(&seconds), "{seconds}");
    }

    #[test]
    fn with_little_traffic_it_looks_back_further() {
        let mut bench = Bench::new();
        for second in 0..600 {
            let said = bench.second((0..u64::from(second % 5 == 0)).map(|_| millis(100)));
            assert_eq!(said.is_some(), second >= 95, "{second}");
        }
        for _ in 0..600 {
            let said = bench.second(std::iter::empty()).unwrap();
            assert!((89..=112).contains(&said), "the last that is known: {said}");
        }
    }
}
