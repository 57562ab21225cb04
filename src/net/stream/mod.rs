//! Connections, whatever carries them: TCP, Unix sockets, TLS over either, or one stream of HTTP/2.

mod close;
mod transfer;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::RecvFlags;
use tokio::io::{AsyncBufRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UnixStream, tcp, unix};
use tokio_rustls::TlsStream;

use super::http2::{self, Http2Stream};
use super::tls::client;
use crate::error::Error;
use crate::http::body::Framing;
pub use close::CloseTimeouts;

/// A connection that carries exchanges, one at a time.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over one of the others. Both halves are used by one task, never at the same moment.
    Tls(Box<Tls>),
    /// One stream of an HTTP/2 connection, for one exchange.
    Http2(Box<Http2Stream>),
}

/// TLS over another stream.
#[derive(Debug)]
pub struct Tls(RefCell<TlsStream<Stream>>);

/// The state of a connection on which nothing is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleState {
    /// It is open, and nothing has come.
    Quiet,
    /// Bytes have come that belong to nothing.
    Stray,
    /// The peer has closed or reset it.
    Ended,
}

/// The half of a [`Stream`] that is read from.
#[derive(Debug)]
#[expect(missing_docs, reason = "as the streams that they are halves of")]
pub enum ReadHalf<'a> {
    Tcp(tcp::ReadHalf<'a>),
    Unix(unix::ReadHalf<'a>),
    Tls(&'a Tls),
    Http2(&'a Http2Stream),
}

/// The half of a [`Stream`] that is written to.
#[derive(Debug)]
#[expect(missing_docs, reason = "as the streams that they are halves of")]
pub enum WriteHalf<'a> {
    Tcp(tcp::WriteHalf<'a>),
    Unix(unix::WriteHalf<'a>),
    Tls(&'a Tls),
    Http2(&'a Http2Stream),
}

impl Stream {
    /// TLS over another stream, once the handshake is over.
    pub fn tls(stream: impl Into<TlsStream<Self>>) -> Self {
        Self::Tls(Box::new(Tls(RefCell::new(stream.into()))))
    }

    /// Both halves, which can be used at once by one task.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Self::Unix(stream) => {
                let (read, write) = stream.split();
                (ReadHalf::Unix(read), WriteHalf::Unix(write))
            }
            Self::Tls(stream) => (ReadHalf::Tls(stream), WriteHalf::Tls(stream)),
            Self::Http2(stream) => (ReadHalf::Http2(stream), WriteHalf::Http2(stream)),
        }
    }

    /// Whether it is a stream of an HTTP/2 connection, which serves one exchange only.
    pub const fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// Whether the peer can say that it has not looked at what was sent: in HTTP/2, and in TLS, where it may
    /// not take our certificate.
    pub const fn can_be_refused(&self) -> bool {
        matches!(self, Self::Http2(_) | Self::Tls(_))
    }

    /// The stream of HTTP/2, if it is one.
    pub const fn as_http2(&self) -> Option<&Http2Stream> {
        match self {
            Self::Http2(stream) => Some(stream),
            _ => None,
        }
    }

    /// Does something with the socket below; `None` for a stream of HTTP/2, which has none of its own.
    pub fn with_socket<T>(&self, f: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
        match self {
            Self::Tcp(stream) => Some(f(stream.as_fd())),
            Self::Unix(stream) => Some(f(stream.as_fd())),
            Self::Tls(stream) => stream.0.borrow().get_ref().0.with_socket(f),
            Self::Http2(_) => None,
        }
    }

    /// Ready once there may be something to read, or the end of the stream.
    ///
    /// # Errors
    /// A stream that has failed.
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
            Self::Tls(stream) => stream.poll_plaintext(cx),
            Self::Http2(stream) => stream.poll_readable(cx),
        }
    }

    /// The state of a connection on which nothing is expected, as far as the runtime knows. That costs no
    /// system call while it is quiet.
    pub fn idle_state(&self) -> IdleState {
        let of = |read: io::Result<usize>| match read {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => IdleState::Quiet,
            Ok(1..) => IdleState::Stray,
            Ok(0) | Err(_) => IdleState::Ended,
        };
        match self {
            Self::Tcp(stream) => of(stream.try_read(&mut [0])),
            Self::Unix(stream) => of(stream.try_read(&mut [0])),
            // Messages of TLS itself, such as tickets, are taken in here.
            Self::Tls(stream) => {
                let mut tls = stream.0.borrow_mut();
                match Pin::new(&mut *tls).poll_fill_buf(&mut Context::from_waker(Waker::noop())) {
                    Poll::Pending => IdleState::Quiet,
                    Poll::Ready(Ok([_, ..])) => IdleState::Stray,
                    Poll::Ready(_) => IdleState::Ended,
                }
            }
            Self::Http2(_) => IdleState::Ended,
        }
    }

    /// The same, asking the kernel, which may know more than the runtime.
    pub fn is_quiet_in_the_kernel(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = self.with_socket(|socket| rustix::net::recv(socket, &mut [0], flags));
        matches!(peeked, Some(Err(rustix::io::Errno::AGAIN)))
    }

    /// Whether the peer has ended the connection, asking the kernel, which may know it before the end has
    /// been read.
    pub fn is_closed_in_the_kernel(&self) -> bool {
        self.with_socket(|socket| {
            let ended = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
            let mut socket = [PollFd::new(&socket, ended)];
            let now = Timespec::default();
            !matches!(rustix::event::poll(&mut socket, Some(&now)), Ok(0))
        })
        .unwrap_or(true)
    }

    /// Whether the peer has sent more than was read.
    pub fn has_unread(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = self.with_socket(|socket| rustix::net::recv(socket, &mut [0], flags));
        matches!(peeked, Some(Ok((1.., _))))
    }

    /// The first byte that comes, which stays to be read; `None` at the end.
    ///
    /// # Errors
    /// A stream that has failed.
    pub async fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            let mut first = [0];
            match self {
                Self::Tcp(stream) => {
                    return Ok((stream.peek(&mut first).await? > 0).then_some(first[0]));
                }
                Self::Unix(stream) => {
                    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
                    stream.readable().await?;
                    let peek = || Ok(rustix::net::recv(stream.as_fd(), &mut first, flags)?);
                    match stream.try_io(Interest::READABLE, peek) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        peeked => return Ok((peeked?.0 > 0).then_some(first[0])),
                    }
                }
                Self::Tls(_) | Self::Http2(_) => return Ok(None),
            }
        }
    }

    /// Closes our side, and reads on until the peer closes its own: closing with something unread would
    /// take back what the peer has not read yet.
    ///
    /// # Errors
    /// A stream that has failed.
    pub async fn drain(&mut self) -> io::Result<()> {
        self.shutdown().await?;
        let mut unread = [0; 512];
        while self.read(&mut unread).await? > 0 {}
        Ok(())
    }

    /// Has its end look like a failure to the peer, not like an end.
    pub fn reset_on_close(&self) {
        if let Self::Http2(stream) = self {
            return stream.reset();
        }
        self.with_socket(|socket| {
            let _ = socket2::SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO));
        });
    }
}

