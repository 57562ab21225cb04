//! Connections to endpoints.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use super::listen::KEEPALIVE;

/// Connects to `address`, for at most `timeout`.
///
/// # Errors
/// What the kernel says, or [`io::ErrorKind::TimedOut`].
pub async fn dial(address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(timeout, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    // An endpoint that vanished while a long response was quiet is noticed in the end.
    socket2::SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
    Ok(stream)
}
