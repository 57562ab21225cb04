//! How connections of HTTP/2 begin and end.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use http::Request;

use crate::support::http2::{
    ACK, Fate, Frames, GOAWAY, HEADERS, PING, PREFACE, SETTINGS, frame, request,
};
use crate::support::streams::{Answer, Streams, run};
use crate::support::{
    Backend, Client, Gate, Held, PATIENCE, Signal, Tinylb, config, eventually, ok,
};

/// The stream that a GOAWAY says was the last to be served.
fn last_stream(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[..4].try_into().unwrap())
}

/// What was begun ends well, what comes before the client can know is served as well, and then it is over.
#[test]
fn a_drain_is_told_and_loses_nothing() {
    const UNKNOWN: u32 = 0x7fff_ffff;
    let held = Held::new("held");
    let mut tinylb = Tinylb::start(&[held.url()], &[]);
    let mut client = Frames::connect(&tinylb);
    client.get(1, "/first");
    held.wait_for(1);
    tinylb.signal(Signal::TERM);
    let told = client.find(|frame| frame.kind == GOAWAY).expect("it is told");
    assert_eq!((told.code(), last_stream(&told.payload)), (0, UNKNOWN));
    let ping = client.find(|frame| frame.kind == PING && frame.flags & ACK == 0).expect("a ping");
    client.get(3, "/second");
    client.send(frame(PING, ACK, 0, &ping.payload));
    let told = client.find(|frame| frame.kind == GOAWAY).expect("it is told which is the last");
    assert_eq!((told.code(), last_stream(&told.payload)), (0, 3));
    // Nobody promised anything of this one.
    client.get(5, "/third");
    held.wait_for(2);
    held.answer("/second");
    assert_eq!(client.answer(3), (200, b"held".to_vec()));
    assert!(tinylb.is_running(), "it waits");
    held.answer("/first");
    assert_eq!(client.answer(1), (200, b"held".to_vec()));
    assert!(client.next().is_none(), "the connection is over");
    assert_eq!(tinylb.wait_exit().code(), Some(0));
    assert_eq!(held.backend().requests().len(), 2);
}

#[test]
fn a_drain_in_the_middle_of_bodies() {
    let gate = Gate::new();
    let backend = Backend::new({
        let gate = gate.clone();
        move |mut conn| {
            let head = conn.head().unwrap();
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
            gate.pass();
            let request = conn.body(head).unwrap();
            conn.send(format!("{:x}\r\n", request.body.len()));
            conn.send(request.body);
            conn.send("\r\n0\r\n\r\n");
        }
    });
    let mut tinylb = Tinylb::before(&backend);
    run(async {
        let mut streams = Streams::connect(&tinylb).await;
        let post = Request::post("http://test/").body(()).unwrap();
        let (response, mut stream) = streams.send(post, false).await;
        stream.send_data("some".into(), false).unwrap();
        let head = response.await.unwrap();
        tinylb.signal(Signal::TERM);
        let address = tinylb.address();
        let listening = tokio::task::spawn_blocking(move || {
            eventually("it stops listening", || TcpStream::connect(address).is_err().then_some(()));
        });
        listening.await.unwrap();
        gate.open();
        stream.send_data(" more".into(), true).unwrap();
        let answer = Answer::rest(head).await;
        assert_eq!((answer.text().as_str(), answer.reset), ("firstsome more", None));
        assert!(streams.end().await.is_ok());
    });
    assert_eq!(tinylb.wait_exit().code(), Some(0));
}

