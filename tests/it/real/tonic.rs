//! gRPC by tonic, on both sides.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, future, stream};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::secure;
use super::tonic_server::{Raw, Test};
use crate::support::python::run_script;
use crate::support::{Tinylb, eventually};

/// How long a test may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// Runs `test` with a client of the balancer, which believes the authority `ca` if there is one.
fn with_client(tinylb: &Tinylb, ca: Option<&str>, test: impl AsyncFnOnce(Grpc<Channel>)) {
    let scheme = if ca.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::new(format!("{scheme}://{}", tinylb.address())).unwrap();
    if let Some(ca) = ca {
        let ca = Certificate::from_pem(std::fs::read(ca).unwrap());
        let tls = ClientTlsConfig::new().ca_certificate(ca).domain_name("a.test");
        endpoint = endpoint.tls_config(tls).unwrap();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let test = async { test(Grpc::new(endpoint.connect().await.unwrap())).await };
        tokio::time::timeout(PATIENCE, test).await.expect("everything is answered");
    });
}

fn path(method: &str) -> PathAndQuery {
    format!("/test.Test/{method}").parse().unwrap()
}

/// A client that can take the next call.
async fn ready(client: &mut Grpc<Channel>) -> &mut Grpc<Channel> {
    client.ready().await.unwrap();
    client
}

async fn unary(
    client: &mut Grpc<Channel>,
    request: Request<Bytes>,
    method: &str,
) -> Result<Response<Bytes>, Status> {
    ready(client).await.unary(request, path(method), Raw).await
}

async fn every_kind_of_call(mut client: Grpc<Channel>) {
    for size in [0, 1, 100_000, 3_000_000] {
        let message = Bytes::from(vec![7; size]);
        let answer = unary(&mut client, Request::new(message.clone()), "Unary").await.unwrap();
        assert!(answer.into_inner() == message, "{size}");
    }
    let request = Request::new(Bytes::from("1000"));
    let calls = ready(&mut client).await;
    let answers = calls.server_streaming(request, path("Count"), Raw).await.unwrap().into_inner();
    let numbers: Vec<_> = answers.map(Result::unwrap).collect().await;
    assert!(numbers.into_iter().eq((0..1000).map(|number| number.to_string())));

    let messages = stream::iter(0..1000).map(|size| Bytes::from(vec![0; size]));
    let calls = ready(&mut client).await;
    let answer = calls.client_streaming(Request::new(messages), path("Total"), Raw).await;
    assert_eq!(answer.unwrap().into_inner(), "1000 499500");

    // Each message is sent when the one before has come back, so nobody may hold one.
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let messages = stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|message| (message, receiver))
    });
    let calls = ready(&mut client).await;
    let answers = calls.streaming(Request::new(messages), path("Both"), Raw).await.unwrap();
    let mut answers = answers.into_inner();
    for number in 0..500 {
        let message = Bytes::from(number.to_string());
        sender.send(message.clone()).await.unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap(), message);
    }
    drop(sender);
    assert!(answers.next().await.is_none());
}

async fn metadata_and_errors(mut client: Grpc<Channel>) {
    let mut request = Request::new(Bytes::new());
    let bytes: Vec<_> = (0..=255).collect();
    request.metadata_mut().append("x-twice", "1".parse().unwrap());
    request.metadata_mut().append("x-twice", "a b, c".parse().unwrap());
    request.metadata_mut().append_bin("x-bytes-bin", MetadataValue::from_bytes(&bytes));
    let answer = unary(&mut client, request, "Unary").await.unwrap();
    let twice: Vec<_> = answer.metadata().get_all("x-twice").iter().collect();
    assert_eq!(twice, ["1", "a b, c"]);
    let back = answer.metadata().get_bin("x-bytes-bin").unwrap();
    assert_eq!(back.to_bytes().unwrap(), bytes);

    for message in ["", "why", "100 % žluťoučký\nkůň"] {
        let error = unary(&mut client, Request::new(Bytes::from(message)), "Fail").await;
        let error = error.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::FailedPrecondition, message));
        assert_eq!(error.details(), b"\0\xff");
    }
    let error = unary(&mut client, Request::new(Bytes::new()), "NoSuchMethod").await;
    assert_eq!(error.unwrap_err().code(), Code::Unimplemented);
}

async fn many_at_once(client: Grpc<Channel>) {
    let calls = (0..500).map(|number| {
        let mut client = client.clone();
        async move {
            let message = Bytes::from(number.to_string());
            let answer = unary(&mut client, Request::new(message.clone()), "Unary").await;
            assert_eq!(answer.unwrap().into_inner(), message);
        }
    });
    future::join_all(calls).await;
}

#[test]
fn every_kind_of_call_passes() {
    let server = Test::serve();
    let plain = Tinylb::start(&[server.url()], &[]);
    let (authority, secure) = secure(&server.url(), "");
    let ca = authority.ca();
    for (tinylb, ca) in [(&plain, None), (&secure, Some(&*ca))] {
        with_client(tinylb, ca, async |client| {
            every_kind_of_call(client.clone()).await;
            metadata_and_errors(client.clone()).await;
            many_at_once(client).await;
        });
    }
}

#[test]
fn a_call_ends_for_the_server_when_nobody_waits_for_it() {
    let server = Test::serve();
    let tinylb = Tinylb::start(&[server.url()], &[]);
    with_client(&tinylb, None, async |mut client| {
        let request = Request::new(Bytes::new());
        let calls = ready(&mut client).await;
        let answers = calls.server_streaming(request, path("HangAfterOne"), Raw).await.unwrap();
        let mut answers = answers.into_inner();
        assert_eq!(answers.next().await.unwrap().unwrap(), "one");
        assert_eq!(server.hanging(), 1);
        // Cancelled.
        drop(answers);
        while server.hanging() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Over its time.
        let mut request = Request::new(Bytes::new());
        request.set_timeout(Duration::from_secs(5));
        let calls = ready(&mut client).await;
        let answers = calls.server_streaming(request, path("HangAfterOne"), Raw).await.unwrap();
        let mut answers = answers.into_inner();
        assert_eq!(answers.next().await.unwrap().unwrap(), "one");
        let error = answers.next().await.unwrap().unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    });
    eventually("the call ends", || (server.hanging() == 0).then_some(()));
}

#[test]
fn a_client_of_another_library_is_served() {
    let server = Test::serve();
    let tinylb = Tinylb::start(&[server.url()], &[]);
    let address = tinylb.address().to_string();
    let checks =
        ["unary", "server_stream", "client_stream", "both_streams", "cancellation", "many"];
    let arguments = [&[&*address], &checks[..]].concat();
    if let Some(ran) = run_script("grpc", "grpc_client.py", &arguments) {
        ran.ok();
        eventually("the cancelled call ends", || (server.hanging() == 0).then_some(()));
    }
}
