//! Minor versions above 1 are processed as HTTP/1.1 (RFC 9110 2.5), and transfer codings that are not
//! known are told from malformed ones (RFC 9112 6.1).

use crate::support::{Backend, Framing, Tinylb};

const LATER: [&str; 4] = ["1.2", "1.3", "1.8", "1.9"];

#[test]
fn requests_of_later_minor_versions_are_those_of_http_1_1() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    for version in LATER {
        let mut client = tinylb.connect();
        client.send(format!("GET /a?b HTTP/{version}\r\nHost: a\r\nX: y\r\n\r\n"));
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (200, "fine"), "{version}");
        let got = backend.requests().pop().unwrap();
        assert_eq!(got.head.first_line, "GET /a?b HTTP/1.1");
        assert_eq!((got.head.get("host"), got.head.get("x")), (Some("a"), Some("y")));
        assert!(got.head.get("via").unwrap().starts_with("1.1 "), "{:?}", got.head.raw);
        client.send(format!(
            "POST / HTTP/{version}\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhello\r\n0\r\n\r\n"
        ));
        assert_eq!(client.response().status, 200, "{version}");
        assert_eq!(backend.requests().pop().unwrap().body, b"hello");
        client.assert_open();
    }
}

#[test]
fn what_http_1_1_refuses_is_refused_in_later_minor_versions() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    for (head, status) in [
        ("GET / HTTP/1.2\r\n\r\n", 400),
        ("GET / HTTP/1.2\r\nHost: a\r\nX : y\r\n\r\n", 400),
        ("GET / HTTP/1.2\r\nHost: a\nX: y\r\n\r\n", 400),
        ("GET /a\u{1}b HTTP/1.2\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.3 HTTP/1.2\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.22\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.2x\r\nHost: a\r\n\r\n", 400),
        ("GET / http/1.2\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/2.1\r\nHost: a\r\n\r\n", 505),
    ] {
        assert_eq!(tinylb.exchange(head).status, status, "{head:?}");
    }
    assert_eq!(backend.received(), b"");
}

#[test]
fn responses_of_later_minor_versions_are_those_of_http_1_1() {
    for version in LATER {
        let backend = Backend::answering(format!(
            "HTTP/{version} 200 Fine\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n\
             5\r\nhello\r\n0\r\n\r\n"
        ));
        let tinylb = Tinylb::start(&[backend.url()], &["--workers", "1"]);
        let mut client = tinylb.connect();
        for _ in 0..3 {
            let response = client.get("/");
            assert_eq!(response.head.first_line, "HTTP/1.1 200 Fine", "{version}");
            assert_eq!((response.framing, response.text().as_str()), (Framing::Chunked, "hello"));
            assert_eq!(response.head.get("x"), Some("y"));
        }
        assert_eq!(backend.connections(), 1, "it is kept as in HTTP/1.1");
    }
    for line in ["HTTP/1.22 200 OK", "HTTP/1.x 200 OK", "HTTP/2.0 200 OK", "HTTP/0.9 200 OK"] {
        let backend = Backend::closing_after(format!("{line}\r\nContent-Length: 0\r\n\r\n"));
        Tinylb::before(&backend).get("/").assert_fault(502, "http_protocol_error");
    }
}

/// Transfer codings that are well-formed and unknown, before a final `chunked`.
const UNKNOWN: [&str; 3] =
    ["gzip, chunked", "br;q=\"a, b\" ;x=y, chunked", "x\r\nTransfer-Encoding: chunked"];

/// Those that say nothing certain.
const MALFORMED: [&str; 14] = [
    "gzip",
    "identity",
    "xchunked",
    "deflate,gzip",
    "chunked, gzip",
    "chunked, chunked",
    "chunked\r\nTransfer-Encoding: chunked",
    "gzip, chunked, x",
    "chunked;a=b",
    "\"chunked\"",
    "gz ip",
    "gzip,, chunked",
    "x;a, chunked",
    "x;a=\"b, chunked",
];

#[test]
fn unknown_codings_are_not_implemented_and_malformed_ones_are_bad() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    for (codings, status) in [(&UNKNOWN[..], 501), (&MALFORMED, 400)] {
        for coding in codings {
            let mut client = tinylb.connect();
            client.send(format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n"
            ));
            client.response().assert_fault(status, "http_request_error");
            client.assert_closed();
        }
    }
    // One of HTTP/1.0, or beside a length, is faulty whatever it is.
    for lines in ["HTTP/1.0\r\nHost: a", "HTTP/1.1\r\nHost: a\r\nContent-Length: 5"] {
        let head = format!("POST / {lines}\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n");
        assert_eq!(tinylb.exchange(head).status, 400, "{lines:?}");
    }
    assert_eq!(backend.received(), b"");
}

#[test]
fn an_answer_in_another_coding_is_a_bad_gateway() {
    for coding in UNKNOWN.iter().chain(&MALFORMED) {
        let backend = Backend::closing_after(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        ));
        Tinylb::before(&backend).get("/").assert_fault(502, "http_protocol_error");
    }
}
