//! Bodies and answers of endpoints in HTTP/2: large ones, slow ones, and those that are not what they say.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};

use crate::support::http2::{
    DATA, END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame,
    literals,
};
use crate::support::streams::{Streams, run, send_all};
use crate::support::{
    Asked, Client, End, FramesBackend, Framing, Http2Backend, PATIENCE, Tinylb, config,
    eventually_within,
};

const KEPT: &str = "timeouts = { idle = \"5m\", connect = \"20s\" }";

/// One worker, so that all streams are on one connection.
fn alone(endpoints: &[String], upstream: &str) -> Tinylb {
    Tinylb::run(&config(endpoints, "", upstream).replace("workers = 2", "workers = 1"))
}

/// Different in every place, so that nothing can be mixed up.
fn large(length: usize) -> Vec<u8> {
    (0..length / 4).flat_map(|n| u32::try_from(n).unwrap().to_be_bytes()).collect()
}

/// Waits until `moved` has not grown for half a second, and gives it.
fn stalled(moved: &AtomicU64) -> u64 {
    let (mut last, mut quiet) = (0, 0);
    eventually_within(Duration::from_secs(60), "the transfer stalls", || {
        thread::sleep(Duration::from_millis(50));
        let now = moved.load(Ordering::Relaxed);
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
        (now > 0 && quiet >= 10).then_some(now)
    })
}

/// The most memory that the process has ever had, in KiB.
fn peak_kib(tinylb: &Tinylb) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", tinylb.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
}

/// Gives back what it gets, as it comes.
fn echo() -> Http2Backend {
    Http2Backend::new(async |mut asked: Asked| {
        let mut stream = asked.begin();
        while let Some(data) = asked.body.data().await {
            let data = data.unwrap();
            asked.body.flow_control().release_capacity(data.len()).unwrap();
            send_all(&mut stream, data, false).await;
        }
        match asked.body.trailers().await.unwrap() {
            Some(trailers) => stream.send_trailers(trailers).unwrap(),
            None => stream.send_data(Bytes::new(), true).unwrap(),
        }
    })
}

#[test]
fn large_bodies_pass_both_ways_at_once() {
    let backend = echo();
    let tinylb = alone(&[backend.url()], KEPT);
    let body = large(16 << 20);
    for framing in ["Content-Length: 16777216", "Transfer-Encoding: chunked"] {
        let mut client = tinylb.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n"));
        let mut writer = client.wire().stream().try_clone().unwrap();
        let sending = thread::spawn({
            let (body, is_chunked) = (body.clone(), framing.contains("chunked"));
            move || match is_chunked {
                false => writer.write_all(&body).unwrap(),
                true => {
                    for chunk in body.chunks(100_000) {
                        write!(writer, "{:x}\r\n", chunk.len()).unwrap();
                        writer.write_all(&[chunk, b"\r\n"].concat()).unwrap();
                    }
                    writer.write_all(b"0\r\n\r\n").unwrap();
                }
            }
        });
        let response = client.response();
        assert!(response.complete && response.body == body, "{} came back", response.body.len());
        assert_eq!(response.framing, Framing::Chunked);
        sending.join().unwrap();
    }
}

#[test]
fn an_endpoint_that_does_not_read_stops_its_clients() {
    const UPLOADS: usize = 50;
    let backend = Http2Backend::held();
    let tinylb = alone(&[backend.url()], KEPT);
    let moved = Arc::new(AtomicU64::new(0));
    for _ in 0..UPLOADS {
        let mut client = tinylb.connect();
        client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 9999999999\r\n\r\n");
        let mut stream = client.wire().stream().try_clone().unwrap();
        let moved = Arc::clone(&moved);
        thread::spawn(move || {
            let _client = client;
            let piece = vec![b'x'; 64 * 1024];
            while let Ok(n @ 1..) = stream.write(&piece) {
                moved.fetch_add(n as u64, Ordering::Relaxed);
            }
        });
    }
    let streams = backend.next_of(UPLOADS);
    let moved = stalled(&moved);
    let peak = peak_kib(&tinylb);
    println!("{UPLOADS} uploads stalled after {moved} bytes at {peak} KiB");
    assert!(peak < 96 * 1024, "{peak} KiB");
    // Others are not in their way: these have windows of their own.
    let asked = thread::spawn({
        let mut client = tinylb.connect();
        move || client.get("/beside")
    });
    backend.next().ok("beside");
    assert_eq!(asked.join().unwrap().text(), "beside");
    assert_eq!(backend.connections(), 1);
    drop(streams);
}

