//! Connections to endpoints.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::sleep;

use super::listen::KEEPALIVE;
use super::stream::Stream;

/// How long one address is waited for before the next is tried as well: the Connection Attempt Delay
/// that RFC 8305 (5) recommends. Half of the time for all where that is less.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How often a Unix socket whose queue is full is tried again: about as long as a busy server takes for
/// a few requests.
const QUEUE_DELAY: Duration = Duration::from_millis(5);

/// Where an endpoint is connected to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// By TCP.
    Ip(SocketAddr),
    /// By a Unix socket, whose absolute path it is.
    Unix(Arc<Path>),
}

impl Address {
    /// Its IP address, where it has one.
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Unix(_) => None,
        }
    }

    /// The same host at `port`; a Unix socket has none, and stays.
    #[must_use]
    pub fn with_port(self, port: u16) -> Self {
        match self {
            Self::Ip(address) => Self::Ip(SocketAddr::new(address.ip(), port)),
            unix @ Self::Unix(_) => unix,
        }
    }

    fn is_ipv6(&self) -> bool {
        matches!(self, Self::Ip(SocketAddr::V6(_)))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

/// A connection that was made.
#[derive(Debug)]
pub struct Dialled {
    /// Which of the addresses it leads to, as they were numbered.
    pub index: usize,
    /// That address.
    pub address: Address,
    /// The connection.
    pub stream: Stream,
}

/// Connects to one of `addresses`, whichever answers first (Happy Eyeballs, RFC 8305 5): both
/// families in turn, the next as soon as one fails, or beside it where it takes its time. Each has
/// `timeout` at most.
///
/// # Errors
/// Why each address failed, in the order in which they were given; none where there was no address.
pub async fn dial_any(
    addresses: impl Iterator<Item = (usize, Address)>,
    timeout: Duration,
) -> Result<Dialled, Vec<io::Error>> {
    let delay = ATTEMPT_DELAY.min(timeout / 2);
    let mut left = in_turn(addresses).into_iter();
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut failures = Vec::new();
    loop {
        if let Some((position, (index, address))) = left.next() {
            attempts.push(Box::pin(async move {
                let made = dial(&address, timeout).await;
                made.map(|stream| Dialled { index, address, stream }).map_err(|e| (position, e))
            }));
        } else if attempts.is_empty() {
            failures.sort_by_key(|(position, _)| *position);
            return Err(failures.into_iter().map(|(_, error)| error).collect());
        }
        let has_next = left.len() > 0;
        tokio::select! {
            biased;
            made = any(&mut attempts) => match made {
                Ok(dialled) => return Ok(dialled),
                Err(failure) => failures.push(failure),
            },
            () = sleep(delay), if has_next => {}
        }
    }
}

/// An attempt that is under way; where it fails, the position of its address is told.
type Attempt = Pin<Box<dyn Future<Output = Result<Dialled, (usize, io::Error)>>>>;

/// Waits for any of `attempts`, at least one, and takes it out.
async fn any(attempts: &mut Vec<Attempt>) -> Result<Dialled, (usize, io::Error)> {
    poll_fn(|cx| {
        for at in 0..attempts.len() {
            let made = attempts.get_mut(at).map(|attempt| attempt.as_mut().poll(cx));
            if let Some(Poll::Ready(made)) = made {
                drop(attempts.swap_remove(at));
                return Poll::Ready(made);
            }
        }
        Poll::Pending
    })
    .await
}

/// `addresses` with their positions, both families in turn, beginning with that of the first (RFC
/// 8305 4), so that one family that leads nowhere costs one delay.
fn in_turn(addresses: impl Iterator<Item = (usize, Address)>) -> Vec<(usize, (usize, Address))> {
    let all: Vec<_> = addresses.enumerate().collect();
    let first_is_v6 = all.first().is_some_and(|(_, (_, address))| address.is_ipv6());
    let (same, other): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(_, (_, address))| address.is_ipv6() == first_is_v6);
    let mut turns = Vec::with_capacity(same.len() + other.len());
    let (mut same, mut other) = (same.into_iter(), other.into_iter());
    loop {
        let pair = (same.next(), other.next());
        if pair == (None, None) {
            return turns;
        }
        turns.extend(pair.0);
        turns.extend(pair.1);
    }
}

