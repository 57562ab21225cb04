//! HTTP/1.1 messages on blocking sockets, as far as the runs here need them: both of their sides read
//! heads and bodies, and neither forgives what it cannot understand.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::RecvFlags;

/// No head is larger.
const MAX_HEAD: usize = 64 * 1024;

/// No body is larger: what is exchanged here stays far below.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// Read at most that much at once.
const PIECE: usize = 64 * 1024;

/// Why a message cannot be read or written.
#[derive(Debug)]
pub enum Broken {
    /// The peer has closed in the ordinary way.
    Closed,
    /// The peer has reset the connection, or it broke otherwise.
    Reset(ErrorKind),
    /// The time is over.
    TimedOut,
    /// What came is not HTTP.
    Malformed(&'static str),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::TimedOut,
            kind => Self::Reset(kind),
        }
    }
}

/// A connection, and what has been read from it but not used.
pub struct Wire {
    stream: TcpStream,
    input: Vec<u8>,
    piece: Vec<u8>,
    /// When to give up; without one, never.
    pub deadline: Option<Instant>,
    /// Bytes that have come since somebody set this to zero.
    pub received: usize,
}

impl Wire {
    /// Takes a connection over.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: Vec::new(), piece: vec![0; PIECE], deadline: None, received: 0 })
    }

    /// The socket itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Bytes that have been read, though no message asked for them.
    pub fn left_over(&self) -> &[u8] {
        &self.input
    }

    /// Whether it is still there to be used again, with nothing to say that nobody asked for.
    pub fn is_open(&self) -> Result<bool, Broken> {
        match rustix::net::recv(&self.stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => Ok(true),
            Ok((n, _)) if n > 0 => Err(Broken::Malformed("bytes that nobody asked for")),
            _ => Ok(false),
        }
    }

    /// Sends all of it.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        if let Some(left) = self.time_left()? {
            self.stream.set_write_timeout(Some(left))?;
        }
        Ok(self.stream.write_all(bytes)?)
    }

    /// A head, without its last empty line.
    pub fn head(&mut self) -> Result<Head, Broken> {
        let mut searched = 0_usize;
        loop {
            let from = searched.saturating_sub(3);
            if let Some(at) = find(&self.input[from..], b"\r\n\r\n") {
                let end = from + at;
                let head = Head::parse(&self.input[..end]);
                self.input.drain(..end + 4);
                return head;
            }
            if self.input.len() > MAX_HEAD {
                return Err(Broken::Malformed("a head without an end"));
            }
            searched = self.input.len();
            self.receive()?;
        }
    }

    /// A whole body.
    pub fn body(&mut self, framing: Framing) -> Result<Vec<u8>, Broken> {
        match framing {
            Framing::Length(length) if length > MAX_BODY => Err(Broken::Malformed("a huge body")),
            Framing::Length(length) => self.take(length),
            Framing::Chunked => self.chunks(),
            Framing::UntilClose => loop {
                match self.receive() {
                    Ok(()) if self.input.len() > MAX_BODY => {
                        return Err(Broken::Malformed("a huge body"));
                    }
                    Ok(()) => {}
                    Err(Broken::Closed) => return Ok(std::mem::take(&mut self.input)),
                    Err(broken) => return Err(broken),
                }
            },
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>, Broken> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let digits = line.split(|&byte| byte == b';').next().unwrap_or_default();
            let size = std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| usize::from_str_radix(digits.trim(), 16).ok())
                .ok_or(Broken::Malformed("no size of a chunk"))?;
            if size + body.len() > MAX_BODY {
                return Err(Broken::Malformed("a huge body"));
            }
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.append(&mut self.take(size)?);
            if !self.line()?.is_empty() {
                return Err(Broken::Malformed("a chunk without its end"));
            }
        }
    }

    fn line(&mut self) -> Result<Vec<u8>, Broken> {
        loop {
            if let Some(at) = find(&self.input, b"\r\n") {
                let line = self.input[..at].to_vec();
                self.input.drain(..at + 2);
                return Ok(line);
            }
            if self.input.len() > MAX_HEAD {
                return Err(Broken::Malformed("a line without an end"));
            }
            self.receive()?;
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, Broken> {
        while self.input.len() < length {
            self.receive()?;
        }
        let rest = self.input.split_off(length);
        Ok(std::mem::replace(&mut self.input, rest))
    }

    /// Waits for more input.
    fn receive(&mut self) -> Result<(), Broken> {
        loop {
            if let Some(left) = self.time_left()? {
                self.stream.set_read_timeout(Some(left))?;
            }
            match self.stream.read(&mut self.piece) {
                Ok(0) => return Err(Broken::Closed),
                Ok(n) => {
                    self.received += n;
                    self.input.extend_from_slice(&self.piece[..n]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn time_left(&self) -> Result<Option<Duration>, Broken> {
        let Some(deadline) = self.deadline else { return Ok(None) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(Broken::TimedOut) } else { Ok(Some(left)) }
    }
}

/// How a body says where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By `Content-Length`.
    Length(usize),
    /// By `Transfer-Encoding: chunked`.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// The first line of a message and its fields.
#[derive(Debug)]
pub struct Head {
    first: String,
    fields: Vec<(String, String)>,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Self, Broken> {
        let text =
            std::str::from_utf8(bytes).map_err(|_| Broken::Malformed("a head not in UTF-8"))?;
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let mut fields = Vec::new();
        for line in lines {
            let (name, value) =
                line.split_once(':').ok_or(Broken::Malformed("a field without a colon"))?;
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
        Ok(Self { first, fields })
    }

    /// A word of the first line, from 0 on.
    pub fn word(&self, number: usize) -> &str {
        self.first.split(' ').nth(number).unwrap_or_default()
    }

    /// The status of a response.
    pub fn status(&self) -> Result<u16, Broken> {
        let status = self.word(0).starts_with("HTTP/1.").then(|| self.word(1).parse().ok());
        status.flatten().ok_or(Broken::Malformed("no status"))
    }

    /// The first field of that name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Whether this message is the last on its connection.
    pub fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// How the body ends, where the message does not say, by `otherwise`: a request then has none, and
    /// a response goes on until the connection ends (RFC 9112, section 6.3).
    pub fn framing(&self, otherwise: Framing) -> Result<Framing, Broken> {
        if let Some(coding) = self.field("transfer-encoding") {
            return match coding.eq_ignore_ascii_case("chunked") {
                true => Ok(Framing::Chunked),
                false => Err(Broken::Malformed("an unknown transfer coding")),
            };
        }
        match self.field("content-length") {
            Some(length) => {
                length.parse().map(Framing::Length).map_err(|_| Broken::Malformed("no length"))
            }
            None => Ok(otherwise),
        }
    }
}

/// A body in chunks of uneven sizes.
pub fn chunked(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 64);
    let mut rest = body;
    let mut size = 1000;
    while !rest.is_empty() {
        let (chunk, later) = rest.split_at(size.min(rest.len()));
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
        (rest, size) = (later, size * 2);
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A wire at whose other end `bytes` are sent one after the other, and then the end.
    fn wire(bytes: &'static [u8]) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_nodelay(true).unwrap();
        std::thread::spawn(move || bytes.chunks(3).try_for_each(|piece| peer.write_all(piece)));
        Wire::new(listener.accept().unwrap().0).unwrap()
    }

    #[test]
    fn messages_end_where_they_say() {
        let cases: [(&[u8], &[u8]); 3] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellorest", b"rest"),
            (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                  2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\nField: 1\r\n\r\nrest",
                b"rest",
            ),
            (b"HTTP/1.1 200 OK\r\n\r\nhello", b""),
        ];
        for (bytes, rest) in cases {
            let mut wire = wire(bytes);
            let head = wire.head().unwrap();
            assert_eq!(head.status().unwrap(), 200);
            let framing = head.framing(Framing::UntilClose).unwrap();
            assert_eq!(wire.body(framing).unwrap(), b"hello");
            assert_eq!(wire.body(Framing::UntilClose).unwrap(), rest);
        }
    }

    #[test]
    fn what_breaks_off_is_not_whole() {
        for bytes in [
            b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello".as_slice(),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        ] {
            let mut wire = wire(bytes);
            let framing = wire.head().unwrap().framing(Framing::UntilClose).unwrap();
            assert!(matches!(wire.body(framing), Err(Broken::Closed)));
        }
        assert!(matches!(wire(b"HTTP/1.1 200 OK\r\n").head(), Err(Broken::Closed)));
        assert!(matches!(wire(b"no\r\ncolon\r\n\r\n").head(), Err(Broken::Malformed(_))));
    }

    #[test]
    fn chunks_are_read_as_they_are_written() {
        for length in [0, 1, 999, 1000, 1001, 40_000] {
            let body = vec![b'x'; length];
            let mut wire = wire(Box::leak(chunked(&body).into_boxed_slice()));
            assert_eq!(wire.body(Framing::Chunked).unwrap(), body);
        }
    }
}
