//! Heads: where one ends, and what its field lines are.
//!
//! A head stays in the buffer that it was read into; what is kept of it are spans. Both kinds of
//! message parse to a start line and a list of [`Field`]s, which a [`Head`] shows as ordered
//! slices, whatever protocol they came by.

use std::mem::MaybeUninit;
use std::ops::Range;

use memchr::memchr;

use super::buffer::Buffer;
use crate::error::{Error, Kind};

/// The largest head in bytes. Larger than any browser's cookies, small enough to hold for every
/// slow client; spans fit in 16 bits.
pub const MAX_HEAD: usize = 32 * 1024;

/// The largest number of field lines in a head.
pub const MAX_FIELDS: usize = 128;

/// The first byte of a TLS connection: a handshake record (RFC 8446 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Empty lines that are let pass before a request line (RFC 9112 2.2).
const MAX_LEADING_LINES: u8 = 4;

/// The names of fields that the proxy looks at. All others are [`Other`](Self::Other).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the field names themselves")]
pub enum FieldId {
    Other,
    /// A name that differs from one of the others, or from `X-Real-IP`, only by characters such as underscores
    /// where that has hyphens. Gateways to applications (CGI, WSGI) take both for the same.
    Alias,
    Connection,
    ContentLength,
    Date,
    Expect,
    Forwarded,
    Host,
    KeepAlive,
    MaxForwards,
    ProxyConnection,
    ProxyStatus,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    Via,
    /// `X-Client-Subject`, also with underscores.
    XClientSubject,
    XForwardedFor,
    XForwardedHost,
    /// `X-Forwarded-` anything else, also with underscores.
    XForwardedOther,
    XForwardedProto,
    XRequestId,
}

impl FieldId {
    /// Which field `name` is, which is not the `known` one of its length and first letter.
    fn other(name: &[u8], known: &[u8]) -> Self {
        const PREFIX: &[u8] = b"x-forwarded-";
        const SUBJECT: &[u8] = b"x-client-subject";
        const REAL_IP: &[u8] = b"x-real-ip";
        if matches!(name, [b'x' | b'X', ..]) {
            if name.get(..PREFIX.len()).is_some_and(|start| is_alias(start, PREFIX)) {
                return Self::XForwardedOther;
            }
            if is_alias(name, SUBJECT) {
                return Self::XClientSubject;
            }
            if is_alias(name, REAL_IP) && !name.eq_ignore_ascii_case(REAL_IP) {
                return Self::Alias;
            }
        }
        if is_alias(name, known) { Self::Alias } else { Self::Other }
    }

    /// Which field `name` is, in any case.
    pub fn of(name: &[u8]) -> Self {
        let (id, known): (Self, &[u8]) = match (name.len(), name.first().map(|b| b | 0x20)) {
            (2, Some(b't')) => (Self::Te, b"te"),
            (3, Some(b'v')) => (Self::Via, b"via"),
            (4, Some(b'h')) => (Self::Host, b"host"),
            (4, Some(b'd')) => (Self::Date, b"date"),
            (6, Some(b'e')) => (Self::Expect, b"expect"),
            (7, Some(b'u')) => (Self::Upgrade, b"upgrade"),
            (7, Some(b't')) => (Self::Trailer, b"trailer"),
            (9, Some(b'f')) => (Self::Forwarded, b"forwarded"),
            (10, Some(b'c')) => (Self::Connection, b"connection"),
            (10, Some(b'k')) => (Self::KeepAlive, b"keep-alive"),
            (12, Some(b'm')) => (Self::MaxForwards, b"max-forwards"),
            (12, Some(b'x')) => (Self::XRequestId, b"x-request-id"),
            (12, Some(b'p')) => (Self::ProxyStatus, b"proxy-status"),
            (14, Some(b'c')) => (Self::ContentLength, b"content-length"),
            (15, Some(b'x')) => (Self::XForwardedFor, b"x-forwarded-for"),
            (16, Some(b'x')) => (Self::XForwardedHost, b"x-forwarded-host"),
            (16, Some(b'p')) => (Self::ProxyConnection, b"proxy-connection"),
            (17, Some(b't')) => (Self::TransferEncoding, b"transfer-encoding"),
            (17, Some(b'x')) => (Self::XForwardedProto, b"x-forwarded-proto"),
            (_, Some(b'x')) => return Self::other(name, b""),
            _ => return Self::Other,
        };
        if name.eq_ignore_ascii_case(known) { id } else { Self::other(name, known) }
    }
}

