//! Clients that read slowly, or not at all, what is on its way to them when their connection ends.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::support::certificates::Authority;
use crate::support::http2::{
    ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, SETTINGS, WINDOW_UPDATE, frame,
    literals, request, setting,
};
use crate::support::tls_client::{TlsConnection, over, tls_client};
use crate::support::{Backend, Client, Signal, Tinylb, config, connect_narrow, eventually, find};

/// The length of the answer: what the kernel keeps for a client.
const LENGTH: usize = 2_000_000;

/// What a slow client reads at once, and how long it waits then: 800 kB/s.
const PIECE: usize = 8 * 1024;
const PAUSE: Duration = Duration::from_millis(10);

/// How often it says that it has read on.
const UPDATE: usize = 64 * 1024;

/// A window that is never in the way.
const WINDOW: u32 = 4 << 20;

fn answering(length: usize) -> Backend {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    Backend::answering([head.as_bytes(), &vec![b'x'; length]].concat())
}

/// A connection of whose bytes only a little lies unread in the client's kernel.
fn narrow(tinylb: &Tinylb) -> TcpStream {
    connect_narrow(tinylb.address(), 32 * 1024).unwrap()
}

/// Begins HTTP/2 and asks for a large answer.
fn ask(stream: &mut impl Write) {
    let settings = [setting(1, 0), setting(4, WINDOW)].concat();
    let begin = [
        PREFACE,
        &frame(SETTINGS, 0, 0, &settings),
        &frame(SETTINGS, ACK, 0, &[]),
        &frame(WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes()),
        &frame(HEADERS, END_HEADERS | END_STREAM, 1, &literals(&request("GET", "/big"))),
    ];
    stream.write_all(&begin.concat()).unwrap();
}

/// What a client of HTTP/2 has got.
#[derive(Debug, Default, PartialEq, Eq)]
struct Got {
    body: usize,
    is_whole: bool,
    /// Whether the connection was reset in the end.
    is_reset: bool,
}

/// Reads an answer slowly up to the connection's end, and says so on the way where it `updates`. Calls `begun` once
/// the body has begun.
fn read_slowly(mut stream: impl Read + Write, updates: bool, begun: impl FnOnce()) -> Got {
    let (mut got, mut unused, mut piece) = (Got::default(), Vec::new(), [0; PIECE]);
    let (mut begun, mut told) = (Some(begun), 0);
    loop {
        match stream.read(&mut piece) {
            Ok(n @ 1..) => unused.extend_from_slice(&piece[..n]),
            Ok(_) => return got,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return got,
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::WouldBlock, "it goes on: {got:?}");
                return Got { is_reset: true, ..got };
            }
        }
        while let Some([a, b, c, kind, flags, ..]) = unused.first_chunk::<9>().copied() {
            let length = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
            if unused.len() < length {
                break;
            }
            let payload: Vec<u8> = unused.drain(..length).skip(9).collect();
            match kind {
                DATA => {
                    got.body += payload.len();
                    got.is_whole |= flags & END_STREAM != 0;
                    begun.take().into_iter().for_each(|begun| begun());
                }
                PING if flags & ACK == 0 => drop(stream.write_all(&frame(PING, ACK, 0, &payload))),
                _ => {}
            }
        }
        if updates && got.body - told >= UPDATE {
            told = got.body;
            // Where the balancer takes it no more, reading says how it has ended.
            let _ = stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &(UPDATE as u32).to_be_bytes()));
        }
        thread::sleep(PAUSE);
    }
}

const WHOLE: Got = Got { body: LENGTH, is_whole: true, is_reset: false };

#[test]
fn a_drain_in_http_2_delivers_what_the_kernel_has() {
    let backend = answering(LENGTH);
    for updates in [true, false] {
        let mut tinylb = Tinylb::before(&backend);
        let mut stream = narrow(&tinylb);
        ask(&mut stream);
        let got = read_slowly(stream, updates, || tinylb.signal(Signal::TERM));
        assert_eq!(got, WHOLE, "updates: {updates}");
        assert_eq!(tinylb.wait_exit().code(), Some(0));
    }
}

#[test]
fn an_idle_connection_in_http_2_is_closed_when_its_client_has_everything() {
    let backend = answering(LENGTH);
    let text = config(&[backend.url()], "timeouts = { idle = \"200ms\" }", "");
    let tinylb = Tinylb::run(&text);
    let mut stream = narrow(&tinylb);
    ask(&mut stream);
    assert_eq!(read_slowly(stream, true, || {}), WHOLE);
    assert_eq!(tinylb.metric("tinylb_connections_undelivered_total", &[]), 0.0);
}

