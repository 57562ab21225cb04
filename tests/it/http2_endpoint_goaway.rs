//! Endpoints of HTTP/2 frame by frame: which streams of a connection that ends are sent again, and what is no
//! HTTP/2 at all.

use std::io::{Read, Write};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::support::http2::{Frames, HEADERS, INTERNAL_ERROR, RST_STREAM, SETTINGS, frame};
use crate::support::{
    Backend, FramesBackend, Gate, Http2Backend, Response, Tinylb, config, eventually, ok, ranked,
};

const KEPT: &str = "timeouts = { idle = \"5m\", connect = \"20s\" }";
const NO_ERROR: u32 = 0;
const REFUSED_STREAM: u32 = 7;
const MAX_CONCURRENT_STREAMS: u16 = 3;

/// A setting (RFC 9113 6.5.1).
fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

fn alone(endpoints: &[String], upstream: &str) -> Tinylb {
    Tinylb::run(&config(endpoints, "", upstream).replace("workers = 2", "workers = 1"))
}

fn ask(tinylb: &Tinylb, method: &str, path: &str) -> JoinHandle<Response> {
    let mut client = tinylb.connect();
    let body = if method == "POST" { "Content-Length: 4\r\n\r\nbody" } else { "\r\n" };
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{body}"));
    thread::spawn(move || client.response())
}

/// Serves a first request, so that others share its connection, and takes in four more. Returns the streams
/// of these.
fn four_under_way(frames: &mut Frames) -> Vec<u32> {
    let first = frames.requests(1)[0];
    frames.ok(first, b"first");
    frames.requests(4)
}

/// Has four requests of `method` under way on the first connection, on which `ends` is done then; further
/// connections answer with `again`. Returns what the clients got.
fn four(method: &str, ends: fn(&mut Frames, &[u32])) -> (Vec<Response>, usize, String) {
    let backend = FramesBackend::new(&[], move |mut frames, index| {
        if index == 0 {
            let streams = four_under_way(&mut frames);
            ends(&mut frames, &streams);
            return;
        }
        while let Some(head) = frames.find(|frame| frame.kind == HEADERS) {
            frames.ok(head.stream, b"again");
        }
    });
    let tinylb = alone(&[backend.url()], KEPT);
    assert_eq!(tinylb.get("/").text(), "first");
    let asked: Vec<_> = (0..4).map(|_| ask(&tinylb, method, "/")).collect();
    let responses = asked.into_iter().map(|asked| asked.join().unwrap()).collect();
    (responses, backend.connections(), tinylb.first_state())
}

fn texts(responses: &[Response]) -> Vec<String> {
    let mut texts: Vec<_> = responses.iter().map(Response::text).collect();
    texts.sort();
    texts
}

#[test]
fn streams_above_the_last_one_are_sent_again_whatever_they_are() {
    for method in ["GET", "POST"] {
        let (responses, connections, state) = four(method, |frames, streams| {
            frames.go_away(streams[1], NO_ERROR);
            for stream in &streams[..2] {
                frames.ok(*stream, b"looked at");
            }
            // Until the balancer closes.
            frames.find(|_| false);
        });
        assert_eq!(texts(&responses), ["again", "again", "looked at", "looked at"], "{method}");
        assert_eq!((connections, state.as_str()), (2, "up"));
    }
}

#[test]
fn streams_that_were_looked_at_are_lost_with_the_connection() {
    let ends = |frames: &mut Frames, streams: &[u32]| frames.go_away(streams[1], INTERNAL_ERROR);
    let (responses, _, _) = four("GET", ends);
    assert_eq!(texts(&responses), ["again"; 4]);
    let (responses, _, state) = four("POST", ends);
    let (lost, again): (Vec<_>, Vec<_>) = responses.iter().partition(|r| r.status == 502);
    assert_eq!((lost.len(), again.len()), (2, 2));
    lost.iter().for_each(|response| response.assert_fault(502, "connection_terminated"));
    assert!(again.iter().all(|response| response.text() == "again"));
    assert_eq!(state, "up");
}

