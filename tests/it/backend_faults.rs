//! Backends that answer badly: with nonsense, too much or too little.

use std::sync::{Mutex, mpsc};

use crate::support::{Backend, PATIENCE, Tinylb, ok};

/// Responses that no client may see anything of but a 502.
fn malformed() -> Vec<(&'static str, String)> {
    let lines = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\nhello");
    let status = |line: &str| format!("{line}\r\nContent-Length: 5\r\n\r\nhello");
    let long = "x".repeat(40 * 1024);
    vec![
        ("garbage", "hello world\r\n\r\n".into()),
        ("bytes", "\u{16}\u{3}\u{1}\0\u{a5}\r\n\r\n".into()),
        ("an SSH server", "SSH-2.0-OpenSSH_9.9\r\n\r\n".into()),
        ("empty lines", "\r\n\r\n\r\n\r\n".into()),
        ("no status", status("HTTP/1.1")),
        ("short status", status("HTTP/1.1 20 OK")),
        ("long status", status("HTTP/1.1 2000 OK")),
        ("status of letters", status("HTTP/1.1 abc OK")),
        ("status below 100", status("HTTP/1.1 099 OK")),
        ("two spaces", status("HTTP/1.1  200 OK")),
        ("HTTP/2.0", status("HTTP/2.0 200 OK")),
        ("lower case", status("http/1.1 200 OK")),
        ("leading space", status(" HTTP/1.1 200 OK")),
        ("NUL in the reason", status("HTTP/1.1 200 O\0K")),
        ("bare CR in the reason", status("HTTP/1.1 200 O\rK")),
        ("bare LF after the status line", "HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\nhello".into()),
        ("bare LF after a field", lines("Content-Length: 5\nX: y")),
        ("bare CR in a value", lines("Content-Length: 5\r\nX: y\rZ: z")),
        ("NUL in a value", lines("Content-Length: 5\r\nX: \0")),
        ("folded", lines("Content-Length: 5\r\nX: y\r\n z")),
        ("space before a colon", lines("Content-Length : 5")),
        ("no colon", lines("Content-Length: 5\r\nX")),
        ("no name", lines("Content-Length: 5\r\n: x")),
        ("length and coding", lines("Content-Length: 5\r\nTransfer-Encoding: chunked")),
        ("two lengths", lines("Content-Length: 5\r\nContent-Length: 6")),
        ("list of lengths", lines("Content-Length: 5, 6")),
        ("signed length", lines("Content-Length: +5")),
        ("empty length", lines("Content-Length: ")),
        ("length over 64 bits", lines("Content-Length: 18446744073709551616")),
        ("twice chunked", lines("Transfer-Encoding: chunked, chunked")),
        ("chunked not last", lines("Transfer-Encoding: chunked, gzip")),
        ("coding unknown", lines("Transfer-Encoding: xchunked")),
        (
            "coding in HTTP/1.0",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        ),
        ("over-large head", lines(&format!("Content-Length: 5\r\nX: {long}"))),
        ("endless head", format!("HTTP/1.1 200 OK\r\nX: {long}{long}")),
        ("over many fields", lines(&vec!["X: y"; 200].join("\r\n"))),
    ]
}