/// TLS on a narrow connection.
fn by_tls(authority: &Authority, tinylb: &Tinylb) -> TlsConnection {
    over(&tls_client(authority, &["h2"], None), narrow(tinylb))
}

#[test]
fn the_same_by_tls() {
    let backend = answering(LENGTH);
    let authority = Authority::new("Test Authority");
    let keys = authority.server("server", &["a.test"]).keys();
    for (idle, is_drain) in [("60s", true), ("200ms", false)] {
        let listener = format!("tls = {{ {keys} }}\ntimeouts = {{ idle = \"{idle}\" }}");
        let mut tinylb = Tinylb::run(&config(&[backend.url()], &listener, ""));
        let mut stream = by_tls(&authority, &tinylb);
        ask(&mut stream);
        let begun = || {
            if is_drain {
                tinylb.signal(Signal::TERM)
            }
        };
        assert_eq!(read_slowly(stream, true, begun), WHOLE, "drain: {is_drain}");
        if is_drain {
            assert_eq!(tinylb.wait_exit().code(), Some(0));
        }
    }
}

/// Whatever else comes meanwhile, a stray line end is enough, would have the kernel reset the connection.
#[test]
fn the_last_answer_in_http_1_1_is_delivered_however_long_it_takes() {
    let backend = answering(LENGTH);
    let mut tinylb = Tinylb::before(&backend);
    let mut stream = narrow(&tinylb);
    stream.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let (mut got, mut told, mut piece) = (Vec::new(), 0, [0; PIECE]);
    loop {
        match stream.read(&mut piece) {
            Ok(n @ 1..) => {
                if got.is_empty() {
                    tinylb.signal(Signal::TERM);
                }
                got.extend_from_slice(&piece[..n]);
            }
            Ok(_) => break,
            Err(error) => panic!("{error} after {} bytes", got.len()),
        }
        if got.len() - told >= UPDATE {
            told = got.len();
            let _ = stream.write_all(b"\r\n");
        }
        thread::sleep(PAUSE + PAUSE / 2);
    }
    let head = find(&got, b"\r\n\r\n").unwrap() + 4;
    assert_eq!(got.len() - head, LENGTH);
    assert_eq!(tinylb.wait_exit().code(), Some(0));
}

/// A client that reads nothing, though all of its answer is under way.
fn stopped(tinylb: &Tinylb, is_http2: bool, close: &str) -> TcpStream {
    let mut stream = narrow(tinylb);
    match is_http2 {
        true => ask(&mut stream),
        false => write!(stream, "GET /big HTTP/1.1\r\nHost: a\r\n{close}\r\n").unwrap(),
    }
    tinylb.wait_for_access("/big");
    stream
}

#[test]
fn what_nobody_reads_is_no_success_of_a_drain() {
    let backend = answering(400_000);
    for (is_http2, close) in [(true, ""), (false, "Connection: close\r\n"), (false, "")] {
        let options = ["--drain-timeout", "4s", "--access-log", "text"];
        let mut tinylb = Tinylb::start(&[backend.url()], &options);
        let _stream = stopped(&tinylb, is_http2, close);
        tinylb.signal(Signal::TERM);
        assert_eq!(tinylb.wait_exit().code(), Some(1), "HTTP/2: {is_http2} {close}");
        tinylb.wait_for_log("cut off");
    }
}

/// A drain does not wait for them until its deadline, but it does say so.
#[test]
fn clients_that_read_nothing_are_given_up_and_counted() {
    let backend = answering(400_000);
    let timeouts = "timeouts = { body = \"500ms\", idle = \"200ms\" }";
    let text = config(&[backend.url()], timeouts, "");
    let text = format!("log = {{ access = \"text\" }}\n{text}");
    for is_http2 in [true, false] {
        let tinylb = Tinylb::run(&text);
        let _stream = stopped(&tinylb, is_http2, "Connection: close\r\n");
        eventually("it is counted", || {
            (tinylb.metric("tinylb_connections_undelivered_total", &[]) == 1.0).then_some(())
        });
        let mut tinylb = Tinylb::run(&text);
        let _stream = stopped(&tinylb, is_http2, "Connection: close\r\n");
        tinylb.signal(Signal::TERM);
        assert_eq!(tinylb.wait_exit().code(), Some(1), "HTTP/2: {is_http2}");
        tinylb.wait_for_log("not delivered");
    }
}

/// One that reads all of it is not held against anybody.
#[test]
fn clients_that_never_close_are_no_loss() {
    let backend = answering(1000);
    let mut tinylb = Tinylb::before(&backend);
    let mut client = Client::over(narrow(&tinylb));
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.response().body.len(), 1000);
    tinylb.signal(Signal::TERM);
    assert_eq!(tinylb.wait_exit().code(), Some(0));
}
