//! Heads of HTTP/2 that nobody may understand otherwise than we do: whatever is wrong with them, the
//! backend hears nothing of it.

use crate::support::http2::Fate::{self, Answered, GoAway, Reset};
use crate::support::http2::{
    CONTINUATION, END_HEADERS, END_STREAM, Frames, HEADERS, PROTOCOL_ERROR, frame, literals,
    request,
};
use crate::support::{Backend, Tinylb, ok};

const RESET: Fate = Reset(PROTOCOL_ERROR);
const GO_AWAY: Fate = GoAway(PROTOCOL_ERROR);

type Field<'a> = (&'a str, &'a [u8]);

/// A balancer, a backend that answers everything, and what has been sent to it on purpose.
struct Scene {
    backend: Backend,
    tinylb: Tinylb,
    good: usize,
}

impl Scene {
    fn new() -> Self {
        let backend = Backend::answering(ok("good"));
        // One worker, so that what comes first is over when what comes next is answered.
        let tinylb = Tinylb::start(&[backend.url()], &["--workers", "1"]);
        Self { backend, tinylb, good: 0 }
    }

    /// Asserts what becomes of a request of these fields, and that the backend hears nothing of it.
    #[track_caller]
    fn assert_refused(&mut self, fields: &[Field<'_>], expected: Fate) {
        for is_end in [true, false] {
            let mut client = Frames::connect(&self.tinylb);
            client.head(1, fields, is_end);
            assert_eq!(client.fate(1), expected, "{fields:?}, END_STREAM {is_end}");
            if matches!(expected, Reset(_) | Answered(_)) {
                self.good += 1;
                client.assert_serves(3);
            }
        }
        self.assert_nothing_arrived();
    }

    #[track_caller]
    fn assert_nothing_arrived(&mut self) {
        self.good += 1;
        assert_eq!(self.tinylb.get("/still-open").status, 200);
        let received = String::from_utf8_lossy(&self.backend.received()).into_owned();
        let lines = received.lines().filter(|line| line.contains("HTTP/"));
        assert!(lines.clone().all(|line| line == "GET /still-open HTTP/1.1"), "{received}");
        assert_eq!(lines.count(), self.good);
    }
}

/// A request with one more field.
fn with<'a>(field: Field<'a>) -> Vec<Field<'a>> {
    [&request("POST", "/bad")[..], &[field]].concat()
}

#[test]
fn names_and_values_of_fields() {
    let mut scene = Scene::new();
    for field in [
        ("A", &b"b"[..]),
        ("Content-Length", b"5"),
        ("a b", b"c"),
        (" a", b"c"),
        ("a ", b"c"),
        ("a:", b"b"),
        ("a:b", b"c"),
        ("a\r\nb", b"c"),
        ("a\nb", b"c"),
        ("a\0", b"c"),
        ("a\x7f", b"c"),
        ("\u{e9}", b"c"),
        ("", b"c"),
        ("a(b)", b"c"),
        ("a", b"b\r\nc: d"),
        ("a", b"b\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a", b"b\rc"),
        ("a", b"b\nc"),
        ("a", b"b\0c"),
        ("a", b"\0"),
        ("a", b"b\x7fc"),
        ("a", b"\x01"),
        ("cookie", b"a=b\r\nc: d"),
        ("host", b"test\r\nc: d"),
        ("content-length", b"0\r\nc: d"),
    ] {
        scene.assert_refused(&with(field), GO_AWAY);
    }
    for field in [("a", &b" b"[..]), ("a", b"b "), ("a", b"\tb"), ("a", b"b\t"), ("a", b" ")] {
        scene.assert_refused(&with(field), RESET);
    }
    scene.assert_refused(&with(("a\"", b"b")), Answered(400));
}

#[test]
fn fields_that_belong_to_connections() {
    let mut scene = Scene::new();
    for field in [
        ("connection", &b"close"[..]),
        ("connection", b"x-forwarded-for"),
        ("connection", b"keep-alive, upgrade"),
        ("connection", b""),
        ("keep-alive", b"timeout=5"),
        ("proxy-connection", b"keep-alive"),
        ("transfer-encoding", b"chunked"),
        ("transfer-encoding", b"identity"),
        ("transfer-encoding", b"x"),
        ("transfer-encoding", b""),
        ("upgrade", b"h2c"),
        ("upgrade", b"websocket"),
        ("te", b"gzip"),
        ("te", b"trailers, gzip"),
        ("te", b"trailers;q=0.5"),
        ("te", b""),
    ] {
        scene.assert_refused(&with(field), RESET);
    }
}

