//! One client connection: it waits for requests, holding nothing while it does, and hands each to
//! an exchange.

use std::net::IpAddr;
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
    pub peer: IpAddr,
    /// The same as text, for each request's `X-Forwarded-For`.
    pub peer_text: Box<str>,
    pub deadline: Deadline,
    /// When the last exchange ended, or the connection began.
    pub idle_since: Instant,
    slot: usize,
    /// Its place under the listener's limit.
    _permit: OwnedSemaphorePermit,
}

/// Serves one connection to its end. The worker's count of connections includes it already.
pub async fn serve(
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    accepted: Accepted,
    permit: OwnedSemaphorePermit,
) {
    let counted = Counted(Rc::clone(&worker));
    let Ok(stream) = TcpStream::from_std(accepted.socket.into()) else { return };
    let slot = std::future::poll_fn(|cx| Poll::Ready(worker.remember(cx.waker().clone()))).await;
    let mut client = Client {
        worker,
        listener,
        stream,
        peer: accepted.peer.ip(),
        peer_text: accepted.peer.ip().to_string().into(),
        deadline: Deadline::default(),
        idle_since: Instant::now(),
        slot,
        _permit: permit,
    };
    while client.request_begins().await {
        // In a box, so that an idle connection does not keep the room that an exchange needs.
        match Box::pin(exchange::serve(&mut client)).await {
            Next::Idle => {}
            Next::Close => break,
            Next::Linger => {
                Box::pin(client.linger()).await;
                break;
            }
            Next::Reset => {
                let _ = socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO));
                break;
            }
        }
    }
    drop(client);
    drop(counted);
}

/// The worker's count of connections, for as long as the task lives, however it ends.
struct Counted(Rc<Worker>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.stats().connections.fetch_sub(1, Relaxed);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.worker.forget(self.slot);
    }
}

impl Client {
    /// Waits for the first byte of the next request; false when it is not worth waiting any longer.
    async fn request_begins(&mut self) -> bool {
        let Self { worker, listener, stream, deadline, idle_since, .. } = self;
        let due = *idle_since + listener.config.timeouts.idle;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(ready) = stream.poll_read_ready(cx) {
                return Poll::Ready(ready.is_ok());
            }
            let due = match worker.draining.get() {
                Some(since) => due.min(since + DRAIN_IDLE_GRACE),
                None => due,
            };
            deadline.poll(cx, due).map(|_| false)
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
