use std::future::Future;

use ::h2::Reason;
use ::h2::server::{self, SendResponse};
use hyper::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::{Check, Health};
use crate::health::check::{CUT, Failure, Probe, Target};
use crate::upstream::endpoint::Protocol;

/// The verdict on a server that does `serve` with its first connection.
async fn check<F: Future>(
    service: &str,
    serve: impl FnOnce(TcpStream) -> F,
) -> (Result<(), String>, F::Output) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let probe = Probe::new(Target {
        id: 1,
        label: "h2c://app:50051".into(),
        addresses: vec![listener.local_addr().unwrap().into()],
        protocol: Protocol::Http2,
        proxy: None,
        authority: "app:50051".into(),
        // Nothing but a fault in the check makes a test last that long.
        health: Health {
            timeout: Duration::from_secs(20),
            ..Health::new(Check::Grpc(service.into()))
        },
    });
    let served = async { serve(listener.accept().await.unwrap().0).await };
    let (verdict, served) = tokio::join!(probe.make(), served);
    let verdict = verdict.map_err(|failure| match failure {
        Failure::Unwell(why) => why,
        Failure::NotMade(why) => panic!("not made: {why}"),
    });
    (verdict, served)
}

/// A call that a server got.
struct Call {
    head: hyper::http::request::Parts,
    message: Vec<u8>,
    /// How the connection ended behind it.
    end: Option<::h2::Error>,
}

/// The verdict on a server of HTTP/2 that answers the call with `answer`, and the call.
async fn call(
    service: &str,
    answer: impl FnOnce(SendResponse<Bytes>),
) -> (Result<(), String>, Call) {
    let serve = async |stream: TcpStream| {
        let mut connection = server::handshake(stream).await.unwrap();
        let (request, respond) = connection.accept().await.unwrap().unwrap();
        let (head, mut body) = request.into_parts();
        let mut message = Vec::new();
        let read = async {
            while let Some(data) = body.data().await {
                message.extend_from_slice(&data.unwrap());
            }
        };
        tokio::select! {
            () = read => {}
            _ = connection.accept() => panic!("nothing else is asked"),
        }
        answer(respond);
        let end = connection.accept().await.and_then(Result::err);
        Call { head, message, end }
    };
    check(service, serve).await
}

const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";

/// An answer with this message, and these trailers.
fn message(
    message: &'static [u8],
    trailers: &[(&'static str, &'static str)],
) -> impl FnOnce(SendResponse<Bytes>) {
    let mut fields = HeaderMap::new();
    for (name, value) in trailers {
        fields.insert(*name, HeaderValue::from_static(value));
    }
    move |mut respond| {
        let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut stream = respond.send_response(head, false).unwrap();
        stream.send_data(Bytes::from_static(message), fields.is_empty()).unwrap();
        if !fields.is_empty() {
            stream.send_trailers(fields).unwrap();
        }
    }
}

/// An answer that is all head.
fn head(status: u16, fields: &[(&'static str, &'static str)]) -> impl FnOnce(SendResponse<Bytes>) {
    let mut head = Response::builder().status(status);
    for (name, value) in fields {
        head = head.header(*name, *value);
    }
    let head = head.body(()).unwrap();
    move |mut respond| drop(respond.send_response(head, true).unwrap())
}

const OK: &[(&str, &str)] = &[("grpc-status", "0")];

#[tokio::test]
async fn the_call_is_that_of_the_protocol() {
    let (verdict, call) = call("a.B", message(SERVING, OK)).await;
    assert_eq!(verdict, Ok(()));
    assert_eq!(call.head.method, "POST");
    assert_eq!(call.head.uri, "http://app:50051/grpc.health.v1.Health/Check");
    assert_eq!(call.message, b"\0\0\0\0\x05\x0a\x03a.B");
    let field = |name: &str| call.head.headers[name].to_str().unwrap();
    assert_eq!(field("content-type"), "application/grpc");
    assert_eq!(field("te"), "trailers");
    assert!(field("user-agent").starts_with("tinylb-health/"));
    let milliseconds: u32 = field("grpc-timeout").strip_suffix('m').unwrap().parse().unwrap();
    assert!((10_000..=20_000).contains(&milliseconds), "{milliseconds}");
    assert!(call.end.is_none(), "the check says goodbye");
}

