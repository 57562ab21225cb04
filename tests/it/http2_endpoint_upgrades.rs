//! Upgrades to endpoints in HTTP/2 (RFC 8441): from clients of either version, to endpoints that take them and
//! to those that do not.

use bytes::Bytes;
use h2::ext::Protocol;
use http::{Method, Request, Response};

use crate::support::streams::{Answer, Streams, run, send_all, soon};
use crate::support::{Asked, Client, End, Http2Backend, Tinylb, config};

const KEPT: &str = "timeouts = { idle = \"5m\", connect = \"20s\" }";

const UPGRADE: &str = "GET /ws?a=b HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: talk\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn alone(endpoints: &[String]) -> Tinylb {
    Tinylb::run(&config(endpoints, "", KEPT).replace("workers = 2", "workers = 1"))
}

/// Takes an extended CONNECT, and gives back what comes in the tunnel; plain requests get what they were.
fn taking() -> Http2Backend {
    Http2Backend::with(
        |builder| {
            builder.enable_connect_protocol();
        },
        async |mut asked: Asked| {
            let Some(protocol) = asked.head.extensions.get::<Protocol>() else {
                let method = asked.head.method.clone();
                return asked.ok(method.as_str());
            };
            assert_eq!((asked.head.method.as_str(), protocol.as_str()), ("CONNECT", "websocket"));
            let (uri, fields) = (&asked.head.uri, &asked.head.headers);
            assert_eq!((uri.path(), uri.query()), ("/ws", Some("a=b")));
            assert_eq!(uri.authority().unwrap(), "test");
            assert_eq!(uri.scheme_str(), Some("http"));
            for absent in ["connection", "upgrade", "sec-websocket-key", "content-length"] {
                assert!(!fields.contains_key(absent), "{fields:?}");
            }
            assert_eq!(fields["sec-websocket-version"], "13");
            assert_eq!(fields["sec-websocket-protocol"], "talk");
            let head = Response::builder().header("sec-websocket-protocol", "talk");
            let head = head.body(()).unwrap();
            let mut stream = asked.respond.send_response(head, false).unwrap();
            stream.send_data("welcome".into(), false).unwrap();
            while let Some(data) = asked.body.data().await {
                let Ok(data) = data else { return };
                asked.body.flow_control().release_capacity(data.len()).unwrap();
                send_all(&mut stream, data, false).await;
            }
            stream.send_data("bye".into(), true).unwrap();
        },
    )
}

