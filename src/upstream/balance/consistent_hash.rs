//! The same endpoint for the same key, and few keys move when endpoints come and go: a ring of
//! points (Karger 1997), with bounded loads (Mirrokni, Thorup and Zadimoghaddam 2016).
//!
//! Points and keys are hashed by xxh3, without a secret, so that every instance and every run
//! agree. Somebody who makes up keys that all meet at one endpoint is stopped by the bound.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::random::Random;
use crate::upstream::endpoint::Endpoint;

/// Points for each unit of weight. An endpoint's share is off by about 1/sqrt(512), 4 %.
const POINTS: u64 = 512;

/// Requests that an endpoint may have in flight whatever the others have: as many as a browser sends
/// at once and a few more. With next to nothing in flight, one request would be above any bound.
const ALWAYS_ROOM: u32 = 8;

/// The most points of a ring, 1 MiB; above it all get half as many, and again. By halves, so that
/// few keys move at other changes. One for each endpoint there is always.
const MAX_POINTS: u64 = 1 << 16;

/// The place on the ring of a key; the same on every instance.
pub fn key(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// A ring over the endpoints of one upstream.
#[derive(Debug)]
pub struct ConsistentHash {
    /// In the order of the ring: where, and the endpoint's index.
    points: Box<[(u64, u32)]>,
    weights: Box<[u32]>,
    /// How far above its share of the load an endpoint may go.
    bound: f64,
    /// For requests that have no key.
    random: Random,
}

impl ConsistentHash {
    /// Over endpoints of these labels and weights.
    pub(super) fn new<'a>(
        labels: impl Iterator<Item = &'a str>,
        weights: &[u32],
        bound: f64,
    ) -> Self {
        let total: u64 = weights.iter().map(|w| u64::from(*w) * POINTS).sum();
        let halvings = total.div_ceil(MAX_POINTS).max(1).next_power_of_two().ilog2();
        let mut points = Vec::new();
        for (index, (label, weight)) in (0..).zip(labels.zip(weights)) {
            let count = ((u64::from(*weight) * POINTS) >> halvings).max(u64::from(*weight > 0));
            // Seed 0 is the keys'. An endpoint's points depend on nothing but itself.
            let hashes = (1..=count).map(|seed| xxh3_64_with_seed(label.as_bytes(), seed));
            points.extend(hashes.map(|hash| (hash, index)));
        }
        points.sort_unstable();
        Self { points: points.into(), weights: weights.into(), bound, random: Random::new(weights) }
    }

    /// Picks the first usable endpoint from `key` on around the ring that has less in flight than
    /// the bound; without a key one at random by weight.
    pub(super) fn pick(
        &self,
        key: Option<u64>,
        endpoints: &[Endpoint],
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let Some(key) = key else {
            return self.random.pick(usable);
        };
        let first = self.from(key).next()?;
        // It may have a few whatever the others have, which spares summing them up.
        let has_few = endpoints.get(first).is_some_and(|e| e.state.in_flight() < ALWAYS_ROOM);
        if has_few && usable(first) { Some(first) } else { self.walk(key, endpoints, usable) }
    }

    /// Around the ring to the first endpoint that can take one more. An endpoint may have
    /// ceil(bound x (all in flight + 1) x its share of the weight), of those that are usable, and
    /// always [`ALWAYS_ROOM`]; as the bound is above 1, that is more than there are in flight, so
    /// one of them has room.
    fn walk(
        &self,
        key: u64,
        endpoints: &[Endpoint],
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let load = |index: usize| endpoints.get(index).map_or(0, |e| e.state.in_flight());
        let weight = |index: usize| self.weights.get(index).copied().unwrap_or(0);
        let mut ahead: Vec<bool> =
            (0..self.weights.len()).map(|index| weight(index) > 0 && usable(index)).collect();
        let (mut left, mut weights, mut loads) = (0, 0.0, 1.0);
        for (index, _) in ahead.iter().enumerate().filter(|(_, ahead)| **ahead) {
            left += 1;
            weights += f64::from(weight(index));
            loads += f64::from(load(index));
        }
        let mut nearest = None;
        for index in self.from(key) {
            if left == 0 {
                break;
            }
            let Some(ahead) = ahead.get_mut(index).filter(|ahead| **ahead) else { continue };
            *ahead = false;
            left -= 1;
            let room = (self.bound * loads * f64::from(weight(index)) / weights).ceil();
            if f64::from(load(index)) < room.max(f64::from(ALWAYS_ROOM)) {
                return Some(index);
            }
            nearest.get_or_insert(index);
        }
        // Only where loads have changed since they were summed.
        nearest
    }

    /// The endpoints of the points from `key` on, once around.
    fn from(&self, key: u64) -> impl Iterator<Item = usize> {
        let start = self.points.partition_point(|(at, _)| *at < key);
        let (before, after) = self.points.split_at(start);
        after.iter().chain(before).map(|(_, index)| *index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::balance::random::tests::chi_square;
    use crate::upstream::endpoint::tests::{busy, endpoints};

    const KEYS: u64 = 100_000;

    fn labels(n: usize) -> Vec<String> {
        (0..n).map(|n| format!("http://10.0.0.{n}:8080")).collect()
    }

    fn ring(labels: &[String], weights: &[u32], bound: f64) -> ConsistentHash {
        ConsistentHash::new(labels.iter().map(String::as_str), weights, bound)
    }

    fn keys() -> impl Iterator<Item = u64> {
        (0..KEYS).map(|n| key(format!("user-{n}").as_bytes()))
    }

    #[test]
    fn shares_are_in_proportion_to_the_weights() {
        for weights in [&[1; 10][..], &[1, 2, 3, 4], &[256, 256, 128, 0], &[100; 30]] {
            let (ring, endpoints) =
                (ring(&labels(weights.len()), weights, 1.5), endpoints(weights));
            let mut counts = vec![0u64; weights.len()];
            keys().for_each(|k| counts[ring.pick(Some(k), &endpoints, |_| true).unwrap()] += 1);
            let total: u32 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(weights) {
                let expected = KEYS as f64 * f64::from(*weight) / f64::from(total);
                let off = (*count as f64 - expected).abs() / expected.max(1.0);
                assert!(off < 0.15, "{weights:?}: {count} for {expected:.0}");
            }
            assert!(ring.points.len() as u64 <= MAX_POINTS);
        }
    }

    #[test]
    fn only_the_keys_of_the_one_that_went_away_move() {
        let (labels, weights) = (labels(10), [1; 10]);
        let (before, after) =
            (ring(&labels, &weights, 1.5), ring(&labels[..9], &weights[..9], 1.5));
        let endpoints = endpoints(&weights);
        let (mut moved, mut others) = (0u64, 0u64);
        for key in keys() {
            let was = before.pick(Some(key), &endpoints, |_| true);
            let is = after.pick(Some(key), &endpoints, |_| true);
            moved += u64::from(was == Some(9));
            others += u64::from(was != Some(9) && was != is);
        }
        assert_eq!(others, 0, "moved: {moved} of the one that went, {others} of others");
        let share = moved as f64 / KEYS as f64;
        assert!((0.08..0.12).contains(&share), "{moved} of {KEYS} moved");
    }

    #[test]
    fn unusable_ones_are_passed_over_as_if_they_were_not_there() {
        // A key's second choice is where it would go without its first, and so on.
        let (labels, weights) = (labels(5), [1; 5]);
        let ring_of_all = ring(&labels, &weights, 1.5);
        let without = ring(&labels, &[1, 0, 1, 1, 0], 1.5);
        let endpoints = endpoints(&weights);
        let mut to = [0u64; 5];
        for key in keys() {
            let picked = ring_of_all.pick(Some(key), &endpoints, |i| i != 1 && i != 4);
            assert_eq!(picked, without.pick(Some(key), &endpoints, |_| true));
            to[picked.unwrap()] += 1;
        }
        assert!(to[0].min(to[2]).min(to[3]) > KEYS / 5, "spread over all others: {to:?}");
        assert_eq!(ring_of_all.pick(Some(7), &endpoints, |_| false), None);
        assert_eq!(ring(&[], &[], 1.5).pick(Some(7), &[], |_| true), None);
        assert_eq!(ring(&labels, &[0; 5], 1.5).pick(Some(7), &endpoints, |_| true), None);
    }

    #[test]
    fn no_load_goes_above_the_bound_and_keys_go_back_below_it() {
        for bound in [1.05, 1.5, 3.0] {
            let weights = [1, 1, 2];
            let (ring, endpoints) = (ring(&labels(3), &weights, bound), endpoints(&weights));
            let hot = key(b"hot");
            let first = ring.pick(Some(hot), &endpoints, |_| true).unwrap();
            let mut in_flight = Vec::new();
            for n in 1..=400u32 {
                let picked = ring.pick(Some(hot), &endpoints, |_| true).unwrap();
                in_flight.push(busy(&endpoints[picked]));
                let share = f64::from(weights[picked]) / 4.0;
                let load = f64::from(endpoints[picked].state.in_flight());
                let room = (bound * f64::from(n) * share).ceil();
                let room = room.max(f64::from(ALWAYS_ROOM));
                assert!(load <= room, "{bound}: {load} of {n} in flight, room for {room}");
            }
            let load = f64::from(endpoints[first].state.in_flight());
            let room = (bound * 400.0 * f64::from(weights[first]) / 4.0).min(400.0);
            assert!(load > 0.95 * room, "{bound}: only {load} of {room} at the first choice");
            in_flight.clear();
            assert_eq!(ring.pick(Some(hot), &endpoints, |_| true), Some(first));
        }
    }

    #[test]
    fn without_a_key_it_is_random_by_weight() {
        let weights = [1, 5, 2];
        let (ring, endpoints) = (ring(&labels(3), &weights, 1.5), endpoints(&weights));
        let mut counts = [0u64; 3];
        (0..30_000).for_each(|_| counts[ring.pick(None, &endpoints, |_| true).unwrap()] += 1);
        assert!(chi_square(&counts, &weights) < 33.0, "{counts:?}");
    }

    #[test]
    fn every_run_and_every_version_agrees() {
        let (ring, endpoints) = (ring(&labels(4), &[1; 4], 1.5), endpoints(&[1; 4]));
        let picked: Vec<_> = ["a", "b", "c", "d", "e", "f"]
            .map(|k| ring.pick(Some(key(k.as_bytes())), &endpoints, |_| true).unwrap())
            .into();
        assert_eq!(key(b"a"), 0xe6c6_32b6_1e96_4e1f, "xxh3's own value");
        assert_eq!(picked, [3, 1, 0, 3, 0, 2], "a change would move the keys of every user");
    }
}
