//! gRPC: what it asks of a proxy beyond HTTP/2.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};

use crate::support::{Refusing, Tinylb, config, listen};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A server of HTTP/2 that has each request served by `serve`, and lives as long as the test.
fn server<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + Copy + 'static,
) -> String {
    let listener = listen();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        runtime().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(serve(request, respond));
                    }
                });
            }
        });
    });
    format!("h2c://{address}")
}

fn with_client<T>(address: SocketAddr, test: impl AsyncFnOnce(SendRequest<Bytes>) -> T) -> T {
    runtime().block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        test(sender.ready().await.unwrap()).await
    })
}

fn call(timeout: Option<&str>) -> Request<()> {
    let request = Request::post("http://a/service/Method")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    match timeout {
        Some(timeout) => request.header("grpc-timeout", timeout),
        None => request,
    }
    .body(())
    .unwrap()
}

/// The head of the answer to a call with one message, and what ends it.
async fn unary(
    mut sender: SendRequest<Bytes>,
    timeout: Option<&str>,
) -> (Response<()>, Vec<u8>, Option<HeaderMap>) {
    let (response, mut stream) = sender.send_request(call(timeout), false).unwrap();
    stream.send_data(Bytes::from_static(b"\0\0\0\0\0"), true).unwrap();
    let (head, mut body) = response.await.unwrap().into_parts();
    let mut payload = Vec::new();
    while let Some(data) = body.data().await {
        payload.extend_from_slice(&data.unwrap());
    }
    let trailers = body.trailers().await.unwrap();
    (Response::from_parts(head, ()), payload, trailers)
}

fn answer(status: &str, is_end: bool, mut respond: SendResponse<Bytes>) -> h2::SendStream<Bytes> {
    let response = Response::builder().header("content-type", "application/grpc");
    let response = match status {
        "" => response,
        status => response.header("grpc-status", status),
    };
    respond.send_response(response.body(()).unwrap(), is_end).unwrap()
}

#[test]
fn a_failure_of_our_own_is_a_status_of_the_call() {
    let nobody = Refusing::new();
    let tinylb = Tinylb::start(&[format!("h2c://{}", nobody.address())], &[]);
    let (head, payload, trailers) =
        with_client(tinylb.address(), async |sender| unary(sender, None).await);
    assert_eq!((head.status().as_u16(), payload.len(), trailers), (200, 0, None));
    assert_eq!(head.headers()["content-type"], "application/grpc");
    assert_eq!(head.headers()["grpc-status"], "14");
    let message = head.headers()["grpc-message"].to_str().unwrap();
    assert_eq!(message, "connection_refused: the endpoint refused the connection");
    assert!(head.headers().contains_key("proxy-status"));
}

