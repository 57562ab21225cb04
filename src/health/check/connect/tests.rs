use std::sync::Arc;

use bytes::Bytes;
use hyper::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;
use crate::config::{BodyMatch, Check, ClientTls, Health, HttpCheck, ServerTls};
use crate::health::check::{Probe, Target, Verdict};
use crate::net::tls::client::TlsClient;
use crate::net::tls::server::TlsServer;
use crate::net::tls::tests::Authority;

/// The verdict on a server that does `serve` with its first connection, which is not to fail.
async fn check(
    check: Check,
    protocol: Protocol,
    proxy: Option<ProxyVersion>,
    serve: impl AsyncFnOnce(TcpStream),
) -> Verdict {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let probe = Probe::new(Target {
        id: 1,
        label: "app".into(),
        addresses: vec![listener.local_addr().unwrap().into()],
        protocol,
        proxy,
        authority: "app".into(),
        // Nothing but a fault in the check makes a test last that long.
        health: Health { timeout: Duration::from_secs(20), ..Health::new(check) },
    });
    let served = async { serve(listener.accept().await.unwrap().0).await };
    tokio::join!(probe.make(), served).0
}

fn http() -> Check {
    Check::Http(HttpCheck { body: Some(BodyMatch::Contains("ok".into())), ..HttpCheck::default() })
}

/// Answers one request by HTTP/2 with `ok`, and says what it was.
async fn answer_http2(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
) -> hyper::http::request::Parts {
    let mut connection = ::h2::server::handshake(stream).await.unwrap();
    let (request, mut respond) = connection.accept().await.unwrap().unwrap();
    let mut body = respond.send_response(Response::new(()), false).unwrap();
    body.send_data(Bytes::from_static(b"ok"), true).unwrap();
    assert!(connection.accept().await.is_none());
    request.into_parts().0
}

/// An endpoint with TLS for `app`, that agrees on HTTP/2 where it is offered, and somebody who
/// believes it, or another.
struct Secure {
    authority: Authority,
    acceptor: TlsAcceptor,
}

impl Secure {
    fn new() -> Self {
        let authority = Authority::new();
        let server = ServerTls::new(vec![authority.give("app", &["app"])]);
        let server = TlsServer::new(&server, true).unwrap();
        let acceptor = TlsAcceptor::from(Arc::clone(&server.current().config));
        Self { authority, acceptor }
    }

    async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await
    }
}

fn believing(tls: &ClientTls, http2: bool) -> Protocol {
    let client = Arc::new(TlsClient::new(tls).unwrap());
    Protocol::Tls { tls: Arc::new(client.endpoint("app").unwrap()), http2 }
}

#[tokio::test]
async fn requests_go_by_http2_where_that_is_spoken() {
    let plain = check(http(), Protocol::Http2, None, async |stream| {
        let head = answer_http2(stream).await;
        assert_eq!(head.uri, "http://app/");
        assert!(head.headers["user-agent"].to_str().unwrap().starts_with("tinylb-health/"));
        assert!(!head.headers.contains_key("host") && !head.headers.contains_key("connection"));
    });
    assert_eq!(plain.await, Ok(()));
    let secure = Secure::new();
    let protocol = believing(&secure.authority.client(), true);
    let agreed = check(http(), protocol, None, async |stream| {
        let head = answer_http2(secure.accept(stream).await.unwrap()).await;
        assert_eq!(head.uri, "https://app/");
    });
    assert_eq!(agreed.await, Ok(()));
}

#[tokio::test]
async fn requests_go_by_tls_where_that_is_spoken() {
    let secure = Secure::new();
    let protocol = believing(&secure.authority.client(), false);
    let verdict = check(http(), protocol, None, async |stream| {
        let mut stream = secure.accept(stream).await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
        assert!(request.starts_with(b"GET / HTTP/1.1\r\n"));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    });
    assert_eq!(verdict.await, Ok(()));
}

#[tokio::test]
async fn what_is_wrong_with_tls_is_said() {
    let secure = Secure::new();
    let stranger = believing(&Authority::new().client(), false);
    let verdict = check(http(), stranger, None, async |stream| {
        assert!(secure.accept(stream).await.is_err());
    });
    let unwell = |why: &str| Err(Failure::Unwell(why.to_owned()));
    // Both authorities go by one name.
    assert_eq!(verdict.await, unwell("no TLS: invalid peer certificate: BadSignature"));

    let protocol = || believing(&secure.authority.client(), true);
    let verdict = check(http(), protocol(), None, async |mut stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(
        verdict.await,
        unwell("no TLS: received corrupt message of type InvalidContentType")
    );

    let verdict = check(http(), protocol(), None, async |stream| drop(stream));
    let Err(Failure::Unwell(why)) = verdict.await else { panic!("it does not pass") };
    assert!(why.starts_with("no TLS: "), "{why}");
}

#[tokio::test]
async fn a_call_needs_http2() {
    let secure = Secure::new();
    let protocol = believing(&secure.authority.client(), false);
    let verdict = check(Check::Grpc(String::new()), protocol, None, async |stream| {
        let _ = secure.accept(stream).await.unwrap().read_to_end(&mut Vec::new()).await;
    });
    let why = "the endpoint did not agree on HTTP/2";
    assert_eq!(verdict.await, Err(Failure::Unwell(why.into())));
}

#[tokio::test]
async fn a_proxy_header_comes_first() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let verdict = check(Check::Tcp, Protocol::Http1, Some(version), async |mut stream| {
            let mut header = Vec::new();
            stream.read_to_end(&mut header).await.unwrap();
            let (client, server) = (stream.peer_addr().unwrap(), stream.local_addr().unwrap());
            match version {
                ProxyVersion::V1 => assert_eq!(
                    String::from_utf8(header).unwrap(),
                    format!(
                        "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
                        client.port(),
                        server.port()
                    )
                ),
                // The signature, LOCAL, unspecified, and no more.
                ProxyVersion::V2 => {
                    assert_eq!(header, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
                }
            }
        });
        assert_eq!(verdict.await, Ok(()));
        let verdict = check(http(), Protocol::Http1, Some(version), async |mut stream| {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") || !request.windows(5).any(|w| w == b"GET /") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            assert!(!request.starts_with(b"GET"));
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        });
        assert_eq!(verdict.await, Ok(()));
    }
}
