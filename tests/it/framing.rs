//! Where a message ends: every framing, to and from both versions of the protocol.

use crate::support::{Backend, Framing, Tinylb, ok};

/// A chunked 200 with an extension on each chunk and a trailer section.
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nTrailer: X-Sum\r\n\r\n\
    5;a=b\r\nhello\r\n0006 ; q=\"x;\\\"y\" ;z\r\n world\r\n0;last\r\nX-Sum: 42\r\nx-more: a\r\n\r\n";

#[test]
fn a_length_passes_both_ways() {
    let backend = Backend::named("the answer");
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world");
    let response = client.response();
    assert_eq!((response.framing, response.text().as_str()), (Framing::Length, "the answer"));
    let got = backend.request();
    assert_eq!((got.body.as_slice(), got.chunked), (&b"hello world"[..], false));
    client.assert_open();
}

#[test]
fn chunks_pass_both_ways() {
    let backend = Backend::answering(CHUNKED);
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    for _ in 0..2 {
        client.send(
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
             5;a=b\r\nhello\r\n00006;\"q\"\r\n world\r\n000\r\nX-In-Trailer: 1\r\n\r\n",
        );
        let response = client.response();
        assert_eq!((response.framing, response.text().as_str()), (Framing::Chunked, "hello world"));
        assert!(response.complete);
    }
    for got in backend.requests() {
        assert_eq!(got.body, b"hello world");
        assert!(got.chunked, "as it came, so that it streams");
        assert!(!got.head.has("x-in-trailer"), "a trailer is no header: {:?}", got.head.raw);
        let whole = [("X-In-Trailer".to_owned(), "1".to_owned())];
        assert!(got.trailers.is_empty() || got.trailers == whole, "{:?}", got.trailers);
    }
    assert_eq!(backend.connections(), 1, "the end was where it should be");
}

#[test]
fn chunked_upper_case_and_many_zeroes_are_chunked() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    let response = tinylb.exchange(
        "POST /x HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n\
         0000000A\r\n0123456789\r\n0000000000\r\n\r\n",
    );
    assert_eq!(response.status, 200);
    assert_eq!(backend.request().body, b"0123456789");
}

#[test]
fn trailers_reach_a_client_that_asked_for_them() {
    let backend = Backend::answering(CHUNKED);
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
    let response = client.response();
    assert_eq!(response.text(), "hello world");
    let expected = [("X-Sum".to_owned(), "42".to_owned()), ("x-more".to_owned(), "a".to_owned())];
    assert_eq!(response.trailers, expected);
    let response = client.get("/");
    assert_eq!((response.text().as_str(), response.trailers.len()), ("hello world", 0));
    client.assert_open();
}

#[test]
fn a_chunked_response_reaches_http_1_0_without_chunks() {
    let backend = Backend::answering(CHUNKED);
    let tinylb = Tinylb::before(&backend);
    for lines in ["", "Connection: keep-alive\r\n"] {
        let response = tinylb.exchange(format!("GET / HTTP/1.0\r\nHost: a\r\n{lines}\r\n"));
        assert_eq!((response.framing, response.text().as_str()), (Framing::Close, "hello world"));
        assert!(response.head.lists("connection", "close"), "{:?}", response.head.raw);
        assert!(!response.head.has("transfer-encoding"), "{:?}", response.head.raw);
    }
}

