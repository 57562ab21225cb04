//! What the kernel still holds of a connection: bytes that the peer has not acknowledged.
//!
//! `SIOCOUTQ` returns the same number, but an ioctl is unsafe to call. The kernel's socket monitoring over
//! netlink (`sock_diag(7)`, which `ss` uses) needs no privilege and no unsafe code. `length` costs four system
//! calls, so it is for connections that end.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, getpeername, getsockname,
    netlink, recv, send, socket_with,
};

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`: the type of a request and of its answer.
const BY_FAMILY: u16 = 20;

/// `NLMSG_ERROR` of `linux/netlink.h`: there is no such socket.
const NETLINK_ERROR: u16 = 2;

/// `NLM_F_REQUEST` of `linux/netlink.h`: exactly the socket that is named.
const REQUEST: u16 = 1;

const TCP: u8 = 6;

/// `TCP_LISTEN` of `linux/tcp_states.h`: found in place of a connection that has ended.
const LISTEN: u8 = 10;

/// The length of a request: `nlmsghdr` and `inet_diag_req_v2`.
const LENGTH: usize = 16 + 56;

/// Where the state and the length of the send queue stand in an answer: `nlmsghdr` and `inet_diag_msg`.
const STATE: usize = 16 + 1;
const WRITE_QUEUE: usize = 16 + 60;

/// The send queue of one connection.
#[derive(Debug, Clone, Copy)]
pub struct SendQueue {
    /// The query; `None` for a Unix socket, where what was written lies with the peer already.
    request: Option<[u8; LENGTH]>,
}

impl SendQueue {
    /// Returns the send queue of a connected `socket`; `None` where it has no peer any more.
    pub fn of(socket: BorrowedFd<'_>) -> Option<Self> {
        let local = getsockname(socket).ok()?;
        if local.address_family() == AddressFamily::UNIX {
            return Some(Self { request: None });
        }
        let local = SocketAddr::try_from(local).ok()?;
        let peer = SocketAddr::try_from(getpeername(socket).ok()??).ok()?;
        Some(Self { request: Some(query(local, peer)) })
    }

    /// Returns how many bytes the peer has not acknowledged, a FIN counting as one; 0 once the connection is over,
    /// and `None` where the kernel does not say.
    pub fn length(&self) -> Option<u32> {
        let Some(request) = &self.request else { return Some(0) };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(netlink::SOCK_DIAG);
        let monitor = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol).ok()?;
        send(&monitor, request, SendFlags::empty()).ok()?;
        let mut answer = [0; 1024];
        // The kernel answers before `send` returns.
        let (length, _) = recv(&monitor, &mut answer, RecvFlags::DONTWAIT).ok()?;
        read(answer.get(..length)?)
    }
}

/// A request for the connection between two addresses.
fn query(local: SocketAddr, peer: SocketAddr) -> [u8; LENGTH] {
    const INET: u8 = 2;
    const INET6: u8 = 10;
    let family = if local.is_ipv4() { INET } else { INET6 };
    let scope = match local {
        SocketAddr::V6(local) => local.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    let length = u32::try_from(LENGTH).unwrap_or(0);
    let parts: [&[u8]; 13] = [
        &length.to_ne_bytes(),
        &BY_FAMILY.to_ne_bytes(),
        &REQUEST.to_ne_bytes(),
        // Sequence and port, which matter to nobody here.
        &[0; 8],
        &[family, TCP, 0, 0],
        // In any state.
        &u32::MAX.to_ne_bytes(),
        &local.port().to_be_bytes(),
        &peer.port().to_be_bytes(),
        &octets(local.ip()),
        &octets(peer.ip()),
        &scope.to_ne_bytes(),
        // No cookie (`INET_DIAG_NOCOOKIE`).
        &u32::MAX.to_ne_bytes(),
        &u32::MAX.to_ne_bytes(),
    ];
    let mut request = [0; LENGTH];
    for (to, from) in request.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    request
}

/// An address in the 16 bytes that there are for one.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
    }
}

/// The length of the queue that an answer names.
fn read(answer: &[u8]) -> Option<u32> {
    let kind = answer.get(4..6)?.try_into().ok().map(u16::from_ne_bytes)?;
    match kind {
        BY_FAMILY if answer.get(STATE) == Some(&LISTEN) => Some(0),
        BY_FAMILY => {
            let queue = answer.get(WRITE_QUEUE..WRITE_QUEUE + 4)?;
            queue.try_into().ok().map(u32::from_ne_bytes)
        }
        NETLINK_ERROR => {
            let error = answer.get(16..20)?.try_into().ok().map(i32::from_ne_bytes)?;
            let is_over = error == -rustix::io::Errno::NOENT.raw_os_error();
            is_over.then_some(0)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair(address: &str) -> Option<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind(address).ok()?;
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Some((listener.accept().unwrap().0, client))
    }

    #[test]
    fn what_the_peer_has_not_taken_is_counted() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Some((mut server, mut client)) = pair(address) else { continue };
            let queue = SendQueue::of(server.as_fd()).unwrap();
            let Some(length) = queue.length() else {
                println!("skipped: the kernel has no socket monitoring");
                return;
            };
            assert_eq!(length, 0);
            server.set_nonblocking(true).unwrap();
            let mut written = 0;
            while let Ok(n) = server.write(&[0; 64 * 1024]) {
                written += n;
            }
            server.shutdown(Shutdown::Write).unwrap();
            let left = queue.length().unwrap() as usize;
            assert!(left > 0 && left <= written + 1, "{left} of {written}");
            assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), written);
            while queue.length() != Some(0) {
                std::thread::yield_now();
            }
            drop((server, client));
        }
    }

    #[test]
    fn connections_that_are_over_have_an_empty_queue() {
        let (mut server, client) = pair("127.0.0.1:0").unwrap();
        let queue = SendQueue::of(server.as_fd()).unwrap();
        server.write_all(b"lost").unwrap();
        let has_monitoring = queue.length().is_some();
        drop(client);
        // What was not read resets it.
        let _ = server.read(&mut [0]);
        assert_eq!(queue.length(), has_monitoring.then_some(0));
        assert!(SendQueue::of(server.as_fd()).is_none());
    }

    #[test]
    fn a_unix_socket_keeps_nothing() {
        let (mut one, _other) = UnixStream::pair().unwrap();
        one.write_all(b"there").unwrap();
        assert_eq!(SendQueue::of(one.as_fd()).unwrap().length(), Some(0));
    }
}
