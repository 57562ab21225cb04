//! How many requests may be sent again at once: a share of the active ones, so that retries cannot
//! make an outage worse.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Retries that may run whatever the share is: where there is little traffic, a share of it is
/// nothing.
const FLOOR: u32 = 3;

/// The retries of one upstream that are running, over all workers.
#[derive(Debug, Default)]
pub struct Budget(Arc<AtomicU32>);

/// A retry that is running, until this is dropped.
#[derive(Debug)]
pub struct Retrying(Arc<AtomicU32>);

impl Budget {
    /// A place for one retry where `active` requests are under way and retries may be `share` of
    /// them; `None` where all places are taken.
    pub fn take(&self, active: u32, share: f64) -> Option<Retrying> {
        let limit = limit(active, share);
        let more = |running: u32| (running < limit).then_some(running + 1);
        self.0.try_update(Relaxed, Relaxed, more).ok().map(|_| Retrying(Arc::clone(&self.0)))
    }

    /// How many are running.
    pub fn running(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u32")]
fn limit(active: u32, share: f64) -> u32 {
    FLOOR.max((f64::from(active) * share) as u32)
}

impl Drop for Retrying {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_active_with_a_floor() {
        let budget = Budget::default();
        let running: Vec<_> = std::iter::from_fn(|| budget.take(100, 0.2)).collect();
        assert_eq!(running.len(), 20);
        assert_eq!(budget.running(), 20);
        drop(running);
        let few: Vec<_> = std::iter::from_fn(|| budget.take(1, 0.2)).collect();
        assert_eq!(few.len(), 3);
        drop(few);
        let none: Vec<_> = std::iter::from_fn(|| budget.take(1000, 0.0)).collect();
        assert_eq!(none.len(), 3, "the floor runs whatever the share is");
    }
}
