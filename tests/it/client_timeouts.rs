//! Clients that take their time: each stage has its own, and none is paid by anybody else.

use std::io::{ErrorKind, Write};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Backend, Client, PATIENCE, Tinylb, config};

const SHORT: &str = "timeouts = { head = \"400ms\", idle = \"400ms\", body = \"400ms\" }";

fn impatient(backend: &Backend) -> Tinylb {
    Tinylb::run(&config(&[backend.url()], SHORT, ""))
}

/// A balancer with one timeout, `key`, that is several times as long as [`PAUSE`].
fn patient(backend: &Backend, key: &str) -> Tinylb {
    Tinylb::run(&config(&[backend.url()], &format!("timeouts = {{ {key} = \"2s\" }}"), ""))
}

/// What clients wait between two steps that are each in time: ten of them are longer than the timeout of
/// [`patient`], and each leaves a busy machine more than a second.
const PAUSE: Duration = Duration::from_millis(250);

#[test]
fn a_head_that_stops_is_a_408() {
    let backend = Backend::named("reached");
    let tinylb = impatient(&backend);
    for begun in ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n"] {
        let began = Instant::now();
        let mut client = tinylb.connect();
        client.send(begun);
        client.response().assert_fault(408, "http_request_error");
        assert!(began.elapsed() >= Duration::from_millis(390), "not before its time");
        client.assert_closed();
    }
    assert_eq!(backend.received(), b"");
}

/// It is the whole head that has a time, not each byte.
#[test]
fn a_head_that_drips_is_a_408() {
    let backend = Backend::named("reached");
    let tinylb = impatient(&backend);
    let mut client = tinylb.connect();
    let began = Instant::now();
    for byte in format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(2000)).bytes() {
        // What is said has to be read before the connection is closed.
        if client.wire().is_readable() || client.try_send([byte]).is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    client.response().assert_fault(408, "http_request_error");
    assert_eq!(backend.received(), b"");
}

#[test]
fn an_idle_connection_closes_silently() {
    let backend = Backend::named("fine");
    let tinylb = impatient(&backend);
    let began = Instant::now();
    tinylb.connect().assert_closed();
    assert!(began.elapsed() >= Duration::from_millis(390), "not before its time");
    let tinylb = patient(&backend, "idle");
    let mut client = tinylb.connect();
    for _ in 0..10 {
        thread::sleep(PAUSE);
        assert_eq!(client.get("/").status, 200, "the time is from the last response");
    }
    client.assert_closed();
}

#[test]
fn a_request_body_that_stops_is_a_408() {
    for body in [
        "Content-Length: 10\r\n\r\nfirst",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nfi",
    ] {
        let backend = Backend::named("taken for whole");
        let tinylb = impatient(&backend);
        let mut client = tinylb.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{body}"));
        client.response().assert_fault(408, "http_request_error");
        client.assert_closed();
        if backend.connections() > 0 {
            backend.end_of(0);
        }
        assert_eq!(backend.requests().len(), 0, "{body:?}");
    }
}

#[test]
fn a_request_body_that_drips_lives() {
    let backend = Backend::named("fine");
    let tinylb = patient(&backend, "body");
    let mut client = tinylb.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n");
    for _ in 0..12 {
        thread::sleep(PAUSE);
        client.send(".");
    }
    assert_eq!(client.response().text(), "fine");
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let (ended, ends) = mpsc::channel();
    let backend = Backend::new(move |mut conn| {
        conn.request().unwrap();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2000000000\r\n\r\n");
        let piece = vec![b'x'; 64 * 1024];
        while let Ok(1..) = conn.wire.stream().write(&piece) {}
        ended.send(()).unwrap();
    });
    let tinylb = impatient(&backend);
    let mut client = Client::connect_narrow(tinylb.address(), 16 * 1024);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    ends.recv_timeout(PATIENCE).expect("the backend's connection is closed too");
    let response = client.response();
    assert!(!response.complete && response.body.len() < 100_000_000, "{}", response.body.len());
}

/// While a backend works, its client owes nothing.
#[test]
fn a_client_that_waits_is_not_idle() {
    let backend = Backend::new(|mut conn| {
        while conn.request().is_some() {
            thread::sleep(Duration::from_millis(1000));
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nworth it");
        }
    });
    let tinylb = impatient(&backend);
    let mut client = tinylb.connect();
    assert_eq!(client.get("/").text(), "worth it");
}

/// A request that fills a read to its last byte has not begun another one.
#[test]
fn a_request_as_large_as_a_read_leaves_its_connection_idle() {
    let backend = Backend::named("fine");
    let times = "timeouts = { head = \"300ms\", idle = \"5m\" }";
    let tinylb = Tinylb::run(&config(&[backend.url()], times, ""));
    let mut clients = Vec::new();
    for total in [16_383, 16_384, 16_385, 32_768] {
        for (first, last) in [("GET / HTTP/1.1\r\nHost: a\r\nX: ", "\r\n\r\n"), (POST, "")] {
            let mut client = tinylb.connect();
            let pad = "v".repeat(total - first.len() - last.len());
            let first = first.replace("00000", &format!("{:05}", pad.len()));
            client.send(format!("{first}{pad}{last}"));
            assert_eq!(client.response().status, 200, "{total}");
            clients.push((total, client));
        }
    }
    let patience = Duration::from_millis(1000);
    let began = Instant::now();
    for (total, client) in &mut clients {
        let left = patience.saturating_sub(began.elapsed()).max(Duration::from_millis(1));
        let stream = client.wire().stream();
        stream.set_read_timeout(Some(left)).unwrap();
        let peeked = stream.peek(&mut [0]).map_err(|e| e.kind());
        assert_eq!(
            peeked,
            Err(ErrorKind::WouldBlock),
            "{total}: nothing is said, nor is it closed"
        );
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    for (_, mut client) in clients {
        client.assert_open();
    }
}

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 00000\r\n\r\n";
