//! One request and its answer: read, understood, routed, forwarded or answered here, and told of.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep_until};

use super::access_log::Record;
use super::affinity::Affinity;
use super::answer::{Answer, Found, Here, find};
use super::body::{Sink, Source, Waits};
use super::client::{Client, Facts, Next};
use super::progress::{ClientSide, Forward, Progress};
use super::reply::{self, Shape};
use super::request_id::RequestId;
use super::tries::Tries;
use super::worker::{Scratch, Worker};
use crate::error::{Error, Kind};
use crate::http::body::Framing;
use crate::http::buffer::Buffer;
use crate::http::grpc;
use crate::http::h2;
use crate::http::head::{MAX_HEAD, Scanner, Version, parse_request};
use crate::http::request::Request;
use crate::net::deadline::Elapsed;
use crate::net::origin::Origin;
use crate::stats::RetryReasons;

/// Serves the requests that have arrived, until there is nothing left to read or the connection is
/// over.
pub(super) async fn serve(client: &mut Client) -> Next {
    let facts = Rc::clone(&client.facts);
    let mut scratch = facts.worker.buffers.scratch();
    loop {
        let next = match read_head(client, &mut scratch.input).await {
            Ok(Read::Head(length)) => one(client, &facts, &mut scratch, length).await,
            Ok(Read::Preface) => {
                std::mem::swap(&mut client.ahead, &mut scratch.input);
                return Next::Http2;
            }
            Ok(Read::Nothing) => Next::Idle,
            Ok(Read::Over) => Next::Close,
            Err(error) => refuse_unread(client, &mut scratch.drafts.to_client, error, None).await,
        };
        if next != Next::Idle || scratch.input.is_empty() {
            let has_more = !scratch.input.is_empty();
            facts.worker.buffers.recycle(scratch);
            return match next {
                // What the client sent behind its last request is not worth its last answer.
                Next::Close if has_more => Next::CloseGracefully,
                next => next,
            };
        }
    }
}

/// The start of what a client in HTTP/2 sends first, which looks like a head (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// What has been read.
enum Read {
    /// A head of this length, at the front of the input.
    Head(usize),
    /// What every connection in HTTP/2 begins with, at the front of the input.
    Preface,
    /// Nothing: the client is idle.
    Nothing,
    /// The end: the client has ended the connection, between requests or in mid-head.
    Over,
}

/// Reads until a whole head is at the front of `input`.
async fn read_head(client: &mut Client, input: &mut Buffer) -> Result<Read, Error> {
    let Client { facts, stream, deadline, is_new, .. } = client;
    let listener = &facts.listener;
    let mut scanner = Scanner::default();
    let mut due = None;
    loop {
        if let Some(length) = scanner.scan_request(input)? {
            let begins_http2 = std::mem::take(is_new) && listener.config.http2;
            let is_preface = begins_http2 && input.filled().get(..length) == Some(PREFACE);
            return Ok(if is_preface { Read::Preface } else { Read::Head(length) });
        }
        if input.spare().is_empty() {
            input.grow(MAX_HEAD);
        }
        let limit =
            || Some(*due.get_or_insert_with(|| Instant::now() + listener.config.timeouts.head));
        let is_first = input.is_empty();
        let mut read = pin!(stream.read(input.spare()));
        if is_first {
            // Only what the runtime took for readable, and is not: the client is idle still.
            match poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await {
                Poll::Ready(Ok(n)) if n > 0 => {
                    input.fill(n);
                    continue;
                }
                Poll::Ready(_) => return Ok(Read::Over),
                Poll::Pending => return Ok(Read::Nothing),
            }
        }
        match deadline.due(limit, read).await {
            Ok(Ok(n)) if n > 0 => input.fill(n),
            Ok(_) => return Ok(Read::Over),
            Err(Elapsed) => {
                return Err(Error::new(Kind::RequestTimeout, "the head did not end in time"));
            }
        }
    }
}

