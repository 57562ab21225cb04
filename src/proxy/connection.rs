//! One client connection: it waits for requests, holding nothing while it does, and hands each to
//! an exchange.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::exchange;
use super::worker::{DRAIN_IDLE_GRACE, Listener, Worker};
use crate::net::deadline::Deadline;
use crate::net::listen::Accepted;

/// How long a connection that we close is read from, so that what the client still sends does not
/// make the kernel reset it before the client has read our answer (RFC 9112 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// What becomes of a connection after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The next request may come.
    Idle,
    /// It is over for both sides.
    Close,
    /// It is over, but the client may not know yet.
    Linger,
    /// It must not look as if it had ended well.
    Reset,
}

/// A client connection on its worker.
#[derive(Debug)]
pub(super) struct Client {
    pub worker: Rc<Worker>,
    pub listener: Rc<Listener>,
    pub stream: TcpStream,
    /// The client's address, as `X-Forwarded-For` and the log have it.
    pub peer: Box<str>,
    /// Whether its own forwarding fields are believed.
    pub is_trusted: bool,
    pub deadline: Deadline,
    /// When the last exchange ended, or the connection began.
    pub idle_since: Instant,
    /// What [`Worker::drain`] wakes it by.
    waker: Option<usize>,
    /// Its place under the listener's limit.
    _permit: OwnedSemaphorePermit,
}

/// Serves one connection to its end. The worker's count of connections includes it already.
///
/// What is kept while a connection is idle is the `Client`, and a task that is small because the
/// rest comes in boxes: many thousands of them may be idle at once.
pub fn serve(
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    accepted: Accepted,
    permit: OwnedSemaphorePermit,
) {
    let Ok(stream) = TcpStream::from_std(accepted.socket.into()) else {
        worker.stats().connections.fetch_sub(1, Relaxed);
        return;
    };
    let peer = accepted.peer.ip();
    let mut client = Box::new(Client {
        is_trusted: listener.trusts(peer),
        worker,
        listener,
        stream,
        peer: peer.to_string().into(),
        deadline: Deadline::default(),
        idle_since: Instant::now(),
        waker: None,
        _permit: permit,
    });
    tokio::task::spawn_local(async move {
        while client.request_begins().await {
            match Box::pin(exchange::serve(&mut client)).await {
                Next::Idle => continue,
                Next::Close => {}
                Next::Linger => Box::pin(client.linger()).await,
                Next::Reset => {
                    let socket = socket2::SockRef::from(&client.stream);
                    let _ = socket.set_linger(Some(Duration::ZERO));
                }
            }
            return;
        }
    });
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(waker) = self.waker {
            self.worker.forget(waker);
        }
        self.worker.stats().connections.fetch_sub(1, Relaxed);
    }
}

impl Client {
    /// Waits for the first byte of the next request; false when it is not worth waiting any longer.
    async fn request_begins(&mut self) -> bool {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(ready) = self.stream.poll_read_ready(cx) {
                return Poll::Ready(ready.is_ok());
            }
            let worker = &self.worker;
            self.waker.get_or_insert_with(|| worker.remember(cx.waker().clone()));
            let due = self.idle_since + self.listener.config.timeouts.idle;
            let due = match self.worker.draining.get() {
                Some(since) => due.min(since + DRAIN_IDLE_GRACE),
                None => due,
            };
            self.deadline.poll(cx, due).map(|_| false)
        })
        .await
    }

    /// Closes our side, and reads on until the client closes its own or takes too long.
    async fn linger(&mut self) {
        let mut buffer = self.worker.buffers.small();
        let Self { stream, deadline, .. } = self;
        let drained = async {
            stream.shutdown().await?;
            while stream.read(buffer.spare()).await? > 0 {}
            std::io::Result::Ok(())
        };
        let _ = deadline.within(LINGER, drained).await;
        self.worker.buffers.put(buffer);
    }
}
