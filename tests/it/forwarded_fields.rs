//! Fields that the balancer adds, believes or removes: hop by hop, Via, X-Forwarded-*, X-Request-Id.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::{io, net::TcpStream, thread};

use crate::support::{Backend, Head, Request, Response, Tinylb, config};

/// What a backend gets of a GET with these field lines, from a balancer with `options`.
#[track_caller]
fn forwarded(options: &[&str], lines: &str) -> Request {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::start(&[backend.url()], options);
    let response = tinylb.exchange(format!("GET /x HTTP/1.1\r\nHost: site.test\r\n{lines}\r\n"));
    assert_eq!(response.status, 200, "{:?}", response.head.raw);
    backend.request()
}

/// What a client gets of a response with these field lines.
#[track_caller]
fn returned(lines: &str) -> Response {
    let head = format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 4\r\n\r\nbody");
    let backend = Backend::answering(head);
    let response = Tinylb::before(&backend).get("/");
    assert_eq!(response.text(), "body");
    response
}

#[track_caller]
fn assert_without(head: &Head, names: &[&str]) {
    for name in names {
        assert!(!head.has(name), "{name} stops here: {:?}", head.raw);
    }
    for named in head.list("connection") {
        assert!(
            !names.iter().any(|n| n.eq_ignore_ascii_case(&named)),
            "Connection names what is not there: {:?}",
            head.raw
        );
    }
}

const HOP_BY_HOP: &str = "Connection: X-Gone, keep-alive\r\nX-Gone: 1\r\nKeep-Alive: timeout=9\r\n\
    Proxy-Connection: keep-alive\r\nX-Stays: 1\r\nconnection: ,x-also-gone ,\r\nX-Also-Gone: 2\r\n";

#[test]
fn hop_by_hop_fields_of_requests_stop_here() {
    let got = forwarded(&[], HOP_BY_HOP);
    assert_without(&got.head, &["x-gone", "x-also-gone", "keep-alive", "proxy-connection"]);
    assert_eq!(got.head.get("x-stays"), Some("1"));
    let got = forwarded(
        &[],
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMA\r\n",
    );
    assert_without(&got.head, &["upgrade", "http2-settings"]);
    let got = forwarded(&[], "Upgrade: websocket\r\n");
    assert_without(&got.head, &["upgrade"]);
}

#[test]
fn hop_by_hop_fields_of_responses_stop_here() {
    let response = returned(HOP_BY_HOP);
    assert_without(&response.head, &["x-gone", "x-also-gone", "proxy-connection"]);
    assert!(response.head.get("keep-alive") != Some("timeout=9"), "{:?}", response.head.raw);
    assert_eq!(response.head.get("x-stays"), Some("1"));
    let response = returned("Upgrade: h2c\r\nConnection: upgrade\r\n");
    assert_without(&response.head, &["upgrade"]);
}

/// Whatever Connection claims: these frame and route the message, and ours are added after.
#[test]
fn connection_cannot_remove_host_or_framing_or_what_we_add() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    let names = "Host, Content-Length, Transfer-Encoding, X-Forwarded-For, Via, X-Request-Id";
    let head = format!("POST / HTTP/1.1\r\nHost: site.test\r\nConnection: {names}\r\n");
    let mut client = tinylb.connect();
    client.send(format!("{head}Content-Length: 4\r\n\r\nbody"));
    assert_eq!(client.response().status, 200);
    client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"));
    assert_eq!(client.response().status, 200);
    assert_eq!(backend.requests().len(), 2);
    for got in backend.requests() {
        assert_eq!(got.body, b"body");
        assert_eq!(got.head.get("host"), Some("site.test"));
        assert_eq!(got.head.get("x-forwarded-for"), Some("127.0.0.1"));
        assert!(got.head.has("via") && got.head.has("x-request-id"), "{:?}", got.head.raw);
    }
    let response = returned("Connection: Content-Length, Via, Date\r\n");
    assert!(response.head.has("via") && response.head.has("date"), "{:?}", response.head.raw);
}