#[test]
fn trailers_and_answers_without_messages_pass() {
    let url = server(async |request: Request<RecvStream>, respond| {
        if request.uri().path().ends_with("Method") {
            let mut stream = answer("", false, respond);
            stream.send_data(Bytes::from_static(b"\0\0\0\0\x01x"), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            stream.send_trailers(trailers).unwrap();
        }
    });
    let tinylb = Tinylb::start(&[url], &[]);
    let (head, payload, trailers) =
        with_client(tinylb.address(), async |sender| unary(sender, None).await);
    assert!(!head.headers().contains_key("grpc-status"));
    assert_eq!(payload, b"\0\0\0\0\x01x");
    assert_eq!(trailers.unwrap()["grpc-status"], "0");

    let url = server(async |_, respond| drop(answer("5", true, respond)));
    let tinylb = Tinylb::start(&[url], &[]);
    let (head, payload, trailers) =
        with_client(tinylb.address(), async |sender| unary(sender, None).await);
    assert_eq!((payload.len(), trailers), (0, None), "one head is all of it");
    assert_eq!(head.headers()["grpc-status"], "5");
}

#[test]
fn a_call_ends_when_its_caller_does_not_wait_any_longer() {
    let url = server(async |_, _respond| std::future::pending().await);
    let tinylb = Tinylb::start(&[url], &[]);
    let (head, ..) =
        with_client(tinylb.address(), async |sender| unary(sender, Some("100m")).await);
    assert_eq!(head.headers()["grpc-status"], "4");

    let url = server(async |_, respond| {
        let mut stream = answer("", false, respond);
        stream.send_data(Bytes::from_static(b"\0\0\0\0\x01x"), false).unwrap();
        std::future::pending().await
    });
    let tinylb = Tinylb::start(&[url], &[]);
    let (_, payload, trailers) =
        with_client(tinylb.address(), async |sender| unary(sender, Some("2S")).await);
    assert_eq!(payload, b"\0\0\0\0\x01x");
    assert_eq!(trailers.unwrap()["grpc-status"], "4");
}

#[test]
fn a_call_that_failed_as_configured_is_made_again_elsewhere() {
    let failing = server(async |_, respond| drop(answer("14", true, respond)));
    let well = server(async |_, respond| drop(answer("0", true, respond)));
    let endpoints = [failing, well];
    let tries = |upstream: &str| {
        let tinylb = Tinylb::run(&config(&endpoints, "", upstream));
        let call = || {
            let (head, ..) =
                with_client(tinylb.address(), async |sender| unary(sender, None).await);
            head.headers()["grpc-status"].to_str().unwrap().to_owned()
        };
        let mut statuses: Vec<_> = (0..2).map(|_| call()).collect();
        statuses.sort();
        statuses
    };
    let policy = "policy = \"round-robin\"\n";
    assert_eq!(tries(policy), ["0", "14"]);
    let retry = format!("{policy}retry = {{ grpc_on = [\"unavailable\"] }}");
    assert_eq!(tries(&retry), ["0", "0"]);
    let other = format!("{policy}retry = {{ grpc_on = [\"internal\"] }}");
    assert_eq!(tries(&other), ["0", "14"]);
}

#[test]
fn a_stream_of_messages_may_be_quiet_both_ways() {
    let url = server(async |request: Request<RecvStream>, respond| {
        let mut stream = answer("", false, respond);
        let mut body = request.into_body();
        while let Some(Ok(data)) = body.data().await {
            stream.send_data(data, false).unwrap();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
    });
    // Much less than the pause.
    let timeouts = "timeouts = { body = \"50ms\" }";
    let tinylb = Tinylb::run(&config(&[url], timeouts, timeouts));
    with_client(tinylb.address(), async |mut sender| {
        let (response, mut stream) = sender.send_request(call(None), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        for message in ["one", "two"] {
            tokio::time::sleep(Duration::from_millis(300)).await;
            stream.send_data(Bytes::from_static(message.as_bytes()), false).unwrap();
            assert_eq!(body.data().await.unwrap().unwrap(), message);
        }
        stream.send_data(Bytes::new(), true).unwrap();
        assert!(body.data().await.is_none());
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    });
}

#[test]
fn trailers_behind_an_empty_body_that_was_announced_pass() {
    let url = server(async |_, mut respond: SendResponse<Bytes>| {
        let response = Response::builder().header("content-type", "application/grpc");
        let response = response.header("content-length", "0").body(()).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "3".parse().unwrap());
        respond.send_response(response, false).unwrap().send_trailers(trailers).unwrap();
    });
    let tinylb = Tinylb::start(&[url], &[]);
    let (_, payload, trailers) =
        with_client(tinylb.address(), async |sender| unary(sender, None).await);
    assert_eq!((payload.len(), trailers.unwrap()["grpc-status"].as_bytes()), (0, &b"3"[..]));
}

#[test]
fn callers_in_a_hurry_have_no_endpoint_ejected() {
    let url = server(async |_, respond| {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(answer("0", true, respond));
    });
    let endpoints = [url.clone(), format!("{url}/other")];
    let ejection = "ejection = { failures = 1 }";
    let tinylb = Tinylb::run(&config(&endpoints, "", ejection));
    for _ in 0..10 {
        let (head, ..) =
            with_client(tinylb.address(), async |sender| unary(sender, Some("5m")).await);
        assert_eq!(head.headers()["grpc-status"], "4");
    }
    assert_eq!(tinylb.metric("tinylb_endpoint_up", &[]), 2.0);
}
