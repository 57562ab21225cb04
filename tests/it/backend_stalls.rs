//! Backends that keep us waiting, at every stage, under short timeouts.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Backend, Tinylb, assert_within, config, ok};

/// The timeout of each of `keys` in the balancers of these tests where it is to pass.
const SHORT: Duration = Duration::from_millis(300);

/// The same where something has to be in time, again and again: ten of [`PAUSE`] are longer than that, and
/// each leaves a busy machine more than a second.
const LONGER: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(250);

/// A balancer before `backend` that waits so long for the steps called `keys`, and for a minute for others.
fn waiting(backend: &Backend, time: Duration, keys: &[&str]) -> Tinylb {
    let times = keys.iter().map(|key| format!("{key} = \"{}ms\"", time.as_millis()));
    let times = times.collect::<Vec<_>>().join(", ");
    Tinylb::run(&config(&[backend.url()], "", &format!("timeouts = {{ {times} }}")))
}

/// A backend that reads a whole request, sends `begun`, and then nothing.
fn stalling(begun: &'static str) -> Backend {
    Backend::new(move |mut conn| {
        if conn.request().is_some() {
            conn.send(begun);
            conn.drain();
        }
    })
}

#[test]
fn no_whole_head_in_time_is_a_504() {
    for begun in
        ["", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", "HTTP/1.1 103 E\r\n\r\n"]
    {
        let backend = stalling(begun);
        let tinylb = waiting(&backend, SHORT, &["response"]);
        let began = Instant::now();
        let mut client = tinylb.connect();
        let mut response = client.get("/");
        if response.status == 103 {
            response = client.response();
        }
        response.assert_fault(504, "http_response_timeout");
        assert!(began.elapsed() >= Duration::from_millis(290), "not before its time");
        backend.end_of(0);
    }
}

#[test]
fn a_body_that_is_owed_and_stops_is_cut() {
    let backend = stalling("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    let tinylb = waiting(&backend, SHORT, &["body"]);
    let mut client = tinylb.connect();
    let response = client.get("/");
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    assert!(!response.complete);
    client.assert_closed();
    backend.end_of(0);
}

/// A stream without an end in sight owes nothing: it may be quiet for as long as it likes.
#[test]
fn an_event_stream_may_be_quiet() {
    for (head, last) in [
        ("Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n", "3\r\ntwo\r\n0\r\n\r\n"),
        ("Content-Type: text/event-stream\r\n\r\none", "two"),
    ] {
        let backend = Backend::new(move |mut conn| {
            if conn.request().is_some() {
                conn.send(format!("HTTP/1.1 200 OK\r\n{head}"));
                thread::sleep(Duration::from_millis(1000));
                conn.send(last);
            }
        });
        let response = waiting(&backend, SHORT, &["body"]).get("/");
        assert_eq!((response.complete, response.text().as_str()), (true, "onetwo"));
    }
}

#[test]
fn a_backend_that_does_not_read_is_a_504() {
    let (done, over) = mpsc::channel::<()>();
    let over = Mutex::new(over);
    let backend = Backend::new(move |conn| {
        let _ = over.lock().unwrap().recv();
        drop(conn);
    });
    let tinylb = waiting(&backend, SHORT, &["response", "body"]);
    let mut client = tinylb.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    let piece = vec![b'x'; 64 * 1024];
    let mut sent = 0_usize;
    while sent < 1_000_000_000 && client.try_send(&piece).is_ok() {
        sent += piece.len();
        if client.wire().is_readable() {
            break;
        }
    }
    assert!(sent < 500_000_000, "what is not read is not taken in");
    assert_eq!(client.response().status, 504);
    drop(done);
}

/// A listener whose accept queue is full: a connection to it is never made.
struct Deaf {
    socket: socket2::Socket,
    _queued: Vec<TcpStream>,
}

impl Deaf {
    fn new() -> Self {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
        let queued: Vec<_> = (0..64).map_while(|_| connect()).collect();
        assert!(queued.len() < 64, "the queue fills");
        Self { socket, _queued: queued }
    }

    fn url(&self) -> String {
        format!("http://{}", self.socket.local_addr().unwrap().as_socket().unwrap())
    }
}

#[test]
fn a_connection_that_is_not_made_in_time_is_a_504() {
    let deaf = Deaf::new();
    let tinylb = Tinylb::run(&config(&[deaf.url()], "", "timeouts = { connect = \"300ms\" }"));
    tinylb.get("/").assert_fault(504, "connection_timeout");
}

#[test]
fn a_connection_that_is_not_made_in_time_is_tried_elsewhere() {
    let (deaf, backend) = (Deaf::new(), Backend::named("elsewhere"));
    let short = "timeouts = { connect = \"500ms\" }";
    let tinylb = Tinylb::run(&config(&[deaf.url(), backend.url()], "", short));
    for _ in 0..10 {
        let response =
            tinylb.exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
        assert_eq!((response.status, response.text().as_str()), (200, "elsewhere"));
    }
    assert!(backend.requests().iter().all(|request| request.body == b"body"));
}

/// The timeout is of progress: an event stream may go on for as long as it likes.
#[test]
fn a_body_that_drips_lives() {
    let backend = Backend::new(|mut conn| {
        if conn.request().is_none() {
            return;
        }
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
        for _ in 0..10 {
            thread::sleep(PAUSE);
            conn.send(".");
        }
    });
    let response = waiting(&backend, LONGER, &["body"]).get("/");
    assert_eq!((response.complete, response.text().as_str()), (true, ".........."));
}

/// The response is owed once the request is whole, not while the client still sends it.
#[test]
fn a_slow_request_body_is_not_the_backends_fault() {
    let backend = Backend::named("patient");
    let tinylb = waiting(&backend, LONGER, &["response", "body"]);
    let mut client = tinylb.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    for _ in 0..10 {
        thread::sleep(PAUSE);
        client.send(".");
    }
    assert_eq!(client.response().text(), "patient");
}

#[test]
fn idle_connections_are_kept_for_their_time_and_no_longer() {
    // Where nothing is said they are kept for four seconds.
    assert_within(Duration::from_secs(3), || {
        let backend = Backend::named("fine");
        let tinylb = waiting(&backend, SHORT, &["idle"]);
        let mut client = tinylb.connect();
        assert_eq!(client.get("/").status, 200);
        let began = Instant::now();
        backend.end_of(0);
        let took = began.elapsed();
        assert_eq!(client.get("/").status, 200, "the client's connection has a time of its own");
        took
    });
}

#[test]
fn a_backends_keep_alive_timeout_is_honoured() {
    let answer = "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1, max=100\r\nContent-Length: 2\r\n\r\nok";
    let backend = Backend::answering(answer);
    let tinylb = Tinylb::run(&config(&[backend.url()], "", "timeouts = { idle = \"1h\" }"));
    assert_eq!(tinylb.get("/").text(), "ok");
    backend.end_of(0);
}

#[test]
fn idle_connections_go_when_their_peer_closes() {
    let backend = Backend::new(|mut conn| {
        if conn.request().is_some() {
            conn.send(ok("and bye"));
            conn.wire.half_close();
            conn.drain();
        }
    });
    let tinylb = Tinylb::run(&config(&[backend.url()], "", "timeouts = { idle = \"1h\" }"));
    assert_eq!(tinylb.get("/").text(), "and bye");
    backend.end_of(0);
}

/// Between chunks nothing is owed; but a chunk that is begun is.
#[test]
fn a_chunk_that_is_begun_and_stops_is_cut() {
    let backend = stalling("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc");
    let tinylb = waiting(&backend, SHORT, &["body"]);
    let mut client = tinylb.connect();
    let began = Instant::now();
    let response = client.get("/");
    assert_eq!((response.status, response.complete), (200, false));
    assert!("abc".starts_with(&response.text()), "{:?}", response.text());
    assert!(began.elapsed() >= Duration::from_millis(290), "not before its time");
    client.assert_closed();
    backend.end_of(0);
}

#[test]
fn a_pause_between_chunks_may_be_long() {
    let backend = Backend::new(|mut conn| {
        if conn.request().is_some() {
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            for piece in ["3\r\none\r\n", "3\r\ntwo\r\n", "0\r\n\r\n"] {
                thread::sleep(Duration::from_millis(700));
                conn.send(piece);
            }
        }
    });
    let response = waiting(&backend, SHORT, &["body"]).get("/");
    assert_eq!((response.complete, response.text().as_str()), (true, "onetwo"));
}
