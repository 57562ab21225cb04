//! The endpoint with the fewest requests in flight for its weight, of all.

use super::{compare_load, lowest};
use crate::upstream::endpoint::Endpoint;

/// Picks the least loaded usable endpoint; of equals one at random by weight.
pub(super) fn pick(endpoints: &[Endpoint], usable: impl Fn(usize) -> bool) -> Option<usize> {
    lowest(endpoints, usable, |endpoint| endpoint, |a, b| compare_load(a, b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::endpoint::tests::{busy, endpoints};

    #[test]
    fn the_least_loaded_for_its_weight() {
        let endpoints = endpoints(&[1, 4, 1]);
        let _busy = [busy(&endpoints[0]), busy(&endpoints[2])];
        let _more = [1; 3].map(|index| busy(&endpoints[index]));
        // 1/1, 3/4, 1/1
        assert_eq!(pick(&endpoints, |_| true), Some(1));
        let _one_more = busy(&endpoints[1]);
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
