//! HTTP/2 and TLS to endpoints.

use crate::support::certificates::{Authority, Pair};
use crate::support::{Backend, Tinylb, config, ok, switching};

#[test]
fn endpoints_are_spoken_to_as_their_urls_say() {
    let backend = Backend::answering(ok("hello"));
    let listeners = "tls = { self_signed = true }\n[[listeners]]\naddress = \"127.0.0.1:0\"";
    let inner = Tinylb::run(&config(&[backend.url()], listeners, ""));
    let [tls, clear] = inner.addresses()[..] else { panic!("two listeners") };
    for (url, upstream) in [
        (format!("https://{tls}"), "tls = { insecure_skip_verify = true }"),
        (format!("https://{tls}"), "tls = { insecure_skip_verify = true }\nhttp2 = false"),
        (format!("h2c://{clear}"), ""),
        (format!("http://{clear}"), ""),
    ] {
        let outer = Tinylb::run(&config(std::slice::from_ref(&url), "", upstream));
        for _ in 0..2 {
            let response = outer.connect().get("/");
            assert_eq!((response.status, response.text().as_str()), (200, "hello"), "{url}");
        }
        let via = backend.requests().pop().unwrap().head.all("via").join(", ");
        let is_http2 = !upstream.contains("false") && !url.starts_with("http:");
        assert_eq!(via.contains(", 2.0 "), is_http2, "{url} {upstream}: {via}");
    }
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_a_502() {
    let backend = Backend::answering(ok("hello"));
    let inner = Tinylb::run(&config(&[backend.url()], "tls = { self_signed = true }", ""));
    let outer = Tinylb::start(&[format!("https://{}", inner.address())], &[]);
    outer.connect().get("/").assert_fault(502, "tls_certificate_error");
    assert_eq!(backend.connections(), 0);
}

#[test]
fn a_tunnel_goes_on_in_http_2() {
    let backend = Backend::new(|mut conn| {
        let head = conn.head().unwrap();
        assert_eq!(head.get("upgrade"), Some("websocket"));
        conn.send(format!("{}\r\nhello", switching(&head)));
        assert_eq!(conn.wire.take(100_000), [7; 100_000]);
        conn.send([8; 100_000]);
        assert_eq!(conn.wire.rest(), b"");
        conn.send("bye");
    });
    let inner = Tinylb::start(&[backend.url()], &[]);
    let outer = Tinylb::start(&[format!("h2c://{}", inner.address())], &[]);
    let mut client = outer.connect();
    client.send(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let response = client.response();
    assert_eq!(response.status, 101);
    assert_eq!(response.head.get("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(client.wire().take(5), b"hello");
    client.send([7; 100_000]);
    assert_eq!(client.wire().take(100_000), [8; 100_000]);
    client.half_close();
    assert_eq!(client.wire().rest(), b"bye");
}

#[test]
fn an_authority_s_own_certificate_is_not_an_endpoint_s_and_the_answer_says_so() {
    let backend = Backend::answering(ok("hello"));
    let authority = Authority::new("a.example");
    let pair = Pair { cert: authority.ca(), key: authority.folder.path("ca.key") };
    let listener = format!("tls = {{ {} }}", pair.keys());
    let inner = Tinylb::run(&config(&[backend.url()], &listener, ""));
    let upstream = format!("tls = {{ ca = {:?} }}", authority.ca());
    let outer = Tinylb::run(&config(&[format!("https://{}", inner.address())], "", &upstream));
    let response = outer.get("/");
    response.assert_fault(502, "tls_certificate_error");
    assert!(response.text().contains("is that of an authority (CA:TRUE)"), "{}", response.text());
}
