//! Uniformly at random, by weight: each request drawn independently of all others.

/// Draws indices with probabilities in proportion to their weights.
#[derive(Debug)]
pub struct Random {
    /// The sum of the weights up to and including each index.
    sums: Box<[u64]>,
    /// Whether all weights are the same, which makes a draw one multiplication.
    even: bool,
}

impl Random {
    /// Over these weights.
    pub fn new(weights: &[u32]) -> Self {
        let mut sum = 0;
        let sums = weights.iter().map(|w| {
            sum += u64::from(*w);
            sum
        });
        Self {
            sums: sums.collect(),
            even: weights.windows(2).all(|w| matches!(w, [a, b] if a == b)),
        }
    }

    /// Draws one of the indices that are `usable`.
    pub fn pick(&self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        // Nearly always all of them are usable. Where the first draw is not, a second among those
        // that are leaves each of them with its fair share.
        let drawn = self.draw()?;
        if usable(drawn) { Some(drawn) } else { self.draw_among(usable) }
    }

    /// Draws from all indices.
    pub fn draw(&self) -> Option<usize> {
        let total = self.total();
        if total == 0 {
            None
        } else if self.even {
            Some(fastrand::usize(..self.sums.len()))
        } else {
            Some(self.at(fastrand::u64(..total)))
        }
    }

    /// Draws from all indices but `other`.
    pub fn draw_other(&self, other: usize) -> Option<usize> {
        if self.even {
            let n = self.sums.len().checked_sub(1).filter(|n| *n > 0)?;
            let drawn = fastrand::usize(..n);
            return Some(if drawn >= other { drawn + 1 } else { drawn });
        }
        let start = self.start(other);
        let weight = self.sums.get(other)? - start;
        let rest = self.total().checked_sub(weight).filter(|rest| *rest > 0)?;
        let drawn = fastrand::u64(..rest);
        Some(self.at(if drawn >= start { drawn + weight } else { drawn }))
    }

    /// Draws from the indices that are `usable`, looking at each.
    pub fn draw_among(&self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let weight = |index: usize| self.sums.get(index).map_or(0, |sum| sum - self.start(index));
        let indices = || (0..self.sums.len()).filter(|index| usable(*index));
        let total: u64 = indices().map(weight).sum();
        if total == 0 {
            return None;
        }
        let mut drawn = fastrand::u64(..total);
        indices().find(|index| {
            let weight = weight(*index);
            let found = drawn < weight;
            drawn = drawn.saturating_sub(weight);
            found
        })
    }

    fn total(&self) -> u64 {
        self.sums.last().copied().unwrap_or(0)
    }

    fn start(&self, index: usize) -> u64 {
        index.checked_sub(1).and_then(|before| self.sums.get(before)).copied().unwrap_or(0)
    }

    fn at(&self, point: u64) -> usize {
        self.sums.partition_point(|sum| *sum <= point)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The statistic of a chi-square test of `counts` against shares in proportion to `weights`.
    pub(in super::super) fn chi_square(counts: &[u64], weights: &[u32]) -> f64 {
        let n: u64 = counts.iter().sum();
        let total: u32 = weights.iter().sum();
        let term = |(count, weight): (&u64, &u32)| {
            let expected = n as f64 * f64::from(*weight) / f64::from(total);
            (*count as f64 - expected).powi(2) / expected
        };
        counts.iter().zip(weights).filter(|(_, w)| **w > 0).map(term).sum()
    }

    fn counts(n: u64, size: usize, pick: impl Fn() -> Option<usize>) -> Vec<u64> {
        let mut counts = vec![0; size];
        (0..n).for_each(|_| counts[pick().unwrap()] += 1);
        counts
    }

    /// Above this with up to 4 degrees of freedom, one run in ten million is unlucky.
    const UNLUCKY: f64 = 39.0;

    #[test]
    fn shares_are_in_proportion_to_the_weights() {
        for weights in [&[1, 1, 1][..], &[5, 1, 3, 0], &[0, 0, 7], &[256, 1]] {
            let random = Random::new(weights);
            let counts = counts(60_000, weights.len(), || random.pick(|_| true));
            assert!(chi_square(&counts, weights) < UNLUCKY, "{weights:?}: {counts:?}");
            assert!(counts.iter().zip(weights).all(|(n, w)| *w > 0 || *n == 0));
        }
    }

    #[test]
    fn the_rest_keep_their_proportions_when_some_are_not_usable() {
        let random = Random::new(&[5, 1, 3, 2]);
        let counts = counts(60_000, 4, || random.pick(|i| i != 0));
        assert!(chi_square(&counts, &[0, 1, 3, 2]) < UNLUCKY, "{counts:?}");
        assert_eq!(counts[0], 0);
        assert_eq!(random.pick(|_| false), None);
        assert_eq!(Random::new(&[]).pick(|_| true), None);
        assert_eq!(Random::new(&[0, 0]).pick(|_| true), None);
    }

    #[test]
    fn the_other_of_two_is_another() {
        for weights in [&[1, 1, 1][..], &[5, 1, 3]] {
            let random = Random::new(weights);
            let counts = counts(30_000, 3, || random.draw_other(1));
            let others = [weights[0], 0, weights[2]];
            assert!(chi_square(&counts, &others) < UNLUCKY, "{counts:?}");
            assert_eq!(counts[1], 0);
        }
        assert_eq!(Random::new(&[1]).draw_other(0), None);
        assert_eq!(Random::new(&[3, 0]).draw_other(0), None);
    }
}
