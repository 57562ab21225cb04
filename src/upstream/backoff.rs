//! How long to wait before the same is tried again.

use std::time::Duration;

/// The wait before the `round`th time, from 0: `shortest`, doubled each time up to `longest`, and
/// spread by `jitter` (0 to 1) over half to the whole of it, so that many who wait for the same don't
/// come back to it at once.
pub fn backoff(shortest: Duration, longest: Duration, round: u32, jitter: f64) -> Duration {
    // 2^16 times a millisecond is a minute already.
    let doubled = shortest.saturating_mul(1 << round.min(16)).min(longest);
    doubled.mul_f64(0.5 + jitter / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_limit_and_are_spread() {
        let (shortest, longest) = (Duration::from_millis(100), Duration::from_secs(10));
        let millis = |round, jitter| backoff(shortest, longest, round, jitter).as_millis();
        assert_eq!([0, 1, 2].map(|round| millis(round, 1.0)), [100, 200, 400]);
        assert_eq!(millis(0, 0.0), 50);
        assert_eq!(millis(29, 1.0), 10_000);
        assert_eq!(millis(u32::MAX, 0.0), 5_000);
    }
}