/// Whether a gateway may take `name` for `known`, which is in lower case: some turn everything but letters and digits
/// into underscores (RFC 3875 4.1.18).
fn is_alias(name: &[u8], known: &[u8]) -> bool {
    let is_same = |(a, b): (&u8, &u8)| {
        a.to_ascii_lowercase() == *b || *b == b'-' && !a.is_ascii_alphanumeric()
    };
    name.len() == known.len() && name.iter().zip(known).all(is_same)
}

/// A span of a head's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    start: u16,
    end: u16,
}

impl Span {
    /// The span of `part`, which is a slice of `whole`.
    fn of(part: &[u8], whole: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        let end = start.wrapping_add(part.len());
        // Out of bounds would be a slice of something else; it reads as empty.
        match (u16::try_from(start), u16::try_from(end)) {
            (Ok(start), Ok(end)) => Self { start, end },
            _ => Self::default(),
        }
    }

    /// The bytes of `whole` that it spans.
    pub fn slice(self, whole: &[u8]) -> &[u8] {
        whole
            .get(Range { start: usize::from(self.start), end: usize::from(self.end) })
            .unwrap_or_default()
    }
}

/// One field line.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Which field it is, if it is one that the proxy looks at.
    pub id: FieldId,
    name: Span,
    value: Span,
}

/// The field lines of a head, in order.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    bytes: &'a [u8],
    fields: &'a [Field],
}

impl<'a> Head<'a> {
    /// The fields that were parsed from `bytes`.
    pub const fn new(bytes: &'a [u8], fields: &'a [Field]) -> Self {
        Self { bytes, fields }
    }

    /// Every line: which field, its name and its value, in order.
    pub fn lines(self) -> impl Iterator<Item = (FieldId, &'a [u8], &'a [u8])> {
        self.fields.iter().map(move |f| (f.id, f.name.slice(self.bytes), f.value.slice(self.bytes)))
    }

    /// Whether white space other than SP is around a value of this field. It is allowed (RFC 9110
    /// 5.6.3), but not everybody takes it off.
    pub fn has_odd_space(self, id: FieldId) -> bool {
        self.fields.iter().filter(|f| f.id == id).any(|f| {
            let line = self.bytes.get(usize::from(f.name.end)..).unwrap_or_default();
            let line = line.split(|b| *b == b'\r').next().unwrap_or_default();
            line.contains(&b'\t')
        })
    }

    /// The values of one field, in order.
    pub fn values(self, id: FieldId) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |f| f.id == id).map(move |f| f.value.slice(self.bytes))
    }
}

/// Finds the end of a head while it arrives, looking at each byte once.
///
/// Every line must end in CRLF: a bare LF, which others may or may not take for a line's end, is
/// refused here; a bare CR is by the parser.
#[derive(Debug, Default)]
pub struct Scanner {
    scanned: usize,
    line: usize,
    skipped: u8,
}

impl Scanner {
    /// Like [`scan`](Self::scan) for a request head at the front of `buffer`, from which empty
    /// lines before it are dropped first (RFC 9112 2.2).
    ///
    /// # Errors
    /// Also [`Kind::BadRequest`] when there are too many of these, or when what follows can't be a
    /// method, so that other protocols are turned away at their first byte.
    pub fn scan_request(&mut self, buffer: &mut Buffer) -> Result<Option<usize>, Error> {
        if self.scanned == 0 {
            while buffer.filled().starts_with(b"\r\n") {
                self.skipped += 1;
                if self.skipped > MAX_LEADING_LINES {
                    return Err(Error::bad_request("too many empty lines before a request"));
                }
                buffer.consume(2);
            }
            match buffer.filled() {
                [] | [b'\r'] => return Ok(None),
                [TLS_HANDSHAKE, ..] => return Err(Error::bad_request("TLS on a port without TLS")),
                [first, ..] if !is_token_byte(*first) => {
                    return Err(Error::bad_request("malformed request line"));
                }
                _ => {}
            }
        }
        self.scan(buffer.filled())
    }

