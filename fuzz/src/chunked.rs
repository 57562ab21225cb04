//! The chunked coding: payload and end found, faults seen, and payload coded anew.

use tinylb::error::{Fault, Kind};
use tinylb::http::body::{Decoder, Framing, MAX_CHUNK_LINE, MAX_LENGTH, MAX_TRAILERS, Step};
use tinylb::http::buffer::Buffer;
use tinylb::http::head::{FieldId, Head, parse_trailers};
use tinylb::http::rewrite;

use super::strict::Lines;
use super::{Input, show};

/// How much a worker's buffers hold at the least.
const SMALL: usize = 16 * 1024;

/// How a body ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The wire did, first.
    Cut,
    /// In a fault.
    Fault(Kind),
    /// Well, with this trailer section, and so many bytes of the wire behind it.
    Well(Vec<u8>, usize),
}

/// However the wire is split, the same payload, end or fault is found, and it is the one that a
/// plain reader finds. Payload and trailers, coded anew, are read as what they were.
pub fn check(input: Input<'_>) {
    let shown = show(input.wire);
    let (payload, end) = decode([input.wire].into_iter(), input.wire.len() + 1);
    let (in_pieces, same_end) = decode(input.in_pieces(), SMALL);
    assert_eq!(end, same_end, "{shown}");
    let (expected, expected_end) = plainly(input.wire);
    match (&end, &expected_end) {
        // What is in front of a fault may go on or not.
        (End::Fault(_), End::Fault(_) | End::Cut) => {
            assert!(expected.starts_with(&payload), "{shown}");
            assert!(expected.starts_with(&in_pieces), "{shown}");
        }
        _ => {
            assert_eq!(end, expected_end, "{shown}");
            assert_eq!(payload, expected, "{shown}");
            assert_eq!(in_pieces, expected, "{shown}");
        }
    }
    coded_anew(&input, &payload);
    if let End::Well(section, _) = &end {
        trailers(section);
    }
}

/// Payload and end of what arrives in these pieces.
fn decode<'a>(mut pieces: impl Iterator<Item = &'a [u8]>, capacity: usize) -> (Vec<u8>, End) {
    let mut decoder = Decoder::new(Framing::Chunked);
    let mut buffer = Buffer::with_capacity(capacity);
    let (mut payload, mut piece) = (Vec::new(), &[][..]);
    loop {
        match decoder.decode(&mut buffer) {
            Ok(Step::Data { payload: n, consume }) => {
                assert!(n > 0 && n <= consume && consume <= buffer.len());
                payload.extend_from_slice(&buffer.filled()[..n]);
                buffer.consume(consume);
            }
            Ok(Step::More) => {
                assert!(!buffer.spare().is_empty(), "a full buffer, and nothing to say of it");
                if piece.is_empty() {
                    let Some(next) = pieces.next() else { return (payload, End::Cut) };
                    piece = next;
                }
                piece = &piece[buffer.append(piece)..];
            }
            Ok(Step::End { trailers }) => {
                assert!(decoder.is_over());
                let section = buffer.filled()[..trailers].to_vec();
                let unread = piece.len() + pieces.map(<[u8]>::len).sum::<usize>();
                return (payload, End::Well(section, buffer.len() - trailers + unread));
            }
            Err(error) => {
                assert_eq!(error.kind.fault(), Fault::Client);
                return (payload, End::Fault(error.kind));
            }
        }
    }
}

/// The same by RFC 9112 7.1, line by line.
fn plainly(wire: &[u8]) -> (Vec<u8>, End) {
    let fault = End::Fault(Kind::BadRequest);
    let (mut payload, mut rest) = (Vec::new(), wire);
    loop {
        let Some(end) = rest.iter().position(|b| *b == b'\n') else {
            let is_long = rest.len() >= MAX_CHUNK_LINE;
            return (payload, if is_long { fault } else { End::Cut });
        };
        let (line, behind) = rest.split_at(end + 1);
        let Some(size) = chunk_size(line) else { return (payload, fault) };
        if size == 0 {
            return (payload, plain_trailers(behind));
        }
        let there = behind.len().min(usize::try_from(size).unwrap());
        payload.extend_from_slice(&behind[..there]);
        match &behind[there..] {
            [b'\r', b'\n', next @ ..] => rest = next,
            [] | [b'\r'] => return (payload, End::Cut),
            _ => return (payload, fault),
        }
    }
}