#[test]
fn lengths() {
    let mut scene = Scene::new();
    for value in [
        "5, 5",
        "5,6",
        "-5",
        "+5",
        "0x5",
        "5 5",
        "five",
        "",
        "5.0",
        "99999999999999999999",
        "9223372036854775808",
        "18446744073709551615",
        "\u{b2}",
    ] {
        scene.assert_refused(&with(("content-length", value.as_bytes())), RESET);
    }
    let (five, six) = (("content-length", &b"5"[..]), ("content-length", &b"6"[..]));
    scene.assert_refused(&[&with(five)[..], &[six]].concat(), RESET);
    scene.assert_refused(&[&with(five)[..], &[("content-length", b"x")]].concat(), RESET);
}

#[test]
fn pseudo_fields() {
    let mut scene = Scene::new();
    let [method, scheme, path, authority] = request("GET", "/bad");
    let other = ("a", &b"b"[..]);
    for (fields, expected) in [
        // Missing.
        (&[scheme, path, authority][..], RESET),
        (&[method, path, authority], RESET),
        (&[method, scheme, authority], RESET),
        (&[method], RESET),
        (&[], RESET),
        (&[other], RESET),
        (&[method, scheme, path], Answered(400)),
        (&[method, scheme, path, ("host", b"")], Answered(400)),
        // Repeated.
        (&[method, method, scheme, path, authority], RESET),
        (&[method, scheme, scheme, path, authority], RESET),
        (&[method, scheme, path, path, authority], RESET),
        (&[method, scheme, path, authority, authority], RESET),
        (&[method, scheme, path, authority, (":path", b"/other")], RESET),
        (&[method, scheme, path, authority, (":authority", b"other")], RESET),
        // Behind others.
        (&[other, method, scheme, path, authority], RESET),
        (&[method, scheme, other, path, authority], RESET),
        (&[method, scheme, path, other, authority], RESET),
        // Unknown, or no request's.
        (&[method, scheme, path, authority, (":other", b"a")], GO_AWAY),
        (&[method, scheme, path, authority, (":Path", b"/a")], GO_AWAY),
        (&[method, scheme, path, authority, (":", b"a")], GO_AWAY),
        (&[method, scheme, path, authority, (":status", b"200")], RESET),
        (&[method, scheme, path, authority, (":protocol", b"websocket")], RESET),
    ] {
        scene.assert_refused(fields, expected);
    }
}

#[test]
fn what_the_pseudo_fields_say() {
    let mut scene = Scene::new();
    let [method, scheme, path, authority] = request("GET", "/bad");
    for (name, value, expected) in [
        (":method", &b""[..], GO_AWAY),
        (":method", b"G T", GO_AWAY),
        (":method", b"GET ", GO_AWAY),
        (":method", b" GET", GO_AWAY),
        (":method", b"GET / HTTP/1.1\r\n", GO_AWAY),
        (":method", b"GET\0", GO_AWAY),
        (":method", b"TRACE", Answered(501)),
        (":scheme", b"", Answered(400)),
        (":scheme", b"ftp", Answered(400)),
        (":scheme", b"ht tp", RESET),
        (":scheme", b"http://test/\r\n", RESET),
        (":path", b"", RESET),
        (":path", b" ", RESET),
        (":path", b"/a b", RESET),
        (":path", b"/ HTTP/1.1\r\nHost: other\r\n\r\n", RESET),
        (":path", b"/\r", RESET),
        (":path", b"/\n", RESET),
        (":path", b"/\t", RESET),
        (":path", b"/\0", RESET),
        (":path", b"a", RESET),
        (":path", b"?a", RESET),
        (":path", b"*", RESET),
        (":path", b"//\r\nother/", RESET),
        (":path", b"http://test/", RESET),
        (":path", b"http://other/", RESET),
        (":path", b"other:80", RESET),
        (":path", b"/\xff", GO_AWAY),
        (":path", "/\u{e9}".as_bytes(), Answered(400)),
        (":authority", b"", RESET),
        (":authority", b" ", RESET),
        (":authority", b"a b", RESET),
        (":authority", b"test/", RESET),
        (":authority", b"test/other", RESET),
        (":authority", b"test?a", RESET),
        (":authority", b"test\r\na: b", RESET),
        (":authority", b"test\0", RESET),
        (":authority", b"user@test", Answered(400)),
        (":authority", b"user:word@test", Answered(400)),
        (":authority", b"@", RESET),
        (":authority", b"test:x", Answered(400)),
        (":authority", b"test:99999", Answered(400)),
        (":authority", b"test,other", Answered(400)),
        (":authority", b"[::1", RESET),
    ] {
        let mut fields = [method, scheme, path, authority];
        fields.iter_mut().filter(|field| field.0 == name).for_each(|field| field.1 = value);
        scene.assert_refused(&fields, expected);
    }
}