    /// The length of the head at the front of `bytes`, which hold all that has arrived of it so
    /// far; `None` while its end is not there.
    ///
    /// # Errors
    /// A bare LF ([`Kind::BadRequest`]), or no end within [`MAX_HEAD`] ([`Kind::TargetTooLong`] in
    /// the first line, else [`Kind::HeadTooLarge`]).
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Option<usize>, Error> {
        let within = bytes.get(..bytes.len().min(MAX_HEAD)).unwrap_or_default();
        while let Some(found) = memchr(b'\n', within.get(self.scanned..).unwrap_or_default()) {
            let at = self.scanned + found;
            if at == 0 || within.get(at - 1) != Some(&b'\r') {
                return Err(Error::bad_request("bare LF"));
            }
            self.scanned = at + 1;
            if at - 1 == self.line {
                return Ok(Some(self.scanned));
            }
            self.line = self.scanned;
        }
        self.scanned = within.len();
        if self.scanned < MAX_HEAD {
            Ok(None)
        } else if self.line == 0 {
            Err(Error::new(Kind::TargetTooLong, "request line over 32 KiB"))
        } else {
            Err(Error::new(Kind::HeadTooLarge, "head over 32 KiB"))
        }
    }
}

/// The version of a message. In a start line, a later minor version is read as HTTP/1.1, and anything else but the
/// first two is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunked coding, connections close unless kept alive by word.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2, whose heads are turned into text first ([`h2`](super::h2)).
    Http2,
}

/// The spans of a request line.
#[derive(Debug, Clone, Copy)]
pub struct RequestLine {
    /// The method, case-sensitive.
    pub method: Span,
    /// The target as sent.
    pub target: Span,
    /// The version.
    pub version: Version,
}

/// Parses the request head `bytes`, whose end the [`Scanner`] found, and fills `fields`.
///
/// # Errors
/// 400, 431 (too many fields) or 505.
pub fn parse_request(bytes: &[u8], fields: &mut Vec<Field>) -> Result<RequestLine, Error> {
    match parse_request_as_written(bytes, fields) {
        Err(VERSION) => {
            let line = bytes.split(|b| *b == b'\r').next().unwrap_or_default();
            let at = line.len().saturating_sub(VERSION_LENGTH);
            let as_http11 = as_http11(bytes, at).ok_or_else(|| version_fault(line))?;
            parse_request_as_written(&as_http11, fields)
        }
        result => result,
    }
}

/// Parses a request head whose version is 1.0 or 1.1.
fn parse_request_as_written(bytes: &[u8], fields: &mut Vec<Field>) -> Result<RequestLine, Error> {
    let mut lines = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut lines) {
        Ok(httparse::Status::Complete(n)) if n == bytes.len() => {}
        Ok(_) => return Err(Error::bad_request("malformed head")),
        Err(e) => return Err(parse_fault(e)),
    }
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(Error::bad_request("malformed request line"));
    };
    collect(bytes, request.headers, fields);
    Ok(RequestLine {
        method: Span::of(method.as_bytes(), bytes),
        target: Span::of(target.as_bytes(), bytes),
        version: if version == 0 { Version::Http10 } else { Version::Http11 },
    })
}

/// A status line.
#[derive(Debug, Clone, Copy)]
pub struct StatusLine {
    /// 100 to 999.
    pub status: u16,
    /// The reason phrase, possibly empty.
    pub reason: Span,
    /// The version.
    pub version: Version,
}

