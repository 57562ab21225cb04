//! Frames that break the rules of HTTP/2: the connection or the stream ends with the reason, and nobody
//! else's.

use crate::support::http2::Fate::{self, GoAway, Reset};
use crate::support::http2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PADDED, PING,
    PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, literals,
    request, setting,
};
use crate::support::{Backend, Tinylb, ok};

const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;

const ENABLE_PUSH: u16 = 2;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;

/// Any of the codes that the fault may be given; the library is not always as precise as the RFC.
const ERRORS: [u32; 5] =
    [PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, COMPRESSION_ERROR];

fn head(stream: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &literals(&request("POST", "/frames")))
}

/// Asserts that the connection ends with an error, and that another one is served.
#[track_caller]
fn assert_ends(tinylb: &Tinylb, what: &str, frames: &[u8]) {
    let mut client = Frames::connect(tinylb);
    client.try_send(frames);
    // Stream 7 is none of those below.
    let fate = client.fate(7);
    assert!(matches!(fate, GoAway(code) if ERRORS.contains(&code)), "{what}: {fate:?}");
    assert!(client.find(|_| false).is_none(), "{what}: the connection ends");
}

#[test]
fn frames_that_end_the_connection() {
    let backend = Backend::answering(ok("fine"));
    let tinylb = Tinylb::before(&backend);
    let one = 1u32.to_be_bytes();
    let ends: &[(&str, Vec<u8>)] = &[
        // Streams that are not open.
        ("data of no stream", frame(DATA, 0, 0, b"x")),
        ("data before a head", frame(DATA, 0, 1, b"x")),
        ("a reset before a head", frame(RST_STREAM, 0, 1, &one)),
        ("a window before a head", frame(WINDOW_UPDATE, 0, 1, &one)),
        ("a reset of no stream", frame(RST_STREAM, 0, 0, &one)),
        ("a stream that is not the client's", head(2, END_STREAM)),
        ("a stream that is no stream", head(0, END_STREAM)),
        ("a stream behind a later one", [head(3, END_STREAM), head(1, END_STREAM)].concat()),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, b"")),
        ("a promise", frame(PUSH_PROMISE, END_HEADERS, 1, &2u32.to_be_bytes())),
        ("a priority of no stream", frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 1])),
        // Frames of a connection on a stream.
        ("settings of a stream", frame(SETTINGS, 0, 1, b"")),
        ("a ping of a stream", frame(PING, 0, 1, &[0; 8])),
        ("a farewell of a stream", frame(GOAWAY, 0, 1, &[0; 8])),
        // Lengths.
        ("a short ping", frame(PING, 0, 0, &[0; 7])),
        ("a long ping", frame(PING, 0, 0, &[0; 9])),
        ("half a setting", frame(SETTINGS, 0, 0, &[0, 4, 0])),
        ("an acknowledgement with settings", frame(SETTINGS, ACK, 0, &[0; 6])),
        ("a short window", frame(WINDOW_UPDATE, 0, 0, &[0; 3])),
        ("a short farewell", frame(GOAWAY, 0, 0, &[0; 7])),
        ("a short reset", [head(1, 0), frame(RST_STREAM, 0, 1, &[0; 3])].concat()),
        ("a large frame", [head(1, 0), frame(DATA, 0, 1, &[0; 16_385])].concat()),
        ("a large unknown frame", frame(0xfe, 0, 0, &[0; 16_385])),
        ("a large head", frame(HEADERS, END_HEADERS, 1, &[0; 16_385])),
        // Padding.
        ("padding of nothing", [head(1, 0), frame(DATA, PADDED, 1, b"")].concat()),
        ("too much padding", [head(1, 0), frame(DATA, PADDED, 1, b"\x02x")].concat()),
        ("a head of padding", frame(HEADERS, PADDED | END_HEADERS, 1, b"\xff")),
        // Settings.
        ("a push that is a number", frame(SETTINGS, 0, 0, &setting(ENABLE_PUSH, 2))),
        ("a large window", frame(SETTINGS, 0, 0, &setting(INITIAL_WINDOW_SIZE, 1 << 31))),
        ("small frames", frame(SETTINGS, 0, 0, &setting(MAX_FRAME_SIZE, 16_383))),
        ("huge frames", frame(SETTINGS, 0, 0, &setting(MAX_FRAME_SIZE, 1 << 24))),
        ("an acknowledgement of nothing", frame(SETTINGS, ACK, 0, b"")),
        // Windows.
        ("no window", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("too large a window", frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes())),
        (
            "a window that its settings make too large",
            [
                head(1, 0),
                frame(WINDOW_UPDATE, 0, 1, &0x7fff_0000_u32.to_be_bytes()),
                frame(SETTINGS, 0, 0, &setting(INITIAL_WINDOW_SIZE, 0x7fff_ffff)),
            ]
            .concat(),
        ),
        // Compression.
        ("an index of nothing", frame(HEADERS, END_HEADERS, 1, b"\x80")),
        ("an index of what is not there", frame(HEADERS, END_HEADERS, 1, b"\xff\x7f")),
        ("a string that ends early", frame(HEADERS, END_HEADERS, 1, b"\x00\x05ab")),
        ("a number without end", frame(HEADERS, END_HEADERS, 1, &[0xff; 20])),
        ("a table that is too large", frame(HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\x03")),
        ("a wrong Huffman code", frame(HEADERS, END_HEADERS, 1, b"\x00\x84\xff\xff\xff\xff\x00")),
    ];
    for (what, frames) in ends {
        assert_ends(&tinylb, what, frames);
    }
    assert_eq!(tinylb.get("/").status, 200);
    assert!(backend.requests().iter().all(|request| request.target() == "/"));
}

