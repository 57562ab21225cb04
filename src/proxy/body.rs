//! Payload on its way from one connection to another: a [`Source`] that finds it, a [`Sink`] that
//! frames it, and [`relay`] between them, which is the same in both directions.

use std::cell::Cell;
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::client::Departure;
use super::worker::{LARGE, SMALL, Worker};
use crate::error::Error;
use crate::http::body::{Decoder, Framing, Step};
use crate::http::buffer::Buffer;
use crate::http::head::{Head, parse_trailers};
use crate::http::rewrite;
use crate::net::deadline::{Deadline, Due, Elapsed};
use crate::net::http2::{Http2Stream, reset_by_peer};
use crate::net::stream::{ReadHalf, WriteHalf};

/// Payload up to this size is copied behind what waits to be written, so that a small body leaves
/// in one write with its head; larger payload is written from where it was read.
const COPIED: usize = 8 * 1024;

/// How long a body that is held back until it is whole may pause; then it is a stream, and is passed
/// on as it comes.
const HOLD_PATIENCE: Duration = Duration::from_secs(1);

/// What ended a transfer early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The peer closed or reset the connection.
    Closed,
    /// The peer reset the stream of HTTP/2, with this error code.
    Reset(u32),
    /// The peer did not do its part in time.
    TimedOut,
    /// The peer's bytes are wrong, or too many.
    Refused(Error),
}

/// Which side a transfer failed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// Where the body comes from.
    Source(Fault),
    /// Where it goes to.
    Sink(Fault),
}

/// How long each side of a transfer may take for one step; no limit where `None`.
pub(super) struct Waits<'d> {
    pub deadline: &'d mut Deadline,
    pub read: Option<Duration>,
    /// Whether a source that owes nothing at the moment may be quiet for as long as it likes.
    pub may_pause: bool,
    /// When the source's peer counts as gone, which ends the transfer whatever it has sent before.
    pub departure: Option<Departure<'d>>,
    pub write: Duration,
}

impl<'d> Waits<'d> {
    /// For something of ours, which comes from nowhere.
    pub(super) fn to_write(deadline: &'d mut Deadline, write: Duration) -> Self {
        Self { deadline, read: None, may_pause: false, departure: None, write }
    }
}

/// Waits for `future`, as long as `limit` allows; what comes of it is for [`step`].
fn within<F: Future>(
    deadline: &mut Deadline,
    limit: Option<Duration>,
    future: F,
) -> Due<'_, impl FnMut() -> Option<Instant>, F> {
    let mut due = None;
    let limit = move || limit.map(|limit| *due.get_or_insert_with(|| Instant::now() + limit));
    deadline.due(limit, future)
}

/// What a step that was waited for has come to.
fn step<T>(done: Result<std::io::Result<T>, Elapsed>) -> Result<T, Fault> {
    let done = done.map_err(|_| Fault::TimedOut)?;
    done.map_err(|error| match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        // What HTTP/2 cannot carry, or may not.
        Some(error) => Fault::Refused(*error),
        None => reset_by_peer(&error).map_or(Fault::Closed, Fault::Reset),
    })
}

/// A body as it arrives.
#[derive(Debug)]
pub(super) struct Source<'a, 'b> {
    pub io: &'b mut ReadHalf<'a>,
    pub buffer: Buffer,
    pub decoder: Decoder,
    /// Bytes at the front of the buffer that the decoder has counted, and that are being passed
    /// on. They are there still if that fails or is given up.
    pub passing: usize,
    /// Whether the body ended with trailers.
    pub had_trailers: bool,
}

impl<'a, 'b> Source<'a, 'b> {
    /// A body of this framing, the start of which is in `buffer`.
    pub(super) fn new(io: &'b mut ReadHalf<'a>, buffer: Buffer, framing: Framing) -> Self {
        Self { io, buffer, decoder: Decoder::new(framing), passing: 0, had_trailers: false }
    }

    /// Whether all of the body has been taken from the connection and passed on.
    pub(super) fn is_over(&self) -> bool {
        self.decoder.is_over() && self.passing == 0
    }

    /// Drops what was being passed on.
    fn passed(&mut self) {
        self.buffer.consume(std::mem::take(&mut self.passing));
    }

