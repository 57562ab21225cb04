//! Answers that end too early: passed on as far as they came, or held until they are whole.

use crate::support::{Backend, End, Framing, Gate, Response, Tinylb, ok, ranked};

const HOLD: &str = "retry = { hold = \"64KiB\" }";

/// Answers that end in the middle.
const CUT: [(&str, &str); 3] = [
    ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "incomplete"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "incomplete"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "incomplete"),
];

#[test]
fn what_has_begun_is_not_asked_for_again() {
    for (answer, _) in CUT {
        let (cut, other) = (Backend::closing_after(answer), Backend::named("other"));
        let tinylb = Tinylb::run(&ranked(&[cut.url(), other.url()], "", ""));
        let mut client = tinylb.connect();
        let response = client.get("/cut");
        assert_eq!((response.status, response.complete), (200, false), "{answer:?}");
        assert!("hello".starts_with(&response.text()), "{:?}", response.text());
        client.assert_closed();
        tinylb.assert_tries("/cut", 1, None);
        assert_eq!((cut.requests().len(), other.connections()), (1, 0));
    }
}

#[test]
fn what_is_held_is_asked_for_again() {
    let odd = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloxx";
    for (answer, reason) in CUT.into_iter().chain([(odd, "malformed")]) {
        let (cut, other) = (Backend::closing_after(answer), Backend::named("other"));
        let tinylb = Tinylb::run(&ranked(&[cut.url(), other.url()], "", HOLD));
        let mut client = tinylb.connect();
        let response = client.get("/held");
        assert_eq!((response.status, response.text().as_str()), (200, "other"), "{answer:?}");
        tinylb.assert_tries("/held", 2, Some(reason));
        assert_eq!(tinylb.told("/held")["bytes_out"], 5, "the first answer is none");
        let reason = format!("reason=\"{reason}\"");
        assert_eq!(tinylb.metric("tinylb_retries_total", &[&reason]), 1.0);
        assert_eq!(tinylb.metric("tinylb_endpoint_failures_total", &[&cut.url()]), 1.0);
        client.assert_open();
    }
}

#[test]
fn a_large_answer_that_is_held_is_asked_for_again() {
    let large = "x".repeat(60_000);
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 60001\r\n\r\n";
    let cut = Backend::closing_after(format!("{head}{large}"));
    let other = Backend::answering(ok(&large));
    let tinylb = Tinylb::run(&ranked(&[cut.url(), other.url()], "", HOLD));
    let response = tinylb.get("/large");
    assert!(response.status == 200 && response.text() == large);
    assert_eq!(tinylb.told("/large")["bytes_out"], 60_000);
}

#[test]
fn the_only_endpoint_is_asked_again_for_what_was_held() {
    let backend = Backend::new(|mut conn| {
        let cut = conn.index == 0;
        if conn.request().is_some() {
            conn.send(if cut { CUT[0].0.into() } else { ok("whole") });
        }
    });
    let tinylb = Tinylb::run(&ranked(&[backend.url()], "", HOLD));
    assert_eq!(tinylb.get("/only").text(), "whole");
    tinylb.assert_tries("/only", 2, Some("incomplete"));
}

/// Nothing would be gained by holding it.
#[test]
fn the_answer_to_the_last_try_is_passed_on_as_it_comes() {
    let cut = [Backend::closing_after(CUT[0].0), Backend::closing_after(CUT[0].0)];
    let urls = [cut[0].url(), cut[1].url()];
    let retry = "retry = { attempts = 2, hold = \"64KiB\" }";
    let tinylb = Tinylb::run(&ranked(&urls, "", retry));
    let response = tinylb.get("/last");
    assert_eq!((response.status, response.complete), (200, false));
    tinylb.assert_tries("/last", 2, Some("incomplete"));
    assert!(cut.iter().all(|backend| backend.requests().len() == 1));
}

/// Sends the first `length` of an answer's bytes, and the rest once the client has some of it.
fn in_two(length: usize, gate: &Gate, whole: bool) -> Backend {
    let gate = gate.clone();
    Backend::new(move |mut conn| {
        if conn.request().is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n");
            conn.send("x".repeat(length));
            gate.pass();
            if whole {
                conn.send("x".repeat(200_000 - length));
            }
        }
    })
}

