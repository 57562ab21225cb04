//! What is no longer HTTP after a 101: bytes both ways, until both sides have closed.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::coop::has_budget_remaining;
use tokio::time::Instant;

use super::worker::Worker;
use crate::http::websocket::{Frames, GOING_AWAY, masked_going_away};
use crate::net::deadline::Deadline;
use crate::net::stream::{ReadHalf, WriteHalf};

/// How long a peer may take to accept that the tunnel is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);

/// How long a WebSocket whose two Close frames have passed stays open for the server to end it, or the client
/// (RFC 6455 7.1.1): several round trips.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// A connection's two directions.
pub(super) type Connection<'a, 'b> = (&'b mut ReadHalf<'a>, &'b mut WriteHalf<'a>);

/// What a tunnel connects.
pub(super) struct Ends<'a, 'b, 'c, 'd> {
    pub client: Connection<'a, 'b>,
    pub endpoint: Connection<'c, 'd>,
    /// Whether it is WebSocket, which has words for an end.
    pub is_websocket: bool,
}

/// Counts a tunnel while it is open.
struct Open<'a>(&'a Worker);

impl<'a> Open<'a> {
    fn new(worker: &'a Worker) -> Self {
        worker.stats().tunnels.add(1);
        worker.stats().tunnels_open.fetch_add(1, Relaxed);
        Self(worker)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.stats().tunnels_open.fetch_sub(1, Relaxed);
    }
}

/// Moves bytes both ways until both sides have closed, one has failed, nothing has moved for `idle`, the Close
/// frames of a WebSocket have passed, or tunnels are closed because the process ends. Each side's end is passed
/// on to the other. `ahead` is what the client and the endpoint have said already. Returns how many bytes went
/// each way.
pub(super) async fn run(
    worker: &Worker,
    ends: Ends<'_, '_, '_, '_>,
    ahead: (&[u8], &[u8]),
    deadline: &mut Deadline,
    idle: Duration,
) -> (u64, u64) {
    let _open = Open::new(worker);
    let moved = Cell::new(Instant::now());
    let (up, down) = (Way::new(&moved, ends.is_websocket), Way::new(&moved, ends.is_websocket));
    let closed_at = || Some(up.closed.get()?.max(down.closed.get()?));
    let Ends { client, endpoint, .. } = ends;
    {
        let ended = Cell::new(0);
        let upward = up.copy(worker, client.0, endpoint.1, ahead.0, &ended);
        let downward = down.copy(worker, endpoint.0, client.1, ahead.1, &ended);
        let due = || {
            Some(match worker.closes_tunnels.get() {
                true => moved.get(),
                false => closed_at().map_or(moved.get() + idle, |at| at + CLOSE_GRACE),
            })
        };
        let _ = deadline.due(due, both(upward, downward, &ended)).await;
    }
    if closed_at().is_some() {
        let ends = async {
            let _ = client.1.shutdown().await;
            let _ = endpoint.1.shutdown().await;
        };
        let _ = deadline.within(CLOSE_TIMEOUT, ends).await;
    }
    if worker.closes_tunnels.get() {
        let close_frames = async {
            if down.can_say() {
                let _ = client.1.write_all(&GOING_AWAY).await;
                let _ = client.1.shutdown().await;
            }
            if up.can_say() {
                let _ = endpoint.1.write_all(&masked_going_away()).await;
                let _ = endpoint.1.shutdown().await;
            }
        };
        let _ = deadline.within(CLOSE_TIMEOUT, close_frames).await;
    }
    (up.count.get(), down.count.get())
}

/// Runs both directions until both have ended, or one has failed.
async fn both(
    upward: impl Future<Output = std::io::Result<()>>,
    downward: impl Future<Output = std::io::Result<()>>,
    ended: &Cell<u8>,
) {
    let (mut upward, mut downward) = (pin!(upward), pin!(downward));
    let mut is_downward_first = false;
    poll_fn(|cx| {
        // One that never pauses uses up what the runtime lets a task do at once.
        let was_first = std::mem::take(&mut is_downward_first);
        let failed = was_first && downward.as_mut().poll(cx).is_ready()
            || upward.as_mut().poll(cx).is_ready()
            || downward.as_mut().poll(cx).is_ready();
        is_downward_first = !was_first && !has_budget_remaining();
        if failed || ended.get() == 2 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Takes an end that TLS has not confirmed for one: many servers just close their connection, and what is
/// in a tunnel knows by itself whether it is whole.
fn unless_an_end<T: Default>(error: std::io::Error) -> std::io::Result<T> {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Ok(T::default()),
        _ => Err(error),
    }
}

/// One direction.
struct Way<'a> {
    /// When something last moved, either way.
    moved: &'a Cell<Instant>,
    count: Cell<u64>,
    /// Where frames end, if there are any.
    frames: Option<RefCell<Frames>>,
    /// Whether what was read has been written, all of it.
    is_even: Cell<bool>,
    has_ended: Cell<bool>,
    /// When a Close frame had passed.
    closed: Cell<Option<Instant>>,
}

impl<'a> Way<'a> {
    fn new(moved: &'a Cell<Instant>, is_websocket: bool) -> Self {
        Self {
            moved,
            count: Cell::new(0),
            frames: is_websocket.then(RefCell::default),
            is_even: Cell::new(true),
            has_ended: Cell::new(false),
            closed: Cell::new(None),
        }
    }

    /// Whether a frame of ours would be understood.
    fn can_say(&self) -> bool {
        let are_whole = self.frames.as_ref().is_some_and(|frames| frames.borrow().are_whole());
        are_whole && self.is_even.get() && !self.has_ended.get() && self.closed.get().is_none()
    }

    /// Moves bytes one way, `ahead` first, until the stream ends, and passes the end on. Returns only
    /// when a connection has failed.
    async fn copy(
        &self,
        worker: &Worker,
        from: &mut ReadHalf<'_>,
        to: &mut WriteHalf<'_>,
        ahead: &[u8],
        ended: &Cell<u8>,
    ) -> std::io::Result<()> {
        self.pass(to, ahead).await?;
        loop {
            // A quiet tunnel holds no buffer.
            from.readable().await.or_else(unless_an_end)?;
            let mut buffer = worker.buffers.small();
            let n = from.read(buffer.spare()).await.or_else(unless_an_end)?;
            buffer.fill(n);
            self.moved.set(Instant::now());
            if n > 0 {
                self.pass(to, buffer.filled()).await?;
            }
            worker.buffers.put(buffer);
            if n == 0 {
                self.has_ended.set(true);
                to.shutdown().await?;
                ended.set(ended.get() + 1);
                // It may still read; if it is gone altogether, the other side need not go on.
                from.gone().await;
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
        }
    }

    async fn pass(&self, to: &mut WriteHalf<'_>, bytes: &[u8]) -> std::io::Result<()> {
        self.is_even.set(false);
        to.write_all(bytes).await?;
        to.flush().await?;
        self.is_even.set(true);
        let now = Instant::now();
        if let Some(frames) = &self.frames {
            let mut frames = frames.borrow_mut();
            frames.pass(bytes);
            if frames.have_closed() && self.closed.get().is_none() {
                self.closed.set(Some(now));
            }
        }
        self.moved.set(now);
        self.count.set(self.count.get() + bytes.len() as u64);
        Ok(())
    }
}