/// As servers do that let clients finish what is on its way: first all streams, then the last one.
#[test]
fn an_end_in_two_steps_loses_nothing() {
    let (responses, connections, state) = four("POST", |frames, streams| {
        frames.go_away(i32::MAX.unsigned_abs(), NO_ERROR);
        assert!(frames.is_answering());
        frames.go_away(streams[3], NO_ERROR);
        streams.iter().for_each(|stream| frames.ok(*stream, b"finished"));
        frames.find(|_| false);
    });
    assert_eq!(texts(&responses), ["finished"; 4]);
    assert_eq!((connections, state.as_str()), (1, "up"));
}

#[test]
fn who_ends_every_connection_at_once_is_not_asked_for_ever() {
    let asked = Arc::new(Mutex::new(0));
    let backend = FramesBackend::new(&[], {
        let asked = Arc::clone(&asked);
        move |mut frames, _| {
            if frames.find(|frame| frame.kind == HEADERS).is_some() {
                *asked.lock().unwrap() += 1;
                frames.go_away(0, NO_ERROR);
                frames.find(|_| false);
            }
        }
    });
    let tinylb = alone(&[backend.url()], KEPT);
    ask(&tinylb, "POST", "/").join().unwrap().assert_fault(502, "connection_terminated");
    assert_eq!(*asked.lock().unwrap(), 3, "as often as `attempts`");
}

/// The settings say how many streams there may be before the first one is begun.
#[test]
fn settings_are_waited_for() {
    let (tell, told) = channel();
    let backend = FramesBackend::raw({
        let tell = Mutex::new(tell);
        move |mut stream, _| {
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).unwrap();
            thread::sleep(Duration::from_millis(300));
            stream.set_nonblocking(true).unwrap();
            let mut early = vec![0; 4096];
            let early = stream.read(&mut early).map(|n| early[..n].to_vec()).unwrap();
            stream.set_nonblocking(false).unwrap();
            let settings = setting(MAX_CONCURRENT_STREAMS, 1);
            stream.write_all(&frame(SETTINGS, 0, 0, &settings)).unwrap();
            let mut frames = Frames::over(stream);
            tell_early(&tell.lock().unwrap(), early);
            let mut open = 0;
            while let Some(next) = frames.next() {
                open += u32::from(next.kind == HEADERS);
                assert!(open <= 1, "one at a time");
                if next.kind == HEADERS {
                    thread::sleep(Duration::from_millis(20));
                    frames.ok(next.stream, b"one");
                    open = 0;
                }
            }
        }
    });
    let tinylb = alone(&[backend.url()], KEPT);
    let asked: Vec<_> = (0..12).map(|_| ask(&tinylb, "POST", "/")).collect();
    for asked in asked {
        assert_eq!(asked.join().unwrap().text(), "one");
    }
    let early: Vec<_> = told.try_iter().collect();
    assert!(!early.is_empty() && early.iter().all(|kinds| !kinds.contains(&1)), "{early:?}");
}

/// Tells the kinds of the frames in `bytes`.
fn tell_early(tell: &Sender<Vec<u8>>, mut bytes: Vec<u8>) {
    let mut kinds = Vec::new();
    while bytes.len() >= 9 {
        let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        kinds.push(bytes[3]);
        bytes.drain(..(9 + length).min(bytes.len()));
    }
    tell.send(kinds).unwrap();
}

#[test]
fn an_endpoint_that_takes_no_streams_is_full() {
    let backend = FramesBackend::new(&setting(MAX_CONCURRENT_STREAMS, 0), |mut frames, _| {
        frames.find(|frame| frame.kind == HEADERS);
    });
    let other = Http2Backend::answering("other");
    let text = ranked(&[backend.url(), other.url()], "", "timeouts = { connect = \"1s\" }");
    let tinylb = Tinylb::run(&text.replace("workers = 2", "workers = 1"));
    for _ in 0..4 {
        assert_eq!(ask(&tinylb, "POST", "/").join().unwrap().text(), "other");
    }
    assert!(backend.connections() <= 4, "{}", backend.connections());
    assert_eq!(tinylb.first_state(), "up");
}

