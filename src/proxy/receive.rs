//! The endpoint's half of an exchange: the response, received and passed on as it comes.

use std::cell::Cell;

use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::affinity::came_by_tls;
use super::body::{Broken, Fault, Sink, Source, Waits, relay};
use super::patience::Times;
use super::progress::{Forward, Sending};
use crate::error::{Error, Kind};
use crate::http::body::Framing;
use crate::http::buffer::Buffer;
use crate::http::grpc;
use crate::http::h2;
use crate::http::head::{
    Field, FieldId, Head, MAX_HEAD, Scanner, Version, as_response_fault, parse_response,
};
use crate::http::response::{Response, UNASKED_SWITCH};
use crate::http::rewrite::{self, Ours, Persistence};
use crate::http::websocket::{self, is_websocket};
use crate::net::deadline::{Deadline, Elapsed};
use crate::net::stream::{ReadHalf, WriteHalf, read_fault};
use crate::stats::RetryReason;
use crate::upstream::Picked;
use crate::upstream::pool::Keep;

/// Informational responses that are forwarded before the final one; more is an endpoint in a loop.
const MAX_INFORMATIONAL: u32 = 64;

/// A kept connection is given up at four fifths of the time that the endpoint says it waits, so
/// that no request crosses its FIN.
const KEEP_ALIVE_MARGIN: f64 = 0.8;

/// Where a response comes from, and where it goes to.
pub(super) struct Passage<'a, 'b, 'c> {
    pub picked: &'b Picked<'b>,
    pub from_endpoint: &'b mut ReadHalf<'c>,
    pub writer: &'b mut WriteHalf<'a>,
    /// What goes to the client next.
    pub output: &'b mut Vec<u8>,
    pub deadline: &'b mut Deadline,
    /// When the endpoint was asked.
    pub asked: Instant,
}

/// A response that has been passed on to its end.
pub(super) enum Received {
    /// The exchange is over.
    Whole {
        /// What the client was told of its connection.
        persistence: Persistence,
        /// How the connection to the endpoint may be kept, if at all.
        keep: Option<Keep>,
    },
    /// HTTP is over: a 101, and what came behind it.
    Switched(Buffer),
}

/// How the body of a response is passed on.
struct Plan {
    from: Framing,
    to: Framing,
    persistence: Persistence,
    keep: Option<Keep>,
    /// How much of it may be held back until it is whole, in bytes.
    hold: usize,
}

