//! What is no longer HTTP after a 101: bytes both ways, until both sides have closed.

use std::cell::Cell;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::Instant;

use super::worker::Worker;
use crate::net::deadline::Deadline;

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
        let upward = copy(worker, client.0, endpoint.1, ahead.0, &moved, &up);
        let downward = copy(worker, endpoint.0, client.1, ahead.1, &moved, &down);
        let _ = deadline.due(|| Some(moved.get() + idle), both(upward, downward)).await;
    }
    (up.get(), down.get())
}

/// Runs both directions until both are done, or one has failed.
async fn both(
    upward: impl Future<Output = std::io::Result<()>>,
    downward: impl Future<Output = std::io::Result<()>>,
) {
    let (mut upward, mut downward) = (std::pin::pin!(upward), std::pin::pin!(downward));
    let (mut up_done, mut down_done) = (false, false);
    std::future::poll_fn(|cx| {
        if !up_done && let Poll::Ready(end) = upward.as_mut().poll(cx) {
            up_done = true;
            if end.is_err() {
                return Poll::Ready(());
            }
        }
        if !down_done && let Poll::Ready(end) = downward.as_mut().poll(cx) {
            down_done = true;
            if end.is_err() {
                return Poll::Ready(());
            }
        }
        if up_done && down_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Moves bytes one way, `ahead` first, until the stream ends, and passes the end on.
async fn copy(
    worker: &Worker,
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    ahead: &[u8],
    moved: &Cell<Instant>,
    count: &Cell<u64>,
) -> std::io::Result<()> {
    to.write_all(ahead).await?;
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
            moved.set(Instant::now());
        }
        count.set(count.get() + n as u64);
        worker.buffers.put(buffer);
        if n == 0 {
            return to.shutdown().await;
        }
    }
}
