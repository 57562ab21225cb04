//! The bytes of a client's HTTP/2 connection, watched as they pass for what only makes work.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::stream::Stream;
use crate::http::buffer::Buffer;
use crate::http::h2::meter::{Meter, Verdict};

/// What has passed on a connection.
#[derive(Debug)]
pub struct Traffic {
    last_read: Cell<Instant>,
    /// Since when the peer takes nothing of what is to be written.
    blocked_since: Cell<Option<Instant>>,
    is_flood: Cell<bool>,
    meter: RefCell<Meter>,
}

impl Traffic {
    /// Nothing yet.
    pub fn new(now: Instant) -> Self {
        let meter = Meter::new(now.into_std()).into();
        let (blocked_since, is_flood) = Default::default();
        Self { last_read: Cell::new(now), blocked_since, is_flood, meter }
    }

    /// When something last came.
    pub fn last_read(&self) -> Instant {
        self.last_read.get()
    }

    /// Since when nothing can be written, if something is to be: the peer's kernel takes no more.
    pub fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since.get()
    }

    /// Whether the peer asks for more work than it may. Nothing more is read then.
    pub fn is_flood(&self) -> bool {
        self.is_flood.get()
    }

    /// The head of a response goes to the peer, which earns it some work.
    pub fn answered(&self) {
        self.meter.borrow_mut().answered();
    }

    /// So much of a body goes to the peer, which `is_all` that there is to send at the moment.
    pub fn sent_data(&self, length: usize, is_all: bool) {
        self.meter.borrow_mut().sent_data(length, is_all);
    }

    /// Notes since when writing is blocked, and passes on the result of a write.
    fn note_write<T>(&self, written: Poll<T>) -> Poll<T> {
        match &written {
            Poll::Ready(_) => self.blocked_since.set(None),
            Poll::Pending if self.blocked_since.get().is_none() => {
                self.blocked_since.set(Some(Instant::now()));
            }
            Poll::Pending => {}
        }
        written
    }

    /// Notes `bytes` that came.
    fn note_read(&self, bytes: &[u8]) {
        let now = Instant::now();
        self.last_read.set(now);
        let verdict = self.meter.borrow_mut().feed(bytes, now.into_std());
        self.is_flood.set(verdict == Verdict::Flood);
    }
}

/// A connection whose traffic is watched.
#[derive(Debug)]
pub struct Metered {
    /// The connection, shared with the task that closes it.
    stream: Rc<RefCell<Stream>>,
    /// What was read of it already.
    ahead: Buffer,
    traffic: Rc<Traffic>,
}

impl Metered {
    /// Watches `stream`, of which `ahead` has been read already.
    pub const fn new(stream: Rc<RefCell<Stream>>, ahead: Buffer, traffic: Rc<Traffic>) -> Self {
        Self { stream, ahead, traffic }
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, ahead, traffic } = self.get_mut();
        if traffic.is_flood() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        if !ahead.is_empty() {
            let n = ahead.len().min(buf.remaining());
            buf.put_slice(ahead.filled().get(..n).unwrap_or_default());
            ahead.consume(n);
            if ahead.is_empty() {
                *ahead = Buffer::default();
            }
        } else if Pin::new(&mut *stream.borrow_mut()).poll_read(cx, buf)?.is_pending() {
            return Poll::Pending;
        }
        traffic.note_read(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, traffic, .. } = self.get_mut();
        traffic.note_write(Pin::new(&mut *stream.borrow_mut()).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, traffic, .. } = self.get_mut();
        traffic.note_write(Pin::new(&mut *stream.borrow_mut()).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, traffic, .. } = self.get_mut();
        traffic.note_write(Pin::new(&mut *stream.borrow_mut()).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, traffic, .. } = self.get_mut();
        traffic.note_write(Pin::new(&mut *stream.borrow_mut()).poll_shutdown(cx))
    }
}
