//! HTTP/2 by TLS.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::Builder;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::certificates::Authority;
use crate::support::streams::{Answer, Streams, run, send_all, soon};
use crate::support::tls_client::tls_client;
use crate::support::{Backend, Tinylb, config, ok};

/// A balancer by TLS, whose listener has these further lines.
fn secure(backend: &Backend, listener: &str) -> (Authority, Tinylb) {
    let authority = Authority::new("Test Authority");
    let keys = authority.server("server", &["a.test"]).keys();
    let listener = format!("tls = {{ {keys} }}\n{listener}");
    let tinylb = Tinylb::run(&config(&[backend.url()], &listener, ""));
    (authority, tinylb)
}

/// A connection on which HTTP/2 has been agreed on, and nothing said.
async fn connect(authority: &Authority, tinylb: &Tinylb) -> TlsStream<TcpStream> {
    let socket = TcpStream::connect(tinylb.address()).await.unwrap();
    let connector = TlsConnector::from(tls_client(authority, &["h2", "http/1.1"], None));
    let stream = connector.connect("a.test".try_into().unwrap(), socket).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    stream
}

/// Answers with the body that it gets.
fn echo() -> Backend {
    Backend::new(|mut conn| {
        while let Some(request) = conn.request() {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len());
            if !conn.send([head.as_bytes(), &request.body].concat()) {
                return;
            }
        }
    })
}

#[test]
fn bodies_by_tls() {
    const SIZE: usize = 4 << 20;
    let backend = echo();
    let (authority, tinylb) = secure(&backend, "");
    run(async {
        let stream = connect(&authority, &tinylb).await;
        let mut streams = Streams::over(stream, &Builder::new()).await;
        let body = Bytes::from((0..SIZE).map(|i| (i * 31 + i / 251) as u8).collect::<Vec<_>>());
        let request = Request::post("https://a.test/").body(()).unwrap();
        let (response, mut stream) = streams.send(request, false).await;
        let sent = body.clone();
        tokio::spawn(async move { send_all(&mut stream, sent, true).await });
        let answer = Answer::of(response).await;
        assert_eq!((answer.status, answer.reset), (200, None));
        assert!(answer.body == body, "{} bytes of {SIZE}", answer.body.len());
        assert_eq!(streams.get("/").await.status, 200);
    });
    for request in backend.requests() {
        assert_eq!(request.head.get("x-forwarded-proto"), Some("https"));
    }
}

/// Who has agreed on HTTP/2 speaks it, or nothing is understood.
#[test]
fn what_was_agreed_on_holds() {
    let backend = Backend::answering(ok("fine"));
    let (authority, tinylb) = secure(&backend, "timeouts = { head = \"1s\" }");
    for said in ["GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "PRI * HTTP/1.1\r\n\r\n", "PRI * ", ""] {
        run(async {
            let mut stream = connect(&authority, &tinylb).await;
            let began = Instant::now();
            stream.write_all(said.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let _ = soon("it is closed", stream.read_to_end(&mut answer)).await;
            assert!(!answer.windows(5).any(|bytes| bytes == b"HTTP/"), "{said:?}: {answer:?}");
            assert!(began.elapsed() < Duration::from_secs(9), "{said:?}");
        });
    }
    assert_eq!(backend.connections(), 0);
}

/// Without TLS's own end, that of the connection might be anybody's (RFC 8446 6.1).
#[test]
fn an_end_is_told_in_tls_too() {
    let backend = Backend::answering(ok("fine"));
    let (authority, tinylb) = secure(&backend, "timeouts = { idle = \"1s\" }");
    run(async {
        let mut stream = connect(&authority, &tinylb).await;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let mut said = Vec::new();
        soon("it ends", stream.read_to_end(&mut said)).await.expect("an end that TLS confirms");
        let farewell = b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0";
        assert!(said.windows(farewell.len()).any(|bytes| bytes == farewell), "{said:?}");
    });
}
