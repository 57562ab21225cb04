//! HTTP/2 with clients: requests and answers mean what they mean in HTTP/1.1.

use http::{HeaderMap, Request};
use serde_json::Value;

use crate::support::http2::{Fate, Frames, PROTOCOL_ERROR, request};
use crate::support::streams::{Answer, Streams, run};
use crate::support::{Backend, Refusing, Tinylb, config, eventually, ok};

/// Fields that belong to connections of HTTP/1.1, or frame its messages.
const OF_CONNECTIONS: [&str; 6] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te"];

#[track_caller]
fn assert_none_of_connections(fields: &HeaderMap) {
    assert!(OF_CONNECTIONS.iter().all(|name| !fields.contains_key(*name)), "{fields:?}");
}

/// The answer to a request on a connection of its own.
fn exchange(tinylb: &Tinylb, request: Request<&[u8]>) -> Answer {
    run(async { Streams::connect(tinylb).await.exchange(request).await })
}

fn get(tinylb: &Tinylb, path: &str) -> Answer {
    run(async { Streams::connect(tinylb).await.get(path).await })
}

#[test]
fn streams_are_exchanges_of_the_one_path() {
    let backend = Backend::answering(ok("hello"));
    let tinylb = Tinylb::before(&backend);
    run(async {
        let mut streams = Streams::connect(&tinylb).await;
        for body in ["", "abc"] {
            let request = Request::post("http://example.com/a?b").body(body.as_bytes()).unwrap();
            let answer = streams.exchange(request).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
            assert_eq!((answer.get("content-length"), &answer.trailers), (Some("5"), &None));
        }
    });
    let requests = backend.requests();
    let bodies: Vec<_> = requests.iter().map(|request| request.body.as_slice()).collect();
    assert_eq!(bodies, [&b""[..], b"abc"]);
    assert!(requests.iter().all(|request| request.target() == "/a?b"));
    assert_eq!(backend.connections(), 1);
}

/// What usually has a body says that it has none (RFC 9110 8.6).
#[test]
fn a_request_that_ends_with_its_head_has_a_length() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    let methods = ["POST", "PUT", "PATCH", "GET", "DELETE", "OPTIONS"];
    let mut client = Frames::connect(&tinylb);
    for (stream, method) in (1..).step_by(2).zip(methods) {
        client.head(stream, &request(method, "/"), true);
        assert_eq!(client.answer(stream).0, 200);
    }
    let requests = backend.requests();
    let lengths: Vec<_> = requests.iter().map(|r| r.head.get("content-length")).collect();
    assert_eq!(lengths, [Some("0"), Some("0"), Some("0"), None, None, None]);
}

#[test]
fn the_fields_that_a_backend_gets() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    let request = Request::get("https://site.test:81/x?y=//z")
        .header("cookie", "a=1")
        .header("accept", "text/html")
        .header("cookie", "b=2; c=3")
        .header("x-forwarded-for", "1.2.3.4")
        .header("x-forwarded-proto", "https")
        .header("forwarded", "for=1.2.3.4")
        .header("via", "2.0 first")
        .header("x-client-subject", "CN=me")
        .header("x-request-id", "mine")
        .header("cookie", "d=\"4\"")
        .header("accept", "text/plain")
        .header("x-empty", "");
    assert_eq!(exchange(&tinylb, request.body(&b""[..]).unwrap()).status, 200);
    let got = backend.request();
    assert_eq!(got.head.first_line, "GET /x?y=//z HTTP/1.1");
    assert_eq!(got.head.get("host"), Some("site.test:81"));
    assert_eq!(got.head.get("cookie"), Some("a=1; b=2; c=3; d=\"4\""));
    assert_eq!(got.head.all("accept"), ["text/html", "text/plain"]);
    assert_eq!(got.head.get("x-empty"), Some(""));
    assert_eq!(got.head.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(got.head.get("x-forwarded-proto"), Some("http"));
    assert_eq!(got.head.get("x-forwarded-host"), Some("site.test:81"));
    assert_ne!(got.head.get("x-request-id"), Some("mine"));
    let via = got.head.list("via");
    assert!(
        via.len() == 2 && via[0] == "2.0 first" && via[1].starts_with("2.0 tinylb-"),
        "{via:?}"
    );
    for name in OF_CONNECTIONS.iter().chain(&["forwarded", "x-client-subject", "content-length"]) {
        assert!(!got.head.has(name), "{:?}", got.head.raw);
    }
}

