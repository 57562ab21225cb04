//! Backends whose connections begin with a PROXY protocol header, which is read by the letter.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use super::{Backend, Client, Conn, Tinylb, config, ok};

/// A backend whose connections begin with a header, and these headers, in the order in which they came.
#[derive(Debug)]
pub struct Introduced {
    pub backend: Backend,
    headers: Arc<Mutex<Vec<String>>>,
}

impl Introduced {
    /// With an answer to everything.
    pub fn new() -> Self {
        Self::with(|mut conn| conn.answer_all(ok("fine")))
    }

    /// With what is done once the header has come.
    pub fn with(script: impl Fn(Conn) + Send + Sync + 'static) -> Self {
        let headers = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&headers);
        let backend = Backend::new(move |mut conn| {
            if let Some(header) = header(&mut conn) {
                noted.lock().unwrap().push(header);
                script(conn);
            }
        });
        Self { backend, headers }
    }

    pub fn headers(&self) -> Vec<String> {
        self.headers.lock().unwrap().clone()
    }

    /// A balancer before it, and further lines of its listener and its upstream.
    pub fn balanced(&self, version: &str, listener: &str, upstream: &str) -> Tinylb {
        let upstream = format!("proxy_protocol = {version:?}\n{upstream}");
        Tinylb::run(&config(&[self.backend.url()], listener, &upstream))
    }
}

/// The header at the front of a connection in words; `None` where there is none before its end.
fn header(conn: &mut Conn) -> Option<String> {
    let mut bytes = conn.wire.take(6);
    if bytes == b"PROXY " {
        return Some(format!("PROXY {}", conn.wire.line()?));
    }
    bytes.extend(conn.wire.take(10));
    if bytes.is_empty() {
        return None;
    }
    assert!(bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n"), "{}", bytes.escape_ascii());
    bytes.extend(conn.wire.take(usize::from(bytes[14]) << 8 | usize::from(bytes[15])));
    Some(in_words(&bytes))
}

/// A header of version 2: command and family, the addresses, and the TLVs, of which there has to be a
/// checksum behind all others where there are addresses.
fn in_words(header: &[u8]) -> String {
    let (size, mut rest) = match header[13] {
        0x11 => (4, &header[16 + 12..]),
        0x21 => (16, &header[16 + 36..]),
        _ => return format!("{:02x}{:02x}{}", header[12], header[13], header[16..].escape_ascii()),
    };
    let ip = |at: usize| match &header[16 + at * size..][..size] {
        v4 if size == 4 => <[u8; 4]>::try_from(v4).unwrap().into(),
        v6 => <[u8; 16]>::try_from(v6).unwrap().into(),
    };
    let port = |at: usize| {
        u16::from_be_bytes([header[16 + 2 * (size + at)], header[17 + 2 * (size + at)]])
    };
    let addresses = [SocketAddr::new(ip(0), port(0)), SocketAddr::new(ip(1), port(1))];
    let mut words =
        format!("{:02x}{:02x} {} {}", header[12], header[13], addresses[0], addresses[1]);
    while rest.len() > 7 {
        let (value, behind) = rest[3..].split_at(usize::from(rest[2]));
        words += &format!(" {:02x}={}", rest[0], value.escape_ascii());
        rest = behind;
    }
    let mut zeroed = header.to_vec();
    let at = zeroed.len() - 4;
    zeroed[at..].fill(0);
    assert_eq!(rest[..3], [3, 0, 4]);
    assert_eq!(rest[3..], crc32c::crc32c(&zeroed).to_be_bytes());
    words
}

/// What the header of `client` has to be in words.
pub fn of_client(client: &mut Client, version: &str) -> String {
    let stream = client.wire().stream();
    words_of(stream.local_addr().unwrap(), stream.peer_addr().unwrap(), version)
}

/// The same of one that comes from `source`.
pub fn words_of(source: SocketAddr, destination: SocketAddr, version: &str) -> String {
    match version {
        "v1" => {
            let (from, to) = (source.ip(), destination.ip());
            format!("PROXY TCP4 {from} {to} {} {}", source.port(), destination.port())
        }
        _ => format!("2111 {source} {destination}"),
    }
}