/// Parses the response head `bytes`, whose end the [`Scanner`] found, and fills `fields`.
///
/// # Errors
/// [`Kind::ResponseMalformed`], or [`Kind::ResponseHeadTooLarge`] for too many fields.
pub fn parse_response(bytes: &[u8], fields: &mut Vec<Field>) -> Result<StatusLine, Error> {
    let parsed = match parse_response_as_written(bytes, fields) {
        Err(VERSION) => {
            let as_http11 = as_http11(bytes, 0).ok_or(VERSION);
            as_http11.and_then(|bytes| parse_response_as_written(&bytes, fields))
        }
        parsed => parsed,
    };
    parsed.map_err(as_response_fault)
}

/// Parses a response head whose version is 1.0 or 1.1.
fn parse_response_as_written(bytes: &[u8], fields: &mut Vec<Field>) -> Result<StatusLine, Error> {
    let mut lines = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut response, bytes, &mut lines) {
        Ok(httparse::Status::Complete(n)) if n == bytes.len() => {}
        Ok(_) => return Err(Error::bad_request("malformed head")),
        Err(e) => return Err(parse_fault(e)),
    }
    let (Some(status @ 100..), Some(version)) = (response.code, response.version) else {
        return Err(Error::bad_request("malformed status line"));
    };
    let reason = response.reason.unwrap_or_default();
    collect(bytes, response.headers, fields);
    Ok(StatusLine {
        status,
        reason: Span::of(reason.as_bytes(), bytes),
        version: if version == 0 { Version::Http10 } else { Version::Http11 },
    })
}

/// Parses a trailer section (RFC 9112 7.1.2), from behind the last chunk to its empty line.
///
/// # Errors
/// [`Kind::BadRequest`] or [`Kind::HeadTooLarge`], also where it came from an endpoint: see
/// [`as_response_fault`].
pub fn parse_trailers(bytes: &[u8], fields: &mut Vec<Field>) -> Result<(), Error> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_FIELDS];
    match httparse::parse_headers(bytes, &mut lines) {
        Ok(httparse::Status::Complete((n, lines))) if n == bytes.len() => {
            collect(bytes, lines, fields);
            Ok(())
        }
        Ok(_) => Err(Error::bad_request("malformed trailers")),
        Err(e) => Err(parse_fault(e)),
    }
}

/// The same fault, found in what an endpoint sent.
pub const fn as_response_fault(error: Error) -> Error {
    let kind = match error.kind {
        Kind::HeadTooLarge | Kind::TargetTooLong => Kind::ResponseHeadTooLarge,
        _ => Kind::ResponseMalformed,
    };
    Error::new(kind, error.detail)
}

fn collect(bytes: &[u8], lines: &[httparse::Header<'_>], fields: &mut Vec<Field>) {
    fields.clear();
    fields.extend(lines.iter().map(|line| Field {
        id: FieldId::of(line.name.as_bytes()),
        name: Span::of(line.name.as_bytes(), bytes),
        value: Span::of(line.value, bytes),
    }));
}

fn parse_fault(error: httparse::Error) -> Error {
    use httparse::Error as E;
    match error {
        E::TooManyHeaders => Error::new(Kind::HeadTooLarge, "more than 128 fields"),
        E::HeaderName => Error::bad_request("malformed field name"),
        E::HeaderValue => Error::bad_request("control character in a field value"),
        E::NewLine => Error::bad_request("malformed line end"),
        E::Token => Error::bad_request("malformed start line"),
        E::Status => Error::bad_request("malformed status"),
        E::Version => VERSION,
    }
}

/// A version that the parser underneath does not know.
const VERSION: Error = Error::bad_request("malformed version");

/// The length of a version in a start line, `HTTP/1.1`.
const VERSION_LENGTH: usize = 8;

/// A copy of the head `bytes` with HTTP/1.1 in place of a later minor version at `at`, which is to be processed
/// as that (RFC 9110 2.5); `None` where there is something else. Spans of the copy are those of `bytes`.
///
/// The byte behind the version is left to the parser.
fn as_http11(bytes: &[u8], at: usize) -> Option<Vec<u8>> {
    let version = bytes.get(at..)?.first_chunk::<VERSION_LENGTH>()?;
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] = version else { return None };
    let mut copy = bytes.to_vec();
    *copy.get_mut(at + VERSION_LENGTH - 1)? = b'1';
    Some(copy)
}