impl Forward<'_> {
    /// Receives the response, the start of which may be in `buffer`, the informational ones before
    /// it included, and passes it on.
    ///
    /// # Errors
    /// The endpoint's faults, and a client that takes no more.
    pub(super) async fn receive(
        &self,
        mut via: Passage<'_, '_, '_>,
        mut buffer: Buffer,
        fields: &mut Vec<Field>,
    ) -> Result<Received, Error> {
        if buffer.capacity() == 0 {
            buffer = self.worker.buffers.small();
        }
        let is_http2 = via.from_endpoint.is_http2();
        let parse = if is_http2 { h2::parse_response } else { parse_response };
        for informational in 0..=MAX_INFORMATIONAL {
            let length = self.receive_head(&mut via, &mut buffer, informational == 0).await?;
            let head = buffer.filled().get(..length).unwrap_or_default();
            let line = parse(head, fields)?;
            let response = Response::interpret(head, line, fields, self.request.method)
                .and_then(|response| self.check_switch(response))
                .inspect_err(|_| self.keep_proxy_status(Head::new(head, fields)))?;
            via.output.clear();
            if !response.is_informational() {
                let is_well = self.note_answer(&response, &via, buffer.len() - length)?;
                if response.status >= 200 {
                    let plan = self.begin(&response, via.picked, via.output);
                    buffer.consume(length);
                    let received = self.pass_body(plan, buffer, &mut via).await;
                    if is_well && received.is_ok() {
                        via.picked.endpoint.state.succeeded();
                    }
                    return received;
                }
            }
            self.pass_informational(&response, &mut via).await?;
            let is_switch = response.status == 101;
            buffer.consume(length);
            if is_switch {
                self.tries.settle();
                return Ok(Received::Switched(buffer));
            }
        }
        Err(Error::bad_response("more than 64 informational responses"))
    }

    /// Counts the final answer, `behind` whose head so many bytes have come; returns whether the
    /// endpoint is well, as far as that tells.
    ///
    /// # Errors
    /// A status that is asked for again.
    fn note_answer(
        &self,
        response: &Response<'_>,
        via: &Passage<'_, '_, '_>,
        behind: usize,
    ) -> Result<bool, Error> {
        let (status, config) = (response.status, &self.upstream.config);
        let now = Instant::now();
        let took = now.saturating_duration_since(via.asked);
        self.progress.status.set(status);
        self.progress.upstream_duration.set(Some(took));
        let (endpoint, worker) = (via.picked.endpoint, self.worker.index);
        let is_failure =
            config.ejection.as_ref().is_some_and(|rules| rules.status.contains(status));
        if is_failure {
            self.upstream.observe_failure(endpoint, worker, now, took);
            if via.picked.failed(now, "a status that counts as one") {
                self.worker.shared.endpoint_lost();
            }
        } else {
            self.upstream.observe(endpoint, worker, now, took);
            via.picked.answered(now);
        }
        let asks_again = match config.retry.on.contains(status) {
            true => self.can_leave(true).then_some(RetryReason::Status),
            false if self.is_grpc && self.has_failed_so(response) && self.can_leave_call() => {
                Some(RetryReason::GrpcStatus)
            }
            false => None,
        };
        if let Some(reason) = asks_again {
            self.progress.status.set(0);
            self.tries.given_up.set(Some(reason));
            // Where nothing more is to come, the connection is as good as before.
            let is_whole = match response.framing {
                Framing::Empty => behind == 0,
                Framing::Length(length) => usize::try_from(length) == Ok(behind),
                _ => false,
            };
            self.tries.keep.set(self.keep(response).filter(|_| is_whole));
            let detail = "the endpoint answered with a status that is asked for again";
            return Err(Error::new(Kind::Unavailable, detail));
        }
        Ok(!is_failure)
    }

    /// Whether the call has failed, without a message, with a status that is asked for again.
    fn has_failed_so(&self, response: &Response<'_>) -> bool {
        let statuses = self.upstream.config.retry.grpc_on;
        grpc::status(response.head).is_some_and(|code| statuses.contains(code.number()))
    }

    /// Reads until a whole head is at the front of `buffer`, and returns its length.
    async fn receive_head(
        &self,
        via: &mut Passage<'_, '_, '_>,
        buffer: &mut Buffer,
        is_first: bool,
    ) -> Result<usize, Error> {
        let mut scanner = Scanner::default();
        let mut times: Option<Times> = None;
        loop {
            if let Some(length) = scanner.scan(buffer.filled()).map_err(as_response_fault)? {
                return Ok(length);
            }
            if buffer.spare().is_empty() {
                buffer.grow(MAX_HEAD);
            }
            let picked = via.picked;
            let owed = || {
                let is_owed = self.progress.sending.get() != Sending::Underway
                    || self.progress.awaits_continue.get();
                if !is_owed {
                    times = None;
                    return None;
                }
                // A request without a body is sent as soon as it is asked.
                let since = || match self.request.framing {
                    Framing::Empty => via.asked,
                    _ => Instant::now(),
                };
                let times = *times.get_or_insert_with(|| self.times(since()));
                Some(self.due(times, picked.is_lost().then_some(via.asked)))
            };
            let read = via.deadline.due(owed, via.from_endpoint.read(buffer.spare()));
            match read.await {
                Ok(Ok(n)) if n > 0 => buffer.fill(n),
                Ok(Err(error)) if let Some(fault) = read_fault(&error) => return Err(fault),
                Ok(_) if is_first && buffer.is_empty() => {
                    let detail = "the endpoint closed the connection without a response";
                    return Err(Error::new(Kind::ConnectionTerminated, detail));
                }
                Ok(_) => return Err(INCOMPLETE),
                Err(Elapsed) => {
                    let is_over = times.is_some_and(|times| Instant::now() >= times.end);
                    self.give_up(is_over, picked.is_lost())?;
                }
            }
        }
    }

    /// Another protocol only for a client that has asked for it.
    fn check_switch<'r>(&self, response: Response<'r>) -> Result<Response<'r>, Error> {
        match (response.status, self.request.upgrade) {
            (101, None) => return Err(UNASKED_SWITCH),
            (101, Some(asked)) => {
                // A client in HTTP/2 gets no answer to the key, and most likely did not make it.
                let is_ours = self.request.version == Version::Http2 && is_websocket(asked);
                let key = is_ours.then(|| websocket::key_in(self.request.head)).flatten();
                response.check_switch(asked, key)?;
            }
            _ => {}
        }
        Ok(response)
    }

    /// Keeps what the endpoint says in `Proxy-Status`, for ours to be appended to (RFC 9209 2).
    fn keep_proxy_status(&self, head: Head<'_>) {
        let mut kept = self.progress.upstream_status.borrow_mut();
        for value in head.values(FieldId::ProxyStatus) {
            if !kept.is_empty() {
                kept.extend_from_slice(b", ");
            }
            kept.extend_from_slice(value);
        }
    }

    /// Passes on a 1xx at once.
    async fn pass_informational(
        &self,
        response: &Response<'_>,
        via: &mut Passage<'_, '_, '_>,
    ) -> Result<(), Error> {
        // HTTP/1.0 knows none of them (RFC 9110 15.2).
        if self.request.version == Version::Http10 {
            return Ok(());
        }
        rewrite::informational(via.output, response);
        if response.status == 100 {
            self.progress.awaits_continue.set(false);
        }
        // The final response is still to come, and may still be one of ours.
        let begun = match response.status {
            101 => &self.progress.begun,
            _ => &Cell::new(false),
        };
        let mut sink = Sink::new(via.writer, via.output, Framing::Empty, begun);
        let write = self.listener.config.timeouts.body;
        let mut waits = Waits::to_write(via.deadline, write);
        sink.flush(&mut waits).await.map_err(|_| Error::CLIENT_CLOSED)
    }

    /// Renders the head of the final response.
    fn begin(&self, response: &Response<'_>, picked: &Picked<'_>, output: &mut Vec<u8>) -> Plan {
        let Self { worker, progress, request, .. } = self;
        // The endpoint answers before it has the whole request, or takes no more of it. Nobody will read the
        // rest, and a client that waits for a 100 may not even send it (RFC 9110 10.1.1).
        let is_early = progress.sending.get() != Sending::Whole;
        let to = rewrite::client_framing(request, response);
        let stays = request.is_persistent()
            && to != Framing::UntilClose
            && !is_early
            && worker.draining.get().is_none();
        let persistence = match (stays, request.version) {
            (false, _) => Persistence::Closes,
            (true, Version::Http11 | Version::Http2) => Persistence::Stays,
            (true, Version::Http10) => Persistence::StaysByWord,
        };
        progress.ends_by_close.set(to == Framing::UntilClose);
        let by_tls = || came_by_tls(request, self.client);
        let cookie = self.affinity.cookie(self.upstream, picked.index, by_tls);
        let ours = Ours {
            pseudonym: self.pseudonym(),
            cookie: cookie.as_ref().map(String::as_bytes),
            hsts: self.listener.hsts(),
            may_upgrade: request.version == Version::Http11,
        };
        rewrite::response(output, response, to, persistence, ours, || worker.date());
        // An endpoint that answers early may close without reading the rest.
        let keep = self.keep(response).filter(|_| !is_early);
        let hold = match self.upstream.config.retry.hold {
            hold if hold > 0 && self.may_repeat(true) && !is_event_stream(response) => hold,
            _ => 0,
        };
        Plan { from: response.framing, to, persistence, keep, hold }
    }

    /// How the connection that `response` came on may be kept, if at all.
    fn keep(&self, response: &Response<'_>) -> Option<Keep> {
        // One that was introduced as a client's is of no use to another.
        let may_be_kept = response.is_persistent && self.upstream.config.proxy_protocol.is_none();
        may_be_kept.then(|| {
            let idle = self.upstream.config.timeouts.idle;
            let told = response.keep_alive_timeout();
            Keep {
                idle: told.map_or(idle, |told| told.mul_f64(KEEP_ALIVE_MARGIN).min(idle)),
                is_quarantined: response.may_have_stray_body,
            }
        })
    }

    /// Passes on the body, and the head that waits before it.
    async fn pass_body(
        &self,
        plan: Plan,
        buffer: Buffer,
        via: &mut Passage<'_, '_, '_>,
    ) -> Result<Received, Error> {
        let Self { worker, progress, request, .. } = self;
        let Passage { picked, from_endpoint, writer, output, deadline, .. } = via;
        let framing = from_endpoint.framing(plan.from);
        let mut source = Source::new(from_endpoint, buffer, framing);
        let mut sink = Sink::new(writer, output, plan.to, &progress.begun);
        sink.hold = plan.hold;
        if plan.hold == 0 {
            // From here on it is no retry any more, however long it takes.
            self.tries.settle();
        }
        // A body with a length, or a chunk that has begun, is owed; an event stream may be quiet.
        let mut waits = Waits {
            deadline,
            read: Some(self.upstream.config.timeouts.body),
            may_pause: true,
            departure: None,
            write: self.listener.config.timeouts.body,
        };
        let sent = &progress.bytes.1;
        let passing = |payload: &[u8]| {
            sent.set(sent.get() + payload.len() as u64);
            Ok(())
        };
        relay(worker, &mut source, &mut sink, &mut waits, request.takes_trailers, passing)
            .await
            .map_err(|broken| match broken {
                Broken::Source(fault) => endpoint_fault(fault),
                Broken::Sink(Fault::TimedOut) => {
                    Error::new(Kind::ClientClosed, "the client stopped reading")
                }
                Broken::Sink(Fault::Refused(error)) => error,
                Broken::Sink(_) => Error::CLIENT_CLOSED,
            })?;
        let is_stray = !source.buffer.is_empty();
        if is_stray {
            self.endpoint_stats(picked.endpoint, |stats| stats.stray.add(1));
        }
        let keep = plan.keep.filter(|_| !is_stray);
        worker.buffers.put(source.buffer);
        Ok(Received::Whole { persistence: plan.persistence, keep })
    }
}

/// Whether it goes on for as long as there are events (WHATWG HTML 9.2), and is read as they come.
fn is_event_stream(response: &Response<'_>) -> bool {
    let mut fields = response.head.lines();
    fields.any(|(_, name, value)| {
        let kind = value.get(..EVENT_STREAM.len());
        name.eq_ignore_ascii_case(b"content-type")
            && kind.is_some_and(|kind| kind.eq_ignore_ascii_case(EVENT_STREAM))
    })
}

const EVENT_STREAM: &[u8] = b"text/event-stream";

const INCOMPLETE: Error = Error::new(Kind::ResponseIncomplete, "the response ended early");

fn endpoint_fault(fault: Fault) -> Error {
    match fault {
        Fault::Closed => INCOMPLETE,
        Fault::Reset(code) => Error::stream_reset(code),
        Fault::TimedOut => Error::new(Kind::ResponseTimeout, "the response did not go on in time"),
        Fault::Refused(error) => as_response_fault(error),
    }
}
