//! TLS to endpoints: who is believed, what they are told, and what a handshake that fails costs.

use std::io::{Read, Write};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::ProtocolVersion;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::support::certificates::{Authority, Pair};
use crate::support::tls_front::{Terms, TlsFront};
use crate::support::{
    Backend, End, FramesBackend, Held, Http2Backend, PATIENCE, Refusing, Response, Signal, Tinylb,
    config, eventually, ok, ranked,
};

const HTTP1: &[&str] = &["http/1.1"];
const BOTH: &[&str] = &["h2", "http/1.1"];
const KEPT: &str = "timeouts = { idle = \"5m\", connect = \"20s\" }";

/// A configuration with one worker.
fn of_one(endpoints: &[String], upstream: &str) -> String {
    config(endpoints, "", upstream).replace("workers = 2", "workers = 1")
}

fn trusting(authority: &Authority, further: &str) -> String {
    format!("tls = {{ ca = {:?}{further} }}\n{KEPT}", authority.ca())
}

const POST: &str = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody";

#[test]
fn an_endpoint_is_asked_for_by_name_and_agrees_on_http_2() {
    let authority = Authority::new("ours");
    let terms = Terms::new(&authority.server("server", &["localhost"])).alpn(BOTH);
    let (plain, http2) = (Backend::answering(ok("by 1.1")), Http2Backend::answering("by 2"));
    for (further, backend, alpn, text) in [
        ("", http2.address(), "h2", "by 2"),
        ("\nhttp2 = false", plain.address(), "http/1.1", "by 1.1"),
    ] {
        let front = TlsFront::new(&terms, backend);
        let upstream = trusting(&authority, "") + further;
        let tinylb = Tinylb::run(&of_one(&[front.url_by_name("localhost")], &upstream));
        for _ in 0..3 {
            let response = tinylb.get("/");
            assert_eq!((response.status, response.text().as_str()), (200, text));
        }
        let [agreed] = &front.agreed()[..] else { panic!("one connection is kept") };
        assert_eq!(agreed.server_name.as_deref(), Some("localhost"));
        assert_eq!(agreed.alpn.as_deref(), Some(alpn));
        assert_eq!(agreed.version, ProtocolVersion::TLSv1_3);
    }
}

#[test]
fn a_certificate_for_an_address_and_one_for_another_name_by_its_own() {
    let authority = Authority::new("ours");
    let backend = Backend::answering(ok("fine"));
    for (names, further, server_name) in [
        (["127.0.0.1"], "", None),
        (["app.internal"], ", server_name = \"app.internal\"", Some("app.internal")),
    ] {
        let terms = Terms::new(&authority.server("server", &names));
        let front = TlsFront::new(&terms, backend.address());
        let tinylb = Tinylb::run(&of_one(&[front.url()], &trusting(&authority, further)));
        assert_eq!(tinylb.get("/").text(), "fine");
        assert_eq!(front.agreed()[0].server_name.as_deref(), server_name);
    }
    let host = backend.requests()[0].head.get("host").map(str::to_owned);
    assert_eq!(host.as_deref(), Some("test"), "the client's, whatever the certificate says");
}

#[test]
fn older_tls_will_do() {
    let authority = Authority::new("ours");
    let backend = Http2Backend::answering("by 1.2");
    let pair = authority.server("server", &["127.0.0.1"]);
    let version = Some(&rustls::version::TLS12);
    let front =
        TlsFront::new(&Terms { version, ..Terms::new(&pair).alpn(BOTH) }, backend.address());
    let tinylb = Tinylb::run(&of_one(&[front.url()], &trusting(&authority, "")));
    assert_eq!(tinylb.get("/").text(), "by 1.2");
    assert_eq!(front.agreed()[0].version, ProtocolVersion::TLSv1_2);
}

