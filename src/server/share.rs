//! Connections, shared out: the kernel spreads them over the workers by a hash, which evens out
//! many but not few; so a fresh one goes to the worker that has the fewest, once it is known whose it is.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, timeout};

use super::Command;
use crate::net::admission::{Limits, Place};
use crate::net::listen::Accepted;
use crate::net::origin::take_header;
use crate::proxy::connection::{refuse, serve};
use crate::proxy::worker::{Listener, Worker};

/// How often the same is said again.
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

/// What one worker does with the connections of one listener.
#[derive(Debug)]
pub struct Sharing {
    pub(super) worker: Rc<Worker>,
    pub(super) listener: Rc<Listener>,
    /// Which listener.
    pub(super) number: usize,
    pub(super) limits: Limits,
    pub(super) workers: Vec<UnboundedSender<Command>>,
    /// When it was last said that a client has too many connections.
    pub(super) told_of_refusal: Cell<Option<Instant>>,
    /// When it was last said that a peer does not begin with a PROXY protocol header.
    pub(super) told_of_header: Cell<Option<Instant>>,
    /// Held once by each connection that is being refused.
    pub(super) refusing: Rc<()>,
}

impl Sharing {
    /// Takes a connection that was accepted, and counts it. One whose peer has to say first whose it
    /// is waits for that.
    pub(super) fn take(self: &Rc<Self>, accepted: Accepted, permit: OwnedSemaphorePermit) {
        let all = &self.worker.shared.stats;
        if let Some(own) = all.get(self.worker.index) {
            own.connections.fetch_add(1, Relaxed);
        }
        if !self.listener.is_proxied(accepted.peer.ip()) {
            return self.place(accepted, permit);
        }
        let sharing = Rc::clone(self);
        tokio::task::spawn_local(async move {
            match sharing.introduced(accepted).await {
                Some(accepted) => sharing.place(accepted, permit),
                None => sharing.worker.count_connection_closed(),
            }
        });
    }

    /// The connection behind its PROXY protocol header. One without is closed, since whatever it
    /// begins with says nothing that could be believed.
    async fn introduced(&self, accepted: Accepted) -> Option<Accepted> {
        let peer = accepted.peer.ip();
        let why =
            match timeout(self.listener.config.timeouts.handshake, take_header(accepted)).await {
                Ok(Ok(accepted)) => return accepted,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the header did not come in time".to_owned(),
            };
        self.worker.stats().proxy_protocol_errors.add(1);
        tracing::debug!(%peer, "no PROXY protocol header: {why}");
        if is_time_to_tell(&self.told_of_header) {
            let address = &self.listener.config.address;
            let whose = "a peer in `proxy_protocol` did not begin with a PROXY header; closed";
            tracing::warn!(%peer, %address, %why, "{whose}");
        }
        None
    }

    /// Hands `accepted` to the worker that has the fewest connections, unless its client has too
    /// many already.
    fn place(&self, accepted: Accepted, permit: OwnedSemaphorePermit) {
        let client = accepted.client();
        let is_exempt = self.listener.trusts(client);
        let Some(place) = self.limits.place(permit, client, is_exempt) else {
            return self.refuse(accepted);
        };
        let (all, own) = (&self.worker.shared.stats, self.worker.index);
        // Without this one.
        let load = |(index, open): (usize, usize)| open.saturating_sub(usize::from(index == own));
        let loads = all.iter().map(|stats| stats.connections.load(Relaxed)).enumerate().map(load);
        let target = least_loaded(loads, own);
        match (self.workers.get(target), all.get(target)) {
            (Some(other), Some(stats)) if target != own => {
                stats.connections.fetch_add(1, Relaxed);
                self.worker.count_connection_closed();
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

    /// Answers a client that has too many connections, as far as that costs nothing much. One that
    /// speaks TLS could not read it.
    fn refuse(&self, accepted: Accepted) {
        self.worker.count_connection_closed();
        self.worker.stats().refused.add(1);
        let client = accepted.client();
        if is_time_to_tell(&self.told_of_refusal) {
            tracing::warn!(%client, "max_connections_per_client is reached; refused");
        }
        if self.listener.tls.is_none() && Rc::strong_count(&self.refusing) <= MAX_REFUSING {
            let (worker, refusing) = (Rc::clone(&self.worker), Rc::clone(&self.refusing));
            tokio::task::spawn_local(async move {
                refuse(&worker, accepted).await;
                drop(refusing);
            });
        }
    }
}

/// Whether it is time to say again what was last said `told`.
pub(super) fn is_time_to_tell(told: &Cell<Option<Instant>>) -> bool {
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
