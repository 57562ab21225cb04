//! Idle connections to endpoints, kept by the worker that made them for its next requests.

use std::collections::HashMap;
use std::net::SocketAddr;

use foldhash::fast::FixedState;
use rustix::net::RecvFlags;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Upstream;
use super::endpoint::{Endpoint, Place};

/// Idle connections that are kept for one endpoint by one worker; more than any worker uses at
/// once at the speed of one core, and a bound on what a burst leaves behind.
const MAX_IDLE: usize = 1024;

/// A connection to one address of an endpoint.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub stream: TcpStream,
    /// Where it leads.
    pub address: SocketAddr,
    /// Its place under the limits.
    pub place: Place,
}

#[derive(Debug)]
struct Idle {
    connection: Connected,
    until: Instant,
}

impl Idle {
    /// Whether nothing has come in since it was put here: no FIN, no reset, no stray bytes. Costs
    /// no system call while that is so.
    fn is_quiet(&self) -> bool {
        let read = self.connection.stream.try_read(&mut [0]);
        matches!(read, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// The same, asking the kernel.
    fn is_quiet_in_the_kernel(&self) -> bool {
        let peeked = rustix::net::recv(&self.connection.stream, &mut [0], RecvFlags::PEEK);
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
    /// closed, and that leads where the endpoint still is: its name may have moved. To be `sure`
    /// costs a system call: what the runtime knows may be a moment old.
    pub fn take(&mut self, endpoint: &Endpoint, now: Instant, sure: bool) -> Option<Connected> {
        let idle = self.idle.get_mut(&endpoint.state.id)?;
        while let Some(kept) = idle.pop() {
            if kept.until > now
                && endpoint.addresses.contains(&kept.connection.address)
                && kept.is_quiet()
                && (!sure || kept.is_quiet_in_the_kernel())
            {
                return Some(kept.connection);
            }
        }
        None
    }

    /// Keeps `connection` for the next request to `endpoint`, at most until then; unless a request
    /// on another worker needs its place.
    pub fn put(&mut self, endpoint: &Endpoint, connection: Connected, until: Instant) {
        let idle = self.idle.entry(endpoint.state.id).or_default();
        if idle.len() < MAX_IDLE && !connection.place.is_wanted() {
            idle.push(Idle { connection, until });
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

    /// Closes one connection to `endpoint`, if there is one and another worker wants its place.
    pub fn yield_one(&mut self, endpoint: &Endpoint) {
        if let Some(idle) = self.idle.get_mut(&endpoint.state.id).filter(|idle| !idle.is_empty())
            && endpoint.state.is_connection_wanted()
        {
            // The one that has been idle for longest.
            idle.remove(0);
        }
    }

    /// Closes one connection to any endpoint of `upstream`, if there is one and another request
    /// wants its place.
    pub fn yield_any(&mut self, upstream: &Upstream) {
        // The one whose time is over first, which is about the one that has been idle for longest.
        let first = |e: &Endpoint| Some((self.idle.get(&e.state.id)?.first()?.until, e.state.id));
        let oldest = upstream.endpoints.iter().filter_map(first).min();
        if let Some((_, endpoint)) = oldest
            && upstream.shared.is_place_wanted()
            && let Some(idle) = self.idle.get_mut(&endpoint)
        {
            idle.remove(0);
        }
    }

    /// Closes every connection to endpoints that `keep` does not know.
    pub fn keep_only(&mut self, keep: impl Fn(u64) -> bool) {
        self.idle.retain(|endpoint, _| keep(*endpoint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::endpoint::tests::endpoints;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    /// Both ends of a connection to an address that `endpoint` then has.
    async fn pair(endpoint: &mut Endpoint) -> (Connected, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        endpoint.addresses.push(address);
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        let shared = std::sync::Arc::new(crate::upstream::Shared::new(1));
        let place = Place::take(endpoint, &shared, u32::MAX).unwrap();
        (Connected { stream: ours.unwrap(), address, place }, theirs.unwrap().0)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn the_last_used_is_taken_first_and_closed_ones_never() {
        let mut endpoint = endpoints(&[1]).remove(0);
        let mut pool = Pool::default();
        let mut theirs = Vec::new();
        let mut addresses = Vec::new();
        for _ in 0..4 {
            let (ours, their) = pair(&mut endpoint).await;
            addresses.push(ours.address);
            pool.put(&endpoint, ours, later());
            theirs.push(their);
        }
        theirs[3].write_all(b"unasked").await.unwrap();
        drop(theirs.remove(2));
        for idle in &pool.idle[&endpoint.state.id][2..] {
            idle.connection.stream.readable().await.unwrap();
        }
        let mut take = || pool.take(&endpoint, Instant::now(), false).map(|c| c.address);
        assert_eq!([take(), take(), take()], [Some(addresses[1]), Some(addresses[0]), None]);
    }

    #[tokio::test]
    async fn what_is_too_old_or_leads_where_the_endpoint_was_is_not_taken() {
        let mut endpoint = endpoints(&[1]).remove(0);
        let mut pool = Pool::default();
        let (old, _old) = pair(&mut endpoint).await;
        let (kept, _kept) = pair(&mut endpoint).await;
        let (moved, _moved) = pair(&mut endpoint).await;
        let address = kept.address;
        endpoint.addresses.pop();
        pool.put(&endpoint, kept, later());
        pool.put(&endpoint, moved, later());
        pool.put(&endpoint, old, Instant::now());
        let mut take = || pool.take(&endpoint, Instant::now(), false).map(|c| c.address);
        assert_eq!([take(), take()], [Some(address), None]);
    }

    #[tokio::test]
    async fn who_must_be_sure_is_told_before_the_runtime_knows() {
        let mut endpoint = endpoints(&[1]).remove(0);
        let mut pool = Pool::default();
        let (ours, theirs) = pair(&mut endpoint).await;
        pool.put(&endpoint, ours, later());
        // Nothing is awaited from here on, so the runtime cannot learn of it.
        drop(theirs);
        assert!(pool.idle[&endpoint.state.id][0].is_quiet());
        assert!(pool.take(&endpoint, Instant::now(), true).is_none());
    }

    #[tokio::test]
    async fn what_is_old_or_closed_is_swept() {
        let now = Instant::now();
        let mut pool = Pool::default();
        let [mut one, mut two, mut three]: [Endpoint; 3] =
            endpoints(&[1, 1, 1]).try_into().unwrap();
        let (old, _old) = pair(&mut one).await;
        let (closed, closing) = pair(&mut two).await;
        let (kept, _kept) = pair(&mut three).await;
        pool.put(&one, old, now);
        pool.put(&two, closed, later());
        pool.put(&three, kept, later());
        drop(closing);
        pool.idle[&two.state.id][0].connection.stream.readable().await.unwrap();
        pool.sweep(now);
        assert_eq!(pool.idle.keys().collect::<Vec<_>>(), [&three.state.id]);
        pool.keep_only(|endpoint| endpoint != three.state.id);
        assert!(pool.idle.is_empty());
    }

    #[tokio::test]
    async fn a_connection_whose_place_another_worker_wants_is_given_up() {
        let mut endpoint = endpoints(&[1]).remove(0);
        let mut pool = Pool::default();
        let (first, _first) = pair(&mut endpoint).await;
        let (second, _second) = pair(&mut endpoint).await;
        pool.put(&endpoint, first, later());
        endpoint.state.want_connection();
        pool.put(&endpoint, second, later());
        assert_eq!(endpoint.state.connections(), 1, "the second was not kept");
        pool.yield_one(&endpoint);
        assert_eq!(endpoint.state.connections(), 1, "nobody wants it");
        endpoint.state.want_connection();
        pool.yield_one(&endpoint);
        assert_eq!(endpoint.state.connections(), 0);
    }

    #[tokio::test]
    async fn a_place_that_is_wanted_of_all_is_that_of_the_connection_that_is_over_first() {
        let mut all = endpoints(&[1, 1]);
        let mut pool = Pool::default();
        let (first, _first) = pair(&mut all[0]).await;
        let (second, _second) = pair(&mut all[1]).await;
        pool.put(&all[0], first, later() + Duration::from_secs(1));
        pool.put(&all[1], second, later());
        let shared = std::sync::Arc::new(crate::upstream::Shared::new(1));
        let config = crate::config::Upstream::new("u", Vec::new());
        let upstream = Upstream::new(config, all, std::sync::Arc::clone(&shared), b"");
        let open = || upstream.endpoints.iter().map(|e| e.state.connections()).collect::<Vec<_>>();
        pool.yield_any(&upstream);
        assert_eq!(open(), [1, 1], "nobody wants one");
        for left in [[1, 0], [0, 0]] {
            shared.want_place();
            pool.yield_any(&upstream);
            pool.yield_any(&upstream);
            assert_eq!(open(), left, "one for each time");
        }
        shared.want_place();
        pool.yield_any(&upstream);
        assert!(shared.is_place_wanted(), "another worker may have one");
    }
}
