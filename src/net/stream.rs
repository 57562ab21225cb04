//! Connections, whatever carries them: TCP, Unix sockets, or TLS over either.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use rustix::net::RecvFlags;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};
use tokio_rustls::TlsStream;

/// A connection that carries exchanges, one at a time.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over one of the others. Both halves are used by one task, never at the same moment.
    Tls(Box<Tls>),
}

/// TLS over another stream.
#[derive(Debug)]
pub struct Tls(RefCell<TlsStream<Stream>>);

/// The half of a [`Stream`] that is read from.
#[derive(Debug)]
#[expect(missing_docs, reason = "as the streams that they are halves of")]
pub enum ReadHalf<'a> {
    Tcp(tcp::ReadHalf<'a>),
    Unix(unix::ReadHalf<'a>),
    Tls(&'a Tls),
}

/// The half of a [`Stream`] that is written to.
#[derive(Debug)]
#[expect(missing_docs, reason = "as the streams that they are halves of")]
pub enum WriteHalf<'a> {
    Tcp(tcp::WriteHalf<'a>),
    Unix(unix::WriteHalf<'a>),
    Tls(&'a Tls),
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
        }
    }

    /// Does something with the socket below.
    pub fn with_socket<T>(&self, f: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
        match self {
            Self::Tcp(stream) => Some(f(stream.as_fd())),
            Self::Unix(stream) => Some(f(stream.as_fd())),
            Self::Tls(stream) => stream.0.borrow().get_ref().0.with_socket(f),
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
        }
    }

    /// Whether nothing has come in that nobody has read: no end, no reset, no stray bytes; as far as
    /// the runtime knows, which costs no system call while that is so.
    pub fn is_quiet(&self) -> bool {
        let would_block = |read: io::Result<usize>| matches!(read, Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        match self {
            Self::Tcp(stream) => would_block(stream.try_read(&mut [0])),
            Self::Unix(stream) => would_block(stream.try_read(&mut [0])),
            // What is only the business of TLS, such as tickets, is taken in here.
            Self::Tls(stream) => {
                stream.poll_plaintext(&mut Context::from_waker(Waker::noop())).is_pending()
            }
        }
    }

    /// The same, asking the kernel, which may know more than the runtime.
    pub fn is_quiet_in_the_kernel(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = self.with_socket(|socket| rustix::net::recv(socket, &mut [0], flags));
        matches!(peeked, Some(Err(rustix::io::Errno::AGAIN)))
    }

    /// Whether the peer has sent more than was read.
    pub fn has_unread(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = self.with_socket(|socket| rustix::net::recv(socket, &mut [0], flags));
        matches!(peeked, Some(Ok((1.., _))))
    }

    /// Has its end look like a failure to the peer, not like an end.
    pub fn reset_on_close(&self) {
        self.with_socket(|socket| {
            let _ = socket2::SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO));
        });
    }
}

impl Tls {
    /// Ready once there is plaintext, or the end of the stream.
    fn poll_plaintext(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_fill_buf(cx).map_ok(|_| ())
    }
}

impl ReadHalf<'_> {
    /// Waits until there may be something to read, or the end.
    ///
    /// # Errors
    /// A stream that has failed.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(half) => half.readable().await,
            Self::Unix(half) => half.readable().await,
            Self::Tls(stream) => poll_fn(|cx| stream.poll_plaintext(cx)).await,
        }
    }

    /// Waits until the peer has gone for good. That it says no more is not enough: it may wait for an
    /// answer.
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
        }
    }
}

impl AsyncRead for ReadHalf<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_read(cx, buf),
            Self::Unix(half) => Pin::new(half).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(&mut *tls.0.borrow_mut()).poll_read(cx, buf),
        }
    }
}

impl WriteHalf<'_> {
    fn as_write(&mut self) -> Pin<&mut (dyn AsyncWrite + Unpin)> {
        Pin::new(match self {
            Self::Tcp(half) => half,
            Self::Unix(half) => half,
            Self::Tls(tls) => tls,
        })
    }
}

impl AsyncWrite for WriteHalf<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().as_write().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().as_write().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().as_write().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().as_write().poll_shutdown(cx)
    }
}

impl AsyncWrite for &Tls {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
    }
}

// The halves have no state of their own, so a stream is as good as a half made for the moment.
impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().split().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().split().1).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().split().1).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().split().1).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().split().1).poll_shutdown(cx)
    }
}
