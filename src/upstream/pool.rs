//! Idle connections to endpoints, kept by the worker that made them for its next requests.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use rustix::net::RecvFlags;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Idle connections that are kept for one endpoint by one worker; more than any worker uses at
/// once at the speed of one core, and a bound on what a burst leaves behind.
const MAX_IDLE: usize = 1024;

#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    until: Instant,
}

impl Idle {
    /// Whether nothing has come in since it was put here: no FIN, no reset, no stray bytes. Costs
    /// no system call while that is so.
    fn is_quiet(&self) -> bool {
        let read = self.stream.try_read(&mut [0]);
        matches!(read, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// The same, asking the kernel.
    fn is_quiet_in_the_kernel(&self) -> bool {
        let peeked = rustix::net::recv(&self.stream, &mut [0], RecvFlags::PEEK);
        matches!(peeked, Err(rustix::io::Errno::AGAIN))
    }
}

/// The idle connections of one worker, by endpoint.
#[derive(Debug, Default)]
pub struct Pool {
    idle: HashMap<u64, Vec<Idle>, FixedState>,
}

impl Pool {
    /// The connection to `endpoint` that was used last, if one is left that its peer has not
    /// closed. To be `sure` costs a system call: what the runtime knows may be a moment old.
    pub fn take(&mut self, endpoint: u64, sure: bool) -> Option<TcpStream> {
        let idle = self.idle.get_mut(&endpoint)?;
        while let Some(connection) = idle.pop() {
            if connection.is_quiet() && (!sure || connection.is_quiet_in_the_kernel()) {
                return Some(connection.stream);
            }
        }
        None
    }

    /// Keeps `stream` for the next request to `endpoint`, at most until then.
    pub fn put(&mut self, endpoint: u64, stream: TcpStream, until: Instant) {
        let idle = self.idle.entry(endpoint).or_default();
        if idle.len() < MAX_IDLE {
            idle.push(Idle { stream, until });
        }
    }

    /// Closes connections whose time has passed, or whose peer has closed. Endpoints without
    /// connections are forgotten.
    pub fn sweep(&mut self, now: Instant) {
        self.idle.retain(|_, idle| {
            idle.retain(|connection| connection.until > now && connection.is_quiet());
            !idle.is_empty()
        });
    }

    /// Closes every connection to endpoints that `keep` does not know.
    pub fn keep_only(&mut self, keep: impl Fn(u64) -> bool) {
        self.idle.retain(|endpoint, _| keep(*endpoint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (ours, theirs) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (ours.unwrap(), theirs.unwrap().0)
    }

    #[tokio::test]
    async fn the_last_used_is_taken_first_and_closed_ones_never() {
        let later = Instant::now() + Duration::from_secs(60);
        let mut pool = Pool::default();
        let mut theirs = Vec::new();
        let mut ports = Vec::new();
        for _ in 0..4 {
            let (ours, their) = pair().await;
            ports.push(ours.local_addr().unwrap().port());
            pool.put(7, ours, later);
            theirs.push(their);
        }
        let noisy = pool.idle[&7][3].stream.local_addr().unwrap();
        assert_eq!(noisy.port(), ports[3]);
        theirs[3].write_all(b"unasked").await.unwrap();
        drop(theirs.remove(2));
        for connection in &pool.idle[&7][2..] {
            connection.stream.readable().await.unwrap();
        }
        assert_eq!(pool.take(7, false).unwrap().local_addr().unwrap().port(), ports[1]);
        assert_eq!(pool.take(7, false).unwrap().local_addr().unwrap().port(), ports[0]);
        assert!(pool.take(7, false).is_none() && pool.take(8, false).is_none());
    }

    #[tokio::test]
    async fn who_must_be_sure_is_told_before_the_runtime_knows() {
        let mut pool = Pool::default();
        let (ours, theirs) = pair().await;
        pool.put(1, ours, Instant::now() + Duration::from_secs(9));
        // Nothing is awaited from here on, so the runtime cannot learn of it.
        drop(theirs);
        assert!(pool.idle[&1][0].is_quiet());
        assert!(pool.take(1, true).is_none());
    }

    #[tokio::test]
    async fn what_is_old_or_closed_is_swept() {
        let now = Instant::now();
        let mut pool = Pool::default();
        let (old, _old) = pair().await;
        let (closed, closing) = pair().await;
        let (kept, _kept) = pair().await;
        pool.put(1, old, now);
        pool.put(2, closed, now + Duration::from_secs(9));
        pool.put(3, kept, now + Duration::from_secs(9));
        drop(closing);
        pool.idle[&2][0].stream.readable().await.unwrap();
        pool.sweep(now);
        assert_eq!(pool.idle.keys().collect::<Vec<_>>(), [&3]);
        pool.keep_only(|endpoint| endpoint != 3);
        assert!(pool.idle.is_empty());
    }
}