#[test]
fn who_is_not_to_be_trusted_gets_nothing_and_is_named() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let backend = Backend::answering(ok("never"));
    let well = Http2Backend::answering("other");
    let (this, next) = (["127.0.0.1"], (2100, 2101));
    for (pair, details) in [
        (other.server("server", &this), "from nobody who is trusted"),
        (ours.server("named", &["localhost"]), "for another name"),
        (ours.server_between("old", &this, (2020, 2021)), "has ended"),
        (ours.server_between("new", &this, next), "has not begun"),
    ] {
        let front = TlsFront::new(&Terms::new(&pair), backend.address());
        let tinylb = Tinylb::run(&of_one(&[front.url()], &trusting(&ours, "")));
        let response = tinylb.exchange(POST);
        response.assert_fault(502, "tls_certificate_error");
        assert!(response.proxy_status().contains(details), "{details}: {:?}", response.head.raw);
        assert_eq!(tinylb.first_state(), "unreachable", "it can't serve anybody");
        // Nothing was sent, so another may have it.
        let urls = [front.url(), well.url()];
        let tinylb = Tinylb::run(&ranked(&urls, "", &trusting(&ours, "")));
        for _ in 0..3 {
            assert_eq!(tinylb.exchange(POST).text(), "other", "{details}");
        }
        // Whoever does not care gets through.
        let careless = format!("tls = {{ insecure_skip_verify = true }}\n{KEPT}");
        let tinylb = Tinylb::run(&of_one(&[front.url()], &careless));
        assert_eq!(tinylb.exchange(POST).text(), "never");
    }
    assert_eq!(backend.requests().len(), 4);
}

#[test]
fn authorities_of_the_system_are_trusted_where_none_is_named() {
    let authority = Authority::new("system");
    let backend = Backend::answering(ok("trusted"));
    let terms = Terms::new(&authority.server("server", &["127.0.0.1"]));
    let front = TlsFront::new(&terms, backend.address());
    let text = of_one(&[front.url()], "");
    let tinylb = Tinylb::run_with_env(&text, &[("SSL_CERT_FILE", &authority.ca())]);
    assert_eq!(tinylb.get("/").text(), "trusted");
    let stranger = Authority::new("stranger");
    let tinylb = Tinylb::run_with_env(&text, &[("SSL_CERT_FILE", &stranger.ca())]);
    tinylb.get("/").assert_fault(502, "tls_certificate_error");
}

/// The first certificate of a file.
fn certificate(pair: &Pair) -> Vec<u8> {
    CertificateDer::from_pem_file(&pair.cert).unwrap().to_vec()
}

#[test]
fn an_endpoint_that_wants_a_certificate_of_ours() {
    let authority = Authority::new("ours");
    let server = authority.server("server", &["127.0.0.1"]);
    let own = authority.client("own", "balancer");
    let (plain, http2) = (Backend::answering(ok("by 1.1")), Http2Backend::answering("by 2"));
    let well = Http2Backend::answering("other");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (backend, alpn, text) in
            [(plain.address(), HTTP1, "by 1.1"), (http2.address(), BOTH, "by 2")]
        {
            let client_ca = Some(authority.ca());
            let terms =
                Terms { version: Some(version), client_ca, ..Terms::new(&server).alpn(alpn) };
            let front = TlsFront::new(&terms, backend);
            let with = format!(", {}", own.keys());
            let tinylb = Tinylb::run(&of_one(&[front.url()], &trusting(&authority, &with)));
            assert_eq!(tinylb.exchange(POST).text(), text);
            assert_eq!(front.agreed()[0].client, Some(certificate(&own)));
            let tinylb = Tinylb::run(&of_one(&[front.url()], &trusting(&authority, "")));
            for method in ["GET", "POST"] {
                let response = tinylb.exchange(format!(
                    "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
                ));
                response.assert_fault(502, "tls_protocol_error");
                let details = "wants another certificate of ours";
                assert!(response.proxy_status().contains(details), "{:?}", response.head.raw);
            }
            let urls = [front.url(), well.url()];
            let tinylb = Tinylb::run(&ranked(&urls, "", &trusting(&authority, "")));
            for _ in 0..3 {
                assert_eq!(tinylb.exchange(POST).text(), "other", "{version:?} {alpn:?}");
            }
        }
    }
}

