//! One connection in HTTP/2 to an endpoint, whose streams requests share.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong, Reason};
use http::uri::Scheme;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::error::{Error, Kind};
use crate::net::dial::Address;
use crate::net::http2::{Http2Stream, MAX_HEADER_LIST, Resets, SEND_BUFFER, STREAM_WINDOW};
use crate::net::stream::Stream;
use crate::net::tls::client;
use crate::upstream::endpoint::{Endpoint, Place, Protocol};
use crate::upstream::pool::{Connected, Hold};

/// What all streams of a connection may have under way: no limit, since each has its own. Clients that do
/// not read would otherwise make all others wait that share the connection with them.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// What the h2 crate may keep track of in DATA frames that are smaller than it deems good, at 256 bytes
/// less their size each: streams whose windows are full of gRPC's smallest messages, 20 of them, or 400
/// with messages of 80 bytes. One that goes beyond ends the connection, with everybody's streams.
const SMALL_DATA_BUDGET: usize = 256 * 1024 * 1024;

/// Streams that we have reset, and whose answers may still be on their way for a second: hedged requests
/// and clients that leave make many.
const MAX_RESET_STREAMS: usize = 1024;

/// Faults in single streams, and frames for streams that nobody remembers, in the life of a connection;
/// it is long, and neither costs more than a reset.
const MAX_FAULTS: usize = 65_536;

/// What the h2 crate takes for the number of streams that may be open before the endpoint has said it.
const UNKNOWN: usize = usize::MAX - 1;

/// How long an endpoint with open streams may be silent before it is asked whether it is still there:
/// longer than nearly every answer takes.
const PING_AFTER: Duration = Duration::from_secs(10);

/// How long it may take to answer.
const PING_PATIENCE: Duration = Duration::from_secs(5);

/// How seldom it is asked: servers of gRPC end connections that are pinged more often than this.
const PING_EVERY: Duration = Duration::from_secs(300);

/// A stream that is given up after this time, without anything having come on its connection, may have
/// been on one that hangs; one that is given up sooner says nothing, as hedged requests do.
const LONG_SILENCE: Duration = Duration::from_secs(1);

/// How long an endpoint may take to accept that a connection ends.
const FAREWELL: Duration = Duration::from_secs(5);

/// A connection, as those who share it see it. It ends once nobody does.
#[derive(Debug)]
pub(super) struct Link {
    sender: SendRequest<Bytes>,
    carrier: Weak<Carrier>,
    driver: AbortHandle,
    /// Tells the driver that nobody shares it any more.
    abandoned: Rc<Notify>,
    pings: RefCell<Option<PingPong>>,
    silence: Cell<Silence>,
    /// When it was last asked whether it is there.
    asked: Cell<Option<Instant>>,
    /// Where it leads, and how that is spoken to.
    address: Address,
    protocol: Protocol,
    /// How many streams are in use.
    streams: Cell<usize>,
    /// For how long it is kept without any.
    idle: Duration,
    /// Since when it has none.
    idle_since: Cell<Instant>,
    /// Wakes a request that waits for a stream.
    freed: Rc<Notify>,
    /// Whether its end has been counted against the endpoint.
    is_blamed: Cell<bool>,
    /// What the endpoint has done with its streams.
    resets: Rc<Resets>,
    /// Whether an answer was late and nothing else came meanwhile, so that it is not used any more.
    is_silent: Cell<bool>,
}

/// What is known of a peer that says nothing.
#[derive(Debug, Clone, Copy)]
struct Silence {
    /// How much it had said then.
    heard: u64,
    /// Since when it has said nothing; where it was asked, since then.
    since: Instant,
    /// Whether it was asked if it is still there.
    is_asked: bool,
}

/// One stream of a connection, in use until this is dropped.
#[derive(Debug)]
pub struct Lease {
    link: Rc<Link>,
    /// How much the endpoint had said when the stream began, and when that was.
    heard: u64,
    since: Instant,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Given up by whoever waited, a call at its deadline for instance.
        if self.since.elapsed() >= LONG_SILENCE {
            self.was_late();
        }
        self.link.streams.set(self.link.streams.get().saturating_sub(1));
        self.link.idle_since.set(Instant::now());
        self.link.freed.notify_one();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.abandoned.notify_one();
    }
}

