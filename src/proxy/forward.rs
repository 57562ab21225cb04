//! The one forwarding path: pick an endpoint, connect, send and receive at once, and try again
//! where that is certainly safe.

use std::cell::Cell;
use std::pin::pin;
use std::task::Poll;

use tokio::io::Interest;
use tokio::net::tcp::WriteHalf;
use tokio::time::Instant;

use super::body::{Broken, Fault, Sink, Source, Waits, relay};
use super::client::Next;
use super::progress::{ClientSide, Forward, Sending};
use super::receive::{Passage, Received};
use super::tunnel::{self, Connection, Ends};
use super::worker::Drafts;
use crate::config::HostMode;
use crate::error::{Error, Fault as Blame, Kind};
use crate::http::buffer::Buffer;
use crate::http::rewrite::{self, Hop, Persistence};
use crate::net::deadline::Deadline;
use crate::net::dial::dial;
use crate::stats::{EndpointStats, RetryReason};
use crate::upstream::Tried;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::pool::Connected;

/// How much of a request's body is kept to be sent again, in case a kept connection turns out to
/// be closed.
const REPLAY: usize = 64 * 1024;

/// An attempt that failed.
struct Failed {
    error: Error,
    /// Whether the connection was a kept one that turned out closed, and the request may be sent
    /// again on a new one.
    is_stale: bool,
}

/// The start of a request's body, kept until the connection has shown that it is alive.
#[derive(Default)]
struct Replay {
    is_on: bool,
    kept: Vec<u8>,
}

impl Replay {
    fn keep(&mut self, payload: &[u8]) {
        if !self.is_on {
            return;
        }
        self.is_on = self.kept.len() + payload.len() <= REPLAY;
        match self.is_on {
            true => self.kept.extend_from_slice(payload),
            false => self.kept = Vec::new(),
        }
    }
}

