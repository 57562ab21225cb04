//! A client's connection in HTTP/2: each of its streams is an exchange, served in a task of its own.

mod life;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::Request;
use http::header::CONTENT_LENGTH;
use tokio::time::Instant;

use self::life::{GOODBYE, Life, Step};
use super::client::{Client, Facts, close_gracefully};
use super::exchange;
use crate::http::connection::decimal;
use crate::http::h2::{Refusal, request_head};
use crate::net::deadline::{Deadline, Elapsed};
use crate::net::http2::{
    CONNECTION_WINDOW, Http2Stream, MAX_HEADER_LIST, SEND_BUFFER, SMALL_DATA_BUDGET, STREAM_WINDOW,
    USUAL_HEAD,
};
use crate::net::metered::{Metered, Traffic};
use crate::net::origin::Origin;
use crate::net::send_queue::SendQueue;
use crate::net::stream::Stream;

/// Streams that a client may have open at once: what browsers and gRPC clients ask for, and a bound on
/// what one connection can have us do.
const MAX_STREAMS: u32 = 256;

/// Streams that a client may reset before anybody has looked at them; the h2 crate cuts off who resets
/// more (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 64;

/// Streams that may end by an error of the client's in the life of a connection.
const MAX_ERRORS: usize = 1024;

/// Serves a connection that turned out to speak HTTP/2, to its end.
pub(super) async fn serve(client: Box<Client>) {
    let Client { facts, stream, ahead, mut deadline, .. } = *client;
    // Its streams have no socket that could be asked.
    facts.know_origin(stream.with_socket(Origin::of).flatten());
    let traffic = Rc::new(Traffic::new(Instant::now()));
    let queue = stream.with_socket(SendQueue::of).flatten();
    let stream = Rc::new(RefCell::new(stream));
    let io = Metered::new(Rc::clone(&stream), ahead, Rc::clone(&traffic));
    let handshake = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(SMALL_DATA_BUDGET)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(Some(MAX_ERRORS))
        .enable_connect_protocol()
        .handshake(io);
    let limit = facts.listener.config.timeouts.head;
    let Ok(Ok(mut connection)) = deadline.within(limit, handshake).await else { return };
    facts.worker.stats().http2_connections.add(1);
    let mut pings = connection.ping_pong();
    let streams = Rc::new(Streams { open: Cell::new(0), idle_since: Cell::new(Instant::now()) });
    let mut served = Served { facts, traffic, streams, queue, asked: None, unread: 0, told: None };
    loop {
        let due = || Some(served.life().next().0);
        let event = poll_fn(|cx| poll(cx, &mut connection, &served.traffic, &mut pings));
        match deadline.due(due, event).await {
            Ok(Event::Request(request, respond)) => served.start(request, respond),
            Ok(Event::Over) => break,
            Ok(Event::CutOff) => return served.cut_off(),
            Ok(Event::Flood) => {
                served.cut_off();
                return end(connection, Reason::ENHANCE_YOUR_CALM, &mut deadline).await;
            }
            Err(Elapsed) => match served.life().next().1 {
                Step::Tell => {
                    served.told = Some(Instant::now());
                    connection.graceful_shutdown();
                }
                Step::Ask => {
                    served.note_ping();
                    let _ = pings.as_mut().map(|pings| pings.send_ping(Ping::opaque()));
                }
                Step::End if served.renew_if_reading() => {}
                Step::End => {
                    let is_stuck = served.traffic.blocked_since().is_some();
                    let is_idle = served.streams.open.get() == 0;
                    end(connection, Reason::NO_ERROR, &mut deadline).await;
                    return match (is_idle, is_stuck) {
                        (true, false) => served.close_gracefully(stream).await,
                        (true, true) => served.facts.count_undelivered(),
                        // The client has gone without a word.
                        (false, _) => {}
                    };
                }
            },
        }
    }
    drop(connection);
    served.close_gracefully(stream).await;
}

/// What happens on a connection.
#[expect(clippy::large_enum_variant, reason = "it never stays")]
enum Event {
    Request(Request<RecvStream>, SendResponse<Bytes>),
    /// Its end.
    Over,
    /// Its end, since the library takes no more of the client.
    CutOff,
    /// The client wants us to work for nothing.
    Flood,
}

fn poll(
    cx: &mut Context<'_>,
    connection: &mut Connection<Metered, Bytes>,
    traffic: &Traffic,
    pings: &mut Option<PingPong>,
) -> Poll<Event> {
    if let Some(pings) = pings {
        // What it says does not matter: whatever comes is a sign of life.
        let _ = pings.poll_pong(cx);
    }
    let polled = connection.poll_accept(cx);
    if traffic.is_flood() {
        return Poll::Ready(Event::Flood);
    }
    polled.map(|accepted| match accepted {
        Some(Ok((request, respond))) => Event::Request(request, respond),
        Some(Err(error)) if is_cut_off(&error) => Event::CutOff,
        Some(Err(_)) | None => Event::Over,
    })
}