impl Lease {
    /// Whether the connection has ended, and not only the stream.
    pub fn is_over(&self) -> bool {
        !self.link.is_open()
    }

    /// Whether a failure on the stream is one of the endpoint's: where the connection has ended, only the
    /// first of all its streams says so.
    pub fn is_to_blame(&self) -> bool {
        !self.is_over() || !self.link.is_blamed.replace(true)
    }

    /// An answer has not come in time. Where nothing else has come either since it was asked for, nothing
    /// more is asked on this connection: it may hang, and another one may not.
    pub fn was_late(&self) {
        if self.link.heard() == self.heard {
            self.link.is_silent.set(true);
        }
    }
}

impl Link {
    /// Of `begun` to `endpoint`, kept for at most `idle` without streams. Whoever waits for a stream is
    /// woken by `freed`. Must be called on a local runtime.
    pub(super) fn new(
        begun: Begun,
        endpoint: &Endpoint,
        (address, place): (Address, Place),
        idle: Duration,
        freed: Rc<Notify>,
    ) -> Self {
        let Begun { sender, mut connection, carrier } = begun;
        let pings = connection.ping_pong().into();
        let abandoned: Rc<Notify> = Rc::default();
        let is_abandoned = Rc::clone(&abandoned);
        let driver = tokio::task::spawn_local(async move {
            let ended = tokio::select! {
                ended = &mut connection => ended,
                // What the endpoint has not taken by then it may never take.
                () = is_abandoned.notified() => {
                    timeout(FAREWELL, &mut connection).await.unwrap_or(Ok(()))
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to an endpoint has ended");
            }
            // It is taken until then.
            drop(place);
        });
        let now = Instant::now();
        Self {
            sender,
            carrier,
            driver: driver.abort_handle(),
            abandoned,
            pings,
            silence: Cell::new(Silence { heard: 0, since: now, is_asked: false }),
            asked: Cell::new(None),
            address,
            protocol: endpoint.protocol.clone(),
            streams: Cell::new(0),
            idle,
            idle_since: Cell::new(now),
            freed,
            is_blamed: Cell::new(false),
            resets: Rc::default(),
            is_silent: Cell::new(false),
        }
    }

    /// A new stream, and how long there was none.
    pub(super) fn stream(self: &Rc<Self>, now: Instant) -> (Connected, Duration) {
        let idle_for = match self.streams.get() {
            0 => now.saturating_duration_since(self.idle_since.get()),
            _ => Duration::ZERO,
        };
        if self.streams.replace(self.streams.get() + 1) == 0 {
            // It had no reason to say anything.
            self.listen(now, false);
        }
        let scheme = match self.protocol {
            Protocol::Tls { .. } => Scheme::HTTPS,
            Protocol::Http1 | Protocol::Http2 => Scheme::HTTP,
        };
        let stream = Http2Stream::to_endpoint(self.sender.clone(), scheme, Rc::clone(&self.resets));
        let stream = Stream::Http2(Box::new(stream));
        let hold = Hold::Stream(Lease { link: Rc::clone(self), heard: self.heard(), since: now });
        (Connected { stream, address: self.address.clone(), hold }, idle_for)
    }

    /// How many streams are in use.
    pub(super) fn streams(&self) -> usize {
        self.streams.get()
    }

    /// Whether one more stream can be open.
    pub(super) fn has_room(&self) -> bool {
        self.streams.get() < self.sender.current_max_send_streams()
    }

    /// Whether it leads where `endpoint` is, in the way that it is spoken to.
    pub(super) fn is_to(&self, endpoint: &Endpoint) -> bool {
        self.protocol == endpoint.protocol && endpoint.addresses.contains(&self.address)
    }

    /// Whether new streams are begun on it: it is open, and the endpoint does not reset them all.
    pub(super) fn takes_streams(&self) -> bool {
        self.is_open() && !self.resets.are_likely()
    }

    /// Whether the endpoint has reset its last stream, so that a retry does better on another connection.
    pub(super) fn has_just_reset(&self) -> bool {
        self.resets.was_last()
    }

    /// Whether new streams can be begun on it: neither side has ended it.
    fn is_open(&self) -> bool {
        let ready = self.sender.clone().poll_ready(&mut noop());
        !self.is_silent.get() && !matches!(ready, Poll::Ready(Err(_)))
    }

    /// The same as [`takes_streams`](Self::takes_streams), asking the kernel, which may know of an end that the
    /// runtime has not seen.
    pub(super) fn surely_takes_streams(&self) -> bool {
        let is_closed = |carrier: Rc<Carrier>| carrier.stream.borrow().is_closed_in_the_kernel();
        self.takes_streams() && self.carrier.upgrade().is_some_and(|carrier| !is_closed(carrier))
    }

    /// Whether it has had no streams for its time at `now`.
    pub(super) fn has_been_idle(&self, now: Instant) -> bool {
        self.streams.get() == 0 && self.idle_since.get() + self.idle <= now
    }

    /// Ends the connection if its peer has gone without a word, as far as that can be known at `now`.
    pub(super) fn look_after(&self, now: Instant) {
        let mut pings = self.pings.borrow_mut();
        let Some(pings) = &mut *pings else { return };
        let Silence { heard, since, is_asked } = self.silence.get();
        let has_answered = pings.poll_pong(&mut noop()).is_ready();
        if has_answered || self.heard() != heard || self.streams.get() == 0 {
            return self.listen(now, false);
        }
        let may_ask = self.asked.get().is_none_or(|at| at + PING_EVERY <= now);
        if is_asked && since + PING_PATIENCE <= now {
            tracing::debug!(address = %self.address, "an endpoint has gone without a word; cut");
            self.driver.abort();
        } else if !is_asked && may_ask && since + PING_AFTER <= now {
            let is_asked = pings.send_ping(Ping::opaque()).is_ok();
            self.asked.set(Some(now));
            self.listen(now, is_asked);
        }
    }

    fn listen(&self, since: Instant, is_asked: bool) {
        self.silence.set(Silence { heard: self.heard(), since, is_asked });
    }

    fn heard(&self) -> u64 {
        self.carrier.upgrade().map_or(0, |carrier| carrier.heard.get())
    }
}

fn noop() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// A connection that has begun, and that nobody drives yet.
#[derive(Debug)]
pub struct Begun {
    sender: SendRequest<Bytes>,
    connection: Connection<Io, Bytes>,
    carrier: Weak<Carrier>,
}

impl Begun {
    /// Begins HTTP/2 on `stream`, and waits until the endpoint has said how many streams it takes, and
    /// what else it can do: a request that is sent before that may be refused.
    ///
    /// # Errors
    /// What was said is not HTTP/2, or nothing was.
    pub async fn on(stream: Stream) -> Result<Self, Error> {
        let refusal = Rc::default();
        let (heard, is_gone) = Default::default();
        let carrier = Carrier { stream: stream.into(), heard, is_gone, refusal };
        let refusal = Rc::clone(&carrier.refusal);
        let carrier = Rc::new(carrier);
        let weak = Rc::downgrade(&carrier);
        let mut builder = Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .data_frame_budget(SMALL_DATA_BUDGET)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_concurrent_reset_streams(MAX_RESET_STREAMS)
            .max_local_error_reset_streams(Some(MAX_FAULTS))
            .initial_max_send_streams(UNKNOWN)
            .enable_push(false);
        let begun = async {
            let (sender, connection) = builder.handshake(Io(carrier)).await?;
            let mut begun = Self { sender, connection, carrier: weak };
            poll_fn(|cx| begun.poll_settings(cx)).await?;
            Ok(begun)
        };
        begun.await.map_err(|error| refusal.get().unwrap_or_else(|| beginning(&error)))
    }

