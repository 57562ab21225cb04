//! HTTP/2 in frames: a client that sends what it is told to, also what no library would.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::process::Tinylb;
use super::wire::PATIENCE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 0x1;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;

pub const PROTOCOL_ERROR: u32 = 1;
pub const INTERNAL_ERROR: u32 = 2;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Settings under which all heads are encoded by themselves: a table of no entries (RFC 9113 6.5.2).
const NO_TABLE: [u8; 6] = [0, 1, 0, 0, 0, 0];

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// One setting.
pub fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// Fields as literals that nobody indexes, whatever is in them (RFC 7541 6.2.2).
pub fn literals(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for string in [name.as_bytes(), value] {
            integer(&mut block, 7, string.len());
            block.extend(string);
        }
    }
    block
}

/// An integer in a prefix of so many bits, the others being 0 (RFC 7541 5.1).
fn integer(out: &mut Vec<u8>, bits: u8, value: usize) {
    let most = (1 << bits) - 1;
    let mut rest = value;
    if rest < most {
        return out.push(u8::try_from(rest).unwrap());
    }
    out.push(u8::try_from(most).unwrap());
    rest -= most;
    while rest >= 128 {
        out.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    out.push(u8::try_from(rest).unwrap());
}

/// The fields of a request that nothing is wrong with.
pub fn request<'a>(method: &'a str, path: &'a str) -> [(&'static str, &'a [u8]); 4] {
    [
        (":method", method.as_bytes()),
        (":scheme", b"http"),
        (":path", path.as_bytes()),
        (":authority", b"test"),
    ]
}

/// A frame as it was received.
#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn is(&self, kind: u8, stream: u32) -> bool {
        (self.kind, self.stream) == (kind, stream)
    }

    /// The error code of a RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The status of a head, which must be the first field of a block that refers to nothing before it.
    pub fn status(&self) -> u16 {
        const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
        let mut block = &self.payload[..];
        // The table's new size.
        while let [0b0010_0000..=0b0011_1111, rest @ ..] = block {
            block = rest;
        }
        match block {
            [indexed @ 0x88..=0x8e, ..] => STATIC[usize::from(indexed - 0x88)],
            [0x08 | 0x48, length, value @ ..] => match length & 0x80 {
                0 => std::str::from_utf8(&value[..3]).unwrap().parse().unwrap(),
                _ => huffman_digits(value),
            },
            other => panic!("a head that begins with its status: {other:?}"),
        }
    }
}

/// Three digits, which have codes of 5 or 6 bits (RFC 7541 B).
fn huffman_digits(bytes: &[u8]) -> u16 {
    let mut bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1));
    let mut number = 0;
    for _ in 0..3 {
        let mut code = 0;
        for _ in 0..5 {
            code = code << 1 | u16::from(bits.next().unwrap());
        }
        let digit = match code {
            0..=2 => code,
            _ => (code << 1 | u16::from(bits.next().unwrap())) - 0b011001 + 3,
        };
        number = number * 10 + digit;
    }
    number
}

/// What becomes of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Answered(u16),
    /// `RST_STREAM`, with this code.
    Reset(u32),
    /// `GOAWAY` with this code, which is an error.
    GoAway(u32),
    /// The connection ends without a word.
    Closed,
}

/// A client that speaks frames.
#[derive(Debug)]
pub struct Frames {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Frames {
    /// A client whose connection has begun as it should.
    #[track_caller]
    pub fn connect(tinylb: &Tinylb) -> Self {
        Self::with_settings(tinylb, &[])
    }

    /// The same, with further settings.
    #[track_caller]
    pub fn with_settings(tinylb: &Tinylb, settings: &[u8]) -> Self {
        let mut client = Self::unacknowledged(tinylb, settings);
        client.send(frame(SETTINGS, ACK, 0, &[]));
        client
    }

    /// A client that does not say that it has heard of the balancer's settings.
    #[track_caller]
    pub fn unacknowledged(tinylb: &Tinylb, settings: &[u8]) -> Self {
        let mut client = Self::over(TcpStream::connect(tinylb.address()).unwrap());
        let settings = frame(SETTINGS, 0, 0, &[&NO_TABLE[..], settings].concat());
        client.send([PREFACE, &settings].concat());
        let first = client.next().expect("the balancer's settings");
        assert_eq!((first.kind, first.flags), (SETTINGS, 0));
        client
    }

    /// The other side of a connection that the balancer makes, which has begun as it should; `None` where
    /// it does not begin.
    pub fn accept(stream: TcpStream, settings: &[u8]) -> Option<Self> {
        let mut server = Self::over(stream);
        let mut preface = [0; PREFACE.len()];
        server.reader.read_exact(&mut preface).ok()?;
        assert_eq!(preface, PREFACE, "the balancer speaks HTTP/2");
        let settings = frame(SETTINGS, 0, 0, settings);
        server.try_send([settings, frame(SETTINGS, ACK, 0, &[])].concat()).then_some(server)
    }

