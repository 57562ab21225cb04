//! Power of two choices: the less loaded of two drawn at random (Mitzenmacher 2001). Nearly as
//! even as looking at all, without all balancers and workers rushing to the same best one.

use super::compare_load;
use super::random::Random;
use crate::upstream::endpoint::Endpoint;

/// Picks the less loaded of two usable endpoints drawn by weight; of equals the first drawn, which
/// is random by weight.
pub(super) fn pick(
    random: &Random,
    endpoints: &[Endpoint],
    usable: impl Fn(usize) -> bool,
) -> Option<usize> {
    better(random, endpoints, usable, |a, b| compare_load(a, b).is_lt())
}

/// Draws two usable endpoints by weight and picks the second where it is `better` than the first.
pub(super) fn better(
    random: &Random,
    endpoints: &[Endpoint],
    usable: impl Fn(usize) -> bool,
    better: impl Fn(&Endpoint, &Endpoint) -> bool,
) -> Option<usize> {
    let first = random.draw()?;
    let drawn = match random.draw_other(first) {
        Some(second) if usable(first) && usable(second) => Some((first, second)),
        // There is only this one.
        None if usable(first) => return Some(first),
        _ => {
            let first = random.draw_among(&usable)?;
            match random.draw_among(|index| index != first && usable(index)) {
                Some(second) => Some((first, second)),
                None => return Some(first),
            }
        }
    };
    let (first, second) = drawn?;
    match (endpoints.get(first), endpoints.get(second)) {
        (Some(a), Some(b)) if better(b, a) => Some(second),
        _ => Some(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::endpoint::tests::{busy, endpoints};

    #[test]
    fn the_busiest_of_all_is_never_picked() {
        let endpoints = endpoints(&[1, 1, 1]);
        let random = Random::new(&[1, 1, 1]);
        let _busy = busy(&endpoints[1]);
        for _ in 0..1000 {
            assert_ne!(pick(&random, &endpoints, |_| true), Some(1));
        }
    }

    #[test]
    fn idle_endpoints_are_drawn_alike() {
        let endpoints = endpoints(&[1, 1, 1]);
        let random = Random::new(&[1, 1, 1]);
        let mut counts = [0u64; 3];
        (0..30_000).for_each(|_| counts[pick(&random, &endpoints, |_| true).unwrap()] += 1);
        let chi = crate::upstream::balance::random::tests::chi_square(&counts, &[1, 1, 1]);
        assert!(chi < 33.0, "{counts:?}");
    }

    #[test]
    fn whatever_is_usable_is_found() {
        let endpoints = endpoints(&[1, 2, 3]);
        let random = Random::new(&[1, 2, 3]);
        for _ in 0..100 {
            assert_eq!(pick(&random, &endpoints, |i| i == 2), Some(2));
            assert_ne!(pick(&random, &endpoints, |i| i != 0), Some(0));
        }
        assert_eq!(pick(&random, &endpoints, |_| false), None);
        assert_eq!(pick(&Random::new(&[1]), &endpoints[..1], |_| true), Some(0));
    }
}
