//! The work that a request is to a backend of the demo: time that passes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::config::values::{ValueError, parse_duration};

/// A time drawn uniformly for each request, the ends included; in whole milliseconds, since timers
/// know no finer ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Work {
    low: u64,
    high: u64,
}

impl Work {
    /// The time for one request.
    pub(super) fn draw(self) -> Duration {
        Duration::from_millis(fastrand::u64(self.low..=self.high))
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.low == self.high {
            true => write!(f, "{}ms", self.low),
            false => write!(f, "{}ms..{}ms", self.low, self.high),
        }
    }
}

impl FromStr for Work {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let millis =
            |text| Ok(u64::try_from(parse_duration(text)?.as_millis()).unwrap_or(u64::MAX));
        let (low, high) = text.split_once("..").unwrap_or((text, text));
        let work = Self { low: millis(low)?, high: millis(high)? };
        if work.low > work.high {
            return Err(ValueError::new(
                format!("the work `{low}..{high}` ends before it begins"),
                format!("write `{high}..{low}`"),
            ));
        }
        Ok(work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_or_a_range() {
        for (text, shown) in
            [("5ms..50ms", "5ms..50ms"), ("1s", "1000ms"), ("0s", "0ms"), ("7ms..7ms", "7ms")]
        {
            assert_eq!(text.parse::<Work>().unwrap().to_string(), shown);
        }
        for text in ["", "5", "5ms..", "..5ms", "5ms..1ms", "5ms...6ms", "5ms..6ms..7ms"] {
            assert!(text.parse::<Work>().is_err(), "{text}");
        }
    }

    #[test]
    fn both_ends_are_drawn_and_nothing_outside() {
        let work: Work = "1ms..3ms".parse().unwrap();
        let mut drawn = [0; 5];
        for _ in 0..1000 {
            drawn[usize::try_from(work.draw().as_millis()).unwrap()] += 1;
        }
        assert_eq!((drawn[0], drawn[4]), (0, 0));
        assert!(drawn[1..4].iter().all(|times| *times > 200), "{drawn:?}");
    }
}
