//! Connections to endpoints that must not serve another request: a response that announces a body it must not
//! have, stray bytes behind a response, and responses that begin before the request has been read.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Backend, Gate, Tinylb, config, eventually, ok};

/// A balancer whose only worker has one pool.
fn one_worker(backend: &Backend, upstream: &str) -> Tinylb {
    let file = config(&[backend.url()], "", upstream);
    Tinylb::run(&file.replace("workers = 2", "workers = 1"))
}

/// What looks like another client's answer.
const FORGED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";

/// Answers the first request of the first connection with `head`, and sends a forged response once `gate` is
/// open; answers everything else.
fn forging(head: String, gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::new(move |mut conn| {
        if conn.index == 0 {
            conn.request();
            conn.send(&head);
            gate.pass();
            conn.send(FORGED);
        }
        conn.answer_all(ok("true"));
    })
}

/// RFC 9110 8.6: a 204 has no Content-Length, and a body behind one would be the next client's answer.
#[test]
fn a_connection_is_not_kept_after_a_204_that_announces_a_body() {
    for announced in ["Content-Length: 43", "Transfer-Encoding: chunked"] {
        let empty = format!("HTTP/1.1 204 No Content\r\n{announced}\r\n\r\n");
        let backend = Backend::new(move |mut conn| {
            conn.request();
            conn.send(if conn.index == 0 { empty.clone() } else { ok("true") });
            if conn.request().is_some() {
                conn.send(FORGED);
            }
        });
        let tinylb = one_worker(&backend, "");
        let mut client = tinylb.connect();
        assert_eq!(client.get("/empty").status, 204, "{announced}");
        assert_eq!(client.get("/next").text(), "true", "{announced}");
    }
}

#[test]
fn a_connection_is_kept_after_a_204_without_a_body() {
    for fields in ["", "Content-Length: 0\r\n"] {
        let backend = Backend::answering(format!("HTTP/1.1 204 No Content\r\n{fields}\r\n"));
        let tinylb = one_worker(&backend, "");
        let mut client = tinylb.connect();
        for _ in 0..3 {
            assert_eq!(client.get("/empty").status, 204);
        }
        assert_eq!(backend.connections(), 1, "{fields}");
    }
}

/// The body of an informational response would be read as the final one.
#[test]
fn an_informational_response_that_announces_a_body_is_malformed() {
    let hints =
        format!("HTTP/1.1 103 Early Hints\r\nContent-Length: 43\r\n\r\n{FORGED}{}", ok("true"));
    let backend = Backend::answering(hints);
    let tinylb = one_worker(&backend, "");
    tinylb.get("/").assert_fault(502, "http_protocol_error");
}

/// Heads that announce a body which must not follow, and the methods that they answer.
fn without_their_body() -> Vec<(&'static str, String)> {
    let mut heads = Vec::new();
    for (method, status) in [("HEAD", "200 OK"), ("GET", "304 Not Modified")] {
        for announced in ["Content-Length: 43", "Transfer-Encoding: chunked", "X: no framing"] {
            if (method, announced) == ("GET", "X: no framing") {
                continue;
            }
            heads.push((method, format!("HTTP/1.1 {status}\r\n{announced}\r\n\r\n")));
        }
    }
    heads
}