/// What it means that nothing could be read from an endpoint; `None` where all that is known is that the
/// connection has ended.
pub fn read_fault(error: &io::Error) -> Option<Error> {
    http2::read_fault(error).or_else(|| client::refusal(error))
}

impl Tls {
    /// Ready once there is plaintext, or the end of the stream.
    fn poll_plaintext(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_fill_buf(cx).map_ok(|_| ())
    }

    /// Ready at the end of the stream.
    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        match Pin::new(&mut *self.0.borrow_mut()).poll_fill_buf(cx) {
            Poll::Ready(Ok([_, ..])) | Poll::Pending => Poll::Pending,
            Poll::Ready(_) => Poll::Ready(()),
        }
    }
}

impl ReadHalf<'_> {
    /// Does something with the socket below; `None` for a stream of HTTP/2, which has none of its own.
    pub fn with_socket<T>(&self, f: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
        match self {
            Self::Tcp(half) => Some(f(half.as_ref().as_fd())),
            Self::Unix(half) => Some(f(half.as_ref().as_fd())),
            Self::Tls(stream) => stream.0.borrow().get_ref().0.with_socket(f),
            Self::Http2(_) => None,
        }
    }

    /// Whether it is that of a stream of HTTP/2.
    pub const fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// How the end of a body is known that is `announced` so.
    pub fn framing(&self, announced: Framing) -> Framing {
        match self {
            Self::Http2(stream) => stream.framing(announced),
            _ => announced,
        }
    }

    /// The trailer section of a body that has ended, as far as it does not stand behind it.
    pub fn take_trailers(&self) -> Vec<u8> {
        match self {
            Self::Http2(stream) => stream.take_trailers(),
            _ => Vec::new(),
        }
    }

    /// Waits until there may be something to read, or the end.
    ///
    /// # Errors
    /// A stream that has failed.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(half) => half.readable().await,
            Self::Unix(half) => half.readable().await,
            Self::Tls(stream) => poll_fn(|cx| stream.poll_plaintext(cx)).await,
            Self::Http2(stream) => poll_fn(|cx| stream.poll_readable(cx)).await,
        }
    }

    /// Waits until the peer has closed its side of the connection, or reset it; on a stream of HTTP/2 until it
    /// is reset, since the end of a message is no close.
    ///
    /// By TLS, a close behind bytes that nobody reads is not noticed.
    pub async fn closed(&self) {
        // Readiness for priority data includes the end of the peer's side, and not that for other data.
        const CLOSED: Interest = Interest::PRIORITY.add(Interest::ERROR);
        match self {
            Self::Tcp(half) => drop(half.ready(CLOSED).await),
            Self::Unix(half) => drop(half.ready(CLOSED).await),
            Self::Tls(stream) => poll_fn(|cx| stream.poll_closed(cx)).await,
            Self::Http2(_) => self.gone().await,
        }
    }

    /// Waits until the peer has reset the connection. That it has closed its side is not enough: it may
    /// wait for a response.
    pub async fn gone(&self) {
        match self {
            Self::Tcp(half) => drop(half.ready(Interest::ERROR).await),
            Self::Unix(half) => drop(half.ready(Interest::ERROR).await),
            // An end that TLS does not confirm is none (RFC 8446 6.1), and is an error here.
            Self::Tls(stream) => {
                let failed = |cx: &mut Context<'_>| match stream.poll_plaintext(cx) {
                    Poll::Ready(Err(_)) => Poll::Ready(()),
                    _ => Poll::Pending,
                };
                poll_fn(failed).await;
            }
            Self::Http2(stream) => poll_fn(|cx| stream.poll_reset(cx)).await,
        }
    }
}

impl WriteHalf<'_> {
    /// Ends the message on a stream of HTTP/2 with these trailers.
    ///
    /// # Errors
    /// Another stream, or one that is over.
    pub async fn end_http2(&self, trailers: &[u8]) -> io::Result<()> {
        match self {
            Self::Http2(stream) => stream.send_end(trailers).await,
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether it is that of a stream of HTTP/2, which is told where heads and messages end.
    pub const fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    fn as_write(&mut self) -> Pin<&mut (dyn AsyncWrite + Unpin)> {
        Pin::new(match self {
            Self::Tcp(half) => half,
            Self::Unix(half) => half,
            Self::Tls(tls) => tls,
            Self::Http2(stream) => stream,
        })
    }
}