    fn poll_settings(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let ended = Pin::new(&mut self.connection).poll(cx);
        // One that has ended behind them was made; what is sent on it will be turned away.
        if self.sender.current_max_send_streams() != UNKNOWN {
            return Poll::Ready(Ok(()));
        }
        ended.map(|ended| ended.and(Err(Reason::NO_ERROR.into())))
    }
}

const NO_HTTP2: Error = Error::new(Kind::Http2Failed, "the endpoint does not speak HTTP/2");
const CLOSED: Error =
    Error::new(Kind::ConnectionRefused, "the endpoint closed the connection at once");

/// What it means that HTTP/2 did not begin.
fn beginning(error: &h2::Error) -> Error {
    match error.get_io() {
        Some(_) => CLOSED,
        // It went as it came.
        None if error.reason() == Some(Reason::NO_ERROR) => CLOSED,
        None => NO_HTTP2,
    }
}

/// What a connection is carried by.
#[derive(Debug)]
struct Carrier {
    stream: RefCell<Stream>,
    /// How many bytes have come.
    heard: Cell<u64>,
    /// Whether the peer takes no more.
    is_gone: Cell<bool>,
    /// What an end means that belongs to the TLS handshake; the h2 crate passes only text on.
    refusal: Rc<Cell<Option<Error>>>,
}

/// The carrier, for whoever drives the connection.
#[derive(Debug)]
struct Io(Rc<Carrier>);

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut *self.0.stream.borrow_mut()).poll_read(cx, buf);
        let more = buf.filled().len().saturating_sub(before) as u64;
        self.0.heard.set(self.0.heard.get().wrapping_add(more));
        if let Poll::Ready(Err(error)) = &read {
            self.0.refusal.set(client::refusal(error));
        }
        read
    }
}