/// Sees the request whose head is the first `length` bytes of the input through to its end.
async fn one(client: &mut Client, facts: &Facts, scratch: &mut Scratch, length: usize) -> Next {
    let started = Instant::now();
    let Facts { worker, listener, peer, is_trusted, .. } = facts;
    let mut snapshot = worker.snapshot();
    let progress = Progress::default();
    let tries = Tries::default();
    let Scratch { input, fields, drafts } = scratch;
    let parse = if client.stream.is_http2() { h2::parse_request } else { parse_request };
    let (request, rest) = loop {
        let (head, rest) = input.filled().split_at_checked(length).unwrap_or_default();
        let line = match parse(head, fields) {
            Ok(line) => line,
            Err(error) => return refuse_unread(client, &mut drafts.to_client, error, None).await,
        };
        let request = match Request::interpret(head, line, fields) {
            Ok(request) => request,
            Err(error) => {
                let asked = (line.method.slice(head), line.target.slice(head));
                return refuse_unread(client, &mut drafts.to_client, error, Some(asked)).await;
            }
        };
        if request.upgrade.is_none() || input.len() == input.capacity() {
            break (request, rest);
        }
        // A tunnel may be quiet for hours, and keeps its head as long: no more than that.
        worker.buffers.shrink(input);
    };
    let is_grpc = request.version == Version::Http2 && grpc::is_grpc_head(request.head);
    let call_timeout =
        if is_grpc { grpc::timeout(request.head).map(|told| told.min(LONGEST_CALL)) } else { None };
    let request_id = RequestId::of(&request, *is_trusted);

    // The head stays where it is until the end; the body has a buffer of its own.
    let has_body = request.framing != Framing::Empty;
    let mut buffer = Buffer::default();
    if has_body {
        buffer = worker.buffers.at_least(rest.len());
        buffer.append(rest);
    }
    let Client { stream, deadline, idle_since, .. } = client;
    let (mut reader, mut writer) = stream.split();
    let framing = reader.framing(request.framing);
    let mut side = ClientSide {
        source: Source::new(&mut reader, buffer, framing),
        writer: &mut writer,
        deadline,
    };
    let (found, result) = loop {
        let found = find(facts, &snapshot, &request);
        let result = match &found {
            Ok((route, upstream)) => {
                if upstream.config.proxy_protocol.is_some() {
                    facts.know_origin(side.source.io.with_socket(Origin::of).flatten());
                }
                let forward = Forward {
                    worker,
                    listener,
                    client: facts,
                    request: &request,
                    request_id: request_id.as_bytes(),
                    route,
                    upstream,
                    progress: &progress,
                    tries: &tries,
                    is_grpc,
                    call_timeout,
                    is_repeatable: request.method.is_idempotent() || route.idempotent,
                    affinity: Affinity::of(upstream, &request, *peer, listener),
                    started,
                    early: if has_body { b"" } else { rest },
                };
                let running = pin!(forward.run(&mut side, drafts));
                let end = call_timeout.map(|timeout| started + timeout);
                in_time(end, running).await.map_err(Here::Failed)
            }
            Err(Here::Failed(error)) => Err(Here::Failed(*error)),
            Err(Here::Options) => Err(Here::Options),
            Err(Here::Redirect(port)) => Err(Here::Redirect(*port)),
        };
        if progress.is_outdated.take() {
            progress.endpoint.set(None);
            snapshot = worker.snapshot();
            continue;
        }
        break (found, result);
    };
    let (next, error) = match result {
        Ok(next) => (next, None),
        Err(Here::Failed(error)) if error.kind == Kind::ClientClosed => {
            progress.status.set(error.kind.status());
            // Earlier responses may still lie in the kernel, and a client that has only closed its side reads on.
            let next = if progress.begun.get() { Next::Reset } else { Next::CloseGracefully };
            (next, Some(error))
        }
        // A call says in its trailers how it ended.
        Err(Here::Failed(error)) if progress.begun.get() && is_grpc => {
            let end = &mut drafts.to_client;
            end.clear();
            reply::call_failed(end, error);
            let ended = side.writer.end_http2(end);
            let _ = side.deadline.within(listener.config.timeouts.body, ended).await;
            (Next::Close, Some(error))
        }
        // What has begun cannot be taken back; it must not look whole.
        Err(Here::Failed(error)) if progress.begun.get() => {
            let cut = if progress.ends_by_close.get() { Next::Reset } else { Next::Close };
            (cut, Some(error))
        }
        Err(here) => {
            let write = listener.config.timeouts.body;
            let answer = Answer {
                worker,
                request: &request,
                id: request_id.as_bytes(),
                hsts: listener.hsts(),
                is_grpc,
            };
            answer.send(here, &progress, &mut side, &mut drafts.to_client, write).await
        }
    };
    let ended = progress.ended.get().unwrap_or_else(Instant::now);
    *idle_since = ended;
    let record = Record {
        client: *peer,
        method: Some(request.token),
        host: request.authority,
        path: Some(request.path()),
        status: progress.status.get(),
        bytes: (progress.bytes.0.get(), progress.bytes.1.get()),
        duration: ended.duration_since(started),
        upstream_duration: progress.upstream_duration.get(),
        route: None,
        upstream: None,
        endpoint: None,
        attempts: progress.attempts.get(),
        connect_failures: progress.connect_failures.get(),
        retries: tries.reasons.get(),
        error,
        request_id: Some(request_id.as_bytes()),
    };
    tell(worker, record, found.ok(), progress.endpoint.get());

    // What is left is the start of the next request.
    let buffer = side.source.buffer;
    if has_body {
        input.clear();
        if input.capacity() < buffer.len() {
            input.grow(buffer.len());
        }
        input.append(buffer.filled());
        worker.buffers.put(buffer);
    } else {
        input.consume(length);
    }
    next
}

