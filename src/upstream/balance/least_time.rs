//! The endpoint where a further request would take the least time, of all, by the
//! [mean](crate::upstream::latency) of its latency and what it has in flight.

use tokio::time::Instant;

use super::{cost, lowest};
use crate::upstream::endpoint::Endpoint;

/// Picks the usable endpoint with the lowest mean latency x (in flight + 1) / weight; of equals one
/// at random by weight.
pub(super) fn pick(
    endpoints: &[Endpoint],
    now: Instant,
    usable: impl Fn(usize) -> bool,
) -> Option<usize> {
    let cost = |endpoint: &Endpoint| cost(endpoint, endpoint.state.latency.mean(now));
    lowest(endpoints, usable, cost, f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::endpoint::tests::{busy, endpoints};
    use std::time::Duration;

    fn observe(endpoint: &Endpoint, now: Instant, millis: u64) {
        endpoint.state.latency.observe(now, Duration::from_millis(millis));
    }

    #[test]
    fn the_fastest_for_its_weight_and_load() {
        let endpoints = endpoints(&[1, 2, 1]);
        let now = Instant::now();
        for (endpoint, millis) in endpoints.iter().zip([10, 50, 26]) {
            observe(endpoint, now, millis);
        }
        let mut in_flight = Vec::new();
        for expected in [0, 0, 1, 2, 0] {
            // 10 25 26, 20 25 26, 30 25 26, 30 50 26, 30 50 52
            assert_eq!(pick(&endpoints, now, |_| true), Some(expected), "{}", in_flight.len());
            in_flight.push(busy(&endpoints[expected]));
        }
        assert_eq!(pick(&endpoints, now, |i| i == 2), Some(2));
        assert_eq!(pick(&endpoints, now, |_| false), None);
    }

    #[test]
    fn what_nothing_is_known_of_goes_first_once_and_by_weight() {
        let endpoints = endpoints(&[1, 5, 2]);
        let now = Instant::now();
        let mut counts = [0u64; 3];
        (0..30_000).for_each(|_| counts[pick(&endpoints, now, |_| true).unwrap()] += 1);
        let chi = crate::upstream::balance::random::tests::chi_square(&counts, &[1, 5, 2]);
        assert!(chi < 33.0, "{counts:?}");
        observe(&endpoints[0], now, 10);
        observe(&endpoints[1], now, 10);
        assert_eq!(pick(&endpoints, now, |_| true), Some(2));
        let _first = busy(&endpoints[2]);
        assert_eq!(pick(&endpoints, now, |_| true), Some(1));
    }

    #[test]
    fn a_slow_one_is_tried_again_some_time_but_rarely() {
        let endpoints = endpoints(&[1, 1]);
        let (mut now, mut slow) = (Instant::now(), 0);
        for _ in 0..6000 {
            now += Duration::from_millis(100);
            let picked = pick(&endpoints, now, |_| true).unwrap();
            slow += picked;
            observe(&endpoints[picked], now, if picked == 0 { 10 } else { 100 });
        }
        // It has to fade to a tenth, 23 s, each time; for ten minutes.
        assert!((15..60).contains(&slow), "{slow} of 6000");
    }
}
