//! What a client may put on the wire, and what becomes of it: first in the library, from raw
//! frames, and of what it lets pass, here. Should a version of the library refuse less, the table
//! shows it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// The library ends the stream: `RST_STREAM` with `PROTOCOL_ERROR`.
    Reset,
    /// The library ends the connection: `GOAWAY` with `PROTOCOL_ERROR`.
    GoAway,
    /// The translation finds it malformed.
    Malformed,
    /// It is answered with this status.
    Answered(u16),
    /// It goes on.
    Served,
}

use Fate::{Answered, GoAway, Malformed, Reset, Served};

const PROTOCOL_ERROR: u32 = 1;

/// A frame of stream 1, or of the connection.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Fields as literals that nobody indexes (RFC 7541 6.2.2).
fn literals(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let string = |bytes: &[u8]| [&[u8::try_from(bytes.len()).unwrap()], bytes].concat();
    fields
        .iter()
        .flat_map(|(name, value)| [vec![0], string(name.as_bytes()), string(value)].concat())
        .collect()
}

/// What the first frame says that ends the stream or the connection, once it is there.
fn verdict(mut wire: &[u8]) -> Option<Fate> {
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = wire {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let (payload, next) = rest.split_at_checked(length)?;
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match kind {
            3 => {
                assert_eq!(code(0), PROTOCOL_ERROR);
                return Some(Reset);
            }
            7 if code(4) != 0 => {
                assert_eq!(code(4), PROTOCOL_ERROR);
                return Some(GoAway);
            }
            _ => wire = next,
        }
    }
    None
}

async fn fate(fields: &[(&str, &[u8])], is_end: bool) -> Fate {
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    wire.extend(frame(4, 0, 0, &[]));
    wire.extend(frame(1, 4 | u8::from(is_end), 1, &literals(fields)));
    client.write_all(&wire).await.unwrap();

    let mut builder = ::h2::server::Builder::new();
    builder.enable_connect_protocol();
    let mut connection = builder.handshake::<_, bytes::Bytes>(server).await.unwrap();
    let mut answer = Vec::new();
    let (request, _respond) = loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok(request)) => break request,
                // What it says of that goes to the client.
                _ => { client.read_buf(&mut answer).await.unwrap(); }
            },
            _ = client.read_buf(&mut answer) => {}
        }
        if let Some(fate) = verdict(&answer) {
            return fate;
        }
    };
    let (parts, _) = request.into_parts();
    let protocol = parts.extensions.get::<::h2::ext::Protocol>();
    let mut text = Vec::new();
    match request_head(&parts, protocol.map(::h2::ext::Protocol::as_str), is_end, &mut text) {
        Err(Refusal::Malformed(_)) => return Malformed,
        Err(Refusal::Answer(error)) => return Answered(error.kind.status()),
        Ok(()) => {}
    }
    let mut fields = Vec::new();
    let understood = parse_request(&text, &mut fields)
        .and_then(|line| Request::interpret(&text, line, &fields).map(|_| ()));
    understood.map_or_else(|error| Answered(error.kind.status()), |()| Served)
}

const METHOD: (&str, &[u8]) = (":method", b"POST");
const SCHEME: (&str, &[u8]) = (":scheme", b"http");
const PATH: (&str, &[u8]) = (":path", b"/");
const AUTHORITY: (&str, &[u8]) = (":authority", b"h");

#[tokio::test]
async fn fields_and_what_becomes_of_them() {
    let long = [b'a'; 127];
    for (field, expected) in [
        (("a", &b"b"[..]), Served),
        (("a_b!#$%&'*+.^`|~", b""), Served),
        (("a", b"\xff\t;"), Served),
        (("a", &long[..100]), Served),
        // Names.
        (("A", b"b"), GoAway),
        (("a b", b"c"), GoAway),
        (("a:", b"b"), GoAway),
        (("a\r\nb", b"c"), GoAway),
        (("a\0", b"c"), GoAway),
        (("\u{e9}", b"c"), GoAway),
        (("", b"c"), GoAway),
        (("a\"", b"b"), Answered(400)),
        // Values.
        (("a", b"b\r\nc: d"), GoAway),
        (("a", b"b\rc"), GoAway),
        (("a", b"b\nc"), GoAway),
        (("a", b"b\0c"), GoAway),
        (("a", b"b\x7fc"), GoAway),
        (("a", b" b"), Malformed),
        (("a", b"b "), Malformed),
        (("a", b"\tb"), Malformed),
        (("a", b" "), Malformed),
        // Fields that belong to a connection.
        (("connection", b"close"), Reset),
        (("connection", b"x-a"), Reset),
        (("keep-alive", b"5"), Reset),
        (("proxy-connection", b"a"), Reset),
        (("transfer-encoding", b"chunked"), Reset),
        (("upgrade", b"h2c"), Reset),
        (("te", b"gzip"), Reset),
        (("te", b"trailers, gzip"), Reset),
        (("te", b"trailers"), Served),
        // Lengths.
        (("content-length", b"5"), Served),
        (("content-length", b"5, 5"), Reset),
        (("content-length", b"-5"), Reset),
        (("content-length", b"0x5"), Reset),
        (("content-length", b"99999999999999999999"), Reset),
        (("content-length", b"9999999999999999999"), Malformed),
        (("content-length", b""), Malformed),
        // Hosts.
        (("host", b"h"), Served),
        (("host", b"i"), Answered(400)),
        (("host", b"h:80"), Answered(400)),
        // Pseudo-fields where they may not be, or that there are none of.
        ((":method", b"GET"), Reset),
        ((":path", b"/a"), Reset),
        ((":authority", b"h"), Reset),
        ((":status", b"200"), Reset),
        ((":other", b"a"), GoAway),
        ((":Path", b"/a"), GoAway),
        ((":protocol", b"websocket"), Reset),
        (("expect", b"100-continue"), Served),
        (("expect", b"200-ok"), Answered(417)),
    ] {
        let fields = [METHOD, SCHEME, PATH, AUTHORITY, field];
        assert_eq!(fate(&fields, false).await, expected, "{field:?}");
    }
    let twice = ("content-length", &b"5"[..]);
    let fields = [METHOD, SCHEME, PATH, AUTHORITY, twice, ("content-length", b"6")];
    assert_eq!(fate(&fields, false).await, Reset);
    let fields = [METHOD, SCHEME, PATH, AUTHORITY, twice];
    assert_eq!(fate(&fields, true).await, Reset);
    let fields = [METHOD, SCHEME, ("a", b"b"), PATH, AUTHORITY];
    assert_eq!(fate(&fields, false).await, Reset);
}

