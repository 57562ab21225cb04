//! How long requests took: counts in steps that are 2 % wide.

use std::collections::BTreeMap;
use std::time::Duration;

/// Each octave has that many steps.
const STEPS: f64 = 32.0;

/// Counts of durations, from a microsecond on.
#[derive(Debug, Clone, Default)]
pub struct Histogram(BTreeMap<i64, u64>);

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, took: Duration) {
        let step = (took.as_secs_f64() * 1e6).max(1.0).log2() * STEPS;
        *self.0.entry(step as i64).or_default() += 1;
    }

    /// Counts all that `other` has.
    pub fn merge(&mut self, other: Self) {
        for (step, count) in other.0 {
            *self.0.entry(step).or_default() += count;
        }
    }

    /// A list of pairs, the upper end of a step in seconds and its count.
    pub fn json(&self) -> String {
        let steps = self.0.iter().map(|(step, count)| {
            let end = ((step + 1) as f64 / STEPS).exp2() / 1e6;
            format!("[{end:.6}, {count}]")
        });
        format!("[{}]", steps.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_two_percent_wide() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.json(), "[]");
        for _ in 0..3 {
            histogram.add(Duration::from_millis(100));
        }
        let mut other = Histogram::default();
        other.add(Duration::ZERO);
        other.merge(histogram);
        let json = other.json();
        let end: f64 = json.rsplit(['[', ',']).nth(1).unwrap().parse().unwrap();
        assert!((0.1..0.1022).contains(&end), "{json}");
        assert!(json.starts_with("[[0.000001, 1], [") && json.ends_with(", 3]]"), "{json}");
    }
}
