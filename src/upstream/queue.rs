//! Where requests wait while a limit is reached: bounded in number and in time, and shared by all
//! workers, so that a place freed on one wakes a request on any.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::{self, QueueOrder};

/// The requests of one upstream that wait. The lock is held for a few instructions, and only by
/// those who wait or wake.
#[derive(Debug, Default)]
pub struct Queue {
    /// How many wait; all that has to be looked at where there are none.
    length: AtomicUsize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The oldest first.
    entries: VecDeque<Entry>,
    /// How many were woken, and have not yet said whether they found the place.
    woken: usize,
    next_ticket: u64,
    /// As the configuration has it, put here with every request that comes.
    is_adaptive: bool,
    size: usize,
}

#[derive(Debug)]
struct Entry {
    ticket: u64,
    wake: oneshot::Sender<()>,
    /// When this one is late, and the queue under pressure.
    late: Instant,
}

/// A request's place in the queue, given up when it is dropped.
#[derive(Debug)]
pub struct Ticket<'q> {
    queue: &'q Queue,
    number: u64,
    woken: oneshot::Receiver<()>,
    late: Instant,
}

impl Queue {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.length.load(Relaxed)
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lines up behind all others; `None` where the queue is full.
    pub fn join(&self, config: &config::Queue, now: Instant) -> Option<Ticket<'_>> {
        let mut waiting = self.lock();
        if waiting.entries.len() >= config.size {
            return None;
        }
        waiting.is_adaptive = config.order == QueueOrder::Adaptive;
        waiting.size = config.size;
        let (wake, woken) = oneshot::channel();
        let number = waiting.next_ticket;
        waiting.next_ticket += 1;
        let late = now + config.timeout / 2;
        waiting.entries.push_back(Entry { ticket: number, wake, late });
        self.length.store(waiting.entries.len(), Relaxed);
        Some(Ticket { queue: self, number, woken, late })
    }

    /// Wakes one that waits, since a place has become free: the oldest, but under pressure the
    /// newest, so that some are answered in time instead of all too late.
    pub fn wake_one(&self) {
        if !self.is_empty() {
            self.wake_one_at(Instant::now());
        }
    }

    /// Wakes as many as there is `room` for, those included that are on their way.
    pub fn wake_for(&self, room: usize, now: Instant) {
        let mut waiting = self.lock();
        while waiting.woken < room && waiting.wake_one(now) {}
        self.length.store(waiting.entries.len(), Relaxed);
    }

    fn wake_one_at(&self, now: Instant) {
        let mut waiting = self.lock();
        waiting.wake_one(now);
        self.length.store(waiting.entries.len(), Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Wakes the one whose turn it is; false where none waits.
    fn wake_one(&mut self, now: Instant) -> bool {
        loop {
            let is_pressed = self.entries.len() * 2 > self.size
                || self.entries.front().is_some_and(|oldest| now >= oldest.late);
            let next = match self.is_adaptive && is_pressed {
                true => self.entries.pop_back(),
                false => self.entries.pop_front(),
            };
            // One that has just given up is passed over.
            let Some(entry) = next else { return false };
            if entry.wake.send(()).is_ok() {
                self.woken += 1;
                return true;
            }
        }
    }
}

impl Ticket<'_> {
    /// Waits to be woken.
    pub async fn woken(&mut self) {
        // The sender is dropped only with its entry, which is gone once it has been woken.
        let _ = (&mut self.woken).await;
    }

    /// Lines up again where it was: somebody else took the place that it was woken for.
    pub fn rejoin(&mut self) {
        let mut waiting = self.queue.lock();
        waiting.woken = waiting.woken.saturating_sub(1);
        let (wake, woken) = oneshot::channel();
        self.woken = woken;
        let at = waiting.entries.partition_point(|entry| entry.ticket < self.number);
        waiting.entries.insert(at, Entry { ticket: self.number, wake, late: self.late });
        self.queue.length.store(waiting.entries.len(), Relaxed);
    }

    /// It has its place, for which it was woken.
    pub fn leave(mut self) {
        // Nothing is left to be passed on.
        self.woken.close();
        let _ = self.woken.try_recv();
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut waiting = self.queue.lock();
        if let Ok(at) = waiting.entries.binary_search_by_key(&self.number, |entry| entry.ticket) {
            waiting.entries.remove(at);
            self.queue.length.store(waiting.entries.len(), Relaxed);
            return;
        }
        waiting.woken = waiting.woken.saturating_sub(1);
        drop(waiting);
        // Woken, and gone without having used it: the place is another's.
        if self.woken.try_recv().is_ok() {
            self.queue.wake_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn config(size: usize, order: QueueOrder) -> config::Queue {
        config::Queue { size, timeout: Duration::from_secs(1), order }
    }

    /// Which of `tickets` have been woken.
    fn woken(tickets: &mut [Ticket<'_>]) -> Vec<usize> {
        let is_woken = |(index, ticket): (usize, &mut Ticket<'_>)| {
            ticket.woken.try_recv().is_ok().then_some(index)
        };
        tickets.iter_mut().enumerate().filter_map(is_woken).collect()
    }

    #[test]
    fn it_is_bounded_and_the_oldest_goes_first() {
        let (queue, config, now) = (Queue::default(), config(3, QueueOrder::Fifo), Instant::now());
        let mut tickets: Vec<_> = (0..3).map(|_| queue.join(&config, now).unwrap()).collect();
        assert!(queue.join(&config, now).is_none());
        for expected in 0..3 {
            queue.wake_one_at(now);
            assert_eq!(woken(&mut tickets), [expected]);
        }
        assert!(queue.is_empty());
        queue.wake_one_at(now);
    }

    #[test]
    fn under_pressure_the_newest_goes_first() {
        let config = config(4, QueueOrder::Adaptive);
        let (queue, now) = (Queue::default(), Instant::now());
        let mut tickets: Vec<_> = (0..2).map(|_| queue.join(&config, now).unwrap()).collect();
        queue.wake_one_at(now);
        assert_eq!(woken(&mut tickets), [0], "not half full");
        tickets.extend((0..3).map(|_| queue.join(&config, now).unwrap()));
        queue.wake_one_at(now);
        assert_eq!(woken(&mut tickets), [4], "full");
        queue.wake_one_at(now);
        assert_eq!(woken(&mut tickets), [3]);
        queue.wake_one_at(now + Duration::from_millis(500));
        assert_eq!(woken(&mut tickets), [2], "the oldest is late");
    }

    #[test]
    fn who_gives_up_is_passed_over_and_passes_on_what_it_was_woken_for() {
        let (queue, config, now) = (Queue::default(), config(9, QueueOrder::Fifo), Instant::now());
        let mut tickets: Vec<_> = (0..4).map(|_| queue.join(&config, now).unwrap()).collect();
        drop(tickets.remove(0));
        assert_eq!(queue.len(), 3);
        queue.wake_one_at(now);
        drop(tickets.remove(0));
        assert_eq!(woken(&mut tickets), [0], "the first was woken and had gone");
        queue.wake_one_at(now);
        tickets.remove(1).leave();
        assert!(queue.is_empty());
    }

    #[test]
    fn who_finds_the_place_taken_lines_up_where_it_was() {
        let (queue, config, now) = (Queue::default(), config(9, QueueOrder::Fifo), Instant::now());
        let mut tickets: Vec<_> = (0..3).map(|_| queue.join(&config, now).unwrap()).collect();
        queue.wake_one_at(now);
        assert_eq!(woken(&mut tickets), [0]);
        tickets[0].rejoin();
        queue.wake_one_at(now);
        assert_eq!(woken(&mut tickets), [0]);
        tickets[0].rejoin();
        assert_eq!(queue.len(), 3);
    }

    #[test]
    fn who_is_on_its_way_to_a_place_counts() {
        let (queue, config, now) = (Queue::default(), config(9, QueueOrder::Fifo), Instant::now());
        let mut tickets: Vec<_> = (0..5).map(|_| queue.join(&config, now).unwrap()).collect();
        queue.wake_one_at(now);
        queue.wake_for(1, now);
        assert_eq!(woken(&mut tickets), [0], "the room is that one's");
        queue.wake_for(3, now);
        assert_eq!(woken(&mut tickets), [1, 2]);
        tickets[1].rejoin();
        drop(tickets.remove(2));
        tickets.remove(0).leave();
        queue.wake_for(1, now);
        assert_eq!(woken(&mut tickets), [0], "none is on its way any more");
        drop(tickets.remove(1));
        queue.wake_for(9, now);
        assert_eq!((woken(&mut tickets), queue.len()), (vec![1], 0));
    }

    #[tokio::test]
    async fn a_place_freed_on_one_thread_wakes_a_request_on_another() {
        let (queue, config) = (std::sync::Arc::new(Queue::default()), config(1, QueueOrder::Fifo));
        let mut ticket = queue.join(&config, Instant::now()).unwrap();
        let other = std::sync::Arc::clone(&queue);
        let thread = std::thread::spawn(move || other.wake_one());
        ticket.woken().await;
        thread.join().unwrap();
        ticket.leave();
    }
}
