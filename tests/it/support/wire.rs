//! One end of a TCP connection, read as HTTP/1.1: what was received, exactly, and how it ended.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::message::Head;

/// Every socket's patience: past it a test fails where it would otherwise hang. Several suites on two
/// cores stall a process for seconds; the balancer's own defaults of a minute must not end before it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Connects with a receive buffer of this size, so that only a little lies unread in this end's kernel.
pub fn connect_narrow(address: SocketAddr, receive_buffer: usize) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_recv_buffer_size(receive_buffer)?;
    socket.connect_timeout(&address.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// How a connection's receiving side ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer sent FIN.
    Fin,
    /// The connection was reset.
    Reset,
    /// Nothing came for [`PATIENCE`].
    Stalled,
}

/// Everything that was received on a connection, shared with whoever asserts on it.
#[derive(Debug, Default)]
pub struct Record {
    /// Every byte, in order.
    pub bytes: Vec<u8>,
    /// How it ended, once it has.
    pub end: Option<End>,
}

/// A connection and what has been read of it but not yet used.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    unused: Vec<u8>,
    record: Arc<Mutex<Record>>,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, unused: Vec::new(), record: Arc::default() }
    }

    pub fn record(&self) -> Arc<Mutex<Record>> {
        Arc::clone(&self.record)
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn end(&self) -> Option<End> {
        self.record.lock().unwrap().end
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Whether a read would return at once: with bytes, or with the end of the connection.
    pub fn is_readable(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        !matches!(rustix::net::recv(&self.stream, &mut [0], flags), Err(Errno::AGAIN))
    }

    pub fn half_close(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes with a reset in place of a FIN.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Reads once; false at the end.
    fn fill(&mut self) -> bool {
        if self.end().is_some() {
            return false;
        }
        let mut piece = [0; 64 * 1024];
        let end = match self.stream.read(&mut piece) {
            Ok(0) => End::Fin,
            Ok(n) => {
                self.unused.extend_from_slice(&piece[..n]);
                self.record.lock().unwrap().bytes.extend_from_slice(&piece[..n]);
                return true;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return true,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                End::Stalled
            }
            Err(_) => End::Reset,
        };
        self.record.lock().unwrap().end = Some(end);
        false
    }

    /// The next head, up to and with its empty line; `None` where the connection ends first.
    pub fn head(&mut self) -> Option<Head> {
        let end = loop {
            if let Some(at) = find(&self.unused, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill() {
                return None;
            }
        };
        Some(Head::parse(&self.unused.drain(..end).collect::<Vec<u8>>()))
    }

    /// The next `n` bytes, or as many as came before the end.
    pub fn take(&mut self, n: usize) -> Vec<u8> {
        while self.unused.len() < n && self.fill() {}
        self.unused.drain(..n.min(self.unused.len())).collect()
    }

    /// Whatever has come, at least one byte; nothing at the end.
    pub fn some(&mut self) -> Vec<u8> {
        if self.unused.is_empty() {
            self.fill();
        }
        std::mem::take(&mut self.unused)
    }

    /// The next line without its CRLF; `None` where the connection ends first.
    pub fn line(&mut self) -> Option<String> {
        let at = loop {
            if let Some(at) = find(&self.unused, b"\r\n") {
                break at;
            }
            if !self.fill() {
                return None;
            }
        };
        let line: Vec<u8> = self.unused.drain(..at + 2).collect();
        Some(String::from_utf8_lossy(&line[..at]).into_owned())
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.unused)
    }

    /// A chunked body: its bytes, its trailer section, and whether the last chunk was seen.
    pub fn chunked(&mut self) -> (Vec<u8>, Vec<(String, String)>, bool) {
        let mut body = Vec::new();
        let mut trailers = Vec::new();
        loop {
            let Some(line) = self.line() else { return (body, trailers, false) };
            let digits = line.split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(digits, 16)
                .unwrap_or_else(|_| panic!("a chunk size that is none: {line:?}"));
            if size == 0 {
                break;
            }
            let data = self.take(size);
            let whole = data.len() == size;
            body.extend(data);
            if !whole {
                return (body, trailers, false);
            }
            match self.line() {
                Some(empty) => assert_eq!(empty, "", "chunk data is followed by CRLF"),
                None => return (body, trailers, false),
            }
        }
        loop {
            let Some(line) = self.line() else { return (body, trailers, false) };
            if line.is_empty() {
                return (body, trailers, true);
            }
            let (name, value) = line.split_once(':').expect("a trailer field");
            trailers.push((name.to_owned(), value.trim().to_owned()));
        }
    }
}

/// Where `needle` begins in `haystack`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