#[test]
fn hosts_that_are_two() {
    let mut scene = Scene::new();
    let [method, scheme, path, authority] = request("GET", "/bad");
    let host = ("host", &b"test"[..]);
    for (fields, expected) in [
        (&[method, scheme, path, authority, ("host", b"other")][..], Answered(400)),
        (&[method, scheme, path, authority, ("host", b"test:80")], Answered(400)),
        (&[method, scheme, path, authority, ("host", b"")], Answered(400)),
        (&[method, scheme, path, authority, host, host], Answered(400)),
        (&[method, scheme, path, authority, host, ("host", b"other")], Answered(400)),
        (&[method, scheme, path, host, host], Answered(400)),
        (&[method, scheme, path, ("host", b"user@test")], Answered(400)),
        (&[method, scheme, path, ("host", b"a b")], Answered(400)),
    ] {
        scene.assert_refused(fields, expected);
    }
}

#[test]
fn connects() {
    let mut scene = Scene::new();
    let [_, scheme, path, authority] = request("GET", "/bad");
    let connect = (":method", &b"CONNECT"[..]);
    let websocket = (":protocol", &b"websocket"[..]);
    for (fields, expected) in [
        (&[connect, authority][..], Answered(405)),
        (&[connect, (":authority", b"other:22")], Answered(405)),
        (&[connect], RESET),
        (&[connect, scheme, path, authority], RESET),
        (&[connect, authority, websocket], RESET),
        (&[connect, scheme, path, authority, (":protocol", b"")], RESET),
        (&[connect, scheme, path, authority, (":protocol", b"a b")], RESET),
        (&[connect, scheme, path, authority, (":protocol", b"a\r\nb: c")], RESET),
        (&[connect, scheme, path, authority, (":protocol", b"h2c")], Answered(501)),
        (&[connect, scheme, path, authority, websocket, websocket], RESET),
        (&[connect, scheme, path, authority, websocket, ("content-length", b"0")], RESET),
        (&[connect, scheme, path, authority, websocket, ("upgrade", b"websocket")], RESET),
    ] {
        scene.assert_refused(fields, expected);
    }
}

/// However a head is cut into frames, it is the same head; and nothing comes between its frames.
#[test]
fn heads_in_pieces() {
    let mut scene = Scene::new();
    let block = literals(&request("GET", "/still-open"));
    for size in [1, 7, 30] {
        let mut client = Frames::connect(&scene.tinylb);
        let mut pieces = block.chunks(block.len().div_ceil(6).max(size)).peekable();
        let mut kind = HEADERS;
        while let Some(piece) = pieces.next() {
            let end = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            let flags = end | if kind == HEADERS { END_STREAM } else { 0 };
            client.send(frame(kind, flags, 1, piece));
            kind = CONTINUATION;
        }
        assert_eq!(client.answer(1), (200, b"good".to_vec()));
        scene.good += 1;
    }
    let bad = literals(&request("GET", "/bad"));
    let (begin, rest) = bad.split_at(10);
    for between in [
        frame(CONTINUATION, END_HEADERS, 3, rest),
        frame(HEADERS, END_HEADERS | END_STREAM, 3, &bad),
        frame(0, 0, 1, b""),
        frame(6, 0, 0, &[0; 8]),
        frame(8, 0, 0, &[0, 0, 0, 1]),
        frame(0xfe, 0, 0, b""),
    ] {
        let mut client = Frames::connect(&scene.tinylb);
        client.send([frame(HEADERS, END_STREAM, 1, begin), between].concat());
        client.try_send(frame(CONTINUATION, END_HEADERS, 1, rest));
        assert_eq!(client.fate(1), GO_AWAY);
    }
    // Blocks that are no HPACK, and streams that are not the client's to open, or are over.
    for (stream, block) in [
        (1, &b"\xff\xff\xff\xff\xff\xff"[..]),
        (1, b"\x80"),
        (1, b"\xbe"),
        (1, &bad[..bad.len() - 1]),
        (2, &bad),
        (0, &bad),
    ] {
        let mut client = Frames::connect(&scene.tinylb);
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, block));
        assert_eq!(client.fate(stream), GO_AWAY, "{stream} {block:?}");
    }
    scene.assert_nothing_arrived();
}