#[test]
fn te_trailers_is_sent_anew_and_nothing_else_of_te() {
    let got = forwarded(&[], "TE: deflate;q=0.5, trailers\r\nConnection: TE\r\n");
    assert_eq!(got.head.get("te"), Some("trailers"));
    assert!(got.head.lists("connection", "te"), "{:?}", got.head.raw);
    for lines in ["", "TE: deflate\r\nConnection: TE\r\n", "TE: trailersx\r\nConnection: TE\r\n"] {
        assert_without(&forwarded(&[], lines).head, &["te"]);
    }
}

#[test]
fn via_is_added_behind_those_that_are_there() {
    let got = forwarded(&[], "Via: 1.0 first, 1.1 second (comment)\r\n");
    let via = got.head.list("via");
    assert_eq!(via[..2], ["1.0 first", "1.1 second (comment)"]);
    assert!(via.len() == 3 && via[2].starts_with("1.1 "), "{via:?}");
    let response = returned("Via: 1.1 inner\r\n");
    let via = response.head.list("via");
    assert!(via.len() == 2 && via[0] == "1.1 inner" && via[1].starts_with("1.1 "), "{via:?}");

    let backend = Backend::named("fine");
    let response = Tinylb::before(&backend).exchange("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(response.status, 200);
    let via = backend.request().head.list("via");
    assert!(via.len() == 1 && via[0].starts_with("1.0 "), "the protocol received: {via:?}");
}

/// Passes bytes on, both ways.
fn relay(from: TcpStream, to: SocketAddr) {
    let Ok(to) = TcpStream::connect(to) else { return };
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    };
    let back = (to.try_clone().unwrap(), from.try_clone().unwrap());
    thread::spawn(move || copy(back.0, back.1));
    copy(from, to);
}

#[test]
fn a_loop_is_found() {
    let itself = Arc::new(OnceLock::new());
    let backend = Backend::new({
        let itself = Arc::clone(&itself);
        move |conn| relay(conn.wire.stream().try_clone().unwrap(), *itself.get().unwrap())
    });
    let tinylb = Tinylb::before(&backend);
    itself.set(tinylb.address()).unwrap();
    let response = tinylb.get("/");
    assert_eq!(response.status, 502, "{:?}", response.head.raw);
    assert!(
        response.proxy_status().contains("error=proxy_loop_detected"),
        "{:?}",
        response.head.raw
    );
    assert_eq!(backend.connections(), 3, "it goes round three times");
}

#[test]
fn two_chained_balancers_are_no_loop() {
    let backend = Backend::named("through both");
    let inner = Tinylb::before(&backend);
    let outer = Tinylb::start(&[format!("http://{}", inner.address())], &[]);
    let response = outer.get("/");
    assert_eq!((response.status, response.text().as_str()), (200, "through both"));
    let via = backend.request().head.list("via");
    assert!(via.len() == 2 && via[0] != via[1], "two, with names of their own: {via:?}");
    assert_eq!(response.head.list("via").len(), 2);
}

const CLAIMS: &str = "X-Forwarded-For: 1.2.3.4\r\nx-forwarded-for: 5.6.7.8, 9.9.9.9\r\n\
    X-Forwarded-Proto: https\r\nX-Forwarded-Host: claimed.test\r\nX-Request-Id: claimed-id\r\n\
    Forwarded: for=1.2.3.4\r\n";

