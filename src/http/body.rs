//! Bodies: where one ends (RFC 9112 6) and, if it is chunked, what of the bytes is payload.

use memchr::memchr;

use super::buffer::Buffer;
use crate::error::Error;

/// The longest chunk-size line in bytes, extensions included. Extensions carry nothing that anyone
/// uses; a peer that sends more of them than this wants us to work.
pub const MAX_CHUNK_LINE: usize = 256;

/// The largest trailer section in bytes.
pub const MAX_TRAILERS: usize = 8 * 1024;

/// Small chunks are gathered until this much payload is contiguous, so that a body of many small
/// chunks leaves in few writes, and large chunks are never moved.
const GATHER: usize = 16 * 1024;

/// The largest count of bytes in a Content-Length or a chunk: what fits in an `i64`, which is what
/// others count in.
pub const MAX_LENGTH: u64 = i64::MAX as u64;

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// After so many bytes, at least one.
    Length(u64),
    /// After the last chunk and the trailers.
    Chunked,
    /// When the connection closes; responses only.
    UntilClose,
}

impl Framing {
    /// The framing that a Content-Length announces.
    pub const fn of_length(length: u64) -> Self {
        if length == 0 { Self::Empty } else { Self::Length(length) }
    }
}

/// What the bytes at the front of a buffer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The first `payload` bytes are the body's next ones; they and framing behind them are used
    /// up once `consume` bytes are [consumed](Buffer::consume).
    Data {
        /// Bytes to pass on.
        payload: usize,
        /// Bytes to consume then.
        consume: usize,
    },
    /// Nothing can be said without more bytes.
    More,
    /// The body is over; of a chunked one, the trailer section (fields and the empty line) is the
    /// first `trailers` bytes, not consumed yet. 0 where there are no trailers.
    End {
        /// Bytes of the trailer section; to be consumed by whoever looks at them.
        trailers: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes are left of a counted body.
    Length(u64),
    /// Everything is payload.
    UntilClose,
    /// A chunk-size line comes next.
    ChunkSize,
    /// So many bytes are left of a chunk's data.
    ChunkData(u64),
    /// The CRLF behind a chunk's data comes next.
    ChunkEnd,
    /// The trailer section comes next.
    Trailers,
    /// The body is over.
    End,
}

/// Finds payload and end of one body in the bytes of a [`Buffer`].
#[derive(Debug)]
pub struct Decoder {
    state: State,
}

impl Decoder {
    /// For a body of this framing.
    pub const fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Empty => State::End,
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// Whether the body is over.
    pub fn is_over(&self) -> bool {
        self.state == State::End
    }

    /// Whether the end of the stream is the end of the body.
    pub fn ends_with_stream(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Whether nothing is owed at the moment: the next chunk, or more of a stream without an end
    /// in sight, comes when it comes.
    pub fn may_pause(&self) -> bool {
        matches!(self.state, State::UntilClose | State::ChunkSize)
    }

    /// How much payload is still to come at the most, as far as is known.
    pub fn at_most(&self) -> u64 {
        match self.state {
            State::Length(n) => n,
            State::End => 0,
            _ => u64::MAX,
        }
    }

    /// What the front of `buffer` is. Payload of several small chunks is moved together; framing
    /// in front of payload is consumed.
    ///
    /// # Errors
    /// Malformed chunked coding, as a fault of a request; see
    /// [`as_response_fault`](super::head::as_response_fault).
    pub fn decode(&mut self, buffer: &mut Buffer) -> Result<Step, Error> {
        match self.state {
            State::End => return Ok(Step::End { trailers: 0 }),
            State::Length(left) => {
                let n = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                if n == 0 {
                    return Ok(Step::More);
                }
                let left = left - n as u64;
                self.state = if left == 0 { State::End } else { State::Length(left) };
                return Ok(Step::Data { payload: n, consume: n });
            }
            State::UntilClose => {
                let n = buffer.len();
                return Ok(if n == 0 { Step::More } else { Step::Data { payload: n, consume: n } });
            }
            _ => {}
        }
        self.decode_chunked(buffer)
    }

    fn decode_chunked(&mut self, buffer: &mut Buffer) -> Result<Step, Error> {
        // `payload` bytes at the front are payload; from `at` on nothing has been looked at.
        let (mut payload, mut at) = (0, 0);
        loop {
            let rest = buffer.filled().get(at..).unwrap_or_default();
            match self.state {
                State::ChunkSize => match chunk_size(rest)? {
                    Some((0, used)) => {
                        at += used;
                        self.state = State::Trailers;
                    }
                    Some((size, used)) => {
                        at += used;
                        self.state = State::ChunkData(size);
                    }
                    None => break,
                },
                State::ChunkData(left) => {
                    let n = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    if n == 0 {
                        break;
                    }
                    if payload == 0 {
                        buffer.consume(at);
                        at = 0;
                    } else {
                        buffer.filled_mut().copy_within(at..at + n, payload);
                    }
                    payload += n;
                    at += n;
                    let left = left - n as u64;
                    self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData(left) };
                }
                State::ChunkEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        at += 2;
                        self.state = State::ChunkSize;
                        // Only small runs are worth moving together.
                        if payload >= GATHER {
                            break;
                        }
                    }
                    [] | [b'\r'] => break,
                    _ => return Err(Error::bad_request("chunk data is not followed by CRLF")),
                },
                State::Trailers => {
                    if payload > 0 {
                        break;
                    }
                    buffer.consume(at);
                    return self.trailers(buffer);
                }
                State::Length(_) | State::UntilClose | State::End => break,
            }
        }
        if payload > 0 {
            return Ok(Step::Data { payload, consume: at });
        }
        buffer.consume(at);
        Ok(Step::More)
    }

    fn trailers(&mut self, buffer: &mut Buffer) -> Result<Step, Error> {
        let bytes = buffer.filled();
        if bytes.starts_with(b"\r\n") {
            buffer.consume(2);
            self.state = State::End;
            return Ok(Step::End { trailers: 0 });
        }
        let mut line = 0;
        while let Some(found) = memchr(b'\n', bytes.get(line..).unwrap_or_default()) {
            let at = line + found;
            if at == 0 || bytes.get(at - 1) != Some(&b'\r') {
                return Err(Error::bad_request("bare LF in the trailers"));
            }
            if at + 1 > MAX_TRAILERS {
                break;
            }
            if at - 1 == line {
                self.state = State::End;
                return Ok(Step::End { trailers: at + 1 });
            }
            line = at + 1;
        }
        if bytes.len() >= MAX_TRAILERS {
            return Err(Error::bad_request("trailers over 8 KiB"));
        }
        Ok(Step::More)
    }
}

