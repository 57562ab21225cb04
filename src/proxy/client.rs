//! A client's connection, and what is done with it between requests.

use std::net::IpAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::worker::{DRAIN_IDLE_GRACE, Listener, Worker};
use crate::net::admission::Place;
use crate::net::deadline::Deadline;
use crate::net::listen::Accepted;
use crate::net::stream::Stream;

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
    pub stream: Stream,
    /// The client's address.
    pub peer: IpAddr,
    /// Whether its own forwarding fields are believed.
    pub is_trusted: bool,
    pub deadline: Deadline,
    /// When the last exchange ended, or the connection began.
    pub idle_since: Instant,
    /// Its place under the listener's limits.
    _place: Place,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.worker.count_connection_closed();
    }
}

impl Client {
    /// The connection `accepted` on this worker, whose count of connections includes it already.
    ///
    /// # Errors
    /// A socket that the runtime cannot watch.
    pub(super) fn new(
        worker: Rc<Worker>,
        listener: Rc<Listener>,
        accepted: Accepted,
        place: Place,
    ) -> std::io::Result<Box<Self>> {
        let peer = accepted.peer.ip();
        let stream = TcpStream::from_std(accepted.socket.into())
            .inspect_err(|_| worker.count_connection_closed())?;
        let stream = Stream::Tcp(stream);
        Ok(Box::new(Self {
            is_trusted: listener.trusts(peer),
            deadline: Deadline::new(&worker.clock),
            worker,
            listener,
            stream,
            peer,
            idle_since: Instant::now(),
            _place: place,
        }))
    }

    /// Waits for the first byte of the next request; false when it is not worth waiting any longer.
    pub(super) async fn request_begins(&mut self) -> bool {
        let Self { worker, listener, stream, deadline, idle_since, .. } = self;
        let end = *idle_since + listener.config.timeouts.idle;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(ready) = stream.poll_read_ready(cx) {
                deadline.clear();
                return Poll::Ready(ready.is_ok());
            }
            let end = match worker.draining.get() {
                Some(since) => end.min(since.max(*idle_since) + DRAIN_IDLE_GRACE),
                None => end,
            };
            deadline.poll(cx, end).map(|_| false)
        })
        .await
    }

    /// Whether the client has sent more than was read. Closing now would reset the connection, and
    /// what it has not read yet of our answer would be lost.
    pub(super) fn has_unread(&self) -> bool {
        self.stream.has_unread()
    }

    /// Closes our side, and reads on until the client closes its own or takes too long.
    pub(super) async fn linger(&mut self) {
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
