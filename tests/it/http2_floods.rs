//! Clients of HTTP/2 that make work without asking for anything, in raw frames, and one that only
//! looks like it.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;

use crate::support::{Backend, PATIENCE, Tinylb, eventually, ok};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// `GET / http h`, and the same by POST, in HPACK (RFC 7541 B).
const GET: &[u8] = &[0x82, 0x84, 0x86, 0x01, 1, b'h'];
const POST: &[u8] = &[0x83, 0x84, 0x86, 0x01, 1, b'h'];

const ENHANCE_YOUR_CALM: u32 = 0xb;

/// More than any client gets away with.
const MANY: u32 = 5000;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A client that speaks frames.
struct Frames {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Frames {
    fn connect(tinylb: &Tinylb, settings: &[u8]) -> Self {
        let stream = TcpStream::connect(tinylb.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        let mut client = Self { stream, reader };
        assert!(client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
        assert!(client.send(&frame(SETTINGS, 0, 0, settings)));
        client
    }

    /// Whether the balancer still takes anything.
    fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The next frame's type, flags and payload; `None` at the end.
    fn next(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.reader.read_exact(&mut head).ok()?;
        let [a, b, c, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.reader.read_exact(&mut payload).ok()?;
        Some((kind, flags, payload))
    }

    /// Sends a ping, and waits for the answer; false where none comes.
    fn is_answered(&mut self) -> bool {
        self.send(&frame(PING, 0, 0, &[0; 8]))
            && std::iter::from_fn(|| self.next())
                .any(|(kind, flags, _)| (kind, flags) == (PING, ACK))
    }
}

fn cut_off(tinylb: &Tinylb) -> f64 {
    tinylb.metric("tinylb_http2_connections_cut_off_total", &[])
}

/// Sends what `frames` makes of each number until the connection ends, and checks that it does by
/// a verdict, not by an error of the protocol.
fn assert_cut_off(what: &str, settings: &[u8], open: &[u8], frames: impl Fn(u32) -> Vec<u8>) {
    let backend = Backend::answering(ok(&"x".repeat(1 << 20)));
    let tinylb = Tinylb::before(&backend);
    let mut client = Frames::connect(&tinylb, settings);
    assert!(client.send(open));
    std::thread::scope(|scope| {
        let mut reader = Frames {
            stream: client.stream.try_clone().unwrap(),
            reader: BufReader::new(client.stream.try_clone().unwrap()),
        };
        // An end that comes while more is under way may be a reset, which takes the reason with it.
        let reason = scope.spawn(move || {
            std::iter::from_fn(|| reader.next())
                .filter(|(kind, ..)| *kind == GOAWAY)
                .map(|(_, _, payload)| u32::from_be_bytes(payload[4..8].try_into().unwrap()))
                .last()
        });
        for number in 0..MANY {
            if !client.send(&frames(number)) {
                break;
            }
        }
        eventually(what, || (cut_off(&tinylb) == 1.0).then_some(()));
        let reason = reason.join().unwrap();
        assert!(reason.is_none_or(|reason| reason == ENHANCE_YOUR_CALM), "{what}: {reason:?}");
    });
    assert_eq!(tinylb.get("/").status, 200, "{what}: others are served");
}

#[test]
fn frames_that_only_make_work() {
    let post = frame(HEADERS, END_HEADERS, 1, POST);
    let one = 1u32.to_be_bytes();
    assert_cut_off("pings", &[], &[], |_| frame(PING, 0, 0, &[0; 8]));
    assert_cut_off("settings", &[], &[], |_| frame(SETTINGS, 0, 0, &[]));
    assert_cut_off("priorities", &[], &[], |_| frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1]));
    assert_cut_off("unknown frames", &[], &[], |_| frame(0xfe, 0, 0, &[]));
    assert_cut_off("windows", &[], &[], |_| frame(WINDOW_UPDATE, 0, 0, &one));
    assert_cut_off("empty data", &[], &post, |_| frame(DATA, 0, 1, &[]));
}

/// Each of these pays for a frame of one byte (CVE-2019-9511).
#[test]
fn a_window_that_is_opened_byte_by_byte() {
    let no_window = [0, 4, 0, 0, 0, 0];
    let get = frame(HEADERS, END_HEADERS | END_STREAM, 1, GET);
    let byte = frame(WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes());
    assert_cut_off("a window byte by byte", &no_window, &get, |_| byte.clone());
}

/// CVE-2023-44487, but slowly enough that each request has begun when it is given up.
#[test]
fn requests_that_are_given_up_as_soon_as_they_have_begun() {
    let backend = Backend::silent();
    let tinylb = Tinylb::before(&backend);
    let mut client = Frames::connect(&tinylb, &[]);
    let mut count = 0;
    while count < MANY {
        let stream = 2 * count + 1;
        let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, GET);
        if !client.send(&open) || !client.is_answered() {
            break;
        }
        client.send(&frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
        count += 1;
    }
    assert!((400..MANY).contains(&count), "cut off after {count}");
    eventually("it is counted", || (cut_off(&tinylb) == 1.0).then_some(()));
}

/// A client that gives back both windows for each frame that it gets, and asks for the time as well.
#[test]
fn a_long_download_with_many_updates_is_none() {
    let size = 32 << 20;
    let backend = Backend::answering(ok(&"x".repeat(size)));
    let tinylb = Tinylb::before(&backend);
    let mut client = Frames::connect(&tinylb, &[]);
    assert!(client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, GET)));
    let mut got = 0;
    while got < size {
        let Some((kind, _, payload)) = client.next() else { break };
        if kind == DATA && !payload.is_empty() {
            got += payload.len();
            let update = u32::try_from(payload.len()).unwrap().to_be_bytes();
            let mut answer = frame(WINDOW_UPDATE, 0, 0, &update);
            answer.extend(frame(WINDOW_UPDATE, 0, 1, &update));
            answer.extend(frame(PING, 0, 0, &[0; 8]));
            assert!(client.send(&answer));
        }
    }
    assert_eq!(got, size);
    assert_eq!(cut_off(&tinylb), 0.0);
}