/// The size in the chunk-size line at the front of `bytes`, and the line's length; `None` while
/// the line is not all there.
fn chunk_size(bytes: &[u8]) -> Result<Option<(u64, usize)>, Error> {
    let within = bytes.get(..bytes.len().min(MAX_CHUNK_LINE)).unwrap_or_default();
    let mut size: u64 = 0;
    let mut digits = 0;
    for byte in within {
        let Some(digit) = (*byte as char).to_digit(16) else { break };
        size = size
            .checked_mul(16)
            .and_then(|s| s.checked_add(u64::from(digit)))
            .filter(|s| *s <= MAX_LENGTH)
            .ok_or(Error::bad_request("chunk size overflows"))?;
        digits += 1;
    }
    let rest = within.get(digits..).unwrap_or_default();
    match rest {
        [b'\r', b'\n', ..] if digits > 0 => return Ok(Some((size, digits + 2))),
        [] | [b'\r'] if digits > 0 || rest.is_empty() => {}
        _ if digits == 0 => return Err(Error::bad_request("malformed chunk size")),
        [b';' | b' ' | b'\t', ..] => {
            if let Some(used) = chunk_extensions(rest)? {
                return Ok(Some((size, digits + used)));
            }
        }
        _ => return Err(Error::bad_request("malformed chunk size")),
    }
    if within.len() == MAX_CHUNK_LINE {
        return Err(Error::bad_request("chunk-size line over 256 bytes"));
    }
    Ok(None)
}

