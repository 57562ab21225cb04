//! In turn, smoothly by weight: 5, 1, 1 gives a a b a c a a, not a a a a a b c.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The longest schedule; larger sums of weights are rounded to fit.
const MAX_TURNS: u64 = 1 << 16;

/// A precomputed cycle and one cursor that all workers share, so that cycles are exact over all of
/// them.
#[derive(Debug)]
pub struct RoundRobin {
    schedule: Box<[u32]>,
    cursor: AtomicUsize,
}

impl RoundRobin {
    /// Over these weights.
    pub fn new(weights: &[u32]) -> Self {
        Self { schedule: schedule(weights), cursor: AtomicUsize::new(0) }
    }

    /// The next index in the cycle that is `usable`.
    pub fn pick(&self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        for _ in 0..self.schedule.len() {
            let turn = self.cursor.fetch_add(1, Relaxed) % self.schedule.len();
            let index = *self.schedule.get(turn)? as usize;
            if usable(index) {
                return Some(index);
            }
        }
        None
    }
}

/// One cycle in which each index has as many turns as its weight, spread out: in each turn all
/// gain their weight, and whoever has gained most goes and pays the total (nginx's smooth
/// weighted round-robin).
fn schedule(weights: &[u32]) -> Box<[u32]> {
    let divisor = weights.iter().fold(0, |a, b| gcd(a, u64::from(*b))).max(1);
    let total = weights.iter().map(|w| u64::from(*w) / divisor).sum::<u64>();
    let scale = total.div_ceil(MAX_TURNS).max(1) * divisor;
    let turns = weights.iter().map(|w| (u64::from(*w) / scale).max(u64::from(*w > 0)));
    let turns: Vec<i64> = turns.map(|t| i64::try_from(t).unwrap_or(1)).collect();
    let total: i64 = turns.iter().sum();
    let mut gained = vec![0; turns.len()];
    let cycle = (0..total).filter_map(|_| {
        gained.iter_mut().zip(&turns).for_each(|(gained, turns)| *gained += turns);
        // The first of equals, so that even weights go in order.
        let (index, most) =
            gained.iter_mut().enumerate().rev().max_by_key(|(_, gained)| **gained)?;
        *most -= total;
        u32::try_from(index).ok()
    });
    cycle.collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn even_weights_take_exact_turns() {
        let turns = RoundRobin::new(&[7, 7, 7]);
        let picked: Vec<_> = (0..7).map(|_| turns.pick(|_| true).unwrap()).collect();
        assert_eq!(picked, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn heavier_ones_are_spread_out() {
        let picked: String =
            schedule(&[5, 1, 1]).iter().map(|i| ["a", "b", "c"][*i as usize]).collect();
        assert_eq!(picked, "aabacaa");
    }

    #[test]
    fn what_is_not_usable_is_passed_over() {
        let turns = RoundRobin::new(&[1, 1, 0, 1]);
        let picked: Vec<_> = (0..4).map(|_| turns.pick(|i| i != 1).unwrap()).collect();
        assert_eq!(picked, [0, 3, 0, 3]);
        assert_eq!(turns.pick(|_| false), None);
        assert_eq!(RoundRobin::new(&[]).pick(|_| true), None);
    }

    #[test]
    fn a_schedule_is_bounded_and_nobody_is_left_out() {
        let weights = [[65_521, 65_519, 1]; 4].concat();
        let schedule = schedule(&weights);
        assert!((schedule.len() as u64) < 2 * MAX_TURNS);
        assert!((0..12).all(|i| schedule.contains(&i)));
    }

    proptest! {
        #[test]
        fn a_cycle_has_exact_shares_evenly_spaced(weights in prop::collection::vec(0u32..=256, 1..12)) {
            let schedule = schedule(&weights);
            let divisor = weights.iter().fold(0, |a, b| gcd(a, u64::from(*b))).max(1);
            for (index, weight) in weights.iter().enumerate() {
                let at: Vec<_> = (0..schedule.len()).filter(|t| schedule[*t] as usize == index).collect();
                prop_assert_eq!(at.len() as u64, u64::from(*weight) / divisor);
                let even = schedule.len() as f64 / at.len().max(1) as f64;
                for pair in at.windows(2) {
                    prop_assert!(((pair[1] - pair[0]) as f64) < 2.0 * even + weights.len() as f64);
                }
            }
        }
    }
}
