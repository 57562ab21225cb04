//! The connections of the admin address, whose number is limited. A new one replaces the one without a request for
//! the longest time, so that slow clients do not delay probes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::Instant;

/// The limit of open connections. A scraper or probe has one or two and sends its request at once, so it is replaced
/// only if this many others connect in between.
const MAX_CONNECTIONS: usize = 64;

/// All connections.
#[derive(Debug, Default)]
pub(super) struct AdminConnections(RefCell<Vec<Rc<SlotState>>>);

#[derive(Debug)]
struct SlotState {
    /// When the last request came, or the connection was opened.
    last_request: Cell<Instant>,
    evicted: Notify,
}

/// One connection's slot, freed when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    all: Rc<AdminConnections>,
    own: Rc<SlotState>,
}

impl AdminConnections {
    /// Opens a slot for a connection accepted at `now`, and evicts another one if all are taken.
    pub(super) fn open(self: &Rc<Self>, now: Instant) -> Slot {
        let own = Rc::new(SlotState { last_request: Cell::new(now), evicted: Notify::new() });
        let mut all = self.0.borrow_mut();
        if all.len() >= MAX_CONNECTIONS {
            let longest = all.iter().enumerate().min_by_key(|(_, one)| one.last_request.get());
            if let Some((index, _)) = longest {
                all.swap_remove(index).evicted.notify_one();
            }
        }
        all.push(Rc::clone(&own));
        Slot { all: Rc::clone(self), own }
    }
}

impl Slot {
    /// Notes that a request comes at `now`.
    pub(super) fn note_request(&self, now: Instant) {
        self.own.last_request.set(now);
    }

    /// Waits until another connection needs the slot.
    pub(super) async fn evicted(&self) {
        self.own.evicted.notified().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.all.0.borrow_mut().retain(|one| !Rc::ptr_eq(one, &self.own));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_connection_without_a_request_for_longest_is_evicted() {
        let (all, start) = (Rc::new(AdminConnections::default()), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut slots: Vec<_> = (0..64).map(|second| all.open(at(second))).collect();
        slots[0].note_request(at(100));
        let new = all.open(at(101));
        slots[1].evicted().await;
        assert_eq!(all.0.borrow().len(), MAX_CONNECTIONS);
        drop(slots.remove(1));
        assert_eq!(all.0.borrow().len(), MAX_CONNECTIONS, "the new one has its slot");
        drop((slots, new));
        assert!(all.0.borrow().is_empty());
    }
}