#[tokio::test]
async fn pseudo_fields_and_what_becomes_of_them() {
    for (method, scheme, path, authority, expected) in [
        ("GET", "http", "/", "h", Served),
        ("GET", "https", "/a?b", "h:80", Served),
        ("g!t", "http", "/", "h", Served),
        ("TRACE", "http", "/", "h", Answered(501)),
        ("G T", "http", "/", "h", GoAway),
        ("GET\r\n", "http", "/", "h", GoAway),
        ("", "http", "/", "h", GoAway),
        ("GET", "ftp", "/", "h", Answered(400)),
        ("GET", "ht tp", "/", "h", Reset),
        ("GET", "", "/", "h", Answered(400)),
        ("GET", "http", "", "h", Reset),
        ("GET", "http", "/ HTTP/1.1", "h", Reset),
        ("GET", "http", "/\r\n", "h", Reset),
        ("GET", "http", "/\t", "h", Reset),
        ("GET", "http", "a", "h", Reset),
        ("GET", "http", "http://h/", "h", Reset),
        ("GET", "http", "?a", "h", Malformed),
        ("GET", "http", "*", "h", Malformed),
        ("OPTIONS", "http", "*", "h", Served),
        ("GET", "http", "/\u{e9}", "h", Answered(400)),
        // The library takes fragments off without a word.
        ("GET", "http", "/a#b", "h", Served),
        ("GET", "http", "#b", "h", Served),
        ("GET", "http", "/", "", Reset),
        ("GET", "http", "/", "h/a", Reset),
        ("GET", "http", "/", "h i", Reset),
        ("GET", "http", "/", "h\r\na: b", Reset),
        ("GET", "http", "/", "u@h", Answered(400)),
        ("GET", "http", "/", "h:x", Answered(400)),
        ("GET", "http", "/", "a,b", Answered(400)),
        ("CONNECT", "http", "/", "h", Reset),
    ] {
        let fields = [
            (":method", method.as_bytes()),
            (":scheme", scheme.as_bytes()),
            (":path", path.as_bytes()),
            (":authority", authority.as_bytes()),
        ];
        assert_eq!(fate(&fields, true).await, expected, "{method} {scheme} {authority} {path}");
    }
    let connect = (":method", &b"CONNECT"[..]);
    for (fields, expected) in [
        (&[SCHEME, PATH, AUTHORITY][..], Reset),
        (&[METHOD, PATH, AUTHORITY], Reset),
        (&[METHOD, SCHEME, AUTHORITY], Reset),
        (&[METHOD, SCHEME, ("host", b"h")], Malformed),
        (&[METHOD, SCHEME, PATH], Answered(400)),
        (&[METHOD, SCHEME, PATH, ("host", b"h")], Served),
        (&[METHOD, SCHEME, PATH, ("host", b"h"), ("host", b"h")], Answered(400)),
        (&[connect, AUTHORITY], Answered(405)),
        (&[connect], Malformed),
        (&[connect, SCHEME, PATH, AUTHORITY, (":protocol", b"websocket")], Served),
        (&[connect, SCHEME, PATH, AUTHORITY, (":protocol", b"a b")], Malformed),
        (&[connect, SCHEME, PATH, AUTHORITY, (":protocol", b"a\r\nb: c")], Malformed),
        (&[connect, SCHEME, PATH, AUTHORITY, (":protocol", b"h2c")], Answered(501)),
        (&[connect, AUTHORITY, (":protocol", b"websocket")], Reset),
    ] {
        assert_eq!(fate(fields, false).await, expected, "{fields:?}");
    }
}
