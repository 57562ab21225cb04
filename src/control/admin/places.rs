//! The connections of the admin address, whose number is limited. The one that has said nothing for longest
//! makes room for a new one, so that slow clients do not hold up probes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Connections at once. Whoever scrapes or probes has one or two, and asks as soon as it is connected:
/// before it has to make room, so many others must have come.
const MAX_CONNECTIONS: usize = 64;

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Places(RefCell<Vec<Rc<Waiting>>>);

#[derive(Debug)]
struct Waiting {
    /// When it last asked, or came.
    since: Cell<Instant>,
    evicted: Notify,
}

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    all: Rc<Places>,
    own: Rc<Waiting>,
}

impl Places {
    /// A place for a connection that comes at `now`.
    pub(super) fn enter(self: &Rc<Self>, now: Instant) -> Place {
        let own = Rc::new(Waiting { since: Cell::new(now), evicted: Notify::new() });
        let mut all = self.0.borrow_mut();
        if all.len() >= MAX_CONNECTIONS {
            let longest = all.iter().enumerate().min_by_key(|(_, one)| one.since.get());
            if let Some((index, _)) = longest {
                all.swap_remove(index).evicted.notify_one();
            }
        }
        all.push(Rc::clone(&own));
        Place { all: Rc::clone(self), own }
    }
}

impl Place {
    /// The connection asks something at `now`.
    pub(super) fn asks(&self, now: Instant) {
        self.own.since.set(now);
    }

    /// Waits until it has to make room.
    pub(super) async fn evicted(&self) {
        self.own.evicted.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.0.borrow_mut().retain(|one| !Rc::ptr_eq(one, &self.own));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_has_said_nothing_for_longest_makes_room() {
        let (all, start) = (Rc::new(Places::default()), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut places: Vec<_> = (0..64).map(|second| all.enter(at(second))).collect();
        places[0].asks(at(100));
        let new = all.enter(at(101));
        places[1].evicted().await;
        assert_eq!(all.0.borrow().len(), MAX_CONNECTIONS);
        drop(places.remove(1));
        assert_eq!(all.0.borrow().len(), MAX_CONNECTIONS, "its place is the new one's");
        drop((places, new));
        assert!(all.0.borrow().is_empty());
    }
}