/// The size in a whole line.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let text = line.strip_suffix(b"\r\n").filter(|_| line.len() <= MAX_CHUNK_LINE)?;
    let (digits, extensions) = match text.iter().position(|b| *b == b';') {
        Some(at) => (trim_end(&text[..at]), &text[at..]),
        None => (text, &[][..]),
    };
    let is_text = |b: &u8| matches!(b, b'\t' | b' '..=b'~' | 0x80..);
    let is_fine = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    if !is_fine || !extensions.iter().all(is_text) {
        return None;
    }
    let significant = digits.iter().position(|b| *b != b'0').map_or(&[][..], |at| &digits[at..]);
    let size = significant
        .iter()
        .take(17)
        .fold(0, |n, digit| n * 16 + u128::from((*digit as char).to_digit(16).unwrap()));
    u64::try_from(size).ok().filter(|size| *size <= MAX_LENGTH)
}

fn trim_end(bytes: &[u8]) -> &[u8] {
    let last = bytes.iter().rposition(|b| !matches!(b, b' ' | b'\t'));
    &bytes[..last.map_or(0, |at| at + 1)]
}

/// How a body ends of which `rest` follows the last chunk's line.
fn plain_trailers(rest: &[u8]) -> End {
    if let Some(behind) = rest.strip_prefix(b"\r\n") {
        return End::Well(Vec::new(), behind.len());
    }
    let within = &rest[..rest.len().min(MAX_TRAILERS)];
    let end = within.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    let section = &within[..end.unwrap_or(within.len())];
    let is_bare =
        |(at, byte): (usize, &u8)| *byte == b'\n' && (at == 0 || section[at - 1] != b'\r');
    if section.iter().enumerate().any(is_bare) {
        return End::Fault(Kind::BadRequest);
    }
    match end {
        Some(end) => End::Well(section.to_vec(), rest.len() - end),
        None if rest.len() >= MAX_TRAILERS => End::Fault(Kind::BadRequest),
        None => End::Cut,
    }
}

/// What the sink makes of `payload`, in chunks of these sizes, is read as `payload`.
fn coded_anew(input: &Input<'_>, payload: &[u8]) {
    let chunks = Input { wire: payload, ..*input };
    let mut coded = Vec::new();
    for chunk in chunks.in_pieces() {
        rewrite::chunk_size(&mut coded, chunk.len());
        coded.extend_from_slice(chunk);
        coded.extend_from_slice(b"\r\n");
    }
    coded.extend_from_slice(b"0\r\n");
    rewrite::trailers(&mut coded, Head::new(b"", &[]));
    coded.extend_from_slice(b"next");
    let (again, end) = decode([&coded[..]].into_iter(), coded.len() + 1);
    assert_eq!(again, payload, "{}", show(&coded));
    assert_eq!(end, End::Well(Vec::new(), 4), "{}", show(&coded));
}

/// What goes on of a trailer section are fields that frame, route and control nothing.
fn trailers(section: &[u8]) {
    let mut fields = Vec::new();
    if section.is_empty() || parse_trailers(section, &mut fields).is_err() {
        return;
    }
    let mut out = Vec::new();
    rewrite::trailers(&mut out, Head::new(section, &fields));
    let shown = format!("{} -> {}", show(section), show(&out));
    let with_start = |fields: &[u8]| [b"start\r\n", fields].concat();
    let (before, after) = (with_start(section), with_start(&out));
    let (before, after) = (Lines::of(&before).expect(&shown), Lines::of(&after).expect(&shown));
    let is_other = |field: &&(&[u8], &[u8])| {
        matches!(FieldId::of(field.0), FieldId::Other | FieldId::ProxyStatus)
    };
    let others: Vec<_> = before.fields.iter().filter(is_other).copied().collect();
    assert_eq!(after.fields, others, "{shown}");
    let coded = [b"0\r\n", &out[..], b"next"].concat();
    let section = if others.is_empty() { Vec::new() } else { out };
    let (_, end) = decode([&coded[..]].into_iter(), coded.len() + 1);
    // White space that is made plain may be one byte more.
    if section.len() <= MAX_TRAILERS {
        assert_eq!(end, End::Well(section, 4), "{shown}");
    }
}
