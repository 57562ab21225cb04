//! One stream of an HTTP/2 connection, as a connection that carries one exchange: heads are read and
//! written as text of HTTP/1.1, bodies as they are, and the end of a body is the end of the stream.
//!
//! So there is one path for all protocols, and every head passes the same strict parser.

mod resets;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::CONTENT_LENGTH;
use http::uri::Scheme;
use memchr::memmem;
use tokio::io::{AsyncWrite, ReadBuf};

use super::metered::Traffic;
use crate::error::Error;
use crate::http::body::Framing;
use crate::http::connection::decimal;
use crate::http::h2 as translate;
use crate::http::request::Method;
pub use resets::{Resets, read_fault, reset_by_peer};

/// How much of a body a peer may have under way on one stream: at 100 Mbit/s enough for 20 ms.
pub const STREAM_WINDOW: u32 = 256 * 1024;

/// The same for all streams of a connection: that many may stand still before the others do.
pub const CONNECTION_WINDOW: u32 = 16 * STREAM_WINDOW;

/// How much is kept of one stream that the peer does not take at the moment.
pub const SEND_BUFFER: usize = 64 * 1024;

/// What the h2 crate may keep track of in DATA frames that are smaller than it deems good, at 256 bytes
/// less their size each: as many as fit in three windows if each frame has the smallest gRPC message.
pub const SMALL_DATA_BUDGET: usize = 32 * 1024 * 1024;

/// The size of most heads as text.
pub const USUAL_HEAD: usize = 512;

/// The largest head, decoded (RFC 9113 6.5.2); larger ones than HTTP/1.1 may have are refused by its
/// parser, which counts differently.
pub const MAX_HEADER_LIST: u32 = 64 * 1024;

/// One stream, for one exchange. Both directions are used by one task, never at the same moment.
#[derive(Debug)]
pub struct Http2Stream {
    receiving: RefCell<Receiving>,
    sending: RefCell<Sending>,
    /// What a client's connection has to account for.
    traffic: Option<Rc<Traffic>>,
}

#[derive(Debug, Default)]
struct Receiving {
    /// The text of a head, as far as it has not been read.
    head: Bytes,
    /// The answer that is waited for.
    answer: Option<ResponseFuture>,
    /// The method that it answers.
    method: Option<Method>,
    /// What the answer to a request for another protocol must be like.
    switch: Option<translate::Switch>,
    /// What the endpoint has done with the streams of its connection.
    resets: Option<Rc<Resets>>,
    /// Why there will be no more.
    failure: Option<io::Error>,
    body: Option<RecvStream>,
    /// Payload that has not been read.
    payload: Bytes,
    /// How much of the announced length is still to come. What completes it is not handed on before the
    /// stream has ended: whoever counts would take a body for whole that may be longer.
    left: Option<u64>,
    /// Whether the stream has ended.
    is_over: bool,
    /// The trailer section, with its empty line.
    trailers: Vec<u8>,
}

#[derive(Debug)]
enum Sending {
    /// An answer to a client, whose request may have been an extended CONNECT.
    Response { respond: SendResponse<Bytes>, is_connect: bool },
    /// A request to an endpoint.
    Request(SendRequest<Bytes>, Scheme),
    /// A body, to a client or not.
    Body { stream: SendStream<Bytes>, is_response: bool, is_over: bool },
    /// Nothing: the head could not be sent.
    Failed,
}

impl Http2Stream {
    /// A request of a client, with its `head` as text, and where the answer to it goes; what is sent there
    /// is told `traffic`.
    pub fn of_client(
        head: Vec<u8>,
        body: RecvStream,
        length: Option<u64>,
        respond: SendResponse<Bytes>,
        is_connect: bool,
        traffic: Rc<Traffic>,
    ) -> Self {
        let receiving =
            Receiving { head: head.into(), body: Some(body), left: length, ..Receiving::default() };
        let sending = Sending::Response { respond, is_connect };
        Self { receiving: receiving.into(), sending: sending.into(), traffic: Some(traffic) }
    }