/// Waits for `running` until the `end` of the time that whoever calls has. That is held against no endpoint:
/// anybody can have little time.
async fn in_time<T>(
    end: Option<Instant>,
    mut running: Pin<&mut impl Future<Output = Result<T, Error>>>,
) -> Result<T, Error> {
    let mut timer = end.map(|end| Box::pin(sleep_until(end)));
    poll_fn(|cx| {
        if let Poll::Ready(done) = running.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        match timer.as_mut().map(|timer| timer.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(CALL_LATE)),
            _ => Poll::Pending,
        }
    })
    .await
}

/// The longest that a call may say it takes: what is there for longer is no call.
const LONGEST_CALL: Duration = Duration::from_secs(24 * 3600);

const CALL_LATE: Error =
    Error::new(Kind::ResponseTimeout, "the call did not end in the time that its caller gave it");

/// Answers a request that is turned away before it could be read.
pub(super) async fn refuse(client: &mut Client, error: Error, asked: (&[u8], &[u8])) {
    refuse_unread(client, &mut Vec::new(), error, Some(asked)).await;
}

/// Answers a request whose head is at fault. Of the request line, method and target are known if
/// at least that was well-formed.
async fn refuse_unread(
    client: &mut Client,
    output: &mut Vec<u8>,
    error: Error,
    asked: Option<(&[u8], &[u8])>,
) -> Next {
    let Client { facts, stream, deadline, .. } = client;
    let Facts { worker, listener, peer, .. } = &**facts;
    output.clear();
    let mut shape = Shape::closing(listener.hsts());
    shape.has_body = asked.is_none_or(|(method, _)| method != b"HEAD");
    let body = reply::error(output, worker, error, b"", None, shape);
    let begun = &Cell::new(false);
    let (_, mut writer) = stream.split();
    let mut sink = Sink::new(&mut writer, output, Framing::Empty, begun);
    let mut waits = Waits::to_write(deadline, listener.config.timeouts.body);
    let written = sink.finish(&mut waits).await;
    let record = Record {
        client: *peer,
        method: asked.map(|(method, _)| method),
        host: None,
        // Without the query, as ever.
        path: asked.and_then(|(_, target)| target.split(|b| *b == b'?').next()),
        status: error.kind.status(),
        bytes: (0, body),
        duration: Duration::ZERO,
        upstream_duration: None,
        route: None,
        upstream: None,
        endpoint: None,
        attempts: 0,
        connect_failures: 0,
        retries: RetryReasons::NONE,
        error: Some(error),
        request_id: None,
    };
    tell(worker, record, None, None);
    if written.is_ok() { Next::CloseGracefully } else { Next::Close }
}

/// Counts the request, and logs it.
fn tell(worker: &Worker, record: Record<'_>, found: Option<Found<'_>>, endpoint: Option<usize>) {
    let stats = worker.stats();
    stats.received_bytes.add(record.bytes.0);
    stats.sent_bytes.add(record.bytes.1);
    let upstream = found.map(|(_, upstream)| upstream);
    let endpoint = upstream.zip(endpoint).and_then(|(u, index)| u.endpoints.get(index));
    let counted = upstream.and_then(|upstream| upstream.shared.stats.get(worker.index));
    if let Some(counted) = counted {
        counted.duration.observe(record.duration);
    }
    match (endpoint.and_then(|e| e.state.stats.get(worker.index)), counted) {
        (Some(endpoint), _) => endpoint.codes.count(record.status),
        (None, Some(upstream)) => upstream.codes.count(record.status),
        (None, None) => stats.codes.count(record.status),
    }
    if let Some(error) = record.error {
        tracing::debug!(client = %record.client, status = record.status, %error, "not served");
    }
    if worker.log.is_on() {
        let record = Record {
            route: found.map(|(route, _)| route.label.as_str()),
            upstream: upstream.map(|u| (u.config.name.as_str(), u.config.policy.name())),
            endpoint: endpoint.map(|endpoint| endpoint.state.label.as_str()),
            ..record
        };
        worker.log.write(&record, stats);
    }
}