    /// A connection on which nothing has been said.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader }
    }

    /// The connection, for somebody else to read or write.
    pub fn stream(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the balancer reads");
    }

    /// Sends where the balancer may have closed already; false where it has.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends a head in one frame.
    #[track_caller]
    pub fn head(&mut self, stream: u32, fields: &[(&str, &[u8])], is_end: bool) {
        let flags = END_HEADERS | u8::from(is_end);
        self.send(frame(HEADERS, flags, stream, &literals(fields)));
    }

    /// Sends a head in frames of no more than their size by default.
    #[track_caller]
    pub fn head_in_frames(&mut self, stream: u32, fields: &[(&str, &[u8])], is_end: bool) {
        let block = literals(fields);
        let mut pieces = block.chunks(16 * 1024).peekable();
        let (mut kind, mut flags) = (HEADERS, u8::from(is_end));
        while let Some(piece) = pieces.next() {
            flags |= if pieces.peek().is_none() { END_HEADERS } else { 0 };
            self.send(frame(kind, flags, stream, piece));
            (kind, flags) = (CONTINUATION, 0);
        }
    }

    #[track_caller]
    pub fn get(&mut self, stream: u32, path: &str) {
        self.head(stream, &request("GET", path), true);
    }

    #[track_caller]
    pub fn data(&mut self, stream: u32, payload: &[u8], is_end: bool) {
        self.send(frame(DATA, u8::from(is_end), stream, payload));
    }

    #[track_caller]
    pub fn reset(&mut self, stream: u32) {
        self.send(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
    }

    /// Opens the windows of the connection and of a stream.
    #[track_caller]
    pub fn open_windows(&mut self, stream: u32, by: u32) {
        self.send(frame(WINDOW_UPDATE, 0, 0, &by.to_be_bytes()));
        self.send(frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes()));
    }

    /// The next frame; `None` at the end of the connection.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        match self.reader.read_exact(&mut head) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the balancer says something within {PATIENCE:?}")
            }
            result => result.ok()?,
        }
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.reader.read_exact(&mut payload).ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// The next frame for which `wanted` holds; `None` where the connection ends before it.
    pub fn find(&mut self, mut wanted: impl FnMut(&Frame) -> bool) -> Option<Frame> {
        std::iter::from_fn(|| self.next()).find(|frame| wanted(frame))
    }

    /// The streams of the next `n` heads, which are requests.
    #[track_caller]
    pub fn requests(&mut self, n: usize) -> Vec<u32> {
        let mut next = || self.find(|frame| frame.kind == HEADERS).expect("a request").stream;
        (0..n).map(|_| next()).collect()
    }

    /// Answers a request with this body.
    #[track_caller]
    pub fn ok(&mut self, stream: u32, body: &[u8]) {
        self.head(stream, &[(":status", b"200")], false);
        self.data(stream, body, true);
    }

    /// Says that streams above `last` have not been looked at, and that there will be no others.
    #[track_caller]
    pub fn go_away(&mut self, last: u32, code: u32) {
        self.send(frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat()));
    }

    /// What becomes of a stream.
    pub fn fate(&mut self, stream: u32) -> Fate {
        let found = self.find(|frame| match frame.kind {
            HEADERS | RST_STREAM => frame.stream == stream,
            GOAWAY => frame.code() != 0,
            _ => false,
        });
        found.map_or(Fate::Closed, |frame| match frame.kind {
            HEADERS => Fate::Answered(frame.status()),
            RST_STREAM => Fate::Reset(frame.code()),
            _ => Fate::GoAway(frame.code()),
        })
    }

    /// The status and body of a stream; a stream or connection that ends otherwise is a failure.
    #[track_caller]
    pub fn answer(&mut self, stream: u32) -> (u16, Vec<u8>) {
        let head = self.find(|frame| frame.is(HEADERS, stream)).expect("a head");
        let (status, mut body) = (head.status(), Vec::new());
        let mut is_over = head.flags & END_STREAM != 0;
        while !is_over {
            let frame = self.find(|frame| frame.stream == stream).expect("more of the body");
            assert_eq!(frame.kind, DATA, "nothing but a body");
            is_over = frame.flags & END_STREAM != 0;
            body.extend(frame.payload);
        }
        (status, body)
    }

    /// Waits until everything that was sent has been read: pings, and reads up to the answer. False
    /// where none comes.
    pub fn is_answering(&mut self) -> bool {
        self.try_send(frame(PING, 0, 0, b"in order"))
            && self.find(|frame| frame.kind == PING && frame.payload == b"in order").is_some()
    }

    /// Asserts that the connection still carries requests.
    #[track_caller]
    pub fn assert_serves(&mut self, stream: u32) {
        self.get(stream, "/still-open");
        assert_eq!(self.answer(stream).0, 200);
    }

    pub fn set_patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
    }
}