/// Neither pings nor settings keep a connection, and streams are not idle.
#[test]
fn a_connection_without_streams_ends() {
    let gate = Gate::new();
    let backend = Backend::new({
        let gate = gate.clone();
        move |mut conn| {
            while conn.request().is_some() {
                gate.pass();
                conn.send(ok("late"));
            }
        }
    });
    let tinylb = Tinylb::run(&config(&[backend.url()], "timeouts = { idle = \"2s\" }", ""));
    let mut client = Frames::connect(&tinylb);
    let began = Instant::now();
    client.get(1, "/");
    while began.elapsed() < Duration::from_secs(3) {
        assert!(client.is_answering(), "while a stream is open, it is not idle");
        std::thread::sleep(Duration::from_millis(50));
    }
    gate.open();
    assert_eq!(client.answer(1), (200, b"late".to_vec()));
    let ended = Instant::now();
    let mut reader = Frames::over(client.stream());
    let told = std::thread::scope(|scope| {
        scope.spawn(|| {
            while client.try_send(frame(PING, 0, 0, &[0; 8])) {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let told = reader.find(|frame| frame.kind == GOAWAY).expect("it is told");
        assert!(reader.find(|_| false).is_none());
        told
    });
    assert_eq!(told.code(), 0);
    let took = ended.elapsed();
    assert!((Duration::from_secs(2)..PATIENCE).contains(&took), "{took:?}");
}

#[test]
fn beginnings_that_do_not_go_on() {
    let backend = Backend::named("fine");
    let text = config(&[backend.url()], "timeouts = { head = \"1s\", idle = \"2s\" }", "");
    let tinylb = Tinylb::run(&text);
    let settings = frame(SETTINGS, 0, 0, b"");
    let begins = [
        &PREFACE[..18],
        &PREFACE[..20],
        &PREFACE[..23],
        PREFACE,
        &[PREFACE, &settings[..5]].concat(),
    ];
    let address = tinylb.address();
    std::thread::scope(|scope| {
        for begin in begins {
            scope.spawn(move || {
                let mut client = Client::connect(address);
                let began = Instant::now();
                client.send(begin);
                client.wire().rest();
                let took = began.elapsed();
                assert!(
                    (Duration::from_secs(1)..Duration::from_secs(9)).contains(&took),
                    "{took:?}"
                );
            });
        }
    });
    // Before it is known to be HTTP/2, it is answered as HTTP/1.1.
    let mut client = Client::connect(tinylb.address());
    client.send(&PREFACE[..10]);
    client.response().assert_fault(408, "http_request_error");
    // What begins like it and is something else is closed without a word, and at once.
    for other in ["XX\r\n\r\n", "SM\r\n\rX", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut client = Client::connect(tinylb.address());
        client.send([&PREFACE[..18], other.as_bytes()].concat());
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let rest = client.wire().rest();
        // At most the settings that the balancer begins with.
        assert!(!rest.windows(5).any(|bytes| bytes == b"HTTP/"), "{rest:?}");
    }
    assert_eq!(backend.connections(), 0);
}

#[test]
fn a_preface_in_pieces() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    let head = frame(HEADERS, 5, 1, &crate::support::http2::literals(&request("GET", "/")));
    let all = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]), &head].concat();
    for size in [1, 7, 18, 19, 24, 33, 1000] {
        let mut client = Frames::over(TcpStream::connect(tinylb.address()).unwrap());
        for piece in all.chunks(size) {
            client.send(piece);
        }
        assert_eq!(client.answer(1), (200, b"fine".to_vec()), "in pieces of {size}");
    }
}

#[test]
fn a_second_beginning() {
    const FRAME_SIZE_ERROR: u32 = 6;
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    let mut client = Frames::connect(&tinylb);
    client.assert_serves(1);
    client.send(PREFACE);
    assert_eq!(client.fate(3), Fate::GoAway(FRAME_SIZE_ERROR));
    client.find(|_| false);
}

/// Limits hold whether or not the client says that it has heard of them.
#[test]
fn settings_that_are_never_acknowledged() {
    const REFUSED_STREAM: u32 = 7;
    let held = Held::new("held");
    let tinylb = Tinylb::start(&[held.url()], &[]);
    let mut client = Frames::unacknowledged(&tinylb, &[]);
    for number in 0..256 {
        client.get(2 * number + 1, &format!("/{number}"));
    }
    held.wait_for(256);
    client.get(513, "/one-too-many");
    assert_eq!(client.fate(513), Fate::Reset(REFUSED_STREAM));
    let large = vec![b'a'; 40 * 1024];
    held.open();
    let mut client = Frames::unacknowledged(&tinylb, &[]);
    let fields = [&request("GET", "/large")[..], &[("a", &large), ("b", &large)]].concat();
    client.head_in_frames(1, &fields, true);
    assert_eq!(client.fate(1), Fate::Answered(431));
    client.assert_serves(3);
    // So do the windows: more than the default is too much.
    client.head(5, &request("POST", "/post"), false);
    for _ in 0..5 {
        client.try_send(frame(0, 0, 5, &[b'x'; 16 * 1024]));
    }
    assert!(matches!(client.fate(5), Fate::Reset(3) | Fate::GoAway(3)));
}

/// Which takes as long as clients of real networks are given.
#[test]
#[ignore = "it takes 42 s, and what it is about is tested beside the code"]
fn a_client_that_is_gone_is_asked_and_given_up() {
    let backend = Backend::new(|mut conn| {
        conn.request();
        conn.wire.stream().set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        conn.drain();
    });
    let tinylb = Tinylb::run(&config(&[backend.url()], "", "timeouts = { response = \"5m\" }"));
    let mut client = Frames::connect(&tinylb);
    let began = Instant::now();
    client.get(1, "/");
    client.set_patience(Duration::from_secs(45));
    let ping = client.find(|frame| frame.kind == PING).expect("a ping");
    assert!((29..33).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(ping.flags & ACK, 0);
    assert!(client.find(|_| false).is_none());
    assert!((39..45).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    backend.end_of(0);
}