/// A body behind HEAD or a 304 comes at once if it comes, so such a connection rests for a moment.
#[test]
fn a_connection_that_may_carry_a_stray_body_is_not_used_at_once() {
    for (method, head) in without_their_body() {
        let answer = head.clone();
        let backend = Backend::new(move |mut conn| {
            while let Some(request) = conn.request() {
                conn.send(if request.target() == "/first" { &*answer } else { FORGED });
                // A connection that is used again soon serves a forged response.
                if request.target() != "/first" {
                    break;
                }
            }
        });
        let tinylb = one_worker(&backend, "retry = false");
        eventually("two requests follow each other closely", || {
            let (mut client, began) = (tinylb.connect(), Instant::now());
            client.send(format!("{method} /first HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_ne!(client.response_to(method).status, 502);
            let before = backend.connections();
            assert_eq!(client.get("/next").text(), "forged");
            let took = began.elapsed();
            let is_fresh = backend.connections() > before;
            (took < Duration::from_millis(100)).then(|| assert!(is_fresh, "{head}"))
        });
    }
}

#[test]
fn a_connection_with_a_stray_body_is_closed_and_counted() {
    for (method, head) in without_their_body() {
        let gate = Gate::new();
        let backend = forging(head, &gate);
        let tinylb = one_worker(&backend, "retry = false");
        let mut client = tinylb.connect();
        client.send(format!("{method} /first HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_ne!(client.response_to(method).status, 502);
        gate.open();
        let stray = || tinylb.metric("tinylb_endpoint_stray_responses_total", &[]);
        eventually("the stray body is counted", || (stray() == 1.0).then_some(()));
        assert_eq!(client.get("/next").text(), "true");
    }
}

#[test]
fn a_connection_that_stays_silent_after_head_is_used_again() {
    let backend = Backend::new(|mut conn| {
        while let Some(request) = conn.request() {
            let answer = ok("body");
            let head = answer.strip_suffix("body").unwrap_or_default();
            conn.send(if request.method() == "HEAD" { head } else { &answer });
        }
    });
    let tinylb = one_worker(&backend, "");
    let mut client = tinylb.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response_to("HEAD").status, 200);
    // Each request in the quarantine takes another connection, until it is over.
    eventually("the first connection is used again", || {
        let before = backend.connections();
        thread::sleep(Duration::from_millis(150));
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response_to("HEAD").status, 200);
        (backend.connections() == before).then_some(())
    });
    assert_eq!(tinylb.metric("tinylb_endpoint_stray_responses_total", &[]), 0.0);
}

/// An endpoint that answers before it has the whole request may close without reading the rest.
#[test]
fn a_connection_is_not_kept_after_a_response_that_began_before_the_request_was_sent() {
    let backend = Backend::new(|mut conn| {
        if conn.index > 0 {
            return conn.answer_all(ok("fresh"));
        }
        let head = conn.head().expect("a request");
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        conn.body(head);
        conn.send("early");
        conn.request();
    });
    let tinylb = one_worker(&backend, "");
    let mut client = tinylb.connect();
    client.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo");
    let head = client.wire().head().expect("the response begins early");
    assert!(head.lists("connection", "close"), "{}", head.raw);
    client.send("dy");
    assert_eq!(client.wire().take(5), b"early");
    // What may not be sent twice would be lost on the first connection.
    let next = tinylb.exchange("POST /next HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(next.text(), "fresh");
}

/// The balancer has sent all of the body, and its kernel still has most of it.
#[test]
fn a_connection_is_not_kept_while_its_endpoint_has_not_read_the_body() {
    let gate = Gate::new();
    let backend = Backend::taking_little({
        let gate = gate.clone();
        move |mut conn| {
            if conn.index > 0 {
                return conn.answer_all(ok("fresh"));
            }
            conn.head().expect("a request");
            // Once nothing of the body is left with the balancer.
            gate.pass();
            conn.send(ok("unread"));
            // With the body unread, which resets the connection.
            let _ = conn.head();
        }
    });
    let tinylb = one_worker(&backend, "");
    let mut client = tinylb.connect();
    let size = 100_000;
    client.send(format!("POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"));
    client.send(vec![b'x'; size]);
    gate.open();
    let first = client.response_to("POST");
    assert_eq!(first.text(), "unread");
    let next = tinylb.exchange("POST /next HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(next.text(), "fresh");
}

/// RFC 9112 9.6: a client that is not told of the end would lose its next request.
#[test]
fn the_client_is_told_of_the_end_where_the_endpoint_takes_no_more() {
    let backend = Backend::narrow(|mut conn| {
        conn.head().expect("a request");
        conn.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n");
        // With the body unread, which resets the connection.
    });
    let tinylb = one_worker(&backend, "ejection = false");
    let mut told = 0;
    for number in 0..40 {
        let mut client = tinylb.connect();
        let head = format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
        // The balancer may answer and close before it has taken all of it.
        let _ = client.try_send(head);
        let _ = client.try_send(vec![b'x'; 1_000_000]);
        let Some(response) = client.try_response_to("POST") else { continue };
        // 502 where the reset has overtaken the response.
        assert!(matches!(response.status, 413 | 502), "{:?}", response.head.raw);
        assert!(response.head.lists("connection", "close"), "{:?}", response.head.raw);
        told += 1;
    }
    assert!(told > 0, "some response arrived");
}