/// A client of HTTP/1.1 in a tunnel.
fn tunnel(tinylb: &Tinylb) -> Client {
    let mut client = tinylb.connect();
    client.send(UPGRADE);
    let response = client.response();
    assert_eq!(response.status, 101, "{:?} {:?}", response.head.raw, response.text());
    assert!(response.head.lists("connection", "upgrade"), "{:?}", response.head.raw);
    assert_eq!(response.head.get("upgrade"), Some("websocket"));
    // What the client's key makes of it (RFC 6455 1.3), though the endpoint has never seen it.
    let accept = response.head.get("sec-websocket-accept");
    assert_eq!(accept, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(response.head.get("sec-websocket-protocol"), Some("talk"));
    assert_eq!(client.wire().take(7), b"welcome");
    client
}

#[test]
fn a_client_of_http_1_1_gets_a_tunnel_through_a_stream() {
    let backend = taking();
    let tinylb = alone(&[backend.url()]);
    // The first one has to connect, and to know that it may ask.
    let mut tunnels: Vec<_> = (0..3).map(|_| tunnel(&tinylb)).collect();
    assert_eq!(tinylb.get("/").text(), "GET");
    let all: Vec<u8> = (0..=255).collect::<Vec<u8>>().repeat(2000);
    for tunnel in &mut tunnels {
        tunnel.send(&all);
        assert!(tunnel.wire().take(all.len()) == all);
    }
    for mut tunnel in tunnels {
        tunnel.half_close();
        assert_eq!(tunnel.wire().rest(), b"bye");
        assert_eq!(tunnel.wire().end(), Some(End::Fin));
    }
    assert_eq!(backend.connections(), 1);
    assert_eq!(tinylb.metric("tinylb_tunnels_total", &[]), 3.0);
}

#[test]
fn a_tunnel_ends_with_either_side() {
    let backend = Http2Backend::held_with(|builder| {
        builder.enable_connect_protocol();
    });
    let tinylb = alone(&[backend.url()]);
    let open = || {
        let mut client = tinylb.connect();
        client.send(UPGRADE);
        let mut asked = backend.next();
        let stream = asked.begin();
        assert_eq!(client.response().status, 101);
        (client, asked, stream)
    };
    // The client goes.
    let (client, mut asked, _stream) = open();
    client.reset();
    let end = run(async { soon("the stream ends", asked.body.data()).await });
    assert!(end.unwrap().is_err());
    // The endpoint resets the stream.
    let (mut client, _asked, mut stream) = open();
    stream.send_reset(h2::Reason::INTERNAL_ERROR);
    client.wire().rest();
    assert!(matches!(client.wire().end(), Some(End::Fin | End::Reset)));
    // The connection is cut.
    let (mut client, _asked, _stream) = open();
    backend.cut(0);
    client.wire().rest();
    assert!(matches!(client.wire().end(), Some(End::Fin | End::Reset)));
}

#[test]
fn an_endpoint_that_declines_is_quoted() {
    let backend = Http2Backend::with(
        |builder| {
            builder.enable_connect_protocol();
        },
        async |mut asked: Asked| {
            let head = Response::builder().status(403).header("content-length", 2);
            let mut stream = asked.respond.send_response(head.body(()).unwrap(), false).unwrap();
            stream.send_data("no".into(), true).unwrap();
        },
    );
    let tinylb = alone(&[backend.url()]);
    let mut client = tinylb.connect();
    for _ in 0..2 {
        client.send(UPGRADE);
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (403, "no"));
        assert!(!response.head.has("upgrade"), "{:?}", response.head.raw);
    }
    assert_eq!(backend.connections(), 1);
}

/// Such an endpoint is asked without the upgrade, which any server may leave unanswered (RFC 9110 7.8).
#[test]
fn an_endpoint_that_takes_none_is_asked_plainly() {
    let backend = Http2Backend::new(async |asked: Asked| {
        let is_plain = asked.head.extensions.get::<Protocol>().is_none();
        assert!(is_plain && !asked.head.headers.contains_key("upgrade"));
        let method = asked.head.method.clone();
        asked.ok(method.as_str());
    });
    let tinylb = alone(&[backend.url()]);
    let mut client = tinylb.connect();
    for _ in 0..2 {
        client.send(UPGRADE);
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (200, "GET"));
    }
    client.assert_open();
}

/// Asks by extended CONNECT, once that is allowed.
async fn connect(streams: &mut Streams) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
    soon("the settings come", async {
        while !streams.is_extended_connect_enabled() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "http://test/ws?a=b".parse().unwrap();
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    request.headers_mut().insert("sec-websocket-protocol", "talk".parse().unwrap());
    streams.send(request, false).await
}

#[test]
fn a_client_of_http_2_gets_a_tunnel_through_a_stream() {
    let backend = taking();
    let tinylb = alone(&[backend.url()]);
    run(async {
        let mut streams = Streams::connect(&tinylb).await;
        let (response, mut to) = connect(&mut streams).await;
        let response = soon("the answer comes", response).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["sec-websocket-protocol"], "talk");
        assert!(!response.headers().contains_key("sec-websocket-accept"));
        send_all(&mut to, "over and ".into(), false).await;
        send_all(&mut to, "over ".into(), true).await;
        assert_eq!(Answer::rest(response).await.text(), "welcomeover and over bye");
    });
}

#[test]
fn a_client_of_http_2_is_told_where_no_tunnel_leads() {
    let backend = Http2Backend::answering("plain");
    let tinylb = alone(&[backend.url()]);
    run(async {
        let mut streams = Streams::connect(&tinylb).await;
        let (response, _to) = connect(&mut streams).await;
        let answer = Answer::of(response).await;
        answer.assert_fault(502, "http_upgrade_failed");
        assert_eq!(streams.get("/").await.text(), "plain");
    });
}
