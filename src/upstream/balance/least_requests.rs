//! The endpoint with the fewest requests in flight for its weight, of all.

use std::cmp::Ordering;

use super::is_less_loaded;
use crate::upstream::endpoint::Endpoint;

/// Picks the least loaded usable endpoint; of equals one at random.
pub(super) fn pick(endpoints: &[Endpoint], usable: impl Fn(usize) -> bool) -> Option<usize> {
    let mut best: Option<(usize, &Endpoint)> = None;
    let mut equals = 0;
    for (index, endpoint) in endpoints.iter().enumerate().filter(|(i, _)| usable(*i)) {
        let order = best.map_or(Ordering::Less, |(_, best)| is_less_loaded(endpoint, best));
        // Each of n equals replaces those before it one time in n, so all are as likely.
        equals = match order {
            Ordering::Less => 1,
            Ordering::Equal => equals + 1,
            Ordering::Greater => continue,
        };
        if order.is_lt() || fastrand::u32(..equals) == 0 {
            best = Some((index, endpoint));
        }
    }
    best.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::endpoint::tests::endpoints;

    #[test]
    fn the_least_loaded_for_its_weight() {
        let endpoints = endpoints(&[1, 4, 1]);
        let _busy = [endpoints[0].state.start(), endpoints[2].state.start()];
        let _more: Vec<_> = (0..6).map(|_| endpoints[1].state.start()).collect();
        // (1+1)/1, (6+1)/4, (1+1)/1
        assert_eq!(pick(&endpoints, |_| true), Some(1));
        let _one_more = endpoints[1].state.start();
        // (7+1)/4: now all are alike.
        let mut seen = [false; 3];
        (0..1000).for_each(|_| seen[pick(&endpoints, |_| true).unwrap()] = true);
        assert_eq!(seen, [true; 3]);
    }

    #[test]
    fn equals_are_drawn_alike() {
        let endpoints = endpoints(&[1, 1, 1]);
        let mut counts = [0u64; 3];
        (0..30_000).for_each(|_| counts[pick(&endpoints, |_| true).unwrap()] += 1);
        let chi = crate::upstream::balance::random::tests::chi_square(&counts, &[1, 1, 1]);
        assert!(chi < 33.0, "{counts:?}");
        assert_eq!(pick(&endpoints, |i| i == 1), Some(1));
        assert_eq!(pick(&endpoints, |_| false), None);
    }
}