/// The length of the extensions at the front of `bytes`, with the CRLF behind them. What they say
/// is ignored (RFC 9112 7.1.1) and ends here, but they must not hide a line end.
fn chunk_extensions(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let blank = bytes.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    match bytes.get(blank) {
        Some(b';') | None => {}
        Some(_) => return Err(Error::bad_request("malformed chunk size")),
    }
    let visible = |b: &u8| matches!(b, b'\t' | b' '..=b'~' | 0x80..);
    let length = bytes.iter().take_while(|b| visible(b)).count();
    match bytes.get(length..).unwrap_or_default() {
        [b'\r', b'\n', ..] => Ok(Some(length + 2)),
        [] | [b'\r'] => Ok(None),
        _ => Err(Error::bad_request("malformed chunk extension")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Payload, trailer section, and what is left over.
    type Decoded = (Vec<u8>, Vec<u8>, Vec<u8>);

    /// Everything that comes out of `wire` when it arrives in these pieces: payload, trailer
    /// section and what is left over, or the fault.
    fn decode(framing: Framing, wire: &[u8], pieces: &[usize]) -> Result<Decoded, Error> {
        let mut decoder = Decoder::new(framing);
        let mut buffer = Buffer::with_capacity(64 * 1024);
        let mut payload = Vec::new();
        let mut sent = 0;
        let mut pieces = pieces.iter().copied().chain(std::iter::repeat(usize::MAX));
        loop {
            match decoder.decode(&mut buffer)? {
                Step::Data { payload: n, consume } => {
                    payload.extend_from_slice(&buffer.filled()[..n]);
                    buffer.consume(consume);
                }
                Step::More if sent == wire.len() => return Ok((payload, b"cut".to_vec(), vec![])),
                Step::More => {
                    let n = pieces.next().unwrap_or(1).clamp(1, wire.len() - sent);
                    sent += buffer.append(&wire[sent..sent + n]);
                }
                Step::End { trailers } => {
                    let section = buffer.filled()[..trailers].to_vec();
                    buffer.consume(trailers);
                    let mut rest = buffer.filled().to_vec();
                    rest.extend_from_slice(&wire[sent..]);
                    return Ok((payload, section, rest));
                }
            }
        }
    }

    #[test]
    fn chunked_with_extensions_and_trailers() {
        let wire = b"5;a=b;c\r\nhello\r\n006 ;x\r\n world\r\n0;last\r\nA: 1\r\nB: 2\r\n\r\nGET";
        let (payload, trailers, rest) = decode(Framing::Chunked, wire, &[]).unwrap();
        assert_eq!(payload, b"hello world");
        assert_eq!(trailers, b"A: 1\r\nB: 2\r\n\r\n");
        assert_eq!(rest, b"GET");
    }

    #[test]
    fn refused_chunks() {
        let refused: [&[u8]; 22] = [
            b"\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"-5\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"5\t \r\nhello\r\n0\r\n\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\rhello\r\n0\r\n\r\n",
            b"5;a\nhello\r\n0\r\n\r\n",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n",
            b"5;a\0\r\nhello\r\n0\r\n\r\n",
            b"5,\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhelloo\r\n0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"8000000000000000\r\n",
            b"ffffffffffffffff\r\n",
            b"10000000000000000\r\n",
            b"g\r\n",
            b";a\r\n",
            b"0\r\nA: b\n\r\n",
        ];
        for wire in refused {
            for split in 1..=wire.len() {
                let fault = decode(Framing::Chunked, wire, &[split]);
                assert!(fault.is_err(), "{:?} split at {split}", String::from_utf8_lossy(wire));
            }
        }
    }

    #[test]
    fn lines_and_trailers_over_the_limit_are_refused() {
        let line = [b"5;".to_vec(), vec![b'a'; MAX_CHUNK_LINE]].concat();
        assert!(decode(Framing::Chunked, &line, &[]).is_err());
        assert!(decode(Framing::Chunked, &vec![b'0'; MAX_CHUNK_LINE], &[]).is_err());
        let trailers = [b"0\r\nA: ".to_vec(), vec![b'a'; MAX_TRAILERS]].concat();
        assert!(decode(Framing::Chunked, &trailers, &[]).is_err());
        assert!(decode(Framing::Chunked, &trailers, &[1; 9000]).is_err());
    }

    #[test]
    fn counted_and_close_delimited_bodies() {
        let (payload, _, rest) = decode(Framing::Length(5), b"hello!", &[2]).unwrap();
        assert_eq!((&payload[..], &rest[..]), (&b"hello"[..], &b"!"[..]));
        let (payload, cut, _) = decode(Framing::UntilClose, b"hello", &[1, 1]).unwrap();
        assert_eq!((&payload[..], &cut[..]), (&b"hello"[..], &b"cut"[..]));
        let (payload, _, rest) = decode(Framing::Empty, b"next", &[]).unwrap();
        assert_eq!((&payload[..], &rest[..]), (&b""[..], &b"next"[..]));
    }

    #[test]
    fn large_chunks_are_not_moved() {
        let mut wire = Vec::new();
        for _ in 0..2 {
            wire.extend_from_slice(b"4000\r\n");
            wire.extend_from_slice(&[b'x'; 0x4000]);
            wire.extend_from_slice(b"\r\n");
        }
        let mut buffer = Buffer::with_capacity(64 * 1024);
        buffer.append(&wire);
        let step = Decoder::new(Framing::Chunked).decode(&mut buffer).unwrap();
        assert_eq!(step, Step::Data { payload: 0x4000, consume: 0x4002 });
    }

    proptest! {
        #[test]
        fn any_split_of_the_input_gives_the_same_output(
            chunks in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..40), "(;[a-z=]{0,6})?"), 0..12),
            trailer in any::<bool>(),
            pieces in prop::collection::vec(1usize..24, 0..64),
        ) {
            let mut wire = Vec::new();
            let mut body = Vec::new();
            for (data, extension) in &chunks {
                wire.extend_from_slice(format!("{:x}{extension}\r\n", data.len()).as_bytes());
                wire.extend_from_slice(data);
                wire.extend_from_slice(b"\r\n");
                body.extend_from_slice(data);
            }
            wire.extend_from_slice(if trailer { b"0\r\nT: v\r\n\r\nnext" } else { b"0\r\n\r\nnext" });
            let whole = decode(Framing::Chunked, &wire, &[]).unwrap();
            prop_assert_eq!(&whole.0, &body);
            prop_assert_eq!(&whole.2, b"next");
            prop_assert_eq!(decode(Framing::Chunked, &wire, &pieces).unwrap(), whole);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_split_alike(
            wire in prop::collection::vec(prop::sample::select(b"0123aF;\r\n x\x00".to_vec()), 0..60),
            pieces in prop::collection::vec(1usize..8, 0..60),
        ) {
            let whole = decode(Framing::Chunked, &wire, &[]);
            let split = decode(Framing::Chunked, &wire, &pieces);
            prop_assert_eq!(whole.is_ok(), split.is_ok());
            if let (Ok(whole), Ok(split)) = (whole, split) {
                prop_assert_eq!(whole, split);
            }
        }
    }
}
