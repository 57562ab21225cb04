//! Graceful close: a connection that the balancer closes delivers what was sent before.

use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::Stream;
use crate::net::send_queue::SendQueue;

/// How often the send queue is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The longest waits of a graceful close.
#[derive(Debug, Clone, Copy)]
pub struct CloseTimeouts {
    /// The longest wait for the peer to close its side, once it has acknowledged everything.
    pub idle: Duration,
    /// The longest wait while it acknowledges nothing.
    pub stall: Duration,
}

impl Stream {
    /// Closes our side, then reads and drops what comes until the peer has closed its own or has acknowledged
    /// everything: closing with something unread, or reading no more, has the kernel reset the connection, which
    /// takes back what the peer has not read (RFC 9112 9.6).
    ///
    /// Returns false where the peer has stopped acknowledging, so that not everything was delivered.
    pub async fn close_gracefully(&mut self, timeouts: CloseTimeouts) -> bool {
        let queue = self.with_socket(SendQueue::of).flatten();
        let mut closed = pin!(async {
            self.shutdown().await?;
            let mut unread = [0; 512];
            while self.read(&mut unread).await? > 0 {}
            io::Result::Ok(())
        });
        let mut progress = DeliveryProgress { left: None, since: Instant::now() };
        loop {
            if timeout(LOOK_EVERY, &mut closed).await.is_ok() {
                return true;
            }
            let left = queue.and_then(|queue| queue.length());
            if let Some(is_delivered) = progress.note(left, Instant::now(), timeouts) {
                return is_delivered;
            }
        }
    }
}

/// How much the peer has acknowledged.
#[derive(Debug)]
struct DeliveryProgress {
    /// What it had not acknowledged at the last look.
    left: Option<u32>,
    /// When that last changed.
    since: Instant,
}

impl DeliveryProgress {
    /// Takes note that so much is `left` at `now`. Returns whether everything was delivered, once the wait is over.
    fn note(&mut self, left: Option<u32>, now: Instant, timeouts: CloseTimeouts) -> Option<bool> {
        if self.left != left {
            *self = Self { left, since: now };
        }
        // Where the kernel does not say, only the peer's own end tells that it has everything.
        let limit = if left == Some(0) { timeouts.idle } else { timeouts.stall };
        (now >= self.since + limit).then_some(left.is_none_or(|left| left == 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_waited_for_while_it_takes_something() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let timeouts =
            CloseTimeouts { idle: Duration::from_secs(2), stall: Duration::from_secs(60) };
        let mut progress = DeliveryProgress { left: None, since: start };
        for (second, left, expected) in [
            (1, Some(1000), None),
            (60, Some(1000), None),
            (61, Some(1), None),
            (120, Some(1), None),
            (121, Some(1), Some(false)),
            (122, Some(0), None),
            (123, Some(0), None),
            (124, Some(0), Some(true)),
        ] {
            assert_eq!(progress.note(left, at(second), timeouts), expected, "{second}");
        }
        let mut unknown = DeliveryProgress { left: None, since: start };
        assert_eq!(unknown.note(None, at(59), timeouts), None);
        assert_eq!(unknown.note(None, at(60), timeouts), Some(true));
    }
}