    /// A request to be sent to an endpoint; whether that resets the stream is noted in `resets`.
    pub fn to_endpoint(sender: SendRequest<Bytes>, scheme: Scheme, resets: Rc<Resets>) -> Self {
        let sending = Sending::Request(sender, scheme).into();
        let receiving = Receiving { resets: Some(resets), ..Receiving::default() };
        Self { receiving: receiving.into(), sending, traffic: None }
    }

    /// How the end of a body is known that is `announced` so.
    pub fn framing(&self, announced: Framing) -> Framing {
        let receiving = self.receiving.borrow();
        match announced {
            // A body that is empty may have trailers all the same.
            _ if !receiving.trailers.is_empty() => Framing::UntilClose,
            Framing::Empty => Framing::Empty,
            _ if receiving.has_ended() => Framing::Empty,
            _ => Framing::UntilClose,
        }
    }

    /// The trailer section of a body that has ended, with its empty line; nothing where there is none.
    pub fn take_trailers(&self) -> Vec<u8> {
        std::mem::take(&mut self.receiving.borrow_mut().trailers)
    }

    /// Sends the head at the front of `text`, which has no end yet or `is_end` all the message, and
    /// returns its length.
    ///
    /// # Errors
    /// A stream that is over, or a head that HTTP/2 has no words for.
    pub async fn send_head(&self, text: &[u8], is_end: bool) -> io::Result<usize> {
        let length = memmem::find(text, b"\r\n\r\n").map_or(text.len(), |at| at + 4);
        let (head, rest) = text.split_at_checked(length).unwrap_or_default();
        let is_over = is_end && rest.is_empty();
        poll_fn(|cx| {
            let sent = ready!(self.poll_send_head(cx, head, is_over));
            Poll::Ready(sent.inspect_err(|error| self.fail(error)))
        })
        .await
        .map(|()| length)
    }

    fn poll_send_head(
        &self,
        cx: &mut Context<'_>,
        head: &[u8],
        is_over: bool,
    ) -> Poll<io::Result<()>> {
        let mut sending = self.sending.borrow_mut();
        let (stream, is_response, is_over) = match &mut *sending {
            Sending::Response { respond, is_connect } => {
                let (response, _) =
                    translate::response_head(head, *is_connect).map_err(io::Error::other)?;
                if response.status().is_informational() {
                    return Poll::Ready(
                        respond.send_informational(response).map_err(io::Error::other),
                    );
                }
                let sent = respond.send_response(response, is_over);
                let stream = sent.map_err(io::Error::other)?;
                self.traffic.iter().for_each(|traffic| traffic.answered());
                (stream, true, is_over)
            }
            Sending::Request(sender, scheme) => {
                ready!(sender.poll_ready(cx)).map_err(io::Error::other)?;
                let may_connect = sender.is_extended_connect_protocol_enabled();
                let (request, switch) =
                    translate::endpoint_request(head, scheme.clone(), may_connect)
                        .map_err(io::Error::other)?;
                let is_over = is_over && switch.is_none();
                let (answer, stream) =
                    sender.send_request(request, is_over).map_err(io::Error::other)?;
                let mut receiving = self.receiving.borrow_mut();
                receiving.answer = Some(answer);
                receiving.switch = switch;
                receiving.method = head.split(|b| *b == b' ').next().map(Method::of);
                (stream, false, is_over)
            }
            Sending::Body { .. } | Sending::Failed => return Poll::Ready(Err(closed())),
        };
        *sending = Sending::Body { stream, is_response, is_over };
        Poll::Ready(Ok(()))
    }

    /// Has whoever waits for an answer know that the request was not sent, and why.
    fn fail(&self, error: &io::Error) {
        let mut sending = self.sending.borrow_mut();
        if matches!(*sending, Sending::Request(..)) {
            *sending = Sending::Failed;
            let refused = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
            let not_sent = || io::ErrorKind::NotConnected.into();
            let failure = refused.map_or_else(not_sent, |refused| io::Error::other(*refused));
            self.receiving.borrow_mut().failure = Some(failure);
        }
    }

    /// Whether a head is to be sent next.
    pub fn awaits_head(&self) -> bool {
        matches!(*self.sending.borrow(), Sending::Response { .. } | Sending::Request(..))
    }

