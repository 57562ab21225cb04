//! Connections, accepted as far as the limit allows.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::share::{Sharing, is_time_to_tell};
use crate::net::listen::Listening;

/// How long accepting pauses when the process or the system is out of descriptors or memory:
/// trying again at once would only spin.
const PAUSE: Duration = Duration::from_millis(100);

/// One worker's end of one listener.
#[derive(Debug)]
pub struct Acceptor {
    pub(super) socket: Listening,
    /// What becomes of connections.
    pub(super) sharing: Rc<Sharing>,
    /// Tells when to accept the rest and end.
    pub(super) closing: Rc<Notify>,
    pub(super) listening: Arc<AtomicUsize>,
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
            let address = &self.sharing.listener.config.address;
            tracing::warn!(%address, "max_connections is reached; new connections wait");
        }
    }
}