#[test]
fn what_trusted_proxies_say_is_believed() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::start(&[backend.url()], &["--trusted-proxies", "127.0.0.1"]);
    let request = Request::get("http://site.test/")
        .header("x-forwarded-for", "1.2.3.4")
        .header("x-forwarded-proto", "https")
        .header("x-request-id", "theirs");
    assert_eq!(exchange(&tinylb, request.body(&b""[..]).unwrap()).status, 200);
    let got = backend.request();
    assert_eq!(got.head.get("x-forwarded-for"), Some("1.2.3.4, 127.0.0.1"));
    assert_eq!(got.head.get("x-forwarded-proto"), Some("https"));
    assert_eq!(got.head.get("x-request-id"), Some("theirs"));
}

#[test]
fn bodies_are_framed_for_the_backend() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    let post = || Request::post("http://test/");
    for (request, length, chunked) in [
        (post().body(&b""[..]), Some("0"), false),
        (post().header("content-length", "0").body(&b""[..]), Some("0"), false),
        (post().body(&b"abc"[..]), None, true),
        (post().header("content-length", "3").body(&b"abc"[..]), Some("3"), false),
    ] {
        let request = request.unwrap();
        let body = request.body().to_vec();
        assert_eq!(exchange(&tinylb, request).status, 200);
        let got = backend.requests().pop().unwrap();
        assert_eq!((got.body, got.chunked), (body, chunked), "{:?}", got.head.raw);
        assert_eq!(got.head.get("content-length"), length, "{:?}", got.head.raw);
    }
}

/// Whatever says in HTTP/1.1 where an answer ends, here it is the stream.
#[test]
fn answers_and_how_they_end() {
    const HOPS: &str = "Connection: keep-alive, X-Gone\r\nKeep-Alive: timeout=9\r\nX-Gone: 1\r\n";
    for (method, answer, status, length, body) in [
        ("GET", "200 OK\r\nContent-Length: 4\r\n\r\nbody", 200, Some("4"), "body"),
        ("GET", "200 OK\r\nContent-Length: 0\r\n\r\n", 200, Some("0"), ""),
        (
            "GET",
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n",
            200,
            None,
            "body",
        ),
        ("GET", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, None, ""),
        ("GET", "200 OK\r\n\r\nbody", 200, None, "body"),
        ("GET", "200 OK\r\n\r\n", 200, None, ""),
        ("HEAD", "200 OK\r\nContent-Length: 4\r\n\r\n", 200, Some("4"), ""),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, None, ""),
        ("GET", "204 No Content\r\n\r\n", 204, None, ""),
        ("GET", "304 Not Modified\r\nContent-Length: 4\r\n\r\n", 304, Some("4"), ""),
        ("GET", "302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n", 302, Some("0"), ""),
        ("GET", "599 \r\nContent-Length: 1\r\n\r\nx", 599, Some("1"), "x"),
    ] {
        let (line, rest) = answer.split_once("\r\n").unwrap();
        let backend = Backend::closing_after(format!("HTTP/1.1 {line}\r\n{HOPS}{rest}"));
        let tinylb = Tinylb::before(&backend);
        let request = Request::builder().method(method).uri("http://test/");
        let got = exchange(&tinylb, request.body(&b""[..]).unwrap());
        assert_eq!((got.status, got.text().as_str()), (status, body), "{method} {answer:?}");
        assert_eq!((got.get("content-length"), got.reset), (length, None), "{method} {answer:?}");
        assert_none_of_connections(&got.head);
        assert!(!got.head.contains_key("x-gone"), "{:?}", got.head);
        assert!(
            got.get("via").unwrap().starts_with("1.1 tinylb-") && got.head.contains_key("date")
        );
    }
}

