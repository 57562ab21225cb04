//! Endpoints that could not be connected to, dialled in the background until they can, so that no
//! request pays for finding out.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use super::check::introduce;
use crate::config::ProxyVersion;
use crate::error::{Error, Kind};
use crate::net::dial::{Dialled, dial_any};
use crate::net::stream::Stream;
use crate::net::tls::client;
use crate::upstream::Upstream;
use crate::upstream::endpoint::{Endpoint, Protocol, State};
use crate::upstream::http2::Begun;

/// Dials at once, over all endpoints: a network that is gone makes each of them take its whole time.
pub const MAX_REDIALS: usize = 64;

/// The dials that are under way. They run as tasks beside whoever has this.
#[derive(Debug)]
pub struct Redials {
    /// The endpoints that are being dialled.
    under_way: HashSet<u64>,
    limit: Arc<Semaphore>,
    sender: UnboundedSender<Outcome>,
    done: UnboundedReceiver<Outcome>,
}

/// What has come of one dial.
#[derive(Debug)]
struct Outcome {
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
    /// Dials `endpoint` of `upstream`, if it is due for that and is not being dialled already, for as long
    /// as a request would.
    pub fn look_at(&mut self, upstream: &Upstream, endpoint: &Endpoint, now: Instant) {
        if !endpoint.state.is_due(now) || !self.under_way.insert(endpoint.state.id) {
            return;
        }
        let (endpoint, sender) = (endpoint.clone(), self.sender.clone());
        let limit = Arc::clone(&self.limit);
        let (proxy, timeout) = (upstream.config.proxy_protocol, upstream.config.timeouts.connect);
        tokio::task::spawn_local(async move {
            // Never closed.
            let _permit = limit.acquire().await;
            let result = reach(&endpoint, proxy, timeout).await;
            // Whoever waited for it may have ended.
            let _ = sender.send(Outcome { state: endpoint.state, result });
        });
    }

    /// Tells the endpoints that were dialled what has come of it.
    pub fn settle(&mut self, now: Instant) {
        while let Ok(Outcome { state, result }) = self.done.try_recv() {
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

/// How long an endpoint has to say that it does not take our certificate, behind a handshake that was over
/// for us before: a round trip.
const REFUSAL: Duration = Duration::from_millis(250);

/// Whether the endpoint at the other end of `stream` still wants to speak to us.
async fn is_taken(mut stream: Stream) -> Result<(), Error> {
    match tokio::time::timeout(REFUSAL, stream.read(&mut [0])).await {
        Ok(Err(error)) => Err(client::refusal(&error).unwrap_or(CLOSED)),
        // It owes nothing, and may close a connection that has nothing to ask.
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

const CLOSED: Error =
    Error::new(Kind::ConnectionRefused, "the endpoint closed the connection at once");
const LATE: Error = Error::new(Kind::ConnectionTimeout, "the handshake did not end in time");

/// Connects to one of the endpoint's addresses, up to where a request could be sent, and closes the
/// connection.
async fn reach(
    endpoint: &Endpoint,
    proxy: Option<ProxyVersion>,
    timeout: Duration,
) -> Result<(), Error> {
    let Dialled { index, mut stream, .. } = match dial_any(endpoint.dial_order(), timeout).await {
        Ok(dialled) => dialled,
        Err(failures) => {
            let no_address = Error::new(Kind::Unroutable, "the endpoint has no address");
            return Err(failures.last().map_or(no_address, Error::connecting));
        }
    };
    endpoint.answered(index);
    let begin = async {
        if let Some(version) = proxy {
            introduce(&mut stream, version).await.map_err(|_| CLOSED)?;
        }
        let (stream, is_http2) = match &endpoint.protocol {
            Protocol::Http1 => return Ok(()),
            Protocol::Http2 => (stream, true),
            Protocol::Tls { tls, http2 } => {
                let agreed = client::agree(tls, *http2, stream).await;
                agreed.map_err(|error| client::handshake_fault(&error))?
            }
        };
        match is_http2 {
            true => Begun::on(stream).await.map(drop),
            false => is_taken(stream).await,
        }
    };
    tokio::time::timeout(timeout, begin).await.map_err(|_| LATE)?
}