impl Io {
    /// Has nothing said of a write that failed: the peer has gone, and what it said before, that it has not
    /// looked at some streams for instance, is still to be read. The end comes behind it.
    fn unless_gone<T>(&self, written: Poll<io::Result<T>>, gone: T) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Err(_)) => {
                self.0.is_gone.set(true);
                Poll::Ready(Ok(gone))
            }
            written => written,
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.0.is_gone.get() {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut *self.0.stream.borrow_mut()).poll_write(cx, buf);
        self.unless_gone(written, buf.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = bufs.iter().map(|buf| buf.len()).sum();
        if self.0.is_gone.get() {
            return Poll::Ready(Ok(all));
        }
        let written = Pin::new(&mut *self.0.stream.borrow_mut()).poll_write_vectored(cx, bufs);
        self.unless_gone(written, all)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.is_gone.get() {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut *self.0.stream.borrow_mut()).poll_flush(cx);
        self.unless_gone(flushed, ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Shared;
    use crate::upstream::endpoint::tests::endpoints;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::{LocalSet, yield_now};

    const IDLE: Duration = Duration::from_secs(60);

    /// A connection, and its peer, which has begun and says nothing more by itself.
    async fn link() -> (Rc<Link>, h2::server::Connection<TcpStream, Bytes>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        let begin = Begun::on(Stream::Tcp(ours.unwrap()));
        let (begun, peer) = tokio::join!(begin, h2::server::handshake(theirs.unwrap().0));
        let endpoint = endpoints(&[1]).remove(0);
        let shared = std::sync::Arc::new(Shared::new(1));
        let place = Place::take(&endpoint, &shared, u32::MAX).unwrap();
        let place = (Address::from(address), place);
        let link = Link::new(begun.unwrap(), &endpoint, place, IDLE, Rc::default());
        (Rc::new(link), peer.unwrap())
    }

    /// Has the peer do what it does, until nothing moves any more.
    async fn settle(peer: &mut h2::server::Connection<TcpStream, Bytes>) {
        for _ in 0..100 {
            yield_now().await;
            let _ = peer.poll_closed(&mut noop());
        }
    }

    #[tokio::test]
    async fn a_peer_that_has_gone_without_a_word_is_noticed() {
        LocalSet::new()
            .run_until(async {
                let (link, _peer) = link().await;
                let now = Instant::now();
                link.look_after(now + IDLE * 60);
                assert!(link.is_open(), "it owes nothing");
                let (_stream, _) = link.stream(now);
                for (after, is_open) in [(9, true), (11, true), (15, true), (17, false)] {
                    link.look_after(now + Duration::from_secs(after));
                    yield_now().await;
                    assert_eq!(link.is_open(), is_open, "{after}");
                }
            })
            .await;
    }

    #[tokio::test]
    async fn one_that_answers_stays_and_is_seldom_asked() {
        LocalSet::new()
            .run_until(async {
                let (link, mut peer) = link().await;
                settle(&mut peer).await;
                let mut now = Instant::now();
                let (_stream, _) = link.stream(now);
                let mut asked = Vec::new();
                for second in 0..700 {
                    now += Duration::from_secs(1);
                    link.look_after(now);
                    if link.silence.get().is_asked {
                        asked.push(second);
                        settle(&mut peer).await;
                    }
                }
                assert!(link.is_open());
                assert_eq!(asked, [9, 309, 609]);
            })
            .await;
    }
}