#[test]
fn what_speaks_no_http_2_is_found_before_a_request_is_lost_to_it() {
    let http1 = FramesBackend::raw(|mut stream, _| {
        let mut some = [0; 24];
        let _ = stream.read_exact(&mut some);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let closing = FramesBackend::raw(|stream, _| drop(stream));
    let silent = FramesBackend::raw(|mut stream, _| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let other = Http2Backend::answering("other");
    let quick = "timeouts = { connect = \"2s\" }";
    for (backend, status, error) in [
        (&http1, 502, "http_protocol_error"),
        (&closing, 502, "connection_refused"),
        (&silent, 504, "connection_timeout"),
    ] {
        let tinylb = alone(&[backend.url()], quick);
        ask(&tinylb, "POST", "/").join().unwrap().assert_fault(status, error);
        assert_eq!(tinylb.first_state(), "unreachable", "{error}");
        assert!(tinylb.metric("tinylb_endpoint_connect_failures_total", &[]) >= 1.0);
        let tinylb = Tinylb::run(&ranked(&[backend.url(), other.url()], "", quick));
        for _ in 0..3 {
            assert_eq!(ask(&tinylb, "POST", "/").join().unwrap().text(), "other", "{error}");
        }
        eventually("it is left alone", || (tinylb.first_state() == "unreachable").then_some(()));
    }
}

/// Requests do not find out when it is back: that is done in the background, in HTTP/2.
#[test]
fn an_endpoint_that_begins_to_speak_http_2_is_back() {
    let speaks = Gate::new();
    let late = FramesBackend::raw({
        let speaks = speaks.clone();
        move |stream, _| {
            if !speaks.is_open() {
                return;
            }
            let Some(mut frames) = Frames::accept(stream, &[]) else { return };
            while let Some(head) = frames.find(|frame| frame.kind == HEADERS) {
                frames.ok(head.stream, b"late");
            }
        }
    });
    let other = Http2Backend::answering("other");
    let text = ranked(&[late.url(), other.url()], "", KEPT);
    let tinylb = Tinylb::run(&text);
    assert_eq!(ask(&tinylb, "POST", "/").join().unwrap().text(), "other");
    // Until it has been dialled again, in vain.
    eventually("it is dialled again", || {
        assert_eq!(tinylb.get("/").text(), "other");
        assert_eq!(tinylb.first_state(), "unreachable");
        (late.connections() >= 3).then_some(())
    });
    speaks.open();
    eventually("it is asked again", || (tinylb.get("/").text() == "late").then_some(()));
    assert_eq!(tinylb.first_state(), "up");
}

/// A stream that is refused says nothing of the connection, and one whose connection is wrong nothing of
/// the stream.
#[test]
fn a_connection_on_which_anything_is_wrong_is_not_used_again() {
    let (responses, connections, _) = four("GET", |frames, streams| {
        frames.send(frame(RST_STREAM, 0, streams[0], &REFUSED_STREAM.to_be_bytes()));
        // Data of a stream that there never was.
        frames.data(streams[3] + 100, b"whose?", false);
        frames.find(|_| false);
    });
    assert_eq!(texts(&responses), ["again"; 4]);
    assert_eq!(connections, 2);
}

/// What a client may put into a request and HTTP/2 cannot express is the client's fault, and no endpoint's.
#[test]
fn no_client_makes_an_endpoint_look_bad_with_bytes_of_its_own() {
    let backend = Http2Backend::answering("fine");
    let tinylb = alone(&[backend.url()], KEPT);
    let plain = Backend::answering(ok("fine"));
    let by_http1 = alone(&[plain.url()], "");
    let ask = |tinylb: &Tinylb, target: &[u8], host: &[u8]| {
        let rest = b"\r\nContent-Length: 0\r\n\r\n";
        let request = [b"POST ", target, b" HTTP/1.1\r\nHost: ", host, rest].concat();
        tinylb.exchange(request).status
    };
    let mut refused = Vec::new();
    for byte in 0x21..=0xff {
        let inside = [b'/', b'a', byte, b'b'];
        for (target, host) in [(&inside[..], &b"test"[..]), (b"/", &inside[1..])] {
            let status = ask(&tinylb, target, host);
            if status != ask(&by_http1, target, host) {
                assert_eq!(status, 400);
                refused.push(byte);
            }
        }
    }
    // All of them in targets, where no URI may have them (RFC 3986 2).
    assert_eq!(refused, b"<>`");
    assert_eq!(tinylb.first_state(), "up");
    assert_eq!(tinylb.metric("tinylb_endpoint_failures_total", &[]), 0.0);
}