#[test]
fn forwarded_fields_are_set_from_the_connection() {
    for lines in ["", CLAIMS] {
        let got = forwarded(&[], lines);
        assert_eq!(got.head.get("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(got.head.get("x-forwarded-proto"), Some("http"));
        assert_eq!(got.head.get("x-forwarded-host"), Some("site.test"));
        let id = got.head.get("x-request-id").expect("an id is made");
        assert!(id.len() >= 16 && id != "claimed-id", "{id:?}");
        assert!(!got.head.has("forwarded"), "on request only: {:?}", got.head.raw);
    }
    let elsewhere = forwarded(&["--trusted-proxies", "10.0.0.0/8,192.168.0.0/16"], CLAIMS);
    assert_eq!(elsewhere.head.get("x-forwarded-for"), Some("127.0.0.1"), "others are trusted");
}

#[test]
fn a_trusted_proxys_fields_are_kept() {
    let got = forwarded(&["--trusted-proxies", "10.0.0.0/8,127.0.0.0/8"], CLAIMS);
    let chain = got.head.list("x-forwarded-for");
    assert_eq!(chain, ["1.2.3.4", "5.6.7.8", "9.9.9.9", "127.0.0.1"]);
    assert_eq!(got.head.get("x-forwarded-proto"), Some("https"));
    assert_eq!(got.head.get("x-forwarded-host"), Some("claimed.test"));
    assert_eq!(got.head.get("x-request-id"), Some("claimed-id"));
    let got = forwarded(&["--trusted-proxies", "127.0.0.1/32"], "");
    assert_eq!(got.head.get("x-forwarded-for"), Some("127.0.0.1"), "set where it said nothing");
    assert_eq!(got.head.get("x-forwarded-proto"), Some("http"));
    assert!(got.head.has("x-request-id"));
}

#[test]
fn request_ids_are_each_their_own() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    for _ in 0..50 {
        assert_eq!(client.get("/").status, 200);
        assert_eq!(tinylb.get("/").status, 200);
    }
    let mut ids: Vec<_> =
        backend.requests().iter().map(|r| r.head.get("x-request-id").unwrap().to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 100);
}

#[test]
fn forwarded_is_sent_on_request() {
    for (trusted, lines, expected) in [
        ("", "", 1),
        ("", "Forwarded: for=1.2.3.4\r\n", 1),
        ("trusted_proxies = [\"127.0.0.0/8\"]", "Forwarded: for=1.2.3.4\r\n", 2),
    ] {
        let backend = Backend::named("fine");
        let tinylb = Tinylb::run(&config(&[backend.url()], trusted, "forwarded = true"));
        let request = format!("GET / HTTP/1.1\r\nHost: site.test:81\r\n{lines}\r\n");
        assert_eq!(tinylb.exchange(request).status, 200);
        let got = backend.request();
        let elements = got.head.list("forwarded");
        assert_eq!(elements.len(), expected, "{elements:?}");
        let ours = elements.last().unwrap().to_ascii_lowercase();
        let mut pairs: Vec<_> = ours.split(';').map(str::trim).collect();
        pairs.retain(|pair| !pair.starts_with("by="));
        pairs.sort();
        assert_eq!(pairs, ["for=127.0.0.1", "host=\"site.test:81\"", "proto=http"]);
        assert_eq!(got.head.get("x-forwarded-for"), Some("127.0.0.1"), "beside the others");
    }
}

/// Whatever some backend may believe of where a request came from, also with the underscores that
/// some take for hyphens.
#[test]
fn every_kin_of_the_forwarded_fields_is_believed_of_trusted_peers_only() {
    let lines = "X-Forwarded-Port: 6666\r\nX_Forwarded_For: 6.6.6.6\r\n";
    let got = forwarded(&[], lines);
    assert_without(&got.head, &["x-forwarded-port", "x_forwarded_for"]);
    assert!(
        !got.head.raw.contains("6666") && !got.head.raw.contains("6.6.6.6"),
        "{:?}",
        got.head.raw
    );
    let got = forwarded(&["--trusted-proxies", "127.0.0.1"], lines);
    assert_eq!(got.head.get("x-forwarded-port"), Some("6666"), "{:?}", got.head.raw);
    assert_eq!(got.head.get("x_forwarded_for"), Some("6.6.6.6"), "{:?}", got.head.raw);
}
