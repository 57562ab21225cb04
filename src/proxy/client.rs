//! A client's connection, and what is done with it between requests.

use std::cell::{Cell, OnceCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::worker::{DRAIN_IDLE_GRACE, Listener, Worker};
use crate::http::buffer::Buffer;
use crate::net::admission::Place;
use crate::net::deadline::Deadline;
use crate::net::origin::Origin;
use crate::net::send_queue::SendQueue;
use crate::net::stream::{CloseTimeouts, ReadHalf, Stream};
use crate::net::tls::Session;

/// How long a connection that we close is read from, so that what the client still sends does not
/// make the kernel reset it before the client has read our answer (RFC 9112 9.6).
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What becomes of a connection after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The next request may come.
    Idle,
    /// It is over for both sides.
    Close,
    /// It is over, but the client may not know yet: it is closed gracefully.
    CloseGracefully,
    /// It must not look as if it had ended well.
    Reset,
    /// It goes on in HTTP/2.
    Http2,
}

/// What is known of a client's connection, and of all streams on it.
#[derive(Debug)]
pub(super) struct Facts {
    pub worker: Rc<Worker>,
    pub listener: Rc<Listener>,
    /// The client's address: the peer's, or the one in its PROXY protocol header.
    pub peer: IpAddr,
    /// Whose connection it is: what that header says, or, once somebody has asked, what the socket says.
    pub origin: OnceCell<Box<Origin>>,
    /// Whether its own forwarding fields are believed.
    pub is_trusted: bool,
    /// What its TLS handshake was about, if it came by TLS.
    pub tls: Option<Session>,
    /// Its place under the listener's limits.
    _place: Place,
}

impl Facts {
    /// Of a connection on this worker, whose count of connections includes it already.
    pub(super) fn new(
        worker: Rc<Worker>,
        listener: Rc<Listener>,
        peer: IpAddr,
        named: Option<Box<Origin>>,
        place: Place,
    ) -> Self {
        let is_trusted = listener.trusts(peer);
        let origin = named.map(OnceCell::from).unwrap_or_default();
        Self { worker, listener, peer, origin, is_trusted, tls: None, _place: place }
    }

    /// Takes note of whose connection it is by its own addresses, unless a header has said so.
    pub(super) fn know_origin(&self, origin: Option<Origin>) {
        if let Some(origin) = origin {
            self.origin.get_or_init(|| Box::new(origin));
        }
    }

    /// Whether the client came by TLS: to us, or to a proxy that says so in its PROXY protocol header.
    pub(super) fn came_by_tls(&self) -> bool {
        self.tls.is_some() || self.origin.get().is_some_and(|origin| origin.was_tls)
    }

    /// Whether a request for `host` has no business on this connection: where it matters whom the client
    /// has shown its certificate to (RFC 9110 7.4).
    pub(super) fn is_misdirected(&self, host: &[u8]) -> bool {
        let asks = self.listener.config.tls.as_ref().is_some_and(|tls| tls.client.is_some());
        asks && self.tls.as_ref().is_some_and(|tls| !tls.covers(host))
    }

    /// Notes that the client has not taken all that was sent to it.
    pub(super) fn count_undelivered(&self) {
        self.worker.stats().undelivered.add(1);
        tracing::debug!(client = %self.peer, "the client stopped reading; its last answer is not delivered");
    }

    /// Whether the client has chosen HTTP/2 in the TLS handshake.
    pub(super) fn is_http2(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_http2)
    }
}

impl Drop for Facts {
    fn drop(&mut self) {
        self.worker.count_connection_closed();
    }
}

/// When a client counts as gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Departure<'a> {
    /// Whether a client that closes its side still waits for the response.
    pub half_close: bool,
    /// Whether a response has begun. A client may close its side then, since it has said all.
    pub begun: &'a Cell<bool>,
}

impl Departure<'_> {
    /// Waits until the client at the other end of `io` has gone.
    pub(super) async fn wait(self, io: &ReadHalf<'_>) {
        let has_gone = || !self.half_close && !self.begun.get();
        if has_gone() {
            io.closed().await;
            if has_gone() {
                return;
            }
        }
        io.gone().await;
    }
}

/// A client connection on its worker, or one stream of it.
#[derive(Debug)]
pub(super) struct Client {
    pub facts: Rc<Facts>,
    pub stream: Stream,
    pub deadline: Deadline,
    /// When the last exchange ended, or the connection began.
    pub idle_since: Instant,
    /// Whether no request has come yet, so that it may still turn out to be HTTP/2.
    pub is_new: bool,
    /// What was read for HTTP/2 already.
    pub ahead: Buffer,
}

impl Client {
    /// The client at the other end of `stream`.
    pub(super) fn new(facts: Rc<Facts>, stream: Stream) -> Box<Self> {
        Box::new(Self {
            deadline: Deadline::new(&facts.worker.clock),
            is_new: !stream.is_http2(),
            facts,
            stream,
            idle_since: Instant::now(),
            ahead: Buffer::default(),
        })
    }

    /// Waits for the first byte of the next request; false when it is not worth waiting any longer.
    pub(super) async fn request_begins(&mut self) -> bool {
        let Self { facts, stream, deadline, idle_since, .. } = self;
        let end = *idle_since + facts.listener.config.timeouts.idle;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(ready) = stream.poll_read_ready(cx) {
                deadline.clear();
                return Poll::Ready(ready.is_ok());
            }
            let end = match facts.worker.draining.get() {
                Some(since) => end.min(since.max(*idle_since) + DRAIN_IDLE_GRACE),
                None => end,
            };
            deadline.poll(cx, end).map(|_| false)
        })
        .await
    }

    /// Closes our side, and reads on until the client closes its own, or has everything and takes too long.
    pub(super) async fn close_gracefully(&mut self) {
        close_gracefully(&self.facts, &mut self.stream, CLOSE_TIMEOUT).await;
    }

    /// Closes a connection without a request on it, which the client may still be reading the last answer from.
    pub(super) async fn close_idle(&mut self) {
        let queue = self.stream.with_socket(SendQueue::of).flatten();
        match queue.and_then(|queue| queue.length()) {
            Some(1..) => self.close_gracefully().await,
            Some(0) | None => self.close().await,
        }
    }

    /// Closes our side, where the client knows already that nothing more comes: over TLS it has to be
    /// told all the same, or the end would look like somebody else's (RFC 8446 6.1).
    pub(super) async fn close(&mut self) {
        if self.facts.tls.is_some() {
            let _ = self.deadline.within(CLOSE_TIMEOUT, self.stream.shutdown()).await;
        }
    }
}

/// Closes our side of a client's connection, and reads on until the client has closed its own: for as long as it takes
/// something, and `idle` once it has everything.
pub(super) async fn close_gracefully(facts: &Facts, stream: &mut Stream, idle: Duration) {
    let timeouts = CloseTimeouts { idle, stall: facts.listener.config.timeouts.body.max(idle) };
    if !stream.close_gracefully(timeouts).await {
        facts.count_undelivered();
    }
}
