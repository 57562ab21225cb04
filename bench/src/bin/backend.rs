//! The backend of the measurements: one thread, every answer rendered once and sent with one call.
//!
//! `backend LISTEN`. It answers:
//!
//! - `GET /` a small answer of about 128 bytes, head included
//! - `GET /N` or `/bytes/N` a body of N bytes
//! - `POST` anything: reads the body (Content-Length or chunked), answers how long it was
//! - `GET /stats` connections accepted and requests answered so far
//!
//! It trusts what it reads, so nothing but a proxy under measurement should be in front of it.

use std::collections::HashMap;
use std::error::Error;
use std::rc::Rc;

use bench::{LISTENER, Moved, Poll, Table, accept, listen, recv, send};
use rustix::fd::OwnedFd;

/// Read at most that much at once.
const BUFFER: usize = 256 * 1024;

/// No body is larger, so that a stray number cannot eat the memory.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Real servers send one; that it never changes makes no difference to who passes it on.
const DATE: &str = "Thu, 05 Nov 2026 10:00:00 GMT";

/// What to answer with.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Reply {
    Hello,
    Bytes(usize),
    Received(u64),
    Stats,
    NotFound,
}

/// Answers, rendered once, and the counters behind `/stats`.
#[derive(Default)]
struct Replies {
    rendered: HashMap<(Reply, bool), Rc<[u8]>>,
    connections: u64,
    requests: u64,
}

impl Replies {
    fn get(&mut self, reply: Reply, close: bool) -> Rc<[u8]> {
        self.requests += 1;
        if reply == Reply::Stats {
            let (connections, requests) = (self.connections, self.requests);
            let stats = format!("{{\"connections\": {connections}, \"requests\": {requests}}}\n");
            return render("200 OK", stats.as_bytes(), close);
        }
        let rendered = self.rendered.entry((reply, close)).or_insert_with(|| match reply {
            Reply::Bytes(n) => render("200 OK", &vec![b'x'; n], close),
            Reply::Received(n) => render("200 OK", format!("received {n}\n").as_bytes(), close),
            Reply::NotFound => render("404 Not Found", b"no such path\n", close),
            Reply::Hello | Reply::Stats => render("200 OK", b"hello\n", close),
        });
        Rc::clone(rendered)
    }
}

fn render(status: &str, body: &[u8], close: bool) -> Rc<[u8]> {
    let close = if close { "Connection: close\r\n" } else { "" };
    let length = body.len();
    let mut reply = format!(
        "HTTP/1.1 {status}\r\nServer: bench\r\nDate: {DATE}\r\nContent-Type: text/plain\r\n\
         Content-Length: {length}\r\n{close}\r\n"
    )
    .into_bytes();
    reply.extend_from_slice(body);
    reply.into()
}

/// Where in a request the input stands.
#[derive(Clone, Copy)]
enum Expect {
    Head,
    /// That many bytes of a body with Content-Length.
    Length(u64),
    ChunkSize,
    /// That many bytes of a chunk, its CRLF included.
    Chunk(u64),
    /// Lines after the last chunk, up to the empty one.
    Trailer,
}

struct Connection {
    socket: OwnedFd,
    input: Vec<u8>,
    expect: Expect,
    /// Bytes of the present request's body so far.
    received: u64,
    /// The present request asked for it.
    close: bool,
    /// The answer under way, and how much of it is sent.
    output: Option<(Rc<[u8]>, usize)>,
    readable: bool,
    ended: bool,
}

impl Connection {
    fn new(socket: OwnedFd) -> Self {
        let (input, expect) = (Vec::new(), Expect::Head);
        Self {
            socket,
            input,
            expect,
            received: 0,
            close: false,
            output: None,
            readable: false,
            ended: false,
        }
    }

    /// Answers all it can; false when the connection is done with.
    fn advance(&mut self, buffer: &mut [u8], replies: &mut Replies) -> bool {
        loop {
            if let Some((reply, sent)) = &mut self.output {
                match send(&self.socket, &reply[*sent..]) {
                    Moved::Bytes(n) => *sent += n,
                    Moved::Later => return true,
                    Moved::Over => return false,
                }
                if *sent < reply.len() {
                    continue;
                }
                self.output = None;
                if self.close {
                    return false;
                }
            }
            if let Some(reply) = self.next_request() {
                self.output = Some((replies.get(reply, self.close), 0));
                continue;
            }
            if !self.readable {
                return true;
            }
            match recv(&self.socket, buffer) {
                Moved::Bytes(n) => {
                    self.readable = n == buffer.len() || self.ended;
                    self.input.extend_from_slice(&buffer[..n]);
                }
                Moved::Later => self.readable = false,
                Moved::Over => return false,
            }
        }
    }

    /// Eats input up to the end of a request; the answer to it, or nothing while some is missing.
    fn next_request(&mut self) -> Option<Reply> {
        let mut at = 0;
        let reply = self.scan(&mut at);
        if at == self.input.len() {
            self.input.clear();
        } else {
            self.input.drain(..at);
        }
        reply
    }