/// Several of a name, and what no token of HTTP/1.1 would be allowed to hold in HTTP/2.
#[test]
fn the_fields_that_a_client_gets() {
    let fields = "Set-Cookie: a=1\r\nX-UPPER: Case\r\nSet-Cookie: b=2, c\r\nX-High: \u{fc}\r\n";
    let backend =
        Backend::answering(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n"));
    let answer = get(&Tinylb::before(&backend), "/");
    let cookies: Vec<_> = answer.head.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2, c"]);
    assert_eq!(answer.head["x-upper"], "Case");
    assert_eq!(answer.head["x-high"].as_bytes(), "\u{fc}".as_bytes());
}

#[test]
fn answers_of_our_own() {
    let refusing = Refusing::new();
    let text = config(&[refusing.url()], "", "");
    let tinylb = Tinylb::run(&text.replace("[[routes]]", "[[routes]]\nhost = \"here.test\""));
    let of = |method: &str, uri: &str, body| {
        let request = Request::builder().method(method).uri(uri).body(body).unwrap();
        let answer = exchange(&tinylb, request);
        assert_none_of_connections(&answer.head);
        assert!(answer.head.contains_key("date"), "{:?}", answer.head);
        answer
    };
    let lost = of("GET", "http://nowhere.test/", &b""[..]);
    lost.assert_fault(404, "destination_not_found");
    assert_eq!(lost.get("content-length"), Some(&*lost.body.len().to_string()));
    of("POST", "http://nowhere.test/", b"body").assert_fault(404, "destination_not_found");
    of("POST", "http://here.test/", b"body").assert_fault(502, "connection_refused");
    let head = of("HEAD", "http://here.test/", b"");
    head.assert_fault(502, "connection_refused");
    assert_eq!(head.body, b"");
    of("GET", "http://here.test/a/../../b", b"").assert_fault(400, "http_request_error");
    let options = Request::options("http://here.test/").header("max-forwards", "0");
    let answer = exchange(&tinylb, options.body(&b""[..]).unwrap());
    assert_eq!((answer.status, answer.get("content-length")), (200, Some("0")));
    assert!(answer.head.contains_key("allow"));
    assert_none_of_connections(&answer.head);
}

/// A head may have 32 KiB; of one that is far too large not even that is read.
#[test]
fn large_heads() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    let mut client = Frames::connect(&tinylb);
    let mut stream = 1;
    for (size, expected) in [
        (31 * 1024, Fate::Answered(200)),
        (33 * 1024, Fate::Answered(431)),
        (60 * 1024, Fate::Answered(431)),
        (70 * 1024, Fate::Answered(431)),
        (100 * 1024, Fate::Answered(431)),
    ] {
        let value = vec![b'a'; size / 16];
        let names: Vec<_> = (0..16).map(|at| format!("x-{at}")).collect();
        let mut fields = request("GET", "/large").to_vec();
        fields.extend(names.iter().map(|name| (name.as_str(), value.as_slice())));
        client.head_in_frames(stream, &fields, true);
        assert_eq!(client.fate(stream), expected, "{size}");
        stream += 2;
    }
    client.assert_serves(stream);
    let got = backend.requests();
    assert_eq!(got.len(), 2);
    assert_eq!(got[0].head.get("x-15").map(str::len), Some(31 * 1024 / 16));
}

#[test]
fn streams_are_logged_and_counted() {
    let backend = Backend::named("fine");
    let text = config(&[backend.url()], "", "");
    let tinylb = Tinylb::run(&format!("log = {{ access = \"json\" }}\n{text}"));
    let post = Request::post("http://site.test/x/y?q=1").body(&b"12345"[..]).unwrap();
    assert_eq!(exchange(&tinylb, post).status, 200);
    let line: Value = tinylb.told("/x/y");
    assert_eq!((&line["method"], &line["host"]), (&"POST".into(), &"site.test".into()));
    assert_eq!((&line["status"], &line["upstream"]), (&200.into(), &"app".into()));
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&5.into(), &4.into()));
    assert_eq!((&line["client"], &line["attempts"]), (&"127.0.0.1".into(), &1.into()));
    assert_eq!(line["request_id"].as_str(), backend.request().head.get("x-request-id"));
    assert_eq!(line["error"], Value::Null);
    eventually("it is counted", || {
        let count = tinylb.metric("tinylb_requests_total", &["code=\"200\"", "upstream=\"app\""]);
        (count == 1.0).then_some(())
    });
    assert_eq!(tinylb.metric("tinylb_http2_connections_total", &[]), 1.0);
    assert_eq!(tinylb.metric("tinylb_received_bytes_total", &[]), 5.0);
    let mut client = Frames::connect(&tinylb);
    client.head(1, &[&request("GET", "/")[..], &[("a", b" b")]].concat(), true);
    assert_eq!(client.fate(1), Fate::Reset(PROTOCOL_ERROR));
    assert_eq!(tinylb.metric("tinylb_http2_malformed_requests_total", &[]), 1.0);
}

#[test]
fn http2_is_spoken_only_where_it_is_to_be() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::run(&config(&[backend.url()], "http2 = false", ""));
    let mut client = tinylb.connect();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let response = client.response();
    response.assert_fault(505, "http_request_error");
    client.assert_closed();
    // And nowhere in the middle of HTTP/1.1.
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    assert_eq!(client.get("/").status, 200);
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    client.response().assert_fault(505, "http_request_error");
    client.assert_closed();
    assert_eq!(backend.requests().len(), 1);
}

#[test]
fn a_refused_head_request_is_answered_without_a_body() {
    let backend = Backend::answering(ok("hello"));
    let tinylb = Tinylb::before(&backend);
    let request = Request::head("http://a/").header("expect", "what").body(&b""[..]).unwrap();
    let answer = exchange(&tinylb, request);
    assert_eq!((answer.status, answer.body.len()), (417, 0));
    let mut client = tinylb.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\nExpect: what\r\n\r\n");
    assert_eq!(client.response_to("HEAD").status, 417);
    client.assert_closed();
    assert_eq!(backend.connections(), 0);
}