    /// Reads what there is; false at the end of the stream. The buffer grows with a stream that
    /// fills it.
    pub(super) async fn fill(
        &mut self,
        worker: &Worker,
        waits: &mut Waits<'_>,
    ) -> Result<bool, Fault> {
        if self.buffer.capacity() == 0 {
            self.buffer = worker.buffers.small();
        }
        let room = self.buffer.spare().len();
        let pauses = waits.may_pause && self.buffer.is_empty() && self.decoder.may_pause();
        let limit = waits.read.filter(|_| !pauses);
        let n = step(within(waits.deadline, limit, self.io.read(self.buffer.spare())).await)?;
        self.buffer.fill(n);
        if n == room && self.buffer.capacity() < LARGE && self.decoder.at_most() > SMALL as u64 {
            worker.buffers.enlarge(&mut self.buffer);
        }
        Ok(n > 0)
    }
}

/// A message as it leaves.
pub(super) struct Sink<'a, 'b> {
    pub io: &'b mut WriteHalf<'a>,
    /// What is to be written next: a head, framing, small payload.
    pub output: &'b mut Vec<u8>,
    pub framing: Framing,
    /// Whether anything has been written.
    pub begun: &'b Cell<bool>,
    /// What waits is held back while it is no more than this, until the message is whole.
    pub hold: usize,
    /// In HTTP/2, whether nothing comes behind what waits but `trailers`.
    is_over: bool,
    trailers: Vec<u8>,
}

impl<'a, 'b> Sink<'a, 'b> {
    /// A message that is written as it comes.
    pub(super) fn new(
        io: &'b mut WriteHalf<'a>,
        output: &'b mut Vec<u8>,
        framing: Framing,
        begun: &'b Cell<bool>,
    ) -> Self {
        // HTTP/2 frames what it carries.
        let framing = if io.is_http2() { Framing::UntilClose } else { framing };
        Self { io, output, framing, begun, hold: 0, is_over: false, trailers: Vec::new() }
    }

    /// Sends `payload`, sooner or later.
    pub(super) async fn data(
        &mut self,
        payload: &[u8],
        waits: &mut Waits<'_>,
    ) -> Result<(), Fault> {
        let end: &[u8] = match self.framing {
            Framing::Chunked => {
                rewrite::chunk_size(self.output, payload.len());
                b"\r\n"
            }
            _ => b"",
        };
        if self.output.len() + payload.len() + end.len() > self.hold {
            self.hold = 0;
        }
        let is_small = payload.len() <= COPIED && self.output.len() <= COPIED;
        if is_small || self.hold > 0 {
            self.output.extend_from_slice(payload);
            self.output.extend_from_slice(end);
            return Ok(());
        }
        self.write_all(waits, payload, end).await
    }

    /// Ends the body, with these trailers where it can have any.
    fn end(&mut self, trailers: Option<Head<'_>>) {
        if self.io.is_http2() {
            self.is_over = true;
            if let Some(trailers) = trailers {
                rewrite::trailers(&mut self.trailers, trailers);
            }
        } else if self.framing == Framing::Chunked {
            self.output.extend_from_slice(b"0\r\n");
            rewrite::trailers(self.output, trailers.unwrap_or(Head::new(b"", &[])));
        }
    }

    /// Writes what waits.
    pub(super) async fn flush(&mut self, waits: &mut Waits<'_>) -> Result<(), Fault> {
        if !self.output.is_empty() || self.is_over {
            self.write_all(waits, b"", b"").await?;
        }
        Ok(())
    }

    /// Writes what waits, which is the end of the message.
    pub(super) async fn finish(&mut self, waits: &mut Waits<'_>) -> Result<(), Fault> {
        self.end(None);
        self.flush(waits).await
    }

    /// Writes what waits, `payload` and `end`, each step in its time.
    async fn write_all(
        &mut self,
        waits: &mut Waits<'_>,
        payload: &[u8],
        end: &[u8],
    ) -> Result<(), Fault> {
        if let WriteHalf::Http2(stream) = *self.io {
            return self.send_on(stream, waits, payload).await;
        }
        let Self { io, output, begun, .. } = self;
        let mut slices = [output, payload, end].map(IoSlice::new);
        let mut rest = slices.as_mut_slice();
        IoSlice::advance_slices(&mut rest, 0);
        while let Some(first) = rest.first() {
            // A plain write tells the runtime when the socket is full without a second call.
            let is_last = rest.iter().skip(1).all(|part| part.is_empty());
            let write = async {
                if is_last { io.write(first).await } else { io.write_vectored(rest).await }
            };
            let n = step(within(waits.deadline, Some(waits.write), write).await)?;
            if n == 0 {
                return Err(Fault::Closed);
            }
            begun.set(true);
            IoSlice::advance_slices(&mut rest, n);
        }
        // TLS may have taken more than the socket did.
        step(within(waits.deadline, Some(waits.write), io.flush()).await)?;
        output.clear();
        Ok(())
    }
}

