//! What `Connection` cannot take away, and names that some servers take for those of other fields.

use http::Request;

use crate::support::streams::{Streams, run};
use crate::support::{Backend, Tinylb, ok};

/// A backend that wants the body only of who expects a 100.
fn continuing() -> Backend {
    Backend::new(|mut conn| {
        while let Some(head) = conn.head() {
            if head.get("expect") == Some("100-continue") {
                conn.send("HTTP/1.1 100 Continue\r\n\r\n");
            }
            if conn.body(head).is_none() {
                return;
            }
            conn.send(ok("fine"));
        }
    })
}

#[test]
fn an_expectation_that_connection_names_is_met() {
    let backend = continuing();
    let tinylb = Tinylb::before(&backend);
    for option in ["expect", "Expect", "EXPECT, x"] {
        let mut client = tinylb.connect();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: {option}\r\nExpect: 100-continue\r\n\
             Content-Length: 4\r\n\r\n"
        ));
        assert_eq!(client.response().status, 100, "{option}");
        client.send("body");
        assert_eq!(client.response().text(), "fine");
        client.assert_open();
    }
}

/// Whatever we act on goes on as we understood it.
#[test]
fn connection_takes_away_nothing_that_we_act_on() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::start(&[backend.url()], &["--trusted-proxies", "127.0.0.1"]);
    let fields = [
        ("X-Forwarded-Port", "443"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "site.test"),
        ("X-Client-Subject", "CN=a"),
        ("Trailer", "X-Sum"),
    ];
    for (name, value) in fields {
        let response = tinylb.exchange(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, {name}\r\n{name}: {value}\r\nX: 1\r\n\r\n"
        ));
        assert_eq!(response.status, 200);
        let got = backend.requests().pop().unwrap().head;
        assert_eq!((got.get(name), got.has("x")), (Some(value), false), "{:?}", got.raw);
    }
    let response = tinylb.exchange(
        "OPTIONS / HTTP/1.1\r\nHost: a\r\nConnection: max-forwards\r\nMax-Forwards: 3\r\n\r\n",
    );
    assert_eq!(response.status, 200);
    assert_eq!(backend.requests().pop().unwrap().head.get("max-forwards"), Some("2"));
}

/// Field lines whose names are the same as those of others for CGI, WSGI and their like.
const COLLIDING: [&str; 15] = [
    "Content_Length: 5",
    "content_length: 5",
    "Transfer_Encoding: chunked",
    "transfer.encoding: chunked",
    "X_Forwarded_For: 6.6.6.6",
    "x-forwarded_for: 6.6.6.6",
    "X_Forwarded_Host: evil",
    "X.Forwarded.Proto: https",
    "X_Real_IP: 6.6.6.6",
    "X-Real_IP: 6.6.6.6",
    "X_Request_Id: forged",
    "x-request_id: forged",
    "X_Client_Subject: CN=admin",
    "Keep_Alive: 5",
    "Max_Forwards: 0",
];

#[test]
fn names_that_collide_with_ours_are_dropped() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    for line in COLLIDING {
        let (name, value) = line.split_once(": ").unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\nX_Other: 1\r\n");
        for rest in [
            "Content-Length: 4\r\n\r\nbody",
            "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        ] {
            assert_eq!(tinylb.exchange(format!("{head}{rest}")).status, 200, "{line}");
            let got = backend.requests().pop().unwrap();
            assert!(!got.head.has(name), "{:?}", got.head.raw);
            assert_eq!((got.body.as_slice(), got.head.get("x_other")), (&b"body"[..], Some("1")));
        }
        run(async {
            let request = Request::post("http://test/").header(name, value);
            let request = request.header("x_other", "1").body(&b"body"[..]).unwrap();
            let answer = Streams::connect(&tinylb).await.exchange(request).await;
            assert_eq!(answer.status, 200, "{line}");
        });
        let got = backend.requests().pop().unwrap();
        assert!(!got.head.has(name), "{:?}", got.head.raw);
        assert_eq!((got.body.as_slice(), got.head.get("x_other")), (&b"body"[..], Some("1")));
    }
}

/// Of a trusted proxy the forwarding fields are believed in any spelling, and framing in none.
#[test]
fn framing_in_another_spelling_is_believed_of_nobody() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::start(&[backend.url()], &["--trusted-proxies", "127.0.0.1"]);
    for line in COLLIDING {
        let name = line.split_once(": ").unwrap().0;
        let response = tinylb.exchange(format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n"));
        assert_eq!(response.status, 200);
        let lower = name.to_lowercase();
        let is_believed =
            lower.starts_with("x") && lower.contains("forwarded") || lower.contains("subject");
        let got = backend.requests().pop().unwrap();
        assert_eq!(got.head.has(name), is_believed, "{:?}", got.head.raw);
    }
}

/// What looks alike and collides with nothing goes on, and so does everything in responses.
#[test]
fn other_names_with_underscores_go_on() {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX_Other: 1\r\nX_Request_Id: a\r\n\r\nfine",
    );
    let tinylb = Tinylb::before(&backend);
    for name in [
        "Content_Type",
        "User_Agent",
        "X_Api_Key",
        "content_lengths",
        "x_real_ips",
        "_",
        "X-Real-IP",
    ] {
        let response = tinylb.exchange(format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: 1\r\n\r\n"));
        assert_eq!((response.status, response.text().as_str()), (200, "fine"));
        assert_eq!(response.head.get("x_request_id"), Some("a"));
        assert_eq!(backend.requests().pop().unwrap().head.get(name), Some("1"));
    }
}