#[test]
fn malformed_responses_are_502_and_their_connections_are_not_used_again() {
    let mut wrong = Vec::new();
    for (name, answer) in malformed() {
        let backend = Backend::new(move |mut conn| {
            while let Some(request) = conn.request() {
                match request.target() {
                    "/bad" => conn.send(&answer),
                    _ => conn.send(ok("good")),
                };
            }
        });
        let tinylb = Tinylb::start(&[backend.url()], &["--workers", "1"]);
        let mut client = tinylb.connect();
        let response = client.get("/bad");
        if response.status != 502 {
            wrong.push(format!("{name}: {} in place of 502", response.status));
        }
        if !response.proxy_status().starts_with("tinylb; error=") {
            wrong.push(format!("{name}: Proxy-Status is {:?}", response.proxy_status()));
        }
        if response.text().contains("hello") {
            wrong.push(format!("{name}: its body came through"));
        }
        backend.end_of(0);
        let next = client.get("/good");
        if next.text() != "good" || backend.connections() != 2 {
            wrong.push(format!("{name}: {} afterwards", next.status));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_backend_that_closes_before_it_answers_is_a_502() {
    for answer in ["", "H", "HTTP/1.1 200 OK\r\nConte", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"]
    {
        let backend = Backend::closing_after(answer);
        let tinylb = Tinylb::before(&backend);
        for method in ["GET", "POST"] {
            let response = tinylb.exchange(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
            let error = if answer.is_empty() {
                "connection_terminated"
            } else {
                "http_response_incomplete"
            };
            response.assert_fault(502, error);
        }
        assert!(backend.connections() <= 4, "it is not asked over and over");
    }
}

#[test]
fn a_backend_that_closes_without_reading_is_a_502() {
    let backend = Backend::new(drop);
    let response = Tinylb::before(&backend).get("/");
    response.assert_fault(502, "connection_terminated");
}

/// What ends too early must look so to the client.
#[test]
fn a_body_that_ends_early_is_cut_for_the_client_too() {
    for (name, answer, begun) in [
        ("nothing of a length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", ""),
        ("half of a length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "hello"),
        ("no chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ""),
        (
            "no last chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "hello",
        ),
        (
            "half a chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\nhello",
            "hello",
        ),
        (
            "no end of the trailers",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n",
            "hello",
        ),
    ] {
        let backend = Backend::closing_after(answer);
        let tinylb = Tinylb::before(&backend);
        let mut client = tinylb.connect();
        let response = client.get("/");
        assert_eq!(response.status, 200, "{name}");
        assert!(!response.complete, "{name} is not whole: {:?}", response.text());
        assert!(begun.starts_with(&response.text()), "{name}: {:?}", response.text());
        client.assert_closed();
    }
}

/// By a reset, a body that ends with its connection is known not to have ended.
#[test]
fn a_reset_in_a_body_without_framing_is_no_end() {
    let (read, reads) = mpsc::channel();
    let reads = Mutex::new(reads);
    let backend = Backend::new(move |mut conn| {
        conn.request().unwrap();
        conn.send("HTTP/1.1 200 OK\r\n\r\nhello");
        reads.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        conn.wire.reset();
    });
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.wire().head().expect("the response begins");
    assert!(head.lists("transfer-encoding", "chunked"), "{:?}", head.raw);
    assert_eq!(client.wire().take(10), b"5\r\nhello\r\n");
    read.send(()).unwrap();
    assert_eq!(client.wire().rest(), b"", "no last chunk");
}

#[test]
fn bad_chunks_in_a_response_cut_it() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let long = "e".repeat(40 * 1024);
    for (name, bad) in [
        ("empty size", "\r\nEVIL\r\n".to_owned()),
        ("sign", "+4\r\nEVIL\r\n".into()),
        ("no digit", "x\r\nEVIL\r\n".into()),
        ("overflow", "fffffffffffffffff\r\nEVIL\r\n".into()),
        ("LF after the size", "4\nEVIL\r\n".into()),
        ("LF after the data", "2\r\nxx\nEVIL\r\n".into()),
        ("data too long", "2\r\nxxEVIL\r\n".into()),
        ("over-long extension", format!("4;{long}\r\nEVIL\r\n")),
        ("LF in an extension", "4;a\nb\r\nEVIL\r\n".into()),
        ("bad trailer", "0\r\nX : y\r\nEVIL: x\r\n".into()),
    ] {
        let backend = Backend::new(move |mut conn| {
            if conn.request().is_some() {
                conn.send(format!("{head}{bad}0\r\n\r\n"));
                conn.drain();
            }
        });
        let tinylb = Tinylb::before(&backend);
        let mut client = tinylb.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
        let response = client.try_response_to("GET");
        if let Some(response) = &response {
            assert!(!response.text().contains("EVIL"), "{name}: {:?}", response.text());
        }
        match response.filter(|response| response.complete) {
            // Nothing of it had gone on when the fault was seen.
            Some(response) => response.assert_fault(502, "http_protocol_error"),
            None => client.assert_closed(),
        }
        backend.end_of(0);
    }
}

/// Bytes after the end belong to nobody, least of all to the next request.
#[test]
fn what_comes_after_the_end_is_never_an_answer() {
    let extra = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned";
    for (method, answer) in [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 46\r\n\r\n"),
    ] {
        for at_once in [true, false] {
            let (sent, sending) = mpsc::channel();
            let (go, going) = mpsc::channel();
            let going = Mutex::new(going);
            let backend = Backend::new(move |mut conn| {
                if conn.index > 0 {
                    return conn.answer_all(ok("fresh"));
                }
                conn.request().unwrap();
                if at_once {
                    conn.send(format!("{answer}{extra}"));
                } else {
                    conn.send(answer);
                    going.lock().unwrap().recv_timeout(PATIENCE).unwrap();
                    conn.send(extra);
                }
                sent.send(()).unwrap();
                conn.drain();
            });
            let tinylb = Tinylb::before(&backend);
            let mut client = tinylb.connect();
            client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
            let first = client.response_to(method);
            assert!(!first.text().contains("poisoned"));
            let _ = go.send(());
            sending.recv_timeout(PATIENCE).unwrap();
            let next = client.get("/next");
            assert_eq!(next.text(), "fresh", "after {method} {answer:?}, at once: {at_once}");
            backend.end_of(0);
        }
    }
}

#[test]
fn failures_of_our_own_name_no_addresses() {
    let backend = Backend::closing_after("garbage\r\n\r\n");
    let port = backend.address().port().to_string();
    let response = Tinylb::before(&backend).get("/");
    assert_eq!(response.status, 502);
    let said = format!("{}{}", response.head.raw, response.text());
    assert!(!said.contains("127.0.0.1") && !said.contains(&port), "{said}");
}

#[test]
fn a_proxy_status_from_upstream_is_kept() {
    let backend = Backend::answering(
        "HTTP/1.1 502 Bad Gateway\r\nProxy-Status: inner; error=dns_error\r\nContent-Length: 0\r\n\r\n",
    );
    let response = Tinylb::before(&backend).get("/");
    let members = response.head.list("proxy-status");
    assert_eq!((response.status, members[0].as_str()), (502, "inner; error=dns_error"));
    assert_eq!(members.len(), 1, "this is no failure of ours: {members:?}");
}