impl Forward<'_> {
    /// Forwards the request, and its response.
    ///
    /// # Errors
    /// What the client is to be told, or, where a response has begun, why it is cut.
    pub(super) async fn run(
        &self,
        client: &mut ClientSide<'_, '_>,
        drafts: &mut Drafts,
    ) -> Result<Next, Error> {
        let mut tried = Tried::new();
        // Of the whole request, not of one endpoint: what was read for the first is for all.
        let mut replay = Replay::default();
        let mut failure = Error::new(Kind::Unavailable, "no endpoint has an address");
        while let Some((index, endpoint)) = self.upstream.pick(&tried) {
            if !tried.is_empty() {
                self.count_retry(RetryReason::Connect);
            }
            self.progress.endpoint.set(Some(index));
            tracing::debug!(
                endpoint = %endpoint.state.label,
                policy = self.upstream.config.policy.name(),
                in_flight = endpoint.state.in_flight(),
                tried = tried.len(),
                "picked"
            );
            let _in_flight = endpoint.state.start();
            match self.on_endpoint(endpoint, client, drafts, &mut replay).await {
                // Nothing was sent, so any other may have it, until the time is up.
                Err(error) if error.kind.is_before_sending() => failure = error,
                result => return result,
            }
            if self.started.elapsed() >= self.upstream.config.timeouts.response {
                break;
            }
            tried.push(index);
        }
        Err(failure)
    }

    /// Sends the request to `endpoint`: on a kept connection, or on a new one if there is none or
    /// it turns out closed.
    async fn on_endpoint(
        &self,
        endpoint: &Endpoint,
        client: &mut ClientSide<'_, '_>,
        drafts: &mut Drafts,
        replay: &mut Replay,
    ) -> Result<Next, Error> {
        // What may not be sent twice must not be sent into a connection that has just been closed.
        let must_be_sure = !self.request.method.is_idempotent();
        let kept = self.worker.pool.borrow_mut().take(endpoint, self.started, must_be_sure);
        if let Some(connection) = kept {
            self.endpoint_stats(endpoint, |stats| stats.reuses.add(1));
            replay.is_on = true;
            match self.attempt(endpoint, connection, client, drafts, replay).await {
                Err(Failed { is_stale: true, .. }) => {
                    self.count_retry(RetryReason::StaleConnection);
                }
                result => return result.map_err(|failed| failed.error),
            }
        }
        // Dialling is rare; in a box it takes no room in every other exchange.
        let connection = Box::pin(self.connect(endpoint)).await?;
        replay.is_on = false;
        let sent = self.attempt(endpoint, connection, client, drafts, replay).await;
        sent.map_err(|failed| failed.error)
    }

    /// A new connection to one of the endpoint's addresses.
    async fn connect(&self, endpoint: &Endpoint) -> Result<Connected, Error> {
        let mut failure = Error::new(Kind::Unavailable, "the endpoint has no address");
        for (index, address) in endpoint.dial_order() {
            match dial(address, self.upstream.config.timeouts.connect).await {
                Ok(stream) => {
                    endpoint.answered(index);
                    self.endpoint_stats(endpoint, |stats| stats.connects.add(1));
                    if endpoint.state.backoff.succeeded() {
                        tracing::info!(endpoint = %endpoint.state.label, "reachable again");
                    }
                    return Ok(Connected { stream, address });
                }
                Err(error) => failure = Error::connecting(&error),
            }
        }
        self.endpoint_stats(endpoint, |stats| stats.connect_failures.add(1));
        if failure.kind.fault() == Blame::Endpoint
            && let Some(pause) = endpoint.state.backoff.failed()
        {
            let endpoint = &endpoint.state.label;
            tracing::warn!(%endpoint, error = failure.kind.name(), ?pause, "left alone for a while");
        }
        Err(failure)
    }

    /// Sends the request on `stream` and passes its response on, both at once: an endpoint may
    /// answer before it has read everything. `replay` is on for a kept connection.
    async fn attempt(
        &self,
        endpoint: &Endpoint,
        mut connection: Connected,
        client: &mut ClientSide<'_, '_>,
        drafts: &mut Drafts,
        replay: &mut Replay,
    ) -> Result<Next, Failed> {
        let progress = self.progress;
        let is_kept = replay.is_on;
        progress.attempts.set(progress.attempts.get() + 1);
        progress.sending.set(Sending::Underway);
        let source = &client.source;
        let has_begun = !source.buffer.is_empty() || progress.bytes.0.get() > 0;
        progress
            .awaits_continue
            .set(self.request.expects_continue() && !has_begun && !source.is_over());
        // A kept connection gets the request as soon as it is there; a new one took its time.
        let asked = if is_kept { self.started } else { Instant::now() };
        let Drafts { to_endpoint: request, to_client, fields } = drafts;
        self.render(endpoint, request);
        let (mut from_endpoint, mut to_endpoint) = connection.stream.split();
        let written = Cell::new(false);
        let received = {
            let ClientSide { source, writer, deadline } = client;
            let mut sending = pin!(self.send(source, &mut to_endpoint, request, replay, &written));
            let mut receiving = pin!(self.receive(
                Passage {
                    from_endpoint: &mut from_endpoint,
                    writer,
                    output: to_client,
                    deadline,
                    asked
                },
                fields
            ));
            let mut is_sending = true;
            let both = std::future::poll_fn(|cx| {
                if is_sending && let Poll::Ready(stopped) = sending.as_mut().poll(cx) {
                    is_sending = false;
                    if let Err(error) = stopped {
                        return Poll::Ready(Err(error));
                    }
                }
                receiving.as_mut().poll(cx)
            });
            both.await
        };
        let received = received.map_err(|error| {
            // Nothing came back on a connection that had been idle: most likely the endpoint
            // closed it at the same moment (RFC 9112 9.3.1).
            let may_repeat = !written.get() || self.request.method.is_idempotent();
            let is_closed = is_kept && error.kind == Kind::ConnectionTerminated;
            let is_kept_whole = replay.is_on && !client.source.had_trailers;
            Failed { error, is_stale: is_closed && may_repeat && is_kept_whole }
        })?;
        let (persistence, keep) = match received {
            Received::Whole { persistence, keep } => (persistence, keep),
            Received::Switched(ahead) => {
                self.tunnel(client, (&mut from_endpoint, &mut to_endpoint), ahead).await;
                return Ok(Next::Close);
            }
        };
        let ended = Instant::now();
        progress.ended.set(Some(ended));
        let is_whole = progress.sending.get() == Sending::Whole;
        if let (Some(keep), true) = (keep, is_whole) {
            let mut pool = self.worker.pool.borrow_mut();
            pool.put(endpoint.state.id, connection, ended + keep);
        }
        Ok(match persistence {
            // The client may not know that we will read no more.
            _ if !is_whole => Next::Linger,
            Persistence::Closes if self.request.is_persistent() => Next::Linger,
            // It may be on its way for a while, and whatever the client sends meanwhile, a stray
            // line end is enough, would reset it.
            Persistence::Closes if progress.bytes.1.get() > SOON_READ => Next::Linger,
            Persistence::Closes => Next::Close,
            Persistence::Stays | Persistence::StaysByWord => Next::Idle,
        })
    }

    /// Renders the request's head for `endpoint`.
    fn render(&self, endpoint: &Endpoint, output: &mut Vec<u8>) {
        let host = match (self.upstream.config.host, self.request.authority) {
            (HostMode::Pass, Some(authority)) => authority,
            _ => endpoint.authority.as_bytes(),
        };
        let hop = Hop {
            base_path: endpoint.base_path.as_bytes(),
            host,
            client: self.peer,
            is_trusted: self.is_trusted,
            pseudonym: &self.worker.shared.pseudonym,
            request_id: self.request_id,
            forwarded: self.upstream.config.forwarded,
        };
        output.clear();
        rewrite::request(output, self.request, &hop);
    }

    /// Sends head and body, then watches whether the client is still there.
    ///
    /// Ends well only where the endpoint takes no more, which is not the end of the exchange.
    ///
    /// # Errors
    /// The client's faults, and an endpoint that stopped reading.
    async fn send(
        &self,
        source: &mut Source<'_, '_>,
        to_endpoint: &mut WriteHalf<'_>,
        output: &mut Vec<u8>,
        replay: &mut Replay,
        written: &Cell<bool>,
    ) -> Result<(), Error> {
        let Self { progress, request, .. } = self;
        let mut sink = Sink { io: to_endpoint, output, framing: request.framing, begun: written };
        let mut waits = Waits {
            deadline: &mut Deadline::new(&self.worker.clock),
            read: Some(self.listener.config.timeouts.body),
            may_pause: false,
            write: self.upstream.config.timeouts.body,
        };
        match self.send_body(source, &mut sink, &mut waits, replay).await {
            Ok(()) => progress.sending.set(Sending::Whole),
            Err(Broken::Source(fault)) => return Err(client_fault(fault)),
            Err(Broken::Sink(Fault::TimedOut)) => {
                return Err(Error::new(Kind::ResponseTimeout, "the endpoint stopped reading"));
            }
            Err(Broken::Sink(_)) => {
                progress.sending.set(Sending::Stopped);
                return Ok(());
            }
        }
        // A FIN is no reason to stop: the client has said all, and waits. A reset is.
        let _ = source.io.ready(Interest::ERROR).await;
        Err(Error::CLIENT_CLOSED)
    }

    async fn send_body(
        &self,
        source: &mut Source<'_, '_>,
        sink: &mut Sink<'_, '_>,
        waits: &mut Waits<'_>,
        replay: &mut Replay,
    ) -> Result<(), Broken> {
        if !replay.kept.is_empty() {
            sink.data(&replay.kept, waits).await.map_err(Broken::Sink)?;
        }
        if self.progress.awaits_continue.get() {
            // Until the 100 is passed on, it is the endpoint that we wait for.
            sink.flush(waits).await.map_err(Broken::Sink)?;
            let limit = self.listener.config.timeouts.body;
            let mut due = None;
            let owed = || {
                let is_owed = !self.progress.awaits_continue.get();
                is_owed.then(|| *due.get_or_insert_with(|| Instant::now() + limit))
            };
            let body = waits.deadline.due(owed, source.io.readable()).await;
            body.map_err(|_| Broken::Source(Fault::TimedOut))?
                .map_err(|_| Broken::Source(Fault::Closed))?;
            self.progress.awaits_continue.set(false);
        }
        let received = &self.progress.bytes.0;
        let passing = |payload: &[u8]| {
            received.set(received.get() + payload.len() as u64);
            replay.keep(payload);
            match self.listener.config.max_body {
                Some(limit) if received.get() > limit => Err(TOO_LARGE),
                _ => Ok(()),
            }
        };
        relay(self.worker, source, sink, waits, self.request.takes_trailers, passing).await
    }

    /// Moves bytes both ways after a 101, `ahead` of which came behind it.
    async fn tunnel(
        &self,
        client: &mut ClientSide<'_, '_>,
        endpoint: Connection<'_, '_>,
        ahead: Buffer,
    ) {
        self.worker.stats().tunnels.add(1);
        let ClientSide { source, writer, deadline } = client;
        let ends = Ends { client: (&mut *source.io, &mut **writer), endpoint };
        // Usually nothing, and a quiet tunnel should hold no buffer for that.
        let early_answer = ahead.filled().to_vec();
        self.worker.buffers.put(ahead);
        let idle = self.listener.config.timeouts.tunnel;
        let (up, down) =
            tunnel::run(self.worker, ends, (self.early, &early_answer), deadline, idle).await;
        self.progress.bytes.0.set(up);
        self.progress.bytes.1.set(down);
    }

    fn count_retry(&self, reason: RetryReason) {
        if let Some(stats) = self.upstream.stats.get(self.worker.index) {
            stats.count_retry(reason);
        }
    }

    fn endpoint_stats(&self, endpoint: &Endpoint, count: impl FnOnce(&EndpointStats)) {
        if let Some(stats) = endpoint.state.stats.get(self.worker.index) {
            count(stats);
        }
    }
}

/// The largest response that the client has as good as read once it is written: it is in the
/// first flight of packets.
const SOON_READ: u64 = 8 * 1024;

/// A body over the limit.
pub(super) const TOO_LARGE: Error =
    Error::new(Kind::ContentTooLarge, "the body is over this listener's limit");

fn client_fault(fault: Fault) -> Error {
    match fault {
        Fault::Closed => Error::CLIENT_CLOSED,
        Fault::TimedOut => Error::new(Kind::RequestTimeout, "the body did not go on in time"),
        Fault::Refused(error) => error,
    }
}
