//! How long a backend works on a request: drawn from the request's id, so that it takes as long
//! wherever it goes, and as long again in the next run.

use std::time::Duration;

use crate::chaos::{Id, mix, share};

/// How work is spread over requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Work {
    /// Half to one and a half times this, each as often.
    Even(Duration),
    /// Few long ones among many short ones.
    Mixed {
        /// Of most requests.
        short: Duration,
        /// Of the rest.
        long: Duration,
        /// The share of the long ones.
        share: f64,
    },
}

impl Work {
    /// Reads `even:MS` or `mixed:MS:MS:SHARE`.
    pub fn parse(text: &str) -> Option<Self> {
        let millis = |text: &str| {
            let millis: f64 = text.parse().ok()?;
            Duration::try_from_secs_f64(millis / 1000.0).ok()
        };
        match text.split(':').collect::<Vec<_>>().as_slice() {
            ["even", mean] => Some(Self::Even(millis(mean)?)),
            ["mixed", short, long, share] => Some(Self::Mixed {
                short: millis(short)?,
                long: millis(long)?,
                share: share.parse().ok().filter(|share| (0.0..=1.0).contains(share))?,
            }),
            _ => None,
        }
    }

    /// What `id` needs.
    pub fn of(self, id: Id) -> Duration {
        let drawn = share(mix(id.0 ^ 8));
        match self {
            Self::Even(mean) => mean.mul_f64(0.5 + drawn),
            Self::Mixed { long, share, .. } if drawn < share => long,
            Self::Mixed { short, .. } => short,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_has_the_mean_that_it_says() {
        for (text, mean) in [("even:40", 40.0), ("mixed:5:150:0.05", 12.25)] {
            let work = Work::parse(text).unwrap();
            let of = |n| work.of(Id(mix(n))).as_secs_f64() * 1e3;
            let seen = (0..100_000).map(of).sum::<f64>() / 1e5;
            assert!((seen / mean - 1.0).abs() < 0.02, "{text}: {seen}");
            assert_eq!(work.of(Id(7)), work.of(Id(7)));
        }
        for wrong in ["", "even", "even:-1", "even:x", "even:1:2", "mixed:1:2", "mixed:1:2:3"] {
            assert_eq!(Work::parse(wrong), None, "{wrong}");
        }
    }
}