    fn scan(&mut self, at: &mut usize) -> Option<Reply> {
        loop {
            let rest = &self.input[*at..];
            match self.expect {
                Expect::Head => {
                    let end = rest.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
                    let head = Head::parse(&rest[..end]);
                    *at += end;
                    self.close = head.close;
                    self.received = 0;
                    self.expect = match head.body {
                        Some(expect) => expect,
                        None => return Some(head.reply),
                    };
                }
                Expect::Length(left) | Expect::Chunk(left) => {
                    let step = left.min(rest.len() as u64);
                    *at += step as usize;
                    let left = left - step;
                    let chunked = matches!(self.expect, Expect::Chunk(_));
                    if !chunked {
                        self.received += step;
                    }
                    match (chunked, left) {
                        (true, 0) => self.expect = Expect::ChunkSize,
                        (false, 0) => return Some(self.body_read()),
                        (true, left) => self.expect = Expect::Chunk(left),
                        (false, left) => self.expect = Expect::Length(left),
                    }
                    if left > 0 {
                        return None;
                    }
                }
                Expect::ChunkSize => {
                    let end = line_end(rest)?;
                    let size = hex(&rest[..end]);
                    *at += end;
                    self.received += size;
                    self.expect = if size == 0 { Expect::Trailer } else { Expect::Chunk(size + 2) };
                }
                Expect::Trailer => {
                    let end = line_end(rest)?;
                    *at += end;
                    if end == 2 {
                        return Some(self.body_read());
                    }
                }
            }
        }
    }

    fn body_read(&mut self) -> Reply {
        self.expect = Expect::Head;
        Reply::Received(self.received)
    }
}

/// What the backend needs to know of a request's head.
struct Head {
    reply: Reply,
    close: bool,
    body: Option<Expect>,
}

impl Head {
    fn parse(bytes: &[u8]) -> Self {
        let mut lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
        let mut words = lines.next().unwrap_or_default().split(|&byte| byte == b' ');
        let path = words.nth(1).unwrap_or_default();
        let mut close = words.next() == Some(b"HTTP/1.0");
        let mut body = None;
        for line in lines {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii_start());
            // Their lengths tell most fields apart before any letter is compared.
            match colon {
                10 if name.eq_ignore_ascii_case(b"connection") => {
                    close |= value.eq_ignore_ascii_case(b"close");
                }
                14 if name.eq_ignore_ascii_case(b"content-length") => {
                    body = Some(decimal(value) as u64).filter(|&n| n > 0).map(Expect::Length);
                }
                17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                    body = Some(Expect::ChunkSize);
                }
                _ => {}
            }
        }
        Self { reply: reply_to(path), close, body }
    }
}

fn reply_to(path: &[u8]) -> Reply {
    match path {
        b"/" => Reply::Hello,
        b"/stats" => Reply::Stats,
        _ => {
            let number = path.strip_prefix(b"/bytes/").or(path.strip_prefix(b"/"));
            match number {
                Some(digits) if digits.iter().all(u8::is_ascii_digit) && digits.len() < 10 => {
                    Reply::Bytes(decimal(digits).min(MAX_BODY))
                }
                _ => Reply::NotFound,
            }
        }
    }
}

fn decimal(digits: &[u8]) -> usize {
    digits.iter().take(18).fold(0, |sum, digit| sum * 10 + usize::from(digit.wrapping_sub(b'0')))
}

/// The number at the start of a chunk's line, whatever follows it.
fn hex(line: &[u8]) -> u64 {
    let digits = line.iter().map_while(|&byte| char::from(byte).to_digit(16)).take(15);
    digits.fold(0, |sum, digit| sum * 16 + u64::from(digit))
}

/// Where the line ends, its CRLF included.
fn line_end(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&byte| byte == b'\n').map(|newline| newline + 1)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address] = arguments.as_slice() else { return Err("usage: backend LISTEN".into()) };
    let listener = listen(address.parse()?)?;
    let mut poll = Poll::new()?;
    poll.add(&listener, LISTENER)?;

    let mut connections = Table::default();
    let mut replies = Replies::default();
    let mut buffer = vec![0; BUFFER];
    let mut wakes = Vec::new();
    loop {
        poll.wait(&mut wakes)?;
        for wake in wakes.drain(..) {
            if wake.token == LISTENER {
                while let Some(socket) = accept(&listener)? {
                    replies.connections += 1;
                    poll.add(&socket, connections.next_number() as u64)?;
                    connections.insert(Connection::new(socket));
                }
                continue;
            }
            let number = wake.token as usize;
            let Some(connection) = connections.get(number) else { continue };
            connection.readable |= wake.read;
            connection.ended |= wake.ended;
            if !connection.advance(&mut buffer, &mut replies) {
                connections.remove(number);
            }
        }
    }
}