#[test]
fn a_certificate_of_ours_that_changes_is_shown_from_then_on() {
    let authority = Authority::new("ours");
    let own = authority.client("own", "before");
    let backend = Backend::closing_after(ok("fine"));
    let server = authority.server("server", &["127.0.0.1"]);
    let terms = Terms { client_ca: Some(authority.ca()), ..Terms::new(&server) };
    let front = TlsFront::new(&terms, backend.address());
    let with = format!(", {}", own.keys());
    let tinylb = Tinylb::run(&of_one(&[front.url()], &trusting(&authority, &with)));
    assert_eq!(tinylb.get("/").text(), "fine");
    let before = certificate(&own);
    assert_eq!(front.agreed()[0].client.as_ref(), Some(&before));
    authority.client("own", "after");
    let after = certificate(&own);
    assert_ne!(before, after);
    eventually("the new one is shown", || {
        assert_eq!(tinylb.get("/").text(), "fine");
        (front.agreed().last()?.client.as_ref() == Some(&after)).then_some(())
    });
}

#[test]
fn sessions_are_taken_up_again() {
    let authority = Authority::new("ours");
    let pair = authority.server("server", &["127.0.0.1"]);
    let backend = Backend::closing_after(ok("brief"));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let terms = Terms { version: Some(version), ..Terms::new(&pair) };
        let front = TlsFront::new(&terms, backend.address());
        let tinylb = Tinylb::run(&config(&[front.url()], "", &trusting(&authority, "")));
        for _ in 0..12 {
            assert_eq!(tinylb.get("/").text(), "brief");
        }
        let agreed = front.agreed();
        let resumed = agreed.iter().filter(|agreed| agreed.is_resumed).count();
        assert!(agreed.len() == 12 && resumed >= 10, "{version:?}: {resumed} of {}", agreed.len());
    }
}

/// Listens, and does `script` with each connection.
fn raw(script: impl Fn(std::net::TcpStream) + Send + Sync + 'static) -> (FramesBackend, String) {
    let backend = FramesBackend::raw(move |stream, _| script(stream));
    let url = backend.url().replace("h2c://", "https://");
    (backend, url)
}