#[test]
fn a_response_that_ends_with_its_connection_reaches_http_1_1_in_chunks() {
    let backend = Backend::closing_after("HTTP/1.1 200 OK\r\nX: y\r\n\r\nuntil the end");
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    for _ in 0..3 {
        let response = client.get("/");
        assert_eq!(
            (response.framing, response.text().as_str()),
            (Framing::Chunked, "until the end")
        );
        assert!(response.complete);
    }
    let response = tinylb.exchange("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!((response.framing, response.text().as_str()), (Framing::Close, "until the end"));
}

#[test]
fn an_empty_response_that_ends_with_its_connection_is_whole() {
    let backend = Backend::closing_after("HTTP/1.0 200 OK\r\n\r\n");
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    let response = client.get("/");
    assert_eq!((response.status, response.body.len(), response.complete), (200, 0, true));
    client.assert_open();
}

#[test]
fn responses_to_head_have_no_body_whatever_they_announce() {
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked", "X: no framing"] {
        let backend = Backend::new(move |mut conn| {
            while let Some(request) = conn.request() {
                match request.method() {
                    "HEAD" => conn.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n")),
                    _ => conn.send(ok("after it")),
                };
            }
        });
        let tinylb = Tinylb::before(&backend);
        let mut client = tinylb.connect();
        for _ in 0..2 {
            client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
            let response = client.response_to("HEAD");
            assert_eq!(response.status, 200);
            if framing.starts_with("Content-Length") {
                assert_eq!(response.head.get("content-length"), Some("5"), "it is information");
            }
            assert_eq!(client.get("/").text(), "after it", "{framing}");
        }
        // One that may carry a body rests for a while.
        assert!(backend.connections() <= 3, "{framing}: no body is waited for");
    }
}

#[test]
fn responses_of_204_and_304_have_no_body_whatever_they_announce() {
    for (head, status) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", 304),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304),
        ("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", 304),
    ] {
        let backend = Backend::new(move |mut conn| {
            while let Some(request) = conn.request() {
                match request.target() {
                    "/none" => conn.send(head),
                    _ => conn.send(ok("after it")),
                };
            }
        });
        let tinylb = Tinylb::before(&backend);
        let mut client = tinylb.connect();
        for _ in 0..2 {
            let response = client.get("/none");
            assert_eq!((response.status, response.framing), (status, Framing::None));
            assert_eq!(client.get("/").text(), "after it", "{head:?}");
        }
        // One that may carry a body rests for a while.
        let most = if head.contains("-Length") || head.contains("-Encoding") { 3 } else { 1 };
        assert!(backend.connections() <= most, "{head:?}: no body is waited for");
    }
}

#[test]
fn clients_of_http_1_0_keep_alive_only_where_they_ask() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().text(), "fine");
    client.assert_closed();

    let mut client = tinylb.connect();
    for _ in 0..3 {
        client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n");
        let response = client.response();
        assert_eq!(response.framing, Framing::Length);
        assert!(response.head.lists("connection", "keep-alive"), "{:?}", response.head.raw);
    }
    client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n");
    assert_eq!(client.response().text(), "fine");
    client.assert_closed();
}

#[test]
fn backends_of_http_1_0_are_understood() {
    let backend = Backend::new(|mut conn| {
        if conn.request().is_some() {
            conn.send("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold");
            conn.drain();
        }
    });
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    assert_eq!(client.get("/").text(), "old");
    assert_eq!(client.get("/").text(), "old");
    backend.end_of(0);
    assert_eq!(backend.connections(), 2, "HTTP/1.0 does not persist unless it says so");
}

#[test]
fn a_request_without_framing_has_no_body() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    for method in ["POST", "PUT", "GET", "DELETE"] {
        client.send(format!("{method} /{method} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.response().status, 200);
    }
    assert!(backend.requests().iter().all(|r| r.body.is_empty() && !r.chunked));
    assert_eq!(backend.requests().len(), 4);
}

#[test]
fn any_method_may_have_a_body() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    for method in ["GET", "DELETE", "OPTIONS"] {
        client.send(format!("{method} /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"));
        assert_eq!(client.response().status, 200);
        assert_eq!(backend.requests().last().unwrap().body, b"body", "{method}");
    }
}

#[test]
fn two_lengths_that_agree_in_a_response_are_one() {
    // RFC 9110 8.6 lets a recipient of `5, 5` take it for 5 or refuse it; never for anything else.
    let backend = Backend::closing_after(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    );
    let response = Tinylb::before(&backend).get("/");
    match response.status {
        200 => assert_eq!((response.framing, response.text().as_str()), (Framing::Length, "hello")),
        status => assert_eq!(status, 502),
    }
}
