//! What the control thread does for endpoints all the time, also while the process ends: it takes
//! note of their checks, and looks after what changes by itself.

use std::cell::RefCell;
use std::sync::Arc;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::checkup::Checkup;
use super::view::View;
use crate::health::watch::{LOOK_EVERY, Watch};
use crate::proxy::worker::Shared;

/// Looks from one update of what the admin address shows of checks to the next.
const SHOW_EVERY: u32 = 10;

/// What it takes.
pub(super) struct Care {
    /// The checks.
    pub checkup: Checkup,
    watch: Watch,
    looks: Interval,
    /// How often was looked since checks were last shown.
    looked: u32,
}

impl Care {
    /// Of endpoints that nothing is known of yet.
    pub(super) fn new() -> Self {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { checkup: Checkup::default(), watch: Watch::default(), looks, looked: SHOW_EVERY }
    }

    /// Waits until there is something to do, and does it. Nothing is lost if the wait is given up.
    pub(super) async fn take(&mut self, view: &RefCell<View>, shared: &Shared) {
        let is_lost = tokio::select! {
            now = self.looks.tick() => self.look(view, now),
            is_lost = self.checkup.take() => is_lost,
        };
        if is_lost {
            shared.endpoint_lost();
        }
    }

    fn look(&mut self, view: &RefCell<View>, now: Instant) -> bool {
        let snapshot = Arc::clone(&view.borrow().snapshot);
        self.looked += 1;
        if self.looked >= SHOW_EVERY {
            self.looked = 0;
            view.borrow_mut().checks = self.checkup.tallies();
        }
        self.watch.look(&snapshot.upstreams, now)
    }
}
