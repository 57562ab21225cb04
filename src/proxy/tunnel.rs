//! What is no longer HTTP after a 101: bytes both ways, until both sides have closed.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::worker::Worker;
use crate::net::deadline::Deadline;
use crate::net::stream::{ReadHalf, WriteHalf};

/// A connection's two directions.
pub(super) type Connection<'a, 'b> = (&'b mut ReadHalf<'a>, &'b mut WriteHalf<'a>);

/// What a tunnel connects.
pub(super) struct Ends<'a, 'b, 'c, 'd> {
    pub client: Connection<'a, 'b>,
    pub endpoint: Connection<'c, 'd>,
}

/// Moves bytes both ways until both sides have closed, one has failed, or nothing has moved for
/// `idle`. Each side's end is passed on to the other. `ahead` is what the client and the endpoint
/// have said already. Returns how many bytes went each way.
pub(super) async fn run(
    worker: &Worker,
    ends: Ends<'_, '_, '_, '_>,
    ahead: (&[u8], &[u8]),
    deadline: &mut Deadline,
    idle: Duration,
) -> (u64, u64) {
    let moved = Cell::new(Instant::now());
    let (up, down) = (Cell::new(0), Cell::new(0));
    {
        let Ends { client, endpoint } = ends;
        let ended = Cell::new(0);
        let upward = copy(worker, client.0, endpoint.1, ahead.0, &moved, &up, &ended);
        let downward = copy(worker, endpoint.0, client.1, ahead.1, &moved, &down, &ended);
        let _ = deadline.due(|| Some(moved.get() + idle), both(upward, downward, &ended)).await;
    }
    (up.get(), down.get())
}

/// Runs both directions until both have ended, or one has failed.
async fn both(
    upward: impl Future<Output = std::io::Result<()>>,
    downward: impl Future<Output = std::io::Result<()>>,
    ended: &Cell<u8>,
) {
    let (mut upward, mut downward) = (pin!(upward), pin!(downward));
    poll_fn(|cx| {
        let failed = upward.as_mut().poll(cx).is_ready() || downward.as_mut().poll(cx).is_ready();
        if failed || ended.get() == 2 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Moves bytes one way, `ahead` first, until the stream ends, and passes the end on. Returns only
/// when a connection has failed.
async fn copy(
    worker: &Worker,
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    ahead: &[u8],
    moved: &Cell<Instant>,
    count: &Cell<u64>,
    ended: &Cell<u8>,
) -> std::io::Result<()> {
    to.write_all(ahead).await?;
    to.flush().await?;
    count.set(ahead.len() as u64);
    loop {
        // A quiet tunnel holds no buffer.
        from.readable().await?;
        let mut buffer = worker.buffers.small();
        let n = from.read(buffer.spare()).await?;
        buffer.fill(n);
        moved.set(Instant::now());
        if n > 0 {
            to.write_all(buffer.filled()).await?;
            to.flush().await?;
            moved.set(Instant::now());
        }
        count.set(count.get() + n as u64);
        worker.buffers.put(buffer);
        if n == 0 {
            to.shutdown().await?;
            ended.set(ended.get() + 1);
            // It may still read; if it is gone altogether, the other side need not go on.
            from.gone().await;
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
    }
}