impl Sink<'_, '_> {
    /// The same on a stream of HTTP/2.
    async fn send_on(
        &mut self,
        stream: &Http2Stream,
        waits: &mut Waits<'_>,
        payload: &[u8],
    ) -> Result<(), Fault> {
        let write = Some(waits.write);
        let ends = self.is_over && self.trailers.is_empty();
        let mut waiting = self.output.as_slice();
        if stream.awaits_head() {
            let head = stream.send_head(waiting, ends && payload.is_empty());
            let length = step(within(waits.deadline, write, head).await)?;
            self.begun.set(true);
            waiting = waiting.get(length..).unwrap_or_default();
        }
        for (mut part, is_last) in [(waiting, payload.is_empty()), (payload, true)] {
            while !part.is_empty() {
                let sent = stream.send_data(part, ends && is_last);
                let n = step(within(waits.deadline, write, sent).await)?;
                self.begun.set(true);
                part = part.get(n..).unwrap_or_default();
            }
        }
        if std::mem::take(&mut self.is_over) {
            step(within(waits.deadline, write, stream.send_end(&self.trailers)).await)?;
        }
        self.output.clear();
        Ok(())
    }
}

/// Moves the whole body from `source` to `sink`, and what waits in the sink before it.
///
/// Nothing waits to be written while there is nothing to read, and nothing is read while it can't
/// be written: what one side does not take, the other is not asked for.
pub(super) async fn relay(
    worker: &Worker,
    source: &mut Source<'_, '_>,
    sink: &mut Sink<'_, '_>,
    waits: &mut Waits<'_>,
    forward_trailers: bool,
    mut passing: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Broken> {
    let refused = |error| Broken::Source(Fault::Refused(error));
    // What an attempt before this one was passing on, whoever makes another has kept.
    source.passed();
    loop {
        match source.decoder.decode(&mut source.buffer).map_err(refused)? {
            Step::Data { payload, consume } => {
                source.passing = consume;
                let data = source.buffer.filled().get(..payload).unwrap_or_default();
                passing(data).map_err(refused)?;
                let departure = waits.departure;
                unless_gone(source.io, departure, pin!(sink.data(data, waits))).await?;
                source.passed();
            }
            Step::More => {
                let filled = if sink.hold == 0 {
                    let departure = waits.departure;
                    unless_gone(source.io, departure, pin!(sink.flush(waits))).await?;
                    source.fill(worker, waits).await
                } else {
                    let filled = source.fill(worker, waits);
                    let Ok(filled) = tokio::time::timeout(HOLD_PATIENCE, filled).await else {
                        sink.hold = 0;
                        continue;
                    };
                    filled
                };
                if !filled.map_err(Broken::Source)? {
                    if source.decoder.ends_with_stream() {
                        source.decoder = Decoder::new(Framing::Empty);
                        let trailers = source.io.take_trailers();
                        if source.buffer.spare().len() < trailers.len() {
                            source.buffer.grow(trailers.len());
                        }
                        source.buffer.append(&trailers);
                        let trailers = trailers.len();
                        end(source, sink, trailers, forward_trailers).map_err(refused)?;
                        return sink.flush(waits).await.map_err(Broken::Sink);
                    }
                    return Err(Broken::Source(Fault::Closed));
                }
            }
            Step::End { trailers } => {
                end(source, sink, trailers, forward_trailers).map_err(refused)?;
                return sink.flush(waits).await.map_err(Broken::Sink);
            }
        }
    }
}

/// Writes, but only until the `departure` of the peer that the payload comes from, if that matters.
async fn unless_gone(
    from: &ReadHalf<'_>,
    departure: Option<Departure<'_>>,
    write: Pin<&mut impl Future<Output = Result<(), Fault>>>,
) -> Result<(), Broken> {
    let Some(departure) = departure else { return write.await.map_err(Broken::Sink) };
    tokio::select! {
        biased;
        written = write => written.map_err(Broken::Sink),
        () = departure.wait(from) => Err(Broken::Source(Fault::Closed)),
    }
}

/// Ends the sink's body with what the trailer section of the source's says.
fn end(
    source: &mut Source<'_, '_>,
    sink: &mut Sink<'_, '_>,
    trailers: usize,
    forward: bool,
) -> Result<(), Error> {
    let section = source.buffer.filled().get(..trailers).unwrap_or_default();
    if section.is_empty() {
        sink.end(None);
    } else {
        source.had_trailers = true;
        let mut fields = Vec::new();
        parse_trailers(section, &mut fields)?;
        sink.end(forward.then(|| Head::new(section, &fields)));
        source.buffer.consume(trailers);
    }
    Ok(())
}