/// Connects to `address`, for at most `timeout`.
async fn dial(address: &Address, timeout: Duration) -> io::Result<Stream> {
    let connect = async {
        match address {
            Address::Ip(address) => dial_tcp(address).await.map(Stream::Tcp),
            Address::Unix(path) => dial_unix(path).await.map(Stream::Unix),
        }
    };
    tokio::time::timeout(timeout, connect)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn dial_tcp(address: &SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    // An endpoint that vanished while a long response was quiet is noticed in the end.
    socket2::SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
    Ok(stream)
}

/// A queue of accepted connections that is full says so at once (`EAGAIN` of connect(2)), where TCP
/// waits by itself; that is no reason to take whoever listens for gone.
async fn dial_unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(QUEUE_DELAY).await,
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ListenAddress;
    use crate::net::listen::{bind, local_address, stop_handshakes};
    use socket2::Socket;

    const LONG: Duration = Duration::from_secs(30);

    /// A listening socket on this machine, and its address.
    fn listening() -> (Socket, SocketAddr) {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0)).into();
        let socket = bind(&any_port, 1).unwrap().sockets.remove(0);
        let address = local_address(&socket).unwrap();
        (socket, address)
    }

    /// One that handshakes are lost at, as behind a broken route.
    fn silent() -> (Socket, SocketAddr) {
        let (socket, address) = listening();
        stop_handshakes(&socket).unwrap();
        (socket, address)
    }

    /// One that refuses: it is bound, so that nobody else gets the port, and does not listen.
    fn refusing() -> (Socket, SocketAddr) {
        let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = local_address(&socket).unwrap();
        (socket, address)
    }

    fn all(addresses: &[SocketAddr]) -> impl Iterator<Item = (usize, Address)> {
        addresses.iter().copied().map(Address::from).enumerate()
    }

    async fn dialled(addresses: &[SocketAddr], timeout: Duration) -> Result<usize, Vec<io::Error>> {
        let dialled = dial_any(all(addresses), timeout).await;
        dialled.map(|dialled| {
            let Stream::Tcp(stream) = &dialled.stream else { panic!("{dialled:?}") };
            assert_eq!(stream.peer_addr().unwrap(), addresses[dialled.index]);
            assert_eq!(dialled.address, addresses[dialled.index].into());
            dialled.index
        })
    }

    #[test]
    fn families_take_turns_from_that_of_the_first() {
        let given =
            ["1.1.1.1:1", "1.1.1.2:1", "[::1]:1", "1.1.1.3:1", "[::2]:1", "[::3]:1", "[::4]:1"];
        let given = given.map(|text| text.parse::<SocketAddr>().unwrap());
        let order = |given: &[SocketAddr]| {
            let turns = in_turn(all(given));
            assert!(turns.iter().all(|(position, (index, _))| position == index));
            turns.into_iter().map(|(position, _)| position).collect::<Vec<_>>()
        };
        assert_eq!(order(&given), [0, 2, 1, 4, 3, 5, 6]);
        assert_eq!(order(&given[2..]), [0, 1, 2, 3, 4]);
        assert_eq!(order(&given[..2]), [0, 1]);
        assert!(order(&[]).is_empty());
    }

    #[tokio::test]
    async fn a_unix_socket_is_dialled_by_its_path() {
        let name = format!("tinylb-dialled-{}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let group = bind(&ListenAddress::Unix(path.clone()), 1).unwrap();
        let dial = || dial_any([(7, Address::Unix(path.as_path().into()))].into_iter(), LONG);
        let dialled = dial().await.unwrap();
        assert!(matches!(dialled, Dialled { index: 7, stream: Stream::Unix(_), .. }));
        assert_eq!(dialled.address.to_string(), format!("unix:{}", path.display()));
        // The first one fills the queue until it is accepted.
        let socket = &group.sockets[0];
        socket.listen(0).unwrap();
        let refused = UnixStream::connect(&path).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        let (waited, accepted) = tokio::join!(dial(), async { socket.accept() });
        assert!(waited.is_ok() && accepted.is_ok());
        drop(group.file);
        assert_eq!(dial().await.unwrap_err()[0].kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn one_that_does_not_answer_keeps_nobody_from_the_next() {
        let (_silent, silent) = silent();
        let (_well, well) = listening();
        let (_refusing, refusing) = refusing();
        assert_eq!(dialled(&[silent, well], LONG).await.unwrap(), 1);
        assert_eq!(dialled(&[silent, silent, refusing, well], LONG).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn one_that_refuses_is_followed_by_the_next_at_once() {
        let (_well, well) = listening();
        let (_refusing, refusing) = refusing();
        assert_eq!(dialled(&[refusing, refusing, well], LONG).await.unwrap(), 2);
        assert_eq!(dialled(&[well, refusing], LONG).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn where_all_fail_each_says_why_in_the_order_they_were_given() {
        let (_silent, silent) = silent();
        let (_refusing, refusing) = refusing();
        let kinds =
            |failures: Vec<io::Error>| failures.iter().map(io::Error::kind).collect::<Vec<_>>();
        let failures = dialled(&[silent, refusing], Duration::from_millis(300)).await.unwrap_err();
        assert_eq!(kinds(failures), [io::ErrorKind::TimedOut, io::ErrorKind::ConnectionRefused]);
        assert!(dialled(&[], LONG).await.unwrap_err().is_empty());
    }
}
