//! The end: nobody new, everybody finished, then out.

use std::sync::Arc;
use std::time::Duration;

use super::Ended;
use super::signals::Signals;
use super::state::Control;
use crate::config;
use crate::server::Workers;

/// How long handshakes that have begun may take once no new ones are let in, before the listening
/// sockets close: a few round trips.
const HANDSHAKES: Duration = Duration::from_millis(50);

/// How long tunnels may take to say that they end, once the deadline has passed.
const FAREWELLS: Duration = Duration::from_millis(500);

/// How often is looked whether everything is over.
const LOOK_EVERY: Duration = Duration::from_millis(10);

impl Control {
    /// Ends the workers: first `/readyz` fails, after the delay nobody new is let in, requests in
    /// flight finish, and what is left at the deadline is cut. A second signal cuts at once.
    pub(super) async fn drain(mut self, signals: &mut Signals) -> Ended {
        self.view.borrow_mut().is_ready = false;
        let Self { config, workers, care, view, .. } = &mut self;
        let shared = Arc::clone(&workers.shared);
        // What is still in flight is no less dear than before.
        let caring = async {
            loop {
                care.take(view, &shared).await;
            }
        };
        let ended = tokio::select! {
            ended = finish(workers, config.drain) => Some(ended),
            () = signals.next_end() => None,
            () = caring => None,
        };
        if ended.is_none() {
            tracing::warn!(connections = workers.connections(), "second signal; cut off");
        }
        self.workers.stop();
        ended.unwrap_or(Ended::Cut)
    }
}

/// Has tunnels say that they end, as far as they can in the time for that.
async fn close_tunnels(workers: &Workers) {
    workers.close_tunnels();
    let over = async {
        while workers.have_tunnels() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let _ = tokio::time::timeout(FAREWELLS, over).await;
}

async fn finish(workers: &mut Workers, drain: config::Drain) -> Ended {
    let undelivered = workers.undelivered();
    let ended = drain_connections(workers, drain).await;
    match workers.undelivered().saturating_sub(undelivered) {
        0 => {
            if ended == Ended::Drained {
                tracing::info!("drained");
            }
            ended
        }
        connections => {
            tracing::warn!(
                connections,
                "clients stopped reading; their last answers were not delivered"
            );
            Ended::Cut
        }
    }
}

async fn drain_connections(workers: &mut Workers, drain: config::Drain) -> Ended {
    tokio::time::sleep(drain.delay).await;
    workers.drain();
    workers.refuse_connections();
    tokio::time::sleep(HANDSHAKES).await;
    workers.close_listeners();
    let over = async {
        while !workers.are_idle() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    match tokio::time::timeout(drain.timeout, over).await {
        Ok(()) => Ended::Drained,
        Err(_) if workers.connections() == 0 => Ended::Drained,
        Err(_) => {
            let connections = workers.connections();
            close_tunnels(workers).await;
            tracing::warn!(connections, "the drain's deadline has passed; cut off");
            Ended::Cut
        }
    }
}