#[test]
fn what_is_too_large_to_be_held_is_passed_on_as_it_comes() {
    for (hold, length) in [("64KiB", 70_000), ("1KiB", 2_000), ("1KiB", 1_000), ("4KiB", 100_000)] {
        for whole in [true, false] {
            let gate = Gate::new();
            let (first, other) = (in_two(length, &gate, whole), Backend::named("other"));
            let retry = format!("retry = {{ hold = {hold:?} }}");
            let tinylb = Tinylb::run(&ranked(&[first.url(), other.url()], "", &retry));
            let mut client = tinylb.connect();
            client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
            let head = client.wire().head().expect("it comes before it is whole");
            assert!(head.first_line.contains("200"));
            gate.open();
            let body = client.wire().take(200_000);
            assert_eq!(body.len() == 200_000, whole, "{} bytes", body.len());
            assert!(body.iter().all(|byte| *byte == b'x'));
            assert_eq!(other.connections(), 0, "it has begun");
        }
    }
}

#[test]
fn an_answer_that_would_not_be_asked_for_again_is_not_held() {
    let gate = Gate::new();
    let (first, other) = (in_two(10, &gate, true), Backend::named("other"));
    let tinylb = Tinylb::run(&ranked(&[first.url(), other.url()], "", HOLD));
    let mut client = tinylb.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    assert!(client.wire().head().is_some(), "it comes before it is whole");
    gate.open();
    assert_eq!(client.wire().take(200_000).len(), 200_000);
}

/// What the client gets, but for what differs from process to process and from second to second.
fn essence(response: &Response) -> impl PartialEq + std::fmt::Debug {
    let fields = response.head.fields.iter();
    let fields: Vec<_> =
        fields.filter(|(name, _)| !["via", "date"].contains(&&*name.to_lowercase())).collect();
    let fields = format!("{} {fields:?}", response.head.first_line);
    (fields, response.body.clone(), response.trailers.clone(), response.framing, response.complete)
}

#[test]
fn a_held_answer_arrives_as_any_other() {
    let zeros = "0".repeat(30_000);
    let of = |head: &str, body: &str| format!("HTTP/1.1 {head}\r\nX-Own: 1\r\n\r\n{body}");
    let chunks = "Transfer-Encoding: chunked";
    let answers = [
        ("GET", of("200 OK\r\nContent-Length: 5", "hello"), Framing::Length),
        ("GET", of("200 OK\r\nContent-Length: 0", ""), Framing::Length),
        ("GET", of("200 OK\r\nContent-Length: 30000", &zeros), Framing::Length),
        (
            "GET",
            of(&format!("200 OK\r\n{chunks}"), "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
            Framing::Chunked,
        ),
        ("GET", of(&format!("200 OK\r\n{chunks}"), "0\r\n\r\n"), Framing::Chunked),
        (
            "GET",
            of(
                &format!("200 OK\r\n{chunks}\r\nTrailer: X-Sum"),
                "2\r\nhe\r\n0\r\nX-Sum: 1\r\n\r\n",
            ),
            Framing::Chunked,
        ),
        ("GET", of("200 OK", "until it closes"), Framing::Chunked),
        ("GET", of("200 OK\r\nConnection: close\r\nContent-Length: 2", "ok"), Framing::Length),
        ("GET", of("404 Not Found\r\nContent-Length: 4", "none"), Framing::Length),
        ("GET", of("204 No Content", ""), Framing::None),
        ("GET", of("304 Not Modified\r\nETag: \"1\"\r\nContent-Length: 7", ""), Framing::None),
        ("HEAD", of("200 OK\r\nContent-Length: 5", ""), Framing::None),
        ("HEAD", of(&format!("200 OK\r\n{chunks}"), ""), Framing::None),
    ];
    for (method, answer, framing) in answers {
        let backend = Backend::closing_after(&answer);
        let other = Backend::named("other");
        let got = ["", HOLD].map(|retry| {
            let tinylb = Tinylb::run(&ranked(&[backend.url(), other.url()], "", retry));
            let mut client = tinylb.connect();
            client.send(format!(
                "{method} / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te\r\n\r\n"
            ));
            let response = client.response_to(method);
            assert_eq!((response.framing, response.complete), (framing, true), "{answer:?}");
            client.half_close();
            client.assert_closed();
            response
        });
        assert_eq!(essence(&got[0]), essence(&got[1]), "{answer:?}");
        assert_eq!(other.connections(), 0);
    }
}

/// To a client of HTTP/1.0 the end of the connection is the end of the answer.
#[test]
fn a_held_answer_without_a_length_ends_an_old_connection() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let (cut, other) = (Backend::closing_after(CUT[2].0), Backend::answering(answer));
    let tinylb = Tinylb::run(&ranked(&[cut.url(), other.url()], "", HOLD));
    let mut client = tinylb.connect();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let response = client.response();
    assert_eq!((response.framing, response.text().as_str()), (Framing::Close, "hello"));
    assert_eq!(client.wire().end(), Some(End::Fin), "it does not look cut");
}
