//! Endpoints that could not be connected to, dialled in the background until they can, so that no
//! request pays for finding out.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use crate::error::{Error, Kind};
use crate::net::dial::dial_any;
use crate::upstream::endpoint::{Endpoint, State};

/// Dials at once, over all endpoints: a network that is gone makes each of them take its whole time.
pub const MAX_REDIALS: usize = 64;

/// The dials that are under way. They run as tasks beside whoever has this.
#[derive(Debug)]
pub struct Redials {
    /// The endpoints that are being dialled.
    under_way: HashSet<u64>,
    limit: Arc<Semaphore>,
    sender: UnboundedSender<Dialled>,
    done: UnboundedReceiver<Dialled>,
}

/// What has come of one.
#[derive(Debug)]
struct Dialled {
    state: Arc<State>,
    result: Result<(), Error>,
}

impl Default for Redials {
    fn default() -> Self {
        let (sender, done) = unbounded_channel();
        let limit = Arc::new(Semaphore::new(MAX_REDIALS));
        Self { under_way: HashSet::new(), limit, sender, done }
    }
}

impl Redials {
    /// Dials `endpoint`, if it is due for that and is not being dialled already, for at most
    /// `timeout` at each of its addresses.
    pub fn look_at(&mut self, endpoint: &Endpoint, timeout: Duration, now: Instant) {
        if !endpoint.state.is_due(now) || !self.under_way.insert(endpoint.state.id) {
            return;
        }
        let (endpoint, sender) = (endpoint.clone(), self.sender.clone());
        let limit = Arc::clone(&self.limit);
        tokio::task::spawn_local(async move {
            // Never closed.
            let _permit = limit.acquire().await;
            let result = reach(&endpoint, timeout).await;
            // Whoever waited for it may have ended.
            let _ = sender.send(Dialled { state: endpoint.state, result });
        });
    }

    /// Tells the endpoints that were dialled what has come of it.
    pub fn settle(&mut self, now: Instant) {
        while let Ok(Dialled { state, result }) = self.done.try_recv() {
            self.under_way.remove(&state.id);
            match result {
                Ok(()) => state.reached(now),
                Err(error) => {
                    tracing::debug!(endpoint = %state.label, %error, "still unreachable");
                    state.unreachable(now, error.kind);
                }
            }
        }
    }
}

/// Connects to one of the endpoint's addresses, and closes the connection.
async fn reach(endpoint: &Endpoint, timeout: Duration) -> Result<(), Error> {
    let failures = match dial_any(endpoint.dial_order(), timeout).await {
        Ok(dialled) => {
            endpoint.answered(dialled.index);
            return Ok(());
        }
        Err(failures) => failures,
    };
    let no_address = Error::new(Kind::Unroutable, "the endpoint has no address");
    Err(failures.last().map_or(no_address, Error::connecting))
}