    /// Sends as much of `payload` as the peer takes, and returns how much. With `is_end` nothing comes
    /// behind it.
    ///
    /// # Errors
    /// A stream that is over.
    pub async fn send_data(&self, payload: &[u8], is_end: bool) -> io::Result<usize> {
        poll_fn(|cx| self.poll_send_data(cx, payload, is_end)).await
    }

    fn poll_send_data(
        &self,
        cx: &mut Context<'_>,
        payload: &[u8],
        is_end: bool,
    ) -> Poll<io::Result<usize>> {
        let mut sending = self.sending.borrow_mut();
        let Sending::Body { stream, is_over, .. } = &mut *sending else {
            return Poll::Ready(Err(closed()));
        };
        if *is_over {
            return Poll::Ready(if payload.is_empty() { Ok(0) } else { Err(closed()) });
        }
        let mut room = payload.len();
        if room > 0 {
            stream.reserve_capacity(room);
            while stream.capacity() == 0 {
                ready!(stream.poll_capacity(cx)).ok_or_else(closed)?.map_err(io::Error::other)?;
            }
            room = room.min(stream.capacity());
        }
        *is_over = is_end && room == payload.len();
        let data = Bytes::copy_from_slice(payload.get(..room).unwrap_or_default());
        stream.send_data(data, *is_over).map_err(io::Error::other)?;
        if let Some(traffic) = self.traffic.as_ref().filter(|_| room > 0) {
            traffic.sent_data(room, room == payload.len());
        }
        Poll::Ready(Ok(room))
    }

    /// Ends the message with a trailer section, or without one where it is empty.
    ///
    /// # Errors
    /// A stream that is over, or trailers that HTTP/2 has no words for.
    pub async fn send_end(&self, trailers: &[u8]) -> io::Result<()> {
        if self.receiving.borrow().switch.is_some() {
            // What asks for another protocol has no body, and its stream goes on for that.
            return Ok(());
        }
        if trailers.is_empty() || trailers == b"\r\n" {
            return self.send_data(b"", true).await.map(|_| ());
        }
        let trailers = translate::trailers_map(trailers).map_err(io::Error::other)?;
        match &mut *self.sending.borrow_mut() {
            Sending::Body { stream, is_over, .. } if !*is_over => {
                *is_over = true;
                stream.send_trailers(trailers).map_err(io::Error::other)
            }
            _ => Err(closed()),
        }
    }

    /// Reads what there is; nothing at the end.
    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut receiving = self.receiving.borrow_mut();
        ready!(receiving.poll_more(cx))?;
        let is_head = !receiving.head.is_empty();
        receiving.read(buf);
        // Small frames go on together.
        while !is_head && buf.remaining() > 0 && !receiving.is_over {
            match receiving.poll_more(cx) {
                Poll::Ready(Ok(())) => receiving.read(buf),
                Poll::Ready(Err(error)) => {
                    receiving.failure = Some(error);
                    break;
                }
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready once there is something to read, or the end.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.receiving.borrow_mut().poll_more(cx)
    }

    /// Ready once the peer has reset the stream, or the connection has failed.
    pub(super) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.sending.borrow_mut() {
            Sending::Response { respond, .. } => respond.poll_reset(cx).map(|_| ()),
            Sending::Body { stream, .. } => stream.poll_reset(cx).map(|_| ()),
            Sending::Request(..) | Sending::Failed => Poll::Pending,
        }
    }

    /// Ends the stream as a failure.
    pub fn reset(&self) {
        match &mut *self.sending.borrow_mut() {
            Sending::Response { respond, .. } => respond.send_reset(Reason::INTERNAL_ERROR),
            Sending::Body { stream, .. } => stream.send_reset(Reason::INTERNAL_ERROR),
            Sending::Request(..) | Sending::Failed => {}
        }
    }
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        // What is not whole must not look as if the client had cancelled it itself.
        match self.sending.get_mut() {
            Sending::Response { respond, .. } => respond.send_reset(Reason::INTERNAL_ERROR),
            Sending::Body { stream, is_response: true, is_over: false } => {
                stream.send_reset(Reason::INTERNAL_ERROR);
            }
            Sending::Request(..) | Sending::Body { .. } | Sending::Failed => {}
        }
    }
}

