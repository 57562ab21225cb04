//! How many client connections a listener has: places under its limits, taken when a connection is
//! accepted and given back when it is over.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A connection's place under a listener's limits, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    _listener: OwnedSemaphorePermit,
    /// Rare, and in a box, so that idle connections without it are no larger.
    _client: Option<Box<ClientPlace>>,
}

/// The limits of one listener, over all workers.
#[derive(Debug, Clone)]
pub struct Limits {
    connections: Arc<Semaphore>,
    clients: Option<Arc<Clients>>,
}

/// Connections by client.
#[derive(Debug)]
struct Clients {
    limit: u32,
    /// Only clients that have any. The lock is taken once for each connection that begins or ends,
    /// and only where there is such a limit.
    counts: Mutex<HashMap<IpAddr, u32, foldhash::quality::RandomState>>,
}

#[derive(Debug)]
struct ClientPlace {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Limits {
    /// At most so many connections, and so many of each client.
    pub fn new(connections: Option<usize>, per_client: Option<u32>) -> Self {
        let connections = connections.unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let clients = per_client.map(|limit| Arc::new(Clients { limit, counts: Mutex::default() }));
        Self { connections: Arc::new(Semaphore::new(connections)), clients }
    }

    /// A place for any connection, and whether it had to be waited for; while there is none,
    /// connections wait in the kernel's queue. `None` is the end of everything.
    pub async fn permit(&self) -> Option<(OwnedSemaphorePermit, bool)> {
        match Arc::clone(&self.connections).try_acquire_owned() {
            Ok(permit) => Some((permit, false)),
            Err(_) => Some((Arc::clone(&self.connections).acquire_owned().await.ok()?, true)),
        }
    }

    /// The place for a connection of `client`, who `is_exempt` from the limit for each; `None`
    /// where it has as many as it may.
    pub fn place(
        &self,
        permit: OwnedSemaphorePermit,
        client: IpAddr,
        is_exempt: bool,
    ) -> Option<Place> {
        let client = match &self.clients {
            Some(clients) if !is_exempt => Some(Box::new(ClientPlace::take(clients, client)?)),
            _ => None,
        };
        Some(Place { _listener: permit, _client: client })
    }
}

impl ClientPlace {
    fn take(clients: &Arc<Clients>, client: IpAddr) -> Option<Self> {
        let client = network(client);
        let mut counts = clients.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_default();
        if *count >= clients.limit {
            return None;
        }
        *count += 1;
        Some(Self { clients: Arc::clone(clients), client })
    }
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        let mut counts = self.clients.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

/// Whom an address stands for: with IPv6 everybody has a /64 to choose addresses from (RFC 6177).
fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_client_has_so_many_and_gets_them_back() {
        let limits = Limits::new(None, Some(2));
        let place = async |client: &str, is_exempt| {
            let (permit, _) = limits.permit().await.unwrap();
            limits.place(permit, client.parse().unwrap(), is_exempt)
        };
        let first = place("10.0.0.1", false).await;
        let second = place("10.0.0.1", false).await;
        assert!(first.is_some() && second.is_some());
        assert!(place("10.0.0.1", false).await.is_none());
        assert!(place("10.0.0.1", true).await.is_some());
        assert!(place("10.0.0.2", false).await.is_some());
        drop(first);
        let again = place("10.0.0.1", false).await;
        assert!(again.is_some());
        drop((again, second));
        let counts = limits.clients.as_ref().unwrap().counts.lock().unwrap();
        assert!(counts.is_empty(), "nobody is remembered who has none");
    }

    #[tokio::test]
    async fn a_network_of_ipv6_is_one_client() {
        let limits = Limits::new(None, Some(1));
        let (permit, _) = limits.permit().await.unwrap();
        let _one = limits.place(permit, "2001:db8::1".parse().unwrap(), false).unwrap();
        let (permit, _) = limits.permit().await.unwrap();
        assert!(limits.place(permit, "2001:db8::ffff:1".parse().unwrap(), false).is_none());
        let (permit, _) = limits.permit().await.unwrap();
        assert!(limits.place(permit, "2001:db8:0:1::1".parse().unwrap(), false).is_some());
    }
}