/// A response that is being sent.
struct Sending {
    is_endless: bool,
    window: usize,
    sent: usize,
}

/// Answers the first `clients` requests of a connection without an end, and all others with a body of
/// [`BESIDE`]; counts what it sends. An endless response is in frames of `size` bytes once the kernel has
/// taken [`IN_KERNEL`] of it. A library takes minutes for so many small frames.
fn endless(clients: usize, size: usize, moved: &Arc<AtomicU64>) -> FramesBackend {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const DEFAULT_WINDOW: usize = 65_535;
    let (moved, beside) = (Arc::clone(moved), large(BESIDE));
    FramesBackend::new(&[], move |mut server: Frames, _| {
        server.set_patience(4 * PATIENCE);
        let (mut initial, mut connection, mut asked) = (DEFAULT_WINDOW, DEFAULT_WINDOW, 0);
        let mut open: BTreeMap<u32, Sending> = BTreeMap::new();
        while let Some(next) = server.next() {
            let last_four = next.payload.last_chunk().map_or(0, |last| u32::from_be_bytes(*last));
            match next.kind {
                SETTINGS => {
                    let value = next.payload.chunks_exact(6).find_map(|setting| {
                        let [a, b, value @ ..] = *setting.as_array::<6>()?;
                        let is_window = u16::from_be_bytes([a, b]) == INITIAL_WINDOW_SIZE;
                        is_window.then(|| u32::from_be_bytes(value) as usize)
                    });
                    initial = value.unwrap_or(initial);
                }
                HEADERS => {
                    asked += 1;
                    let sending =
                        Sending { is_endless: asked <= clients, window: initial, sent: 0 };
                    open.insert(next.stream, sending);
                    server.head(next.stream, &[OK], false);
                }
                WINDOW_UPDATE if next.stream == 0 => connection += last_four as usize,
                WINDOW_UPDATE => {
                    if let Some(sending) = open.get_mut(&next.stream) {
                        sending.window += last_four as usize;
                    }
                }
                RST_STREAM => drop(open.remove(&next.stream)),
                _ => {}
            }
            for (stream, sending) in &mut open {
                let mut frames = Vec::new();
                loop {
                    let left = BESIDE - sending.sent.min(BESIDE);
                    let length = match sending.is_endless {
                        true if sending.sent >= IN_KERNEL => size,
                        true => LARGE_FRAME,
                        false => left.min(LARGE_FRAME),
                    };
                    if length == 0 || sending.window.min(connection) < length {
                        break;
                    }
                    let begin = if sending.is_endless { 0 } else { sending.sent };
                    let is_end = !sending.is_endless && length == left;
                    let payload = &beside[begin..begin + length];
                    frames.extend(frame(DATA, u8::from(is_end), *stream, payload));
                    sending.window -= length;
                    connection -= length;
                    sending.sent += length;
                    moved.fetch_add(length as u64, Ordering::Relaxed);
                }
                server.try_send(frames);
            }
        }
    })
}

/// The most that a frame holds by default (RFC 9113 6.5.2).
const LARGE_FRAME: usize = 16 * 1024;

/// Less than the kernel takes of a response that its client does not read.
const IN_KERNEL: usize = 3 << 20;

/// The length of what others ask for beside the endless responses.
const BESIDE: usize = 8 << 20;

