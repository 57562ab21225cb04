//! Bodies of HTTP/2 that are not what was said of them: they never look whole to the backend.

use crate::support::http2::Fate::{self, Answered, GoAway, Reset};
use crate::support::http2::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PADDED,
    PROTOCOL_ERROR, RST_STREAM, frame, literals, request,
};
use crate::support::{Backend, Tinylb, eventually, find, ok};

const RESET: Fate = Reset(PROTOCOL_ERROR);
const GO_AWAY: Fate = GoAway(PROTOCOL_ERROR);

/// The head of a POST that stays open, with a length or without.
fn post(length: Option<&str>) -> Vec<u8> {
    let mut fields = request("POST", "/bad").to_vec();
    fields.extend(length.map(|length| ("content-length", length.as_bytes())));
    frame(HEADERS, END_HEADERS, 1, &literals(&fields))
}

fn data(payload: &[u8], flags: u8) -> Vec<u8> {
    frame(DATA, flags, 1, payload)
}

fn trailers(fields: &[(&str, &[u8])], flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, 1, &literals(fields))
}

/// Sends a request whose body is no body, and asserts that the backend never takes it for one. What
/// is told the client is `None` where it has done so itself.
#[track_caller]
fn assert_never_whole(what: &str, frames: &[Vec<u8>], expected: Option<Fate>) {
    // It does not answer what is not whole.
    let backend = Backend::answering(ok("good"));
    let tinylb = Tinylb::before(&backend);
    let mut client = Frames::connect(&tinylb);
    for (index, frame) in frames.iter().enumerate() {
        // What came before has been looked at, and sent on if it is to be.
        let is_last = index + 1 == frames.len();
        assert!(!is_last || client.is_answering());
        client.try_send(frame);
    }
    match expected {
        Some(expected) => assert_eq!(client.fate(1), expected, "{what}"),
        None => {
            // It has begun at the backend, so that there is something to break off.
            eventually("the head arrives", || find(&backend.received(), b"\r\n\r\n"));
            drop(client);
        }
    }
    for index in 0..backend.connections() {
        backend.end_of(index);
    }
    let received = backend.received();
    let text = String::from_utf8_lossy(&received);
    assert_eq!(backend.requests().len(), 0, "{what}: {text}");
    assert_eq!(find(&received, b"\r\n0\r\n"), None, "{what}: {text}");
    assert_eq!(tinylb.get("/").status, 200, "{what}");
}

#[test]
fn bodies_of_another_length_than_announced() {
    let five = &post(Some("5"));
    for (what, frames, expected) in [
        ("less", &[five.clone(), data(b"abc", END_STREAM)][..], RESET),
        ("nothing", &[five.clone(), data(b"", END_STREAM)], RESET),
        (
            "less before trailers",
            &[five.clone(), data(b"abc", 0), trailers(&[("a", b"b")], 1)],
            RESET,
        ),
        ("less, padded", &[five.clone(), data(b"\x02abc\0\0", PADDED | END_STREAM)], RESET),
        ("more", &[five.clone(), data(b"abcdef", END_STREAM)], RESET),
        ("more, open", &[five.clone(), data(b"abcdef", 0)], RESET),
        ("more, later", &[five.clone(), data(b"abcde", 0), data(b"f", END_STREAM)], RESET),
        ("more, in one", &[[five.clone(), data(b"abcde", 0), data(b"f", 1)].concat()], RESET),
        ("more, byte by byte", &[five.clone(), data(b"abcd", 0), data(b"ef", 0)], RESET),
        ("more than none", &[post(Some("0")), data(b"a", END_STREAM)], RESET),
        ("more than none, in one", &[[post(Some("0")), data(b"a", 0)].concat()], RESET),
        ("a request", &[post(Some("0")), data(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1)], RESET),
    ] {
        assert_never_whole(what, frames, Some(expected));
    }
}

#[test]
fn bodies_that_break_off() {
    let reset = frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes());
    let no_error = frame(RST_STREAM, 0, 1, &[0; 4]);
    for length in [None, Some("5")] {
        let head = &post(length);
        for (what, frames) in [
            ("a head", &[head.clone()][..]),
            ("a part", &[head.clone(), data(b"abc", 0)]),
            ("a part and a reset", &[head.clone(), data(b"abc", 0), reset.clone()]),
            ("a part and no error", &[head.clone(), data(b"abc", 0), no_error.clone()]),
            ("a part of a frame", &[head.clone(), data(b"abc", END_STREAM)[..11].to_vec()]),
            ("a farewell", &[head.clone(), data(b"abc", 0), frame(GOAWAY, 0, 0, &[0; 8])]),
        ] {
            assert_never_whole(what, frames, None);
        }
    }
    // All of it, but not its end.
    assert_never_whole("all", &[post(Some("5")), data(b"abcde", 0)], None);
}

#[test]
fn trailers_that_are_none() {
    let head = &post(None);
    let some = &data(b"abc", 0);
    let long = vec![b'a'; 9000];
    for (what, last, expected) in [
        ("no end", trailers(&[("a", b"b")], 0), RESET),
        ("upper case", trailers(&[("A", b"b")], END_STREAM), GO_AWAY),
        ("a line end", trailers(&[("a", b"b\r\nc: d")], END_STREAM), GO_AWAY),
        ("white space", trailers(&[("a", b" b")], END_STREAM), Answered(400)),
        ("a connection's", trailers(&[("connection", b"close")], END_STREAM), RESET),
        ("a coding", trailers(&[("transfer-encoding", b"chunked")], END_STREAM), RESET),
        ("a quotation mark", trailers(&[("a\"", b"b")], END_STREAM), Answered(400)),
        ("too many", trailers(&[("a", &long)], END_STREAM), Answered(400)),
        (
            "two frames, not one stream",
            [frame(HEADERS, END_STREAM, 1, b""), frame(CONTINUATION, END_HEADERS, 3, b"")].concat(),
            GO_AWAY,
        ),
    ] {
        assert_never_whole(what, &[head.clone(), some.clone(), last], Some(expected));
    }
}

/// The library takes pseudo-fields out of trailers without a word (RFC 9113 8.1), and nobody hears of them.
#[test]
fn pseudo_fields_among_trailers() {
    let backend = Backend::answering(ok("good"));
    let tinylb = Tinylb::before(&backend);
    let mut client = Frames::connect(&tinylb);
    let fields: [(&str, &[u8]); 3] = [(":path", b"/other"), (":status", b"200"), ("a", b"b")];
    client.send([post(None), data(b"abc", 0), trailers(&fields, END_STREAM)].concat());
    assert_eq!(client.answer(1), (200, b"good".to_vec()));
    let request = backend.request();
    assert_eq!((request.target(), request.body.as_slice()), ("/bad", &b"abc"[..]));
    assert!(request.trailers.iter().all(|(name, _)| name == "a"), "{:?}", request.trailers);
}

/// What comes behind the end of a request is no part of it, and of no other.
#[test]
fn what_comes_behind_the_end() {
    for last in [data(b"more", END_STREAM), trailers(&[("a", b"b")], END_STREAM)] {
        let backend = Backend::answering(ok("good"));
        let tinylb = Tinylb::before(&backend);
        let mut client = Frames::connect(&tinylb);
        client.send([post(None), data(b"abc", END_STREAM), last].concat());
        assert!(client.fate(1) != Fate::Answered(500));
        drop(client);
        assert_eq!(tinylb.get("/").status, 200);
        for request in backend.requests() {
            assert!(request.target() == "/" || request.body == b"abc", "{request:?}");
        }
    }
}
