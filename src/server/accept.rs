//! Connections, accepted as far as the limit allows.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::share::{Sharing, is_time_to_tell};
use crate::net::listen::Listening;

/// How long accepting pauses when the process or the system is out of descriptors or memory:
/// trying again at once would only spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Minimum time between two log messages about pauses, over all listeners and workers.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Pauses of accepting, over all listeners and workers, and what was said of them.
#[derive(Debug, Default)]
pub struct Pauses(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    last: Option<Instant>,
    /// Pauses since then.
    pauses: u64,
}

impl Pauses {
    /// Counts one more pause at `now`. Returns how many there were since it was last said, where it is
    /// time to say so again.
    fn count(&self, now: Instant) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.pauses += 1;
        if said.last.is_some_and(|last| now < last + SAY_EVERY) {
            return None;
        }
        said.last = Some(now);
        Some(std::mem::take(&mut said.pauses))
    }
}

/// One worker's end of one listener.
#[derive(Debug)]
pub struct Acceptor {
    pub(super) socket: Listening,
    /// What becomes of connections.
    pub(super) sharing: Rc<Sharing>,
    /// Tells when to accept the rest and end.
    pub(super) closing: Rc<Notify>,
    pub(super) listening: Arc<AtomicUsize>,
    /// Shared by all.
    pub(super) pauses: Arc<Pauses>,
    /// When it was last said that connections have to wait.
    pub(super) told: Cell<Option<Instant>>,
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
        let Self { socket, sharing, .. } = self;
        let stats = sharing.worker.stats();
        loop {
            let Some((permit, waited)) = sharing.limits.permit().await else { return };
            match socket.accept() {
                Ok(accepted) => {
                    stats.accepted.add(1);
                    if waited {
                        self.tell_of_waiting();
                    }
                    sharing.take(accepted, permit);
                }
                Err(error) => match error.kind() {
                    std::io::ErrorKind::WouldBlock => return,
                    // The client has given up already.
                    std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::Interrupted => {}
                    _ => {
                        drop(permit);
                        stats.accept_pauses.add(1);
                        if let Some(pauses) = self.pauses.count(Instant::now()) {
                            let what = "out of descriptors or memory; accepting pauses";
                            tracing::warn!(%error, pauses, "{what}");
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
    }

    /// Says that connections have to wait, from time to time and not for each of them.
    fn tell_of_waiting(&self) {
        if is_time_to_tell(&self.told) {
            let address = &self.sharing.listener.config.address;
            tracing::warn!(%address, "max_connections is reached; new connections wait");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_said_at_once_and_then_from_time_to_time() {
        let (pauses, start) = (Pauses::default(), Instant::now());
        let after = |seconds| pauses.count(start + Duration::from_secs(seconds));
        assert_eq!([after(0), after(1), after(9), after(10)], [Some(1), None, None, Some(3)]);
        assert_eq!([after(11), after(100), after(101)], [None, Some(2), None]);
    }
}