impl Receiving {
    /// Whether all has come that is to come, and was read.
    fn has_ended(&self) -> bool {
        let ended = self.is_over || self.body.as_ref().is_some_and(RecvStream::is_end_stream);
        ended && self.head.is_empty() && self.payload.is_empty()
    }

    /// Ready once there is something to be read, or the end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Err(failure));
        }
        while self.head.is_empty() && self.body.is_none() {
            ready!(self.poll_head(cx))?;
        }
        if !self.head.is_empty() {
            // One that announces no body is whole already for whoever reads it as text.
            while self.left == Some(0) && !self.is_over {
                ready!(self.poll_body(cx))?;
            }
            return Poll::Ready(Ok(()));
        }
        while !self.is_over && (self.payload.is_empty() || self.left == Some(0)) {
            ready!(self.poll_body(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes in the next head of an endpoint's.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let method = self.method.unwrap_or(Method::Get);
        // Not asked yet; whoever asks is the same task.
        let Some(answer) = &mut self.answer else { return Poll::Pending };
        let mut text = Vec::with_capacity(USUAL_HEAD);
        if let Poll::Ready(Some(informational)) = answer.poll_informational(cx) {
            if let Some(resets) = &self.resets {
                resets.note_head(informational.as_ref().err());
            }
            let (parts, ()) = informational.map_err(io::Error::other)?.into_parts();
            translate::response_text(&parts, method, false, None, &mut text)
                .map_err(io::Error::other)?;
        } else {
            let response = ready!(Pin::new(answer).poll(cx));
            if let Some(resets) = &self.resets {
                resets.note_head(response.as_ref().err());
            }
            let response = response.map_err(io::Error::other)?;
            let (parts, body) = response.into_parts();
            let (is_end, switch) = (body.is_end_stream(), self.switch.as_ref());
            translate::response_text(&parts, method, is_end, switch, &mut text)
                .map_err(io::Error::other)?;
            let length = parts.headers.get(CONTENT_LENGTH).filter(|_| method != Method::Head);
            self.left = length.and_then(|length| decimal(length.as_bytes()));
            self.body = Some(body);
        }
        self.head = text.into();
        Poll::Ready(Ok(()))
    }

    /// Takes in the next payload, or the end.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(body) = &mut self.body else { return Poll::Pending };
        match ready!(body.poll_data(cx)) {
            Some(Ok(payload)) if payload.is_empty() => {}
            Some(Ok(payload)) if self.payload.is_empty() => {
                let length = payload.len() as u64;
                self.left = match self.left {
                    Some(left) => Some(left.checked_sub(length).ok_or_else(longer)?),
                    None => None,
                };
                self.payload = payload;
            }
            Some(Ok(_)) => return Poll::Ready(Err(longer())),
            Some(Err(error)) => {
                self.resets.iter().for_each(|resets| resets.note_body(&error));
                return Poll::Ready(Err(io::Error::other(error)));
            }
            None => {
                let trailers = ready!(body.poll_trailers(cx)).map_err(io::Error::other)?;
                if let Some(trailers) = trailers {
                    translate::trailers_text(&trailers, &mut self.trailers)
                        .map_err(io::Error::other)?;
                }
                self.is_over = true;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Hands on what is there.
    fn read(&mut self, buf: &mut ReadBuf<'_>) {
        let is_head = !self.head.is_empty();
        let from = if is_head { &mut self.head } else { &mut self.payload };
        let part = from.split_to(from.len().min(buf.remaining()));
        buf.put_slice(&part);
        if !is_head && let Some(body) = &mut self.body {
            // The peer may send as much again.
            let _ = body.flow_control().release_capacity(part.len());
        }
    }
}

fn closed() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

fn longer() -> io::Error {
    io::Error::other(Error::bad_request("the body is longer than announced"))
}

// Of a tunnel: HTTP is over, and what is written is the payload.
impl AsyncWrite for &Http2Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send_data(cx, buf, false)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send_data(cx, b"", true).map_ok(|_| ())
    }
}