#[test]
fn frames_that_end_their_stream() {
    let backend = Backend::answering(ok("fine"));
    let tinylb = Tinylb::before(&backend);
    let own = [1u32.to_be_bytes().as_slice(), &[5]].concat();
    let dependent = [own.as_slice(), &literals(&request("GET", "/"))].concat();
    const PRIORITIZED: u8 = 0x20;
    for (what, frames, expected) in [
        (
            "no window",
            [head(1, 0), frame(WINDOW_UPDATE, 0, 1, &[0; 4])].concat(),
            Reset(PROTOCOL_ERROR),
        ),
        (
            "too large a window",
            [head(1, 0), frame(WINDOW_UPDATE, 0, 1, &0x7fff_ffff_u32.to_be_bytes())].concat(),
            Reset(FLOW_CONTROL_ERROR),
        ),
        (
            "a stream that depends on itself",
            frame(HEADERS, PRIORITIZED | END_HEADERS | END_STREAM, 1, &dependent),
            Reset(PROTOCOL_ERROR),
        ),
    ] {
        let mut client = Frames::connect(&tinylb);
        client.send(frames);
        let fate = client.fate(1);
        // The library takes some of them for errors of the connection.
        let GoAway(code) = fate else {
            assert_eq!(fate, expected, "{what}");
            client.assert_serves(3);
            continue;
        };
        assert_eq!(Reset(code), expected, "{what}");
    }
}

/// What a client may send and nobody has a use for.
#[test]
fn frames_that_are_ignored() {
    let backend = Backend::answering(ok("fine"));
    let tinylb = Tinylb::before(&backend);
    let mut client = Frames::connect(&tinylb);
    client.send(
        [
            frame(0xfe, 0xff, 0, b"unknown"),
            frame(0xfe, 0xff, 5, b"unknown"),
            frame(PRIORITY, 0, 99, &[0, 0, 0, 0, 1]),
            frame(SETTINGS, 0, 0, &setting(0xf0f0, 7)),
            frame(PING, ACK, 0, b"no ping!"),
            // RFC 9218 7.1.
            frame(0x10, 0, 0, b"\0\0\0\x01u=1"),
        ]
        .concat(),
    );
    client.assert_serves(1);
    // Frames of a stream that has just ended.
    client.send(frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]));
    client.reset(1);
    client.send(frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]));
    client.assert_serves(3);
    // One that begins far behind, as after many on other connections.
    client.assert_serves(0x7fff_fff1);
    client.get(5, "/");
    assert_eq!(client.fate(5), GoAway(PROTOCOL_ERROR));
}

/// Numbers of streams are used up in the end, and then the client needs another connection.
#[test]
fn the_last_stream() {
    let backend = Backend::answering(ok("fine"));
    let tinylb = Tinylb::before(&backend);
    let mut client = Frames::connect(&tinylb);
    client.assert_serves(0x7fff_ffff);
    for stream in [1, 0x7fff_ffff] {
        let mut client = Frames::connect(&tinylb);
        client.assert_serves(0x7fff_ffff);
        client.get(stream, "/");
        assert!(matches!(client.fate(stream), Fate::GoAway(_)));
    }
    assert_eq!(tinylb.get("/").status, 200);
}
