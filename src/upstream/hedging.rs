//! How many second endpoints may be asked in vain.
//!
//! Asking a second endpoint helps where the first one is slow. Where it is the request that takes
//! long, the second endpoint takes as long, and hedging after the 95th percentile sends just the most
//! expensive requests twice. What waits because of that looks slow in turn and is sent twice as
//! well, and the upstream does not come back from there. Whether a hedge helps is seen by who answers
//! first, so those that lose are what is limited, as gRPC's throttle limits by what fails.

use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

/// Of so many requests one may be sent to a second endpoint in vain.
const IN_VAIN: i32 = 100;

/// So many may at once, or after a time in which none was.
const AT_ONCE: i32 = 20;

/// What one upstream's requests have earned and its hedges have cost, over all workers.
#[derive(Debug)]
pub struct Hedging(AtomicI32);

impl Default for Hedging {
    fn default() -> Self {
        Self(AtomicI32::new(IN_VAIN * AT_ONCE))
    }
}

impl Hedging {
    /// A request has come that may be hedged.
    pub fn earn(&self) {
        self.add(1);
    }

    /// Whether a second endpoint may be asked now.
    pub fn may_ask(&self) -> bool {
        self.0.load(Relaxed) >= IN_VAIN
    }

    /// A second endpoint has been asked: in vain, as far as is known.
    pub fn asked(&self) {
        self.0.fetch_sub(IN_VAIN, Relaxed);
    }

    /// It answered first.
    pub fn won(&self) {
        self.add(IN_VAIN);
    }

    fn add(&self, earned: i32) {
        // Mostly it is full, and nothing is written. Two that add at once may both pass the limit by
        // what they add, which does no harm.
        if self.0.load(Relaxed) < IN_VAIN * AT_ONCE {
            self.0.fetch_add(earned, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `requests` are hedged where each wants to be and all are `in_vain`, or none is.
    fn hedged(hedging: &Hedging, requests: u32, in_vain: bool) -> u32 {
        let hedged = (0..requests).filter(|_| {
            hedging.earn();
            let may = hedging.may_ask();
            if may {
                hedging.asked();
            }
            if may && !in_vain {
                hedging.won();
            }
            may
        });
        u32::try_from(hedged.count()).unwrap()
    }

    #[test]
    fn hedges_that_win_are_free_and_those_in_vain_become_rare() {
        let hedging = Hedging::default();
        assert_eq!(hedged(&hedging, 10_000, false), 10_000);
        assert_eq!(hedged(&hedging, 20, true), 20);
        assert_eq!(hedged(&hedging, 10_000, true), 100);
        assert!(hedged(&hedging, 10_000, false) >= 9_900, "the first after a hundred requests");
        let _ = hedged(&hedging, 100, true);
        (0..10_000).for_each(|_| hedging.earn());
        assert_eq!(hedged(&hedging, 30, true), 20, "what is saved has an end");
    }
}