/// So many clients that do not read share a connection with one that does; what they are sent comes in
/// frames of this size.
fn stall(clients: usize, size: usize) {
    let moved = Arc::new(AtomicU64::new(0));
    let backend = endless(clients, size, &moved);
    let tinylb = alone(&[backend.url()], KEPT);
    let stalling: Vec<_> = (0..clients)
        .map(|_| {
            let mut client = Client::connect_narrow(tinylb.address(), 16 * 1024);
            client.send("GET /endless HTTP/1.1\r\nHost: test\r\n\r\n");
            client
        })
        .collect();
    let moved = stalled(&moved);
    let peak = peak_kib(&tinylb);
    println!("{clients} downloads stalled after {moved} bytes at {peak} KiB");
    assert!(peak < 128 * 1024, "{peak} KiB");
    let mut client = tinylb.connect();
    // Behind everything that is on its way to the others.
    client.wire().stream().set_read_timeout(Some(4 * PATIENCE)).unwrap();
    let response = client.get("/beside");
    assert!(response.complete && response.body == large(BESIDE));
    assert_eq!(backend.connections(), 1, "it was beside them");
    drop(stalling);
    assert_eq!(tinylb.get("/beside").status, 200);
    assert_eq!(backend.connections(), 1, "clients that leave end streams, not connections");
}

#[test]
fn clients_that_do_not_read_stop_the_endpoint_and_nobody_else() {
    stall(60, 16 * 1024);
}

/// As a stream of small messages is sent, which cost more to keep than they are long.
#[test]
fn clients_that_do_not_read_small_messages_do_not_end_the_connection() {
    stall(24, 40);
}

/// The kind, flags and payload of a frame.
type Sent = (u8, u8, Vec<u8>);

type Field<'a> = (&'a str, &'a [u8]);

/// Answers each request with these frames.
fn framed(frames: &[Sent]) -> FramesBackend {
    let frames = frames.to_vec();
    FramesBackend::new(&[], move |mut server: Frames, _| {
        while let Some(asked) = server.find(|frame| frame.kind == HEADERS) {
            for (kind, flags, payload) in &frames {
                // It may be reset already.
                server.try_send(frame(*kind, *flags, asked.stream, payload));
            }
        }
    })
}

