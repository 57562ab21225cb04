//! Bodies of requests that are sent again: all of them, byte for byte, or not at all.

use crate::support::{Backend, Gate, Tinylb, ok, ranked};

/// Bytes in which a piece that is lost, doubled or moved shows.
fn body(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 251) as u8).collect()
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in body.chunks(size) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

/// A PUT of `body` in both framings: the head, and what follows.
fn puts(body: &[u8]) -> [(String, Vec<u8>); 2] {
    let head = |framing| format!("PUT /put HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
    [
        (head(format!("Content-Length: {}", body.len())), body.to_vec()),
        (head("Transfer-Encoding: chunked".into()), chunked(body, 1000)),
    ]
}

/// Takes in the first head and at least `length` bytes behind it, then resets and opens `gate`.
fn resetting_after(length: usize, gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::new(move |mut conn| {
        if conn.head().is_some() && conn.index == 0 {
            assert_eq!(conn.wire.take(length).len(), length);
            conn.reset();
            gate.open();
        }
    })
}

#[test]
fn after_a_reset_behind_the_whole_body_it_is_sent_again() {
    for length in [0, 1, 5_000, 20_000, 65_536] {
        let body = body(length);
        for (head, framed) in puts(&body) {
            let (failing, other) = (Backend::resetting(), Backend::named("other"));
            let tinylb = Tinylb::run(&ranked(&[failing.url(), other.url()], "", ""));
            let mut client = tinylb.connect();
            client.send(&head);
            client.send(&framed);
            assert_eq!(client.response().text(), "other", "{head}");
            assert_eq!(failing.request().body, body);
            let again = other.request();
            assert!(again.body == body, "{head}: {} bytes of {length}", again.body.len());
            assert_eq!(again.chunked, head.contains("chunked"));
            tinylb.assert_tries("/put", 2, Some("reset"));
            assert_eq!(tinylb.told("/put")["bytes_in"], length, "each byte is counted once");
            client.assert_open();
        }
    }
}

#[test]
fn after_a_reset_in_mid_body_it_is_sent_again_from_the_start() {
    let body = body(30_000);
    for (head, framed) in puts(&body) {
        for cut in [1, 999, 8_192, 20_000] {
            let gate = Gate::new();
            let (failing, other) = (resetting_after(cut, &gate), Backend::named("other"));
            let tinylb = Tinylb::run(&ranked(&[failing.url(), other.url()], "", ""));
            let mut client = tinylb.connect();
            client.send(&head);
            client.send(&framed[..cut + 1000]);
            gate.pass();
            client.send(&framed[cut + 1000..]);
            assert_eq!(client.response().text(), "other", "{cut}");
            assert!(other.request().body == body, "{head} {cut}: {}", other.request().body.len());
            client.assert_open();
        }
    }
}

/// What was read before it failed is there still, and what comes behind it need not be kept.
#[test]
fn what_is_still_to_come_may_be_longer_than_what_is_kept() {
    let body = body(200_000);
    for (head, framed) in puts(&body) {
        let gate = Gate::new();
        let failing = resetting_after(500, &Gate::new());
        let other = Backend::new({
            let gate = gate.clone();
            move |mut conn| {
                while let Some(head) = conn.head() {
                    gate.open();
                    if conn.body(head).is_some() {
                        conn.send(ok("other"));
                    }
                }
            }
        });
        let retry = "retry = { buffer = \"1KiB\" }";
        let tinylb = Tinylb::run(&ranked(&[failing.url(), other.url()], "", retry));
        let mut client = tinylb.connect();
        client.send(&head);
        client.send(&framed[..500]);
        gate.pass();
        client.send(&framed[500..]);
        assert_eq!(client.response().text(), "other");
        assert!(other.request().body == body, "{head}: {}", other.request().body.len());
        client.assert_open();
    }
}

#[test]
fn a_body_that_is_more_than_is_kept_is_not_sent_again() {
    for (length, status) in [(1024, 200), (1025, 502), (100_000, 502)] {
        for (head, framed) in puts(&body(length)) {
            let (failing, other) = (Backend::resetting(), Backend::named("other"));
            let retry = "retry = { buffer = \"1KiB\" }";
            let tinylb = Tinylb::run(&ranked(&[failing.url(), other.url()], "", retry));
            let mut client = tinylb.connect();
            client.send(&head);
            client.send(&framed);
            let response = client.response();
            assert_eq!(response.status, status, "{length}");
            if status == 502 {
                response.assert_fault(502, "connection_terminated");
                assert_eq!(other.connections(), 0);
            }
            assert_eq!(failing.requests().len(), 1);
        }
    }
}

/// Trailers are not kept.
#[test]
fn a_body_with_trailers_is_not_sent_again() {
    for te in ["", "TE: trailers\r\nConnection: te\r\n"] {
        let (failing, other) = (Backend::resetting(), Backend::named("other"));
        let tinylb = Tinylb::run(&ranked(&[failing.url(), other.url()], "", ""));
        let response = tinylb.exchange(format!(
            "PUT /put HTTP/1.1\r\nHost: a\r\n{te}Transfer-Encoding: chunked\r\n\r\n\
             4\r\nbody\r\n0\r\nX-Sum: 1\r\n\r\n"
        ));
        response.assert_fault(502, "connection_terminated");
        assert_eq!((failing.requests().len(), other.connections()), (1, 0));
    }
}

const EXPECTING: &str =
    "PUT /put HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";

/// Says that it wants the body, takes it in, and answers.
fn continuing() -> Backend {
    Backend::new(|mut conn| {
        let Some(head) = conn.head() else { return };
        conn.send("HTTP/1.1 100 Continue\r\n\r\n");
        if conn.body(head).is_some() {
            conn.send(ok("other"));
            conn.drain();
        }
    })
}

#[test]
fn who_waits_for_a_100_gets_it_from_the_endpoint_that_takes_over() {
    let failing = Backend::new(|mut conn| {
        if conn.head().is_some() {
            conn.reset();
        }
    });
    let other = continuing();
    let tinylb = Tinylb::run(&ranked(&[failing.url(), other.url()], "", ""));
    let mut client = tinylb.connect();
    client.send(EXPECTING);
    assert_eq!(client.response().status, 100);
    client.send("body");
    assert_eq!(client.response().text(), "other");
    assert_eq!(other.request().body, b"body");
    tinylb.assert_tries("/put", 2, Some("reset"));
}

#[test]
fn a_body_that_came_after_a_100_is_sent_again() {
    let failing = Backend::new(|mut conn| {
        let Some(head) = conn.head() else { return };
        conn.send("HTTP/1.1 100 Continue\r\n\r\n");
        conn.body(head);
        conn.reset();
    });
    let other = continuing();
    let tinylb = Tinylb::run(&ranked(&[failing.url(), other.url()], "", ""));
    let mut client = tinylb.connect();
    client.send(EXPECTING);
    assert_eq!(client.response().status, 100);
    client.send("body");
    let mut response = client.response();
    if response.status == 100 {
        response = client.response();
    }
    assert_eq!(response.text(), "other");
    assert_eq!((failing.request().body, other.request().body), (b"body".into(), b"body".into()));
    tinylb.assert_tries("/put", 2, Some("reset"));
}

/// The client is told to send by an endpoint that then fails, and sends to the next one.
#[test]
fn a_reset_between_the_100_and_the_body() {
    let gate = Gate::new();
    let failing = Backend::new({
        let gate = gate.clone();
        move |mut conn| {
            if conn.head().is_some() {
                conn.send("HTTP/1.1 100 Continue\r\n\r\n");
                gate.pass();
                conn.reset();
            }
        }
    });
    let other = continuing();
    let tinylb = Tinylb::run(&ranked(&[failing.url(), other.url()], "", ""));
    let mut client = tinylb.connect();
    client.send(EXPECTING);
    assert_eq!(client.response().status, 100);
    gate.open();
    let again = client.response();
    assert_eq!(again.status, 100, "another 100 is no harm (RFC 9110 15.2)");
    client.send("body");
    assert_eq!(client.response().text(), "other");
    assert_eq!(other.request().body, b"body");
}

/// The next request of a pipeline begins where this body ends, whoever got it at last.
#[test]
fn what_is_pipelined_behind_a_body_that_was_sent_twice_is_not_part_of_it() {
    let body = body(10_000);
    for (head, framed) in puts(&body) {
        let (failing, other) = (Backend::resetting(), Backend::named("other"));
        let urls = [failing.url(), other.url()];
        let tinylb = Tinylb::run(&ranked(&urls, "", "ejection = false"));
        let mut client = tinylb.connect();
        for _ in 0..3 {
            client.send(&head);
            client.send(&framed);
        }
        client.send("GET /last HTTP/1.1\r\nHost: a\r\n\r\n");
        for _ in 0..4 {
            assert_eq!(client.response().text(), "other");
        }
        let requests = other.requests();
        assert!(requests[..3].iter().all(|request| request.body == body));
        assert_eq!(requests[3].target(), "/last");
    }
}
