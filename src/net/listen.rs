//! Listening sockets: one for each worker, bound as a group to one address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags};
use socket2::{Domain, Protocol, SockFilter, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use super::origin::Origin;
use super::socket_file::SocketFile;
use super::stream::Stream;
use crate::config::{ListenAddress, UNIX_CLIENT};

/// Connections that wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// When and how often the kernel asks a silent peer whether it is still there.
pub const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));

/// Sockets that listen on one address.
#[derive(Debug)]
pub struct Group {
    /// The sockets. Those of a TCP port have a queue each, which the kernel spreads connections over;
    /// those of a Unix path are the same one, with one queue.
    pub sockets: Vec<Socket>,
    /// Where they listen, the real port in place of 0.
    pub address: ListenAddress,
    /// The file of a Unix socket.
    pub file: Option<SocketFile>,
}

/// Binds `count` sockets to `address`.
///
/// # Errors
/// What the kernel says, [`io::ErrorKind::AddrInUse`] above all, and what
/// [`SocketFile::bind`] has to say.
pub fn bind(address: &ListenAddress, count: usize) -> io::Result<Group> {
    let group = match address {
        ListenAddress::Ip { ip, port } => bind_tcp(*ip, *port, count)?,
        ListenAddress::Unix(path) => {
            let (socket, file) = SocketFile::bind(path)?;
            let clones = (1..count).map(|_| socket.try_clone());
            let mut sockets = clones.collect::<io::Result<Vec<_>>>()?;
            sockets.push(socket);
            Group { sockets, address: address.clone(), file: Some(file) }
        }
    };
    for socket in &group.sockets {
        socket.listen(BACKLOG)?;
    }
    Ok(group)
}

/// With `SO_REUSEPORT` another process of the same user could bind the same address and nobody
/// would be told, so a bind without it finds out first.
fn bind_tcp(ip: Option<IpAddr>, port: u16, count: usize) -> io::Result<Group> {
    if port != 0 {
        socket(ip, port, false)?;
    }
    let first = socket(ip, port, true)?;
    // It has chosen the port where the configuration leaves it open.
    let local = local_address(&first)?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(socket(ip, local.port(), true)?);
    }
    Ok(Group { sockets, address: local.into(), file: None })
}

/// The address that `socket`, which is one of TCP, is bound to.
///
/// # Errors
/// What the kernel says.
pub fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn socket(ip: Option<IpAddr>, port: u16, reuse_port: bool) -> io::Result<Socket> {
    match ip {
        Some(ip) => bound(SocketAddr::new(ip, port), reuse_port),
        None => {
            let any = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
            match bound(any, reuse_port) {
                // A kernel without IPv6.
                Err(e)
                    if e.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) =>
                {
                    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
                    bound(any, reuse_port)
                }
                result => result,
            }
        }
    }
}

fn bound(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit these two, which spares two system calls a connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Makes `socket` deaf to new connections while those it has can still be accepted.
///
/// Closing a socket of a group resets what waits in its queue, and until then the kernel goes on
/// filling it. A packet filter that drops SYNs ends that: whoever is dropped tries again a second
/// later, and then finds another listener, or nobody. A Unix socket has no packets; it becomes deaf when
/// its [file](SocketFile) goes.
///
/// # Errors
/// What the kernel says; the socket listens as before then.
pub fn stop_handshakes(socket: &Socket) -> io::Result<()> {
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const TCP_FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const SYN_OR_ACK: u32 = 0x12;
    socket.attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, TCP_FLAGS),
        SockFilter::new(AND, 0, 0, SYN_OR_ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

/// A connection as the kernel gave it: not known to any runtime yet, so that any worker can take
/// it.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, non-blocking.
    pub socket: OwnedFd,
    /// Who connected; over a Unix socket somebody on this machine, 127.0.0.1.
    pub peer: SocketAddr,
    /// Whose connection it is, where the peer has said so.
    pub origin: Option<Box<Origin>>,
    /// When it was accepted.
    pub since: Instant,
}

impl Accepted {
    /// A connection of `peer`, just now.
    pub fn new(socket: OwnedFd, peer: SocketAddr) -> Self {
        Self { socket, peer, origin: None, since: Instant::now() }
    }

    /// The client's address: the peer's, unless that has named another.
    pub fn client(&self) -> IpAddr {
        self.origin.as_ref().map_or(self.peer, |origin| origin.source).ip()
    }

    /// Makes the connection known to this thread's runtime.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn into_stream(self, is_unix: bool) -> io::Result<Stream> {
        Ok(match is_unix {
            true => Stream::Unix(UnixStream::from_std(self.socket.into())?),
            false => Stream::Tcp(TcpStream::from_std(self.socket.into())?),
        })
    }
}