/// Whether the library found a flood of its own kinds: frames with hardly any data, errors, requests given
/// up before anybody has looked at them.
fn is_cut_off(error: &h2::Error) -> bool {
    !error.is_remote() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
}

/// The streams of a connection.
#[derive(Debug)]
struct Streams {
    open: Cell<usize>,
    /// When the last one ended.
    idle_since: Cell<Instant>,
}

/// Counts one stream while it lives.
struct Open(Rc<Streams>);

impl Open {
    fn new(streams: &Rc<Streams>) -> Self {
        streams.open.set(streams.open.get() + 1);
        Self(Rc::clone(streams))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
        self.0.idle_since.set(Instant::now());
    }
}

/// A connection that is being served.
struct Served {
    facts: Rc<Facts>,
    traffic: Rc<Traffic>,
    streams: Rc<Streams>,
    /// What the kernel still holds for the client.
    queue: Option<SendQueue>,
    /// When the client was asked whether it is there.
    asked: Option<Instant>,
    /// How much the kernel held for it when that was last looked at.
    unread: u32,
    /// When it was told that no new streams are welcome.
    told: Option<Instant>,
}

impl Served {
    /// How far it is in its life.
    fn life(&self) -> Life {
        Life {
            open: self.streams.open.get(),
            idle_since: self.streams.idle_since.get(),
            last_read: self.traffic.last_read(),
            asked: self.asked,
            told: self.told,
            draining: self.facts.worker.draining.get(),
            idle: self.facts.listener.config.timeouts.idle,
            blocked: self.traffic.blocked_since(),
            body: self.facts.listener.config.timeouts.body,
        }
    }

    /// Notes a PING that is sent now, and how much the kernel holds for the client.
    fn note_ping(&mut self) {
        self.asked = Some(Instant::now());
        self.unread = self.queued();
    }

    /// Renews the time for an answer to the PING if the client has read something meanwhile: the PING may stand behind
    /// more than it can read in that time. Returns whether it was renewed.
    fn renew_if_reading(&mut self) -> bool {
        let left = self.queued();
        let is_reading = self.streams.open.get() > 0 && left < self.unread;
        if is_reading {
            self.note_ping();
        }
        is_reading
    }

    fn queued(&self) -> u32 {
        self.queue.and_then(|queue| queue.length()).unwrap_or(0)
    }

    /// Closes the connection once the client has read everything.
    async fn close_gracefully(&self, stream: Rc<RefCell<Stream>>) {
        // Nobody else has it any more.
        if let Some(stream) = Rc::into_inner(stream) {
            close_gracefully(&self.facts, &mut stream.into_inner(), GOODBYE).await;
        }
    }

    /// Notes that the client is cut off.
    fn cut_off(&self) {
        self.facts.worker.stats().http2_floods.add(1);
        tracing::debug!(client = %self.facts.peer, "too many frames that ask for work; cut off");
    }

    /// Serves a request, unless it is none.
    fn start(&self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let (parts, body) = request.into_parts();
        let protocol = parts.extensions.get::<Protocol>().map(Protocol::as_str);
        let mut head = Vec::with_capacity(USUAL_HEAD);
        let error = match request_head(&parts, protocol, body.is_end_stream(), &mut head) {
            Ok(()) => None,
            Err(Refusal::Malformed(detail)) => {
                self.facts.worker.stats().http2_malformed.add(1);
                tracing::debug!(client = %self.facts.peer, detail, "malformed; stream reset");
                // RFC 9113 8.1.1.
                return respond.send_reset(Reason::PROTOCOL_ERROR);
            }
            Err(Refusal::Answer(error)) => Some(error),
        };
        let length = parts.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| decimal(length.as_bytes()));
        let (is_connect, traffic) = (protocol.is_some(), Rc::clone(&self.traffic));
        let stream = Http2Stream::of_client(head, body, length, respond, is_connect, traffic);
        let stream = Stream::Http2(Box::new(stream));
        let mut client = Client::new(Rc::clone(&self.facts), stream);
        let open = Open::new(&self.streams);
        tokio::task::spawn_local(async move {
            match error {
                Some(error) => {
                    let (method, path) = (parts.method.as_str(), parts.uri.path());
                    let asked = (method.as_bytes(), path.as_bytes());
                    Box::pin(exchange::refuse(&mut client, error, asked)).await;
                }
                None if client.request_begins().await => {
                    let _ = Box::pin(exchange::serve(&mut client)).await;
                }
                None => {}
            }
            drop(client);
            drop(open);
        });
    }
}

/// Ends the connection, and whatever is still under way on it.
async fn end(mut connection: Connection<Metered, Bytes>, reason: Reason, deadline: &mut Deadline) {
    connection.abrupt_shutdown(reason);
    let _ = deadline.within(GOODBYE, poll_fn(|cx| connection.poll_closed(cx))).await;
}