#[test]
fn handshakes_that_fail_say_why_and_lose_nothing() {
    let read_some = |stream: &mut std::net::TcpStream| stream.read(&mut [0; 4096]).is_ok();
    let (_plain, plain_url) = raw(move |mut stream| {
        read_some(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let (_silent, silent_url) = raw(move |mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let (_closing, closing_url) = raw(move |mut stream| {
        read_some(&mut stream);
    });
    let (_refusing, refusing_url) = raw(move |mut stream| {
        read_some(&mut stream);
        // A fatal alert: handshake_failure.
        let _ = stream.write_all(b"\x15\x03\x03\x00\x02\x02\x28");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let (_babbling, babbling_url) = raw(move |mut stream| {
        read_some(&mut stream);
        let _ = stream.write_all(b"220 mail ESMTP\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let well = Http2Backend::answering("other");
    // Whoever says what is wrong is not waited for that long, for nobody else waits longer than that.
    let long = 2 * PATIENCE;
    for (url, connect, status, error, details) in [
        (
            &silent_url,
            Duration::from_secs(2),
            504,
            "connection_timeout",
            "TLS handshake did not end in time",
        ),
        (&closing_url, long, 502, "tls_protocol_error", "ended in the TLS handshake"),
        (&refusing_url, long, 502, "tls_protocol_error", "refused the TLS handshake"),
        (&babbling_url, long, 502, "tls_protocol_error", "does not speak TLS"),
        (&plain_url, long, 502, "tls_protocol_error", "does not speak TLS"),
    ] {
        let connect = connect.as_secs();
        let upstream = format!(
            "tls = {{ insecure_skip_verify = true }}\ntimeouts = {{ connect = \"{connect}s\" }}"
        );
        let tinylb = Tinylb::run(&of_one(std::slice::from_ref(url), &upstream));
        let response = tinylb.exchange(POST);
        response.assert_fault(status, error);
        assert!(response.proxy_status().contains(details), "{details}: {:?}", response.head.raw);
        assert_eq!(tinylb.first_state(), "unreachable", "{details}");
        let tinylb = Tinylb::run(&ranked(&[url.clone(), well.url()], "", &upstream));
        for _ in 0..3 {
            assert_eq!(tinylb.exchange(POST).text(), "other", "{details}");
        }
    }
}

/// No request finds out that an endpoint's certificate is right again.
#[test]
fn an_endpoint_whose_certificate_is_renewed_is_back() {
    let authority = Authority::new("ours");
    let backend = Http2Backend::answering("renewed");
    let old = authority.server_between("old", &["127.0.0.1"], (2020, 2021));
    let front = TlsFront::new(&Terms::new(&old).alpn(BOTH), backend.address());
    let tinylb = Tinylb::run(&of_one(&[front.url()], &trusting(&authority, "")));
    tinylb.get("/").assert_fault(502, "tls_certificate_error");
    tinylb.wait_for_log("unreachable: dialled again");
    let new = authority.server("new", &["127.0.0.1"]);
    front.restart(&Terms::new(&new).alpn(BOTH), backend.address());
    tinylb.wait_for_log("reachable again");
    assert_eq!(tinylb.get("/").text(), "renewed");
    assert_eq!(tinylb.first_state(), "up");
}

#[test]
fn an_endpoint_that_changes_between_http_2_and_http_1_1_costs_nothing() {
    let authority = Authority::new("ours");
    let terms = Terms::new(&authority.server("server", &["127.0.0.1"]));
    let (plain, http2) = (Backend::answering(ok("by 1.1")), Http2Backend::answering("by 2"));
    let front = TlsFront::new(&terms.clone().alpn(BOTH), http2.address());
    let upstream = trusting(&authority, "");
    let tinylb = Tinylb::run(&config(&[front.url()], "", &upstream));
    for round in 0..6 {
        let (terms, backend, text) = match round % 2 {
            0 => (terms.clone().alpn(BOTH), http2.address(), "by 2"),
            _ => (terms.clone().alpn(HTTP1), plain.address(), "by 1.1"),
        };
        front.restart(&terms, backend);
        let asking: Vec<JoinHandle<Vec<Response>>> = (0..8)
            .map(|_| {
                let mut client = tinylb.connect();
                thread::spawn(move || {
                    (0..10)
                        .map(|_| {
                            client.send(POST);
                            client.response()
                        })
                        .collect()
                })
            })
            .collect();
        for asked in asking {
            for response in asked.join().unwrap() {
                assert_eq!(response.status, 200, "{round}: {:?}", response.head.raw);
                assert_eq!(response.text(), text, "{round}");
            }
        }
    }
    assert_eq!(tinylb.first_state(), "up");
}

/// Requests do not wait for each other's connections where each needs its own.
#[test]
fn an_endpoint_that_speaks_only_http_1_1_has_connections_as_ever() {
    let authority = Authority::new("ours");
    let delay = Duration::from_secs(1);
    let terms = Terms::new(&authority.server("server", &["127.0.0.1"])).alpn(HTTP1);
    let backend = Held::new("held");
    let front = TlsFront::new(&Terms { delay, ..terms }, backend.backend().address());
    let upstream = trusting(&authority, "");
    let tinylb = Tinylb::run(&of_one(&[front.url()], &upstream));
    let asking: Vec<_> = (0..20)
        .map(|n| {
            let mut client = tinylb.connect();
            client.send(format!("GET /{n} HTTP/1.1\r\nHost: test\r\n\r\n"));
            thread::spawn(move || client.response())
        })
        .collect();
    let start = Instant::now();
    backend.wait_for(20);
    // The first one finds out that each needs its own.
    assert!(start.elapsed() < delay * 12, "{:?}", start.elapsed());
    backend.open();
    for asked in asking {
        assert_eq!(asked.join().unwrap().status, 200);
    }
    assert_eq!(front.agreed().len(), 20);
    for n in 20..40 {
        assert_eq!(tinylb.get(&format!("/{n}")).status, 200);
    }
    assert_eq!(front.agreed().len(), 20, "they are kept");
}

/// With limits of connections, requests are limited as by them until it is known that they share.
#[test]
fn limits_of_connections_follow_what_is_spoken() {
    let authority = Authority::new("ours");
    let terms = Terms::new(&authority.server("server", &["127.0.0.1"]));
    let held = Held::new("held");
    let http2 = Http2Backend::held();
    let limits = "\nlimits = { endpoint_connections = 2 }\nqueue = { timeout = \"1m\" }";
    let upstream = trusting(&authority, "") + limits;
    let ask = |tinylb: &Tinylb, n: usize| {
        let mut client = tinylb.connect();
        client.send(format!("GET /{n} HTTP/1.1\r\nHost: test\r\n\r\n"));
        thread::spawn(move || client.response().status)
    };
    let front = TlsFront::new(&terms.clone().alpn(HTTP1), held.backend().address());
    let tinylb = Tinylb::run(&config(&[front.url()], "", &upstream));
    let asking: Vec<_> = (0..6).map(|n| ask(&tinylb, n)).collect();
    eventually("four wait in the queue", || {
        (tinylb.metric("tinylb_upstream_queue_length", &[]) == 4.0).then_some(())
    });
    held.wait_for(2);
    held.open();
    asking.into_iter().for_each(|asked| assert_eq!(asked.join().unwrap(), 200));
    let front = TlsFront::new(&terms.alpn(BOTH), http2.address());
    let tinylb = Tinylb::run(&config(&[front.url()], "", &upstream));
    let first = ask(&tinylb, 0);
    http2.next().ok("now it is known");
    assert_eq!(first.join().unwrap(), 200);
    let asking: Vec<_> = (0..20).map(|n| ask(&tinylb, n)).collect();
    http2.next_of(20).into_iter().for_each(|asked| asked.ok("shared"));
    asking.into_iter().for_each(|asked| assert_eq!(asked.join().unwrap(), 200));
    assert!(front.agreed().len() <= 2);
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn what_asks_for_another_protocol_goes_by_http_1_1() {
    let authority = Authority::new("ours");
    let terms = Terms::new(&authority.server("server", &["127.0.0.1"]));
    let backend = Backend::new(|mut conn| {
        let head = conn.head().unwrap();
        assert!(head.lists("upgrade", "websocket"), "{:?}", head.raw);
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        );
        let said = conn.wire.take(4);
        conn.send(said);
        conn.drain();
    });
    let front = TlsFront::new(&terms.clone().alpn(BOTH), backend.address());
    let tinylb = Tinylb::run(&of_one(&[front.url()], &trusting(&authority, "")));
    let mut client = tinylb.connect();
    client.send(UPGRADE);
    assert_eq!(client.response().status, 101);
    client.send("echo");
    assert_eq!(client.wire().take(4), b"echo");
    assert_eq!(front.agreed()[0].alpn.as_deref(), Some("http/1.1"));
    // One that speaks only HTTP/2 cannot be asked, which is not its fault.
    let http2 = Http2Backend::answering("by 2");
    let front = TlsFront::new(&terms.alpn(&["h2"]), http2.address());
    let tinylb = Tinylb::run(&of_one(&[front.url()], &trusting(&authority, "")));
    for _ in 0..8 {
        tinylb.exchange(UPGRADE).assert_fault(501, "http_request_error");
    }
    assert_eq!(tinylb.get("/").text(), "by 2");
    assert_eq!(tinylb.first_state(), "up");
}

/// A reload that asks for more of endpoints holds for connections that are there, too.
#[test]
fn a_reload_leaves_connections_that_were_made_on_other_terms() {
    let authority = Authority::new("ours");
    let terms = Terms::new(&authority.server("server", &["localhost"]));
    let (plain, http2) = (Backend::answering(ok("fine")), Http2Backend::answering("fine"));
    for (backend, alpn) in [(plain.address(), HTTP1), (http2.address(), BOTH)] {
        let front = TlsFront::new(&terms.clone().alpn(alpn), backend);
        let careless = format!("tls = {{ insecure_skip_verify = true }}\n{KEPT}");
        let tinylb = Tinylb::run(&of_one(&[front.url()], &careless));
        let mut client = tinylb.connect();
        assert_eq!(client.get("/").text(), "fine");
        // The certificate is for another name than that of the URL.
        tinylb.rewrite(&of_one(&[front.url()], &trusting(&authority, "")));
        tinylb.signal(Signal::HUP);
        tinylb.wait_for_log("reloaded");
        client.get("/").assert_fault(502, "tls_certificate_error");
    }
}

#[test]
fn checks_are_made_as_requests_are() {
    let authority = Authority::new("ours");
    let pair = authority.server("server", &["127.0.0.1"]);
    let (plain, http2) = (Backend::answering(ok("well")), Http2Backend::answering("well"));
    let health = "\nhealth = { path = \"/healthz\", interval = \"50ms\", rise = 1, fall = 3 }";
    for (url, front) in [
        (None, Some(TlsFront::new(&Terms::new(&pair).alpn(HTTP1), plain.address()))),
        (None, Some(TlsFront::new(&Terms::new(&pair).alpn(BOTH), http2.address()))),
        (Some(http2.url()), None),
    ] {
        let url = front.as_ref().map_or_else(|| url.unwrap(), TlsFront::url);
        let upstream = trusting(&authority, "") + health;
        let tinylb = Tinylb::run(&of_one(std::slice::from_ref(&url), &upstream));
        eventually("it is up", || (tinylb.first_state() == "up").then_some(()));
        assert_eq!(tinylb.get("/").text(), "well", "{url}");
        if let Some(front) = front {
            let old = authority.server_between("old", &["127.0.0.1"], (2020, 2021));
            front.restart(&Terms::new(&old).alpn(BOTH), http2.address());
            eventually("it is down", || (tinylb.first_state() == "down").then_some(()));
            tinylb.wait_for_log("down: no TLS: invalid peer certificate");
        }
    }
}

/// Where only its end says that a body has ended, the end has to be one of TLS (RFC 9112 9.8).
#[test]
fn a_body_up_to_the_end_is_whole_only_with_an_end_of_tls() {
    let authority = Authority::new("ours");
    let pair = authority.server("server", &["127.0.0.1"]);
    let until_close = "HTTP/1.1 200 OK\r\n\r\nall of it";
    let backend = Backend::closing_after(until_close);
    let front = TlsFront::new(&Terms::new(&pair), backend.address());
    let tinylb = Tinylb::run(&of_one(&[front.url()], &trusting(&authority, "")));
    let response = tinylb.get("/");
    assert!(response.complete && response.text() == "all of it", "{response:?}");
    // The same, cut: the client must not take it for whole.
    let resetting = Backend::new(move |mut conn| {
        conn.request();
        conn.send(until_close);
        // What was sent has gone through the server of TLS before the reset does.
        thread::sleep(Duration::from_secs(1));
        conn.reset();
    });
    front.restart(&Terms::new(&pair), resetting.address());
    let response = tinylb.get("/");
    assert!(!response.complete && response.text() == "all of it", "{response:?}");
    let mut old = tinylb.connect();
    old.send("GET / HTTP/1.0\r\nHost: test\r\n\r\n");
    assert_eq!(old.response().text(), "all of it");
    assert_eq!(old.wire().end(), Some(End::Reset));
}

/// An address where nobody listens any more.
#[test]
fn an_endpoint_that_is_gone_is_refused_as_without_tls() {
    let nobody = Refusing::new();
    let url = format!("https://{}", nobody.address());
    let tinylb = Tinylb::run(&of_one(&[url], "tls = { insecure_skip_verify = true }"));
    tinylb.exchange(POST).assert_fault(502, "connection_refused");
}
