//! The end: nobody new, everybody finished, then out.

use std::time::Duration;

use super::signals::Signals;
use super::{Control, Ended};

/// How long handshakes that have begun may take once no new ones are let in, before the listening
/// sockets close: a few round trips.
const HANDSHAKES: Duration = Duration::from_millis(50);

/// How often is looked whether everything is over.
const LOOK_EVERY: Duration = Duration::from_millis(10);

impl Control {
    /// Ends the workers: first `/readyz` fails, after the delay nobody new is let in, requests in
    /// flight finish, and what is left at the deadline is cut. A second signal cuts at once.
    pub(super) async fn drain(mut self, signals: &mut Signals) -> Ended {
        self.view.borrow_mut().is_ready = false;
        let ended = tokio::select! {
            ended = self.finish() => ended,
            () = signals.next_end() => {
                tracing::warn!(connections = self.workers.connections(), "second signal; cut off");
                Ended::Cut
            }
        };
        self.workers.stop();
        ended
    }

    async fn finish(&mut self) -> Ended {
        let drain = self.config.drain;
        tokio::time::sleep(drain.delay).await;
        self.workers.drain();
        self.workers.refuse_connections();
        tokio::time::sleep(HANDSHAKES).await;
        self.workers.close_listeners();
        let over = async {
            while !self.workers.are_idle() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        match tokio::time::timeout(drain.timeout, over).await {
            Ok(()) => {
                tracing::info!("drained");
                Ended::Drained
            }
            Err(_) if self.workers.connections() == 0 => Ended::Drained,
            Err(_) => {
                let connections = self.workers.connections();
                tracing::warn!(connections, "the drain's deadline has passed; cut off");
                Ended::Cut
            }
        }
    }
}
