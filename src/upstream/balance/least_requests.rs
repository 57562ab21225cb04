//! The endpoint with the fewest requests in flight for its weight, of all.

use std::cmp::Ordering;

use super::compare_load;
use crate::upstream::endpoint::Endpoint;

/// Picks the least loaded usable endpoint; of equals one at random by weight.
pub(super) fn pick(endpoints: &[Endpoint], usable: impl Fn(usize) -> bool) -> Option<usize> {
    let mut best: Option<(usize, &Endpoint)> = None;
    let mut weight_of_equals = 0;
    for (index, endpoint) in endpoints.iter().enumerate().filter(|(i, _)| usable(*i)) {
        let order = best.map_or(Ordering::Less, |(_, best)| compare_load(endpoint, best));
        // Each replaces the equals before it with the probability of its share among them, so in
        // the end each has its share.
        weight_of_equals = match order {
            Ordering::Less => endpoint.weight,
            Ordering::Equal => weight_of_equals.saturating_add(endpoint.weight),
            Ordering::Greater => continue,
        };
        if order.is_lt() || fastrand::u32(..weight_of_equals.max(1)) < endpoint.weight {
            best = Some((index, endpoint));
        }
    }
    best.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::endpoint::tests::{busy, endpoints};

    #[test]
    fn the_least_loaded_for_its_weight() {
        let endpoints = endpoints(&[1, 4, 1]);
        busy(&endpoints[0], 1);
        busy(&endpoints[2], 1);
        busy(&endpoints[1], 3);
        // 1/1, 3/4, 1/1
        assert_eq!(pick(&endpoints, |_| true), Some(1));
        busy(&endpoints[1], 1);
        // 4/4: now all are alike.
        let mut seen = [false; 3];
        (0..1000).for_each(|_| seen[pick(&endpoints, |_| true).unwrap()] = true);
        assert_eq!(seen, [true; 3]);
    }

    #[test]
    fn equals_are_drawn_by_weight() {
        for weights in [[1, 1, 1], [5, 1, 2]] {
            let endpoints = endpoints(&weights);
            let mut counts = [0u64; 3];
            (0..30_000).for_each(|_| counts[pick(&endpoints, |_| true).unwrap()] += 1);
            let chi = crate::upstream::balance::random::tests::chi_square(&counts, &weights);
            assert!(chi < 33.0, "{weights:?}: {counts:?}");
            assert_eq!(pick(&endpoints, |i| i == 1), Some(1));
            assert_eq!(pick(&endpoints, |_| false), None);
        }
    }
}
