//! Whose connection one is: its own addresses say so, or a PROXY protocol header at its front.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::{RecvFlags, getpeername, getsockname, recv};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;

use super::listen::Accepted;
use super::stream::Stream;
use crate::config::ProxyVersion;
use crate::http::proxy_protocol::{Header, MAX_HEADER, decode, write_v1, write_v2};

/// Whose connection one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The client's address.
    pub source: SocketAddr,
    /// The address that it connected to.
    pub destination: SocketAddr,
    /// Whether it came by TLS to the proxy that says whose connection it is.
    pub was_tls: bool,
}

impl Origin {
    /// As the addresses of `socket` say; `None` where it is none of IP, or is gone.
    pub fn of(socket: BorrowedFd<'_>) -> Option<Self> {
        let source = SocketAddr::try_from(getpeername(socket).ok()??).ok()?;
        let destination = SocketAddr::try_from(getsockname(socket).ok()?).ok()?;
        Some(Self { source: plain(source), destination: plain(destination), was_tls: false })
    }

    /// As `header` says; `None` where that names nobody.
    fn named_by(header: &Header<'_>) -> Option<Self> {
        match header {
            Header::Local | Header::Unknown => None,
            Header::Client(client) => Some(Self {
                source: client.source,
                destination: client.destination,
                was_tls: client.tls.is_some_and(|tls| tls.is_used),
            }),
        }
    }
}

/// An IPv4 address is one whatever socket it came to.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Waits for the PROXY protocol header that `accepted` has to begin with, and takes it off, and nothing
/// else: what follows stays to be read. `None` where the peer has gone without a word, which is how some
/// look whether somebody listens.
///
/// # Errors
/// No header, or half of one.
pub async fn take_header(accepted: Accepted) -> io::Result<Option<Accepted>> {
    // The runtime's type for TCP can wait for any socket.
    let socket = TcpStream::from_std(accepted.socket.into())?;
    loop {
        let ready = socket.ready(Interest::READABLE).await?;
        match socket.try_io(Interest::READABLE, || take(socket.as_fd())) {
            Ok(Taken::Header(origin)) => {
                let socket = socket.into_std()?.into();
                return Ok(Some(Accepted { socket, origin, ..accepted }));
            }
            Ok(Taken::Nothing) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if ready.is_read_closed() {
                    return Err(io::Error::other("the connection ended within its header"));
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Begins `stream` with a header that says what `header` does.
///
/// # Errors
/// What the stream says.
pub async fn write_header(
    stream: &mut Stream,
    version: ProxyVersion,
    header: &Header<'_>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    match version {
        ProxyVersion::V1 => write_v1(&mut bytes, header),
        ProxyVersion::V2 => write_v2(&mut bytes, header),
    }
    stream.write_all(&bytes).await
}

/// What is at the front of a connection.
enum Taken {
    /// A header, now taken off.
    Header(Option<Box<Origin>>),
    /// The end.
    Nothing,
}

/// Takes the header off the front of `socket`, once it is whole.
fn take(socket: BorrowedFd<'_>) -> io::Result<Taken> {
    let mut bytes = [0; MAX_HEADER];
    let there = match recv(socket, &mut bytes[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, 0)) | Err(rustix::io::Errno::CONNRESET) => return Ok(Taken::Nothing),
        Ok((_, there)) => bytes.get(..there).unwrap_or_default(),
        Err(error) => return Err(error.into()),
    };
    let (header, length) =
        decode(there).map_err(io::Error::other)?.ok_or(io::ErrorKind::WouldBlock)?;
    let origin = Origin::named_by(&header).map(Box::new);
    let header = bytes.get_mut(..length).unwrap_or_default();
    match recv(socket, header, RecvFlags::DONTWAIT)? {
        (_, taken) if taken == length => Ok(Taken::Header(origin)),
        // It was there a moment ago.
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{IpAddr, Ipv4Addr, TcpListener};
    use std::os::unix::net::UnixStream;

    const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.2 1025 443\r\n";

    /// A connection that was accepted, and its other end.
    fn accepted() -> (Accepted, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        (Accepted::new(ours.into(), peer), theirs)
    }

    #[tokio::test]
    async fn the_header_is_taken_and_nothing_else_however_it_comes() {
        let all = [LINE, b"GET / HTTP/1.1\r\n"].concat();
        for split in 0..=all.len() {
            let (accepted, mut peer) = accepted();
            let (first, second) = all.split_at(split);
            peer.write_all(first).unwrap();
            let taking = tokio::spawn(take_header(accepted));
            tokio::task::yield_now().await;
            peer.write_all(second).unwrap();
            drop(peer);
            let taken = taking.await.unwrap().unwrap().unwrap();
            let origin = taken.origin.as_deref().unwrap();
            assert_eq!(origin.source, "192.0.2.1:1025".parse().unwrap());
            assert_eq!(origin.destination, "198.51.100.2:443".parse().unwrap());
            assert_eq!(taken.client(), IpAddr::from([192, 0, 2, 1]));
            let mut rest = Vec::new();
            UnixStream::from(taken.socket).read_to_end(&mut rest).unwrap();
            assert_eq!(rest, b"GET / HTTP/1.1\r\n");
        }
    }

    #[tokio::test]
    async fn who_says_nothing_is_no_fault_and_who_says_half_is() {
        for length in 0..LINE.len() {
            let (accepted, mut peer) = accepted();
            peer.write_all(&LINE[..length]).unwrap();
            drop(peer);
            let taken = take_header(accepted).await;
            assert_eq!(taken.is_err(), length > 0, "{length}: {taken:?}");
            assert!(!matches!(taken, Ok(Some(_))));
        }
        let (accepted, mut peer) = accepted();
        peer.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        let error = take_header(accepted).await.unwrap_err();
        assert_eq!(error.to_string(), "there is no PROXY protocol header");
    }

    #[tokio::test]
    async fn who_speaks_for_nobody_stays_who_he_is() {
        let (accepted, mut peer) = accepted();
        peer.write_all(b"PROXY UNKNOWN\r\n").unwrap();
        let taken = take_header(accepted).await.unwrap().unwrap();
        assert_eq!((taken.client(), taken.origin), (Ipv4Addr::LOCALHOST.into(), None));
    }

    #[test]
    fn addresses_are_those_of_the_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let (server, peer) = listener.accept().unwrap();
        let expected = Origin { source: peer, destination: address, was_tls: false };
        assert_eq!(Origin::of(server.as_fd()), Some(expected));
        drop((client, listener));
        assert_eq!(Origin::of(accepted().0.socket.as_fd()), None);
    }
}
