//! Answers of the balancer's own, and what becomes of the request that they answer.

use crate::support::{Backend, Framing, Refusing, Tinylb, config, ok};

#[test]
fn an_answer_to_head_has_no_body() {
    let dead = Refusing::new();
    let tinylb = Tinylb::start(&[dead.url()], &[]);
    let mut client = tinylb.connect();
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.response_to("HEAD");
        response.assert_fault(502, "connection_refused");
    }
    client.half_close();
    client.assert_closed();
}

#[test]
fn an_answer_to_http_1_0_ends_with_its_connection() {
    let dead = Refusing::new();
    let tinylb = Tinylb::start(&[dead.url()], &[]);
    let mut client = tinylb.connect();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let response = client.response();
    response.assert_fault(502, "connection_refused");
    assert_ne!(response.framing, Framing::Chunked);
    client.assert_closed();
}

#[test]
fn an_answer_says_what_it_is_and_when() {
    let tinylb = Tinylb::start(&[Refusing::new().url()], &[]);
    let response = tinylb.get("/");
    assert!(response.head.has("date"), "{:?}", response.head.raw);
    assert!(response.head.has("content-type") || response.body.is_empty());
    assert_eq!(response.framing, Framing::Length, "{:?}", response.head.raw);
}

/// A body whose request was answered early is a body still.
#[test]
fn an_unread_body_is_never_a_request() {
    let evil = "GET /smuggled HTTP/1.1\r\nHost: here.test\r\n\r\n";
    let backend = Backend::answering(ok("reached"));
    let text = config(&[backend.url()], "", "");
    let text = text.replace("[[routes]]", "[[routes]]\nhost = \"here.test\"");
    let tinylb = Tinylb::run(&text);
    for (framing, body) in [
        (format!("Content-Length: {}", evil.len()), evil.to_owned()),
        (format!("Content-Length: {}", 10 * evil.len()), evil.repeat(10)),
        ("Transfer-Encoding: chunked".into(), format!("{:x}\r\n{evil}\r\n0\r\n\r\n", evil.len())),
    ] {
        for split in [true, false] {
            let mut client = tinylb.connect();
            let head = format!("POST /x HTTP/1.1\r\nHost: nowhere.test\r\n{framing}\r\n\r\n");
            if split {
                client.send(head);
                client.response().assert_fault(404, "destination_not_found");
                let _ = client.try_send(&body);
            } else {
                client.send(format!("{head}{body}"));
                client.response().assert_fault(404, "destination_not_found");
            }
            let _ = client.try_send("GET /next HTTP/1.1\r\nHost: here.test\r\n\r\n");
            if let Some(next) = client.try_response_to("GET") {
                assert_eq!(next.text(), "reached");
            }
        }
    }
    assert!(backend.requests().iter().all(|request| request.target() == "/next"));
}

#[test]
fn a_body_that_no_endpoint_took_is_never_a_request() {
    let evil = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let dead = Refusing::new();
    let tinylb = Tinylb::start(&[dead.url()], &["--access-log", "json", "--workers", "1"]);
    let mut client = tinylb.connect();
    let length = evil.len();
    client.send(format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{evil}"));
    client.response().assert_fault(502, "connection_refused");
    let _ = client.try_send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    if let Some(next) = client.try_response_to("GET") {
        assert_eq!(next.status, 502);
    }
    drop(client);
    assert_eq!(tinylb.get("/last!").status, 502);
    tinylb.wait_for_access("/last!");
    let lines = tinylb.access.all();
    assert!(lines.iter().all(|line| !line.contains("smuggled")), "{lines:#?}");
}

/// The start of a TLS connection is told what is wrong, at its first byte and not at a timeout.
#[test]
fn tls_on_a_plain_port_is_told_so() {
    let backend = Backend::named("never asked");
    let tinylb = Tinylb::before(&backend);
    // The record header of a ClientHello, and the start of one (RFC 8446 5.1, 4.1.2).
    let hello: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    for length in [1, 5, hello.len()] {
        let mut client = tinylb.connect();
        client.send(&hello[..length]);
        let response = client.response();
        assert_eq!(response.status, 400);
        assert!(response.text().contains("TLS on a port without TLS"), "{}", response.text());
        client.assert_closed();
    }
    assert!(backend.requests().is_empty());
}