/// A listening socket known to this thread's runtime.
///
/// The runtime's own listener would register each connection that it accepts here, and its general
/// wrapper of descriptors is unsafe to use; its stream type can wait for any TCP socket.
#[derive(Debug)]
pub struct Listening(TcpStream);

impl Listening {
    /// Makes `socket` known to the runtime of this thread.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(socket: Socket) -> io::Result<Self> {
        TcpStream::from_std(socket.into()).map(Self)
    }

    /// Waits until there may be connections to accept.
    ///
    /// # Errors
    /// A runtime that is ending.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await
    }

    /// Takes the next connection from the queue.
    ///
    /// # Errors
    /// What the kernel says; [`io::ErrorKind::WouldBlock`] when there is none.
    pub fn accept(&self) -> io::Result<Accepted> {
        self.0.try_io(Interest::READABLE, || accept(&self.0))
    }
}

fn accept(socket: impl AsFd) -> io::Result<Accepted> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (accepted, peer) = rustix::net::acceptfrom_with(socket, flags)?;
    let peer = match peer.ok_or(io::ErrorKind::ConnectionAborted)? {
        // Who connects by a file is on this machine, and has no other address.
        peer if peer.address_family() == AddressFamily::UNIX => SocketAddr::new(UNIX_CLIENT, 0),
        peer => SocketAddr::try_from(peer).map_err(|_| io::ErrorKind::ConnectionAborted)?,
    };
    // A client that came by IPv4 to a socket of both families is an IPv4 client.
    Ok(Accepted::new(accepted, SocketAddr::new(peer.ip().to_canonical(), peer.port())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(port: u16) -> ListenAddress {
        SocketAddr::from(([127, 0, 0, 1], port)).into()
    }

    #[test]
    fn a_group_shares_a_port_that_a_second_group_cannot_have() {
        let group = bind(&local(0), 3).unwrap();
        assert_eq!(group.sockets.len(), 3);
        let port = local_address(&group.sockets[0]).unwrap().port();
        assert_eq!(group.address, local(port));
        assert!(group.sockets.iter().all(|s| local_address(s).unwrap().port() == port));
        let again = bind(&local(port), 1).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
        let both_families = bind(&ListenAddress::Ip { ip: None, port }, 1).unwrap_err();
        assert_eq!(both_families.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn the_sockets_of_a_unix_path_share_one_queue_and_its_file_goes_with_them() {
        let name = format!("tinylb-group-{}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let address = ListenAddress::Unix(path.clone());
        let group = bind(&address, 3).unwrap();
        assert_eq!((group.sockets.len(), &group.address), (3, &address));
        let connect = || std::os::unix::net::UnixStream::connect(&path);
        let _clients = [connect().unwrap(), connect().unwrap()];
        assert!(group.sockets[1].accept().is_ok() && group.sockets[2].accept().is_ok());
        assert_eq!(group.sockets[0].accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(bind(&address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(group);
        assert!(!path.exists());
    }

    #[test]
    fn a_deaf_socket_still_gives_what_was_in_its_queue() {
        let socket = bind(&local(0), 1).unwrap().sockets.remove(0);
        let address = local_address(&socket).unwrap();
        let _queued = std::net::TcpStream::connect(address).unwrap();
        stop_handshakes(&socket).unwrap();
        let late = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200));
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(accept(&socket).unwrap().peer.ip().is_loopback());
        assert_eq!(accept(&socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
