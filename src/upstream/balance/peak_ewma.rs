//! Power of two choices by time: of two endpoints drawn at random the one where a further request
//! would wait less, by the [peak](crate::upstream::latency) of its latency and what it has in flight
//! (Finagle's and Linkerd's peak-EWMA).

use tokio::time::Instant;

use super::random::Random;
use super::{cost, p2c};
use crate::upstream::endpoint::Endpoint;

/// Picks the one with the lower peak of latency x (in flight + 1) / weight, of two usable endpoints
/// drawn by weight; of equals the first drawn, which is random by weight.
pub(super) fn pick(
    random: &Random,
    endpoints: &[Endpoint],
    now: Instant,
    usable: impl Fn(usize) -> bool,
) -> Option<usize> {
    let cost = |endpoint: &Endpoint| cost(endpoint, endpoint.state.latency.peak(now));
    p2c::better(random, endpoints, usable, |a, b| cost(a) < cost(b))
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
    fn the_one_where_a_request_waits_least() {
        let endpoints = endpoints(&[1, 1]);
        let random = Random::new(&[1, 1]);
        let now = Instant::now();
        let pick = || pick(&random, &endpoints, now, |_| true);
        observe(&endpoints[0], now, 10);
        observe(&endpoints[1], now, 25);
        let mut in_flight = Vec::new();
        for expected in [0, 0, 1, 0] {
            // 10 : 25, 20 : 25, 30 : 25, 30 : 50
            assert_eq!(pick(), Some(expected), "{}", in_flight.len());
            in_flight.push(busy(&endpoints[expected]));
        }
    }

    #[test]
    fn a_heavier_one_may_have_more_in_flight() {
        let endpoints = endpoints(&[3, 1]);
        let random = Random::new(&[3, 1]);
        let now = Instant::now();
        endpoints.iter().for_each(|e| observe(e, now, 10));
        let mut in_flight = Vec::new();
        for _ in 0..40 {
            let picked = pick(&random, &endpoints, now, |_| true).unwrap();
            in_flight.push(busy(&endpoints[picked]));
        }
        let shares = endpoints.iter().map(|e| e.state.in_flight()).collect::<Vec<_>>();
        assert!((29..=31).contains(&shares[0]), "{shares:?}");
    }

    #[test]
    fn one_that_nothing_is_known_of_gets_one_request_and_then_waits_for_its_answer() {
        let endpoints = endpoints(&[1, 1]);
        let random = Random::new(&[1, 1]);
        let now = Instant::now();
        let pick = || pick(&random, &endpoints, now, |_| true);
        observe(&endpoints[0], now, 10);
        assert_eq!(pick(), Some(1));
        let _first = busy(&endpoints[1]);
        let _many: Vec<_> = (0..1000).map(|_| busy(&endpoints[0])).collect();
        assert_eq!(pick(), Some(0));
        observe(&endpoints[1], now, 500);
        assert_eq!(pick(), Some(1));
        assert_eq!(super::pick(&random, &endpoints, now, |i| i == 0), Some(0));
        assert_eq!(super::pick(&random, &endpoints, now, |_| false), None);
    }

    #[test]
    fn where_nothing_is_known_of_any_all_get_their_share() {
        let endpoints = endpoints(&[1, 1, 1]);
        let random = Random::new(&[1, 1, 1]);
        let now = Instant::now();
        let mut in_flight = Vec::new();
        for _ in 0..300 {
            let picked = pick(&random, &endpoints, now, |_| true).unwrap();
            in_flight.push(busy(&endpoints[picked]));
        }
        let shares = endpoints.iter().map(|e| e.state.in_flight()).collect::<Vec<_>>();
        assert!(shares.iter().all(|n| (90..=110).contains(n)), "{shares:?}");
    }

    #[test]
    fn one_that_fails_at_once_loses_its_traffic() {
        // Each request is over before the next one, so the failing one never has any in flight.
        let endpoints = endpoints(&[1, 1, 1]);
        let random = Random::new(&[1, 1, 1]);
        let (mut now, mut failed) = (Instant::now(), 0);
        for _ in 0..10_000 {
            now += Duration::from_millis(6);
            if pick(&random, &endpoints, now, |_| true) == Some(0) {
                failed += 1;
                endpoints[0].state.latency.observe_failure(now, Duration::from_micros(100));
            } else {
                observe(&endpoints[1], now, 5);
                observe(&endpoints[2], now, 5);
            }
        }
        assert!(failed < 20, "{failed} of 10000 in a minute");
    }
}