/// What is wrong with the version at the end of a request line: 505 where it is a well-formed HTTP/2 or above,
/// else 400.
fn version_fault(line: &[u8]) -> Error {
    match line.rsplit(|b| *b == b' ').next() {
        Some([b'H', b'T', b'T', b'P', b'/', b'2'..=b'9', b'.', b'0'..=b'9']) => {
            Error::new(Kind::VersionNotSupported, "only HTTP/1.0 and HTTP/1.1 are spoken here")
        }
        _ => VERSION,
    }
}

/// Whether `byte` may stand in a token (RFC 9110 5.6.2).
pub const fn is_token_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'!' | b'#' | b'$' | b'%' | b'&'
        | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// The elements of a comma-separated list (RFC 9110 5.6.1), without white space or empty ones.
pub fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(trim).filter(|e| !e.is_empty())
}

/// `bytes` without the optional white space (SP, HTAB) around it.
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan_split(bytes: &[u8], at: usize) -> Result<Option<usize>, Error> {
        let mut scanner = Scanner::default();
        scanner.scan(&bytes[..at])?;
        scanner.scan(bytes)
    }

    #[test]
    fn the_end_is_found_wherever_the_reads_split() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        for at in 0..head.len() - 4 {
            assert_eq!(scan_split(head, at), Ok(Some(head.len() - 4)), "split at {at}");
        }
    }

    #[test]
    fn bare_line_feeds_are_refused_wherever_the_reads_split() {
        for head in [&b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..], b"GET / HTTP/1.1\r\n\n", b"\nGET"] {
            for at in 0..head.len() {
                assert_eq!(scan_split(head, at).unwrap_err().kind, Kind::BadRequest);
            }
        }
    }

    #[test]
    fn empty_lines_before_a_request_are_dropped_wherever_the_reads_split() {
        let scan = |wire: &[u8], at: usize| {
            let mut scanner = Scanner::default();
            let mut buffer = Buffer::with_capacity(100);
            buffer.append(&wire[..at]);
            match scanner.scan_request(&mut buffer)? {
                Some(n) => Ok(Some(n)),
                None => {
                    buffer.append(&wire[at..]);
                    scanner.scan_request(&mut buffer)
                }
            }
        };
        for at in 0..20 {
            assert_eq!(scan(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", at), Ok(Some(18)), "{at}");
            assert!(scan(b"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", at).is_err());
            assert!(scan(b"\rGET / HTTP/1.1\r\n\r\n", at).is_err());
            assert!(scan(b"\x16\x03\x01 not http at all.", at).is_err());
        }
    }

    #[test]
    fn a_head_over_the_limit_is_refused_even_if_it_arrives_at_once() {
        let mut line = b"GET /".to_vec();
        line.resize(MAX_HEAD + 10, b'a');
        assert_eq!(Scanner::default().scan(&line).unwrap_err().kind, Kind::TargetTooLong);
        let mut head = b"GET / HTTP/1.1\r\nA: ".to_vec();
        head.resize(MAX_HEAD, b'a');
        head.extend_from_slice(b"\r\n\r\n");
        assert_eq!(Scanner::default().scan(&head).unwrap_err().kind, Kind::HeadTooLarge);
    }

    #[test]
    fn known_fields_are_known_in_any_case_and_others_are_not() {
        assert_eq!(FieldId::of(b"tRANSFER-eNCODING"), FieldId::TransferEncoding);
        assert_eq!(FieldId::of(b"X-Forwarded-Proto"), FieldId::XForwardedProto);
        for other in ["X-Forwarded-Port", "x_forwarded_for", "X-FORWARDED-", "X-Forwarded_Host"] {
            assert_eq!(FieldId::of(other.as_bytes()), FieldId::XForwardedOther, "{other}");
        }
        for other in [&b""[..], b"Hosts", b"Hose", b"\xd4e", b"Content-Lengt\xc8", b"X-Real-IP"] {
            assert_eq!(FieldId::of(other), FieldId::Other);
        }
        for alias in [
            "Content_Length",
            "transfer_encoding",
            "Transfer.Encoding",
            "KEEP_ALIVE",
            "Proxy_Connection",
            "x_request-id",
            "X_Real_IP",
            "x-real_ip",
        ] {
            assert_eq!(FieldId::of(alias.as_bytes()), FieldId::Alias, "{alias}");
        }
        assert_eq!(FieldId::of(b"X_Client.Subject"), FieldId::XClientSubject);
    }

    #[test]
    fn strict_where_the_parser_underneath_is_lax() {
        let refused: [&[u8]; 12] = [
            b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
            b"GET / HTTP/1.1\r\n : b\r\n\r\n",
            b"GET / HTTP/1.1\r\n: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nA\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n",
            b"GET / HTTP/1.1\r\nA\x0b: b\r\n\r\n",
            b"GET  / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1 \r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET / http/1.1\r\n\r\n",
        ];
        for head in refused {
            let error = parse_request(head, &mut Vec::new()).unwrap_err();
            assert_eq!(error.kind, Kind::BadRequest, "{}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn versions_above_one_are_not_supported_rather_than_malformed() {
        for (version, kind) in [
            ("HTTP/2.0", Kind::VersionNotSupported),
            ("HTTP/3.0", Kind::VersionNotSupported),
            ("HTTP/1.10", Kind::BadRequest),
            ("HTTP/1.a", Kind::BadRequest),
            ("HTTP/0.9", Kind::BadRequest),
            ("HTTP/11.1", Kind::BadRequest),
            ("HTTPS/1.1", Kind::BadRequest),
        ] {
            let head = format!("GET / {version}\r\nHost: a\r\n\r\n");
            let error = parse_request(head.as_bytes(), &mut Vec::new()).unwrap_err();
            assert_eq!(error.kind, kind, "{version}");
        }
    }

    #[test]
    fn later_minor_versions_are_read_as_http_1_1() {
        let mut fields = Vec::new();
        for minor in 1..=9 {
            let head = format!("GET /a HTTP/1.{minor}\r\nHost: HTTP/1.9\r\n\r\n");
            let line = parse_request(head.as_bytes(), &mut fields).unwrap();
            assert_eq!(line.version, Version::Http11, "{head}");
            assert_eq!(line.target.slice(head.as_bytes()), b"/a");
            let values = Head::new(head.as_bytes(), &fields).values(FieldId::Host);
            assert_eq!(values.collect::<Vec<_>>(), [b"HTTP/1.9"]);
            let head = format!("HTTP/1.{minor} 200 Fine\r\nHost: HTTP/1.9\r\n\r\n");
            let line = parse_response(head.as_bytes(), &mut fields).unwrap();
            assert_eq!((line.version, line.status), (Version::Http11, 200), "{head}");
            assert_eq!(line.reason.slice(head.as_bytes()), b"Fine");
        }
        for line in
            ["HTTP/1.22 200 a", "HTTP/1.2200 a", "HTTP/1.2", "HTTP/1.2 20 a", "http/1.2 200 a"]
        {
            let head = format!("{line}\r\n\r\n");
            let error = parse_response(head.as_bytes(), &mut fields).unwrap_err();
            assert_eq!(error.kind, Kind::ResponseMalformed, "{line}");
        }
    }

    #[test]
    fn the_field_limit_is_exact() {
        let head = |n| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(n)).into_bytes();
        let mut fields = Vec::new();
        assert!(parse_request(&head(MAX_FIELDS), &mut fields).is_ok());
        assert_eq!(fields.len(), MAX_FIELDS);
        let error = parse_request(&head(MAX_FIELDS + 1), &mut fields).unwrap_err();
        assert_eq!(error.kind, Kind::HeadTooLarge);
    }
}
