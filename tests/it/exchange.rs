//! How exchanges follow one another on a connection: persistence, pipelining, interim and early
//! responses, and clients that leave.

use std::sync::mpsc;
use std::time::Duration;

use crate::support::{Backend, End, Framing, Gate, PATIENCE, Tinylb, ok};

/// A backend that answers with the target it was asked for.
fn echoing() -> Backend {
    Backend::new(|mut conn| {
        while let Some(request) = conn.request() {
            let answer = ok(&format!("{} {}", request.target(), request.body.len()));
            if !conn.send(answer) {
                return;
            }
        }
    })
}

#[test]
fn connections_persist_on_both_sides() {
    let backend = echoing();
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    for i in 0..100 {
        let response = client.get(&format!("/{i}"));
        assert_eq!(response.text(), format!("/{i} 0"));
        assert!(!response.head.lists("connection", "close"), "{:?}", response.head.raw);
    }
    assert_eq!(backend.connections(), 1);
    assert!(
        backend.requests().iter().all(|r| !r.head.lists("connection", "close")),
        "endpoints are told to keep it"
    );
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let backend = echoing();
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    let mut requests = String::new();
    for i in 0..50 {
        requests += &match i % 4 {
            0 => format!("GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n"),
            1 => format!(
                "POST /{i} HTTP/1.1\r\nHost: a\r\nContent-Length: {i}\r\n\r\n{}",
                "x".repeat(i)
            ),
            2 => format!(
                "POST /{i} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{i:x}\r\n{}\r\n0\r\n\r\n",
                "y".repeat(i)
            ),
            _ => format!("DELETE /{i} HTTP/1.1\r\nHost: a\r\nX: GET / HTTP/1.1\r\n\r\n"),
        };
    }
    client.send(requests);
    for i in 0..50 {
        let size = if matches!(i % 4, 1 | 2) { i } else { 0 };
        assert_eq!(client.response().text(), format!("/{i} {size}"));
    }
    assert_eq!(backend.connections(), 1, "one after the other");
    client.half_close();
    client.assert_closed();
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    let backend = echoing();
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    assert_eq!(client.get("/first").text(), "/first 0");
    client.send("\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().text(), "/second 0", "RFC 9112 2.2");
}

#[test]
fn a_client_that_says_close_is_closed_after_its_answer() {
    let backend = echoing();
    let tinylb = Tinylb::before(&backend);
    for value in ["close", "Close", "x, CLOSE"] {
        let mut client = tinylb.connect();
        client.send(format!("GET /a HTTP/1.1\r\nHost: a\r\nConnection: {value}\r\n\r\n"));
        client.send("GET /never HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.response();
        assert_eq!(response.text(), "/a 0");
        assert!(response.head.lists("connection", "close"), "{:?}", response.head.raw);
        client.assert_closed();
    }
    assert!(backend.requests().iter().all(|r| r.target() == "/a"), "nothing after it is served");
}

#[test]
fn a_backend_that_says_close_is_not_asked_again_and_its_client_stays() {
    let backend = Backend::new(|mut conn| {
        if conn.request().is_some() {
            conn.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
            conn.drain();
        }
    });
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    for i in 0..3 {
        let response = client.get("/");
        assert_eq!(response.text(), "ok");
        assert!(!response.head.lists("connection", "close"), "hop by hop: {:?}", response.head.raw);
        backend.end_of(i);
    }
}

#[test]
fn continue_goes_end_to_end() {
    let (told, tell) = mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let backend = Backend::new(move |mut conn| {
        while let Some(head) = conn.head() {
            assert!(head.lists("expect", "100-continue"), "{:?}", head.raw);
            tell.lock().unwrap().recv().unwrap();
            conn.send("HTTP/1.1 100 Continue\r\n\r\n");
            let Some(request) = conn.body(head) else { return };
            conn.send(ok(&String::from_utf8_lossy(&request.body)));
        }
    });
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    for _ in 0..2 {
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 4\r\n\r\n",
        );
        told.send(()).unwrap();
        let interim = client.response();
        assert_eq!(interim.status, 100, "{:?}", interim.head.raw);
        assert!(!interim.head.has("content-length"));
        client.send("body");
        assert_eq!(client.response().text(), "body");
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn nothing_says_continue_but_the_backend() {
    let (seen, see) = mpsc::channel();
    let backend = Backend::new(move |mut conn| {
        let head = conn.head().unwrap();
        seen.send(()).unwrap();
        conn.body(head);
        conn.send(ok("without"));
    });
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    see.recv_timeout(PATIENCE).expect("the head goes on without the body");
    client.send("body");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (200, "without"));
    assert_eq!(backend.request().body, b"body");
}

#[test]
fn a_final_response_before_continue_closes_both_sides() {
    for status in ["417 Expectation Failed", "200 OK"] {
        let backend = Backend::new(move |mut conn| {
            conn.head().unwrap();
            conn.send(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno"));
            conn.drain();
        });
        let tinylb = Tinylb::before(&backend);
        let mut client = tinylb.connect();
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 40\r\n\r\n",
        );
        let response = client.response();
        assert_eq!(response.status.to_string(), status[..3]);
        assert_eq!(response.text(), "no");
        assert!(response.head.lists("connection", "close"), "{:?}", response.head.raw);
        let _ = client.try_send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        client.assert_closed();
        backend.end_of(0);
        let received = String::from_utf8_lossy(&backend.received()).into_owned();
        assert!(!received.contains("smuggled"), "{received}");
    }
}

#[test]
fn interim_responses_are_forwarded_in_order() {
    let backend = Backend::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
         HTTP/1.1 102 Processing\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\nLink: </b.js>; rel=preload\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal",
    );
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    for _ in 0..2 {
        let first = client.get("/");
        assert_eq!((first.status, first.framing), (103, Framing::None));
        assert_eq!(first.head.get("link"), Some("</a.css>; rel=preload"));
        assert_eq!(client.response().status, 102);
        assert_eq!(client.response().head.get("link"), Some("</b.js>; rel=preload"));
        assert_eq!(client.response().text(), "final");
    }
    assert_eq!(backend.connections(), 1);
    let response = tinylb.exchange("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(response.status, 200, "HTTP/1.0 knows no interim responses");
}

#[test]
fn an_early_response_reaches_the_client_that_is_still_sending() {
    let backend = Backend::new(|mut conn| {
        conn.head().unwrap();
        conn.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig");
        conn.wire.half_close();
        conn.drain();
    });
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n");
    client.send("x".repeat(10_000));
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (413, "big"));
    let _ = client.try_send("x".repeat(100_000));
    client.assert_closed();
    backend.end_of(0);
}

/// Both bodies move at once: an echo that answers while it reads.
#[test]
fn a_response_may_stream_while_the_request_does() {
    let backend = Backend::new(|mut conn| {
        conn.head().unwrap();
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..20 {
            let piece = conn.wire.take(3);
            conn.send(format!("3\r\n{}\r\n", String::from_utf8_lossy(&piece)));
        }
        conn.send("0\r\n\r\n");
        conn.drain();
    });
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n\r\n");
    let head = client.wire().head().expect("a response while the body is owed");
    assert!(head.lists("transfer-encoding", "chunked"), "{:?}", head.raw);
    let mut echoed = String::new();
    for i in 0..20 {
        client.send(format!("{i:03}"));
        while echoed.len() < 3 * (i + 1) {
            let size = client.wire().line().expect("a chunk's size");
            let size = usize::from_str_radix(&size, 16).unwrap();
            echoed += &String::from_utf8(client.wire().take(size)).unwrap();
            assert_eq!(client.wire().take(2), b"\r\n");
        }
    }
    let expected: String = (0..20).map(|i| format!("{i:03}")).collect();
    assert_eq!(echoed, expected);
    assert_eq!(client.wire().take(5), b"0\r\n\r\n");
}

#[test]
fn a_client_that_resets_ends_the_exchange_and_is_logged_as_499() {
    let (arrived, arrives) = mpsc::channel();
    let backend = Backend::new(move |mut conn| {
        if conn.request().is_some() {
            arrived.send(()).unwrap();
            conn.drain();
        }
    });
    let tinylb = Tinylb::start(&[backend.url()], &["--access-log", "json"]);
    let mut client = tinylb.connect();
    client.send("GET /left HTTP/1.1\r\nHost: a\r\n\r\n");
    arrives.recv_timeout(PATIENCE).expect("the request arrives");
    client.reset();
    let end = backend.end_of(0);
    assert!(matches!(end, End::Fin | End::Reset));
    let line: serde_json::Value =
        serde_json::from_str(&tinylb.wait_for_access("/left")).expect("a line of JSON");
    assert_eq!(line["status"], 499, "{line}");
}

/// The same in mid-body, of which the backend takes no more.
#[test]
fn a_client_that_resets_a_stuck_upload_is_noticed() {
    let gate = Gate::new();
    let backend = Backend::narrow({
        let gate = gate.clone();
        move |mut conn| {
            conn.head();
            gate.pass();
            conn.drain();
        }
    });
    let tinylb = Tinylb::start(&[backend.url()], &["--access-log", "json"]);
    let mut client = tinylb.connect();
    client.send("POST /stuck HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n");
    client.wire().stream().set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    while client.try_send([0; 16 * 1024]).is_ok() {}
    client.reset();
    assert_eq!(tinylb.told("/stuck")["status"], 499);
    gate.open();
    backend.end_of(0);
}