#[tokio::test]
async fn a_service_serves_or_not() {
    let unwell = |why: &str| Err(why.to_owned());
    for (body, expected) in [
        (SERVING, Ok(())),
        (b"\0\0\0\0\x02\x08\x02", unwell("not serving")),
        (b"\0\0\0\0\x02\x08\x03", unwell("the service is not known")),
        (b"\0\0\0\0\0", unwell("it is not known whether it serves")),
        (b"", unwell("the answer is malformed: no message")),
        (
            b"\x01\0\0\0\x02\x08\x01",
            unwell("the answer is malformed: a compressed message, which was not asked for"),
        ),
        (&[0; 2000], unwell("the answer is larger than 1 KiB")),
    ] {
        assert_eq!(call("", message(body, OK)).await.0, expected, "{body:?}");
    }
}

#[tokio::test]
async fn a_status_that_is_not_ok_is_a_failure_wherever_it_stands() {
    const GRPC: (&str, &str) = ("content-type", "application/grpc+proto");
    let unwell = |why: &str| Err(why.to_owned());
    for (status, fields, expected) in [
        (200, &[GRPC, ("grpc-status", "5")][..], "gRPC status not_found"),
        (200, &[GRPC, ("grpc-status", "12")], "gRPC status unimplemented"),
        (200, &[GRPC, ("grpc-status", "0")], "the answer has no grpc-status"),
        (200, &[GRPC], "the answer has no grpc-status"),
        (200, &[], "the answer is not of gRPC"),
        (200, &[("content-type", "text/html")], "the answer is not of gRPC"),
        (503, &[], "status 503"),
        (302, &[GRPC, ("grpc-status", "0")], "status 302"),
    ] {
        assert_eq!(call("", head(status, fields)).await.0, unwell(expected), "{fields:?}");
    }
    for (trailers, expected) in [
        (&[("grpc-status", "14")][..], "gRPC status unavailable"),
        (&[("grpc-status", "x")], "gRPC status unknown"),
        (&[("other", "x")], "the answer has no grpc-status"),
        (&[], "the answer has no grpc-status"),
    ] {
        assert_eq!(call("", message(SERVING, trailers)).await.0, unwell(expected), "{trailers:?}");
    }
}

#[tokio::test]
async fn a_reset_says_why() {
    let reset = |mut respond: SendResponse<Bytes>| respond.send_reset(Reason::REFUSED_STREAM);
    let (verdict, _) = call("", reset).await;
    assert_eq!(verdict, Err("the request was reset: REFUSED_STREAM".into()));
}

#[tokio::test]
async fn servers_of_something_else_are_unwell() {
    let http = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    for (answer, expected) in [
        (http, "the answer is not HTTP/2: FRAME_SIZE_ERROR"),
        ("", CUT),
        ("\0\0\0\x04\0\0\0\0\0", CUT),
        (
            "\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0b",
            "the endpoint ended the connection: ENHANCE_YOUR_CALM",
        ),
    ] {
        let serve = async |mut stream: TcpStream| {
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        assert_eq!(check("", serve).await.0, Err(expected.into()), "{answer:?}");
    }
}

/// The clock stands still once the server has done its part, and then goes on by itself.
#[tokio::test]
async fn what_does_not_come_is_waited_for_until_the_timeout() {
    let silent = async |mut stream: TcpStream| {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        tokio::time::pause();
        let _ = stream.read_to_end(&mut Vec::new()).await;
        tokio::time::resume();
    };
    assert_eq!(check("", silent).await.0, Err("no answer within 20s".into()));
}

#[test]
fn a_timeout_has_eight_digits_at_most() {
    for (time, text) in [
        (Duration::ZERO, "1m"),
        (Duration::from_micros(1500), "1m"),
        (Duration::from_secs(5), "5000m"),
        (Duration::MAX, "99999999m"),
    ] {
        assert_eq!(in_milliseconds(time), text);
        assert!(crate::http::grpc::parse_timeout(text.as_bytes()).is_some());
    }
}