fn head(fields: &[Field<'_>], flags: u8) -> Sent {
    (HEADERS, END_HEADERS | flags, literals(fields))
}

fn data(payload: &[u8], flags: u8) -> Sent {
    (DATA, flags, payload.to_vec())
}

const OK: Field<'static> = (":status", b"200");
const TEN: Field<'static> = ("content-length", b"10");

#[test]
fn an_answer_that_is_not_as_long_as_it_says_never_looks_whole() {
    let cases: &[(&str, &[Sent])] = &[
        ("short", &[head(&[OK, TEN], 0), data(b"12345", END_STREAM)]),
        ("short, in two", &[head(&[OK, TEN], 0), data(b"12345", 0), data(b"", END_STREAM)]),
        ("long", &[head(&[OK, TEN], 0), data(b"1234567890+", END_STREAM)]),
        ("long, behind", &[head(&[OK, TEN], 0), data(b"1234567890", 0), data(b"+", END_STREAM)]),
        ("nothing", &[head(&[OK, TEN], END_STREAM)]),
        (
            "short, with trailers",
            &[head(&[OK, TEN], 0), data(b"1", 0), head(&[("a", b"b")], END_STREAM)],
        ),
        (
            "two lengths",
            &[head(&[OK, TEN, ("content-length", b"11")], 0), data(b"1234567890", END_STREAM)],
        ),
        (
            "no length",
            &[head(&[OK, ("content-length", b"ten")], 0), data(b"1234567890", END_STREAM)],
        ),
        (
            "a list",
            &[head(&[OK, ("content-length", b"10, 10")], 0), data(b"1234567890", END_STREAM)],
        ),
    ];
    for (what, frames) in cases {
        let backend = framed(frames);
        let tinylb = alone(&[backend.url()], &format!("retry = false\n{KEPT}"));
        for version in ["1.1", "1.0"] {
            println!("{what}, HTTP/{version}");
            let mut client = tinylb.connect();
            client.send(format!("GET / HTTP/{version}\r\nHost: test\r\n\r\n"));
            match client.try_response_to("GET") {
                None => {}
                Some(response) if response.status == 502 => {
                    assert!(
                        response.proxy_status().contains("error=http_"),
                        "{what}: {response:?}"
                    );
                }
                Some(response) => {
                    let is_cut = !response.complete || client.wire().end() == Some(End::Reset);
                    assert!(is_cut, "{what}, HTTP/{version}: {response:?}");
                    assert!(response.body.len() < 10, "{what}: {response:?}");
                }
            }
        }
    }
}

#[test]
fn heads_that_are_malformed_are_a_502() {
    let cases: &[(&str, &[Field<'_>])] = &[
        ("no status", &[("a", b"b")]),
        ("a status that is none", &[(":status", b"abc")]),
        ("101", &[(":status", b"101")]),
        ("connection", &[OK, ("connection", b"close")]),
        ("transfer-encoding", &[OK, ("transfer-encoding", b"chunked")]),
        ("upper case", &[OK, ("Server", b"x")]),
        ("a line end", &[OK, ("a", b"b\r\nc: d")]),
        ("a pseudo-field behind a field", &[OK, ("a", b"b"), (":status", b"200")]),
        ("an unknown pseudo-field", &[OK, (":other", b"b")]),
        ("a field without a name", &[OK, ("", b"b")]),
        ("a space before a colon", &[OK, ("a ", b"b")]),
    ];
    for (what, fields) in cases {
        let backend = framed(&[head(fields, END_STREAM)]);
        let tinylb = alone(&[backend.url()], KEPT);
        let response =
            tinylb.exchange("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(response.status, 502, "{what}: {:?}", response.head.raw);
        println!("{what}: {}", response.proxy_status());
        // Some are a fault of the connection for the library.
        let is_told = ["http_protocol_error", "connection_terminated"];
        assert!(is_told.iter().any(|error| response.proxy_status().contains(error)), "{what}");
    }
}

#[test]
fn a_head_that_is_too_large_is_a_502() {
    let value = vec![b'a'; 15_000];
    let fields = [OK, ("a", &value), ("b", &value), ("c", &value)];
    let block = literals(&fields);
    let backend = FramesBackend::new(&[], move |mut server: Frames, _| {
        let Some(asked) = server.find(|frame| frame.kind == HEADERS) else { return };
        let mut pieces = block.chunks(16 * 1024).peekable();
        let (mut kind, mut flags) = (HEADERS, END_STREAM);
        while let Some(piece) = pieces.next() {
            flags |= if pieces.peek().is_none() { END_HEADERS } else { 0 };
            server.send(frame(kind, flags, asked.stream, piece));
            (kind, flags) = (crate::support::http2::CONTINUATION, 0);
        }
        server.find(|_| false);
    });
    let tinylb = alone(&[backend.url()], KEPT);
    let response = tinylb.get("/");
    response.assert_fault(502, "http_response_header_section_size");
}

#[test]
fn trailers_pass_and_may_be_all_there_is() {
    let backend = Http2Backend::new(async |mut asked: Asked| {
        let mut stream = asked.begin();
        if asked.path() == "/body" {
            stream.send_data("body".into(), false).unwrap();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1234".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
    });
    let tinylb = alone(&[backend.url()], KEPT);
    for (path, body) in [("/body", "body"), ("/none", "")] {
        let mut client = tinylb.connect();
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\nTE: trailers\r\nConnection: TE\r\n\r\n"
        ));
        let response = client.response();
        assert_eq!((response.text().as_str(), response.complete), (body, true));
        assert_eq!(response.trailers, [("x-sum".to_owned(), "1234".to_owned())], "{path}");
        client.assert_open();
        let over_http2 = run(async {
            let request = Request::get(format!("http://test{path}")).header("te", "trailers");
            Streams::connect(&tinylb).await.exchange(request.body(&b""[..]).unwrap()).await
        });
        assert_eq!(over_http2.text(), body);
        assert_eq!(over_http2.trailers.unwrap()["x-sum"], "1234");
    }
}

#[test]
fn informational_answers_pass_before_the_final_one() {
    let backend = Http2Backend::new(async |mut asked: Asked| {
        for link in ["</a>", "</b>"] {
            let hints = Response::builder().status(103).header("link", link);
            asked.respond.send_informational(hints.body(()).unwrap()).unwrap();
        }
        if asked.head.headers.contains_key("expect") {
            let go_on = Response::builder().status(100).body(()).unwrap();
            asked.respond.send_informational(go_on).unwrap();
        }
        let (body, _) = asked.whole().await.unwrap();
        asked.ok(&format!("{} bytes", body.len()));
    });
    let tinylb = alone(&[backend.url()], KEPT);
    let mut client = tinylb.connect();
    client
        .send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    let statuses: Vec<_> = (0..3).map(|_| client.response().status).collect();
    assert_eq!(statuses, [103, 103, 100]);
    client.send("body");
    assert_eq!(client.response().text(), "4 bytes");
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let statuses: Vec<_> = (0..3).map(|_| client.response().status).collect();
    assert_eq!(statuses, [103, 103, 200]);
}

#[test]
fn answers_without_a_body_leave_the_connection_as_it_was() {
    let backend = Http2Backend::new(async |mut asked: Asked| {
        let path = asked.path().to_owned();
        let (status, length) = match path.as_str() {
            "/204" => (204, None),
            "/304" => (304, Some("1234")),
            "/304-open" => (304, None),
            "/205" => (205, Some("0")),
            _ => (200, Some("1234")),
        };
        let mut head = Response::builder().status(status);
        if let Some(length) = length {
            head = head.header("content-length", length);
        }
        let is_end = !path.ends_with("open");
        let mut stream = asked.respond.send_response(head.body(()).unwrap(), is_end).unwrap();
        if !is_end {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let _ = stream.send_data(Bytes::new(), true);
        }
    });
    let tinylb = alone(&[backend.url()], KEPT);
    let mut client = tinylb.connect();
    for (method, path, status, length) in [
        ("HEAD", "/head", 200, Some("1234")),
        ("HEAD", "/head-open", 200, Some("1234")),
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("1234")),
        ("GET", "/304-open", 304, None),
        ("GET", "/205", 205, Some("0")),
    ] {
        for _ in 0..2 {
            client.send(format!("{method} {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
            let response = client.response_to(method);
            assert_eq!(response.status, status, "{method} {path}");
            assert_eq!(response.head.get("content-length"), length, "{method} {path}");
        }
    }
    assert_eq!(backend.connections(), 1);
}

/// The endpoint has said all before it has read all, and asks for no more (RFC 9113 8.1).
#[test]
fn an_answer_before_the_end_of_the_request_is_whole() {
    let backend = FramesBackend::new(&[], |mut server: Frames, _| {
        while let Some(asked) = server.find(|frame| frame.kind == HEADERS) {
            let fields: [(&str, &[u8]); 2] = [(":status", b"403"), ("content-length", b"7")];
            let no_error = frame(RST_STREAM, 0, asked.stream, &0_u32.to_be_bytes());
            let frames = [head(&fields, 0), data(b"no more", END_STREAM)];
            let frames =
                frames.map(|(kind, flags, payload)| frame(kind, flags, asked.stream, &payload));
            server.send([frames.concat(), no_error].concat());
        }
    });
    let tinylb = alone(&[backend.url()], KEPT);
    for _ in 0..20 {
        let mut client = tinylb.connect();
        client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\nbeginning");
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (403, "no more"));
        assert!(response.complete);
        assert!(response.head.lists("connection", "close"), "the rest is not read");
    }
    assert_eq!(backend.connections(), 1);
    assert_eq!(tinylb.metric("tinylb_endpoint_failures_total", &[]), 0.0);
}

#[test]
fn an_upload_that_breaks_off_never_looks_whole() {
    let backend = Http2Backend::held();
    let tinylb = alone(&[backend.url()], KEPT);
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let mut client = tinylb.connect();
        let part = if framing.contains("chunked") { "5\r\n12345\r\n" } else { "12345" };
        client.send(format!("POST / HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n{part}"));
        let mut asked = backend.next();
        drop(client);
        let whole =
            run(async { tokio::time::timeout(Duration::from_secs(10), asked.whole()).await });
        let error = whole.expect("the stream ends").unwrap_err();
        assert!(error.is_reset(), "{error:?}");
    }
    assert_eq!(backend.connections(), 1);
}
