//! Connections, shared out: the kernel spreads them over the workers by a hash, which evens out
//! many but not few; so a fresh one goes to the worker that has the fewest.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

use super::Command;
use crate::net::admission::{Limits, Place};
use crate::net::listen::{Accepted, Listening};
use crate::proxy::connection::{refuse, serve};
use crate::proxy::worker::{Listener, Worker};

/// How long accepting pauses when the process or the system is out of descriptors or memory:
/// trying again at once would only spin.
const PAUSE: Duration = Duration::from_millis(100);

/// How often it is said that connections have to wait.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Connections of clients with too many that are answered at once by one worker; more are closed
/// without a word, so that refusing is never much work.
const MAX_REFUSING: usize = 64;

/// A connection on its way to another worker. Its place under the listener's limits goes with it.
#[derive(Debug)]
pub struct Handed {
    /// The connection, not known to any runtime yet.
    pub accepted: Accepted,
    /// Its place under the limits.
    pub place: Place,
    /// Which listener it came to.
    pub listener: usize,
}

/// One worker's end of one listener.
#[derive(Debug)]
pub struct Acceptor {
    pub(super) worker: Rc<Worker>,
    pub(super) listener: Rc<Listener>,
    /// Which listener.
    pub(super) number: usize,
    pub(super) socket: Listening,
    pub(super) limits: Limits,
    pub(super) workers: Vec<UnboundedSender<Command>>,
    /// Tells when to accept the rest and end.
    pub(super) closing: Rc<Notify>,
    pub(super) listening: Arc<AtomicUsize>,
    /// When it was last said that connections have to wait.
    pub(super) told: Cell<Option<Instant>>,
    /// When it was last said that a client has too many connections.
    pub(super) told_of_refusal: Cell<Option<Instant>>,
    /// Held once by each connection that is being refused.
    pub(super) refusing: Rc<()>,
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.listening.fetch_sub(1, Relaxed);
    }
}

/// Accepts connections until told to close, then those that still wait.
pub async fn accept(acceptor: Acceptor) {
    let closing = acceptor.closing.clone();
    let mut closed = std::pin::pin!(closing.notified());
    let mut is_closing = false;
    loop {
        if !is_closing {
            tokio::select! {
                biased;
                ready = acceptor.socket.readable() => if ready.is_err() { return },
                () = closed.as_mut() => is_closing = true,
            }
        }
        acceptor.accept_waiting().await;
        if is_closing {
            return;
        }
    }
}

impl Acceptor {
    /// Accepts what waits, as far as the limit allows.
    async fn accept_waiting(&self) {
        let stats = self.worker.stats();
        loop {
            let Some((permit, waited)) = self.limits.permit().await else { return };
            match self.socket.accept() {
                Ok(accepted) => {
                    stats.accepted.add(1);
                    if waited {
                        self.tell_of_waiting();
                    }
                    self.place(accepted, permit);
                }
                Err(error) => match error.kind() {
                    std::io::ErrorKind::WouldBlock => return,
                    // The client has given up already.
                    std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::Interrupted => {}
                    _ => {
                        drop(permit);
                        stats.accept_pauses.add(1);
                        tracing::warn!(%error, "out of descriptors or memory; accepting pauses");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
    }

    /// Says that connections have to wait, from time to time and not for each of them.
    fn tell_of_waiting(&self) {
        if is_time_to_tell(&self.told) {
            let address = &self.listener.config.address;
            tracing::warn!(%address, "max_connections is reached; new connections wait");
        }
    }

    /// Hands `accepted` to the worker that has the fewest connections, unless its client has too
    /// many already.
    fn place(&self, accepted: Accepted, permit: OwnedSemaphorePermit) {
        let client = accepted.peer.ip();
        let is_exempt = self.listener.trusts(client);
        let Some(place) = self.limits.place(permit, client, is_exempt) else {
            return self.refuse(accepted);
        };
        let all = &self.worker.shared.stats;
        let loads = all.iter().map(|stats| stats.connections.load(Relaxed));
        let target = least_loaded(loads, self.worker.index);
        if let Some(stats) = all.get(target) {
            stats.connections.fetch_add(1, Relaxed);
        }
        match self.workers.get(target) {
            Some(other) if target != self.worker.index => {
                self.worker.stats().handed_over.add(1);
                // A worker that is gone takes its connections with it.
                let handed = Handed { accepted, place, listener: self.number };
                let _ = other.send(Command::Serve(handed));
            }
            _ => {
                let (worker, listener) = (Rc::clone(&self.worker), Rc::clone(&self.listener));
                serve(worker, listener, accepted, place);
            }
        }
    }

    /// Answers a client that has too many connections, as far as that costs nothing much.
    fn refuse(&self, accepted: Accepted) {
        self.worker.stats().refused.add(1);
        let client = accepted.peer.ip();
        if is_time_to_tell(&self.told_of_refusal) {
            tracing::warn!(%client, "max_connections_per_client is reached; refused with 429");
        }
        if Rc::strong_count(&self.refusing) <= MAX_REFUSING {
            let (worker, refusing) = (Rc::clone(&self.worker), Rc::clone(&self.refusing));
            tokio::task::spawn_local(async move {
                refuse(&worker, accepted).await;
                drop(refusing);
            });
        }
    }
}

/// Whether it is time to say again what was last said `told`.
fn is_time_to_tell(told: &Cell<Option<Instant>>) -> bool {
    let now = Instant::now();
    let is_time = told.get().is_none_or(|told| now > told + TELL_EVERY);
    if is_time {
        told.set(Some(now));
    }
    is_time
}

/// The worker with the fewest connections; `own` unless the difference is worth a hand-over, which
/// wakes another core: any difference among few, an eighth among many.
fn least_loaded(loads: impl Iterator<Item = usize> + Clone, own: usize) -> usize {
    let least = loads.clone().enumerate().min_by_key(|(_, load)| *load);
    let mine = loads.clone().nth(own).unwrap_or(0);
    match least {
        Some((index, load)) if mine > load + load / 8 => index,
        _ => own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_shared_out_exactly_and_many_nearly() {
        let to = |loads: &[usize], own| least_loaded(loads.iter().copied(), own);
        assert_eq!(to(&[0, 0], 1), 1);
        assert_eq!(to(&[1, 0], 0), 1);
        assert_eq!(to(&[7, 8, 9], 2), 0);
        assert_eq!(to(&[800, 850], 1), 1);
        assert_eq!(to(&[800, 901], 1), 0);
    }

    #[test]
    fn whichever_worker_the_kernel_chooses_few_connections_end_up_even() {
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut loads = [0usize; 2];
            for _ in 0..16 {
                let own = random.usize(..2);
                loads[least_loaded(loads.iter().copied(), own)] += 1;
            }
            assert!(loads[0].abs_diff(loads[1]) <= 2, "{loads:?}");
        }
    }
}
