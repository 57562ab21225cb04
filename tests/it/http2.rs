//! HTTP/2 with clients, spoken by the h2 crate.

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;

use crate::support::{Backend, Tinylb, ok};

/// Runs `test` with a client of the balancer by prior knowledge.
fn with_client(tinylb: &Tinylb, test: impl AsyncFnOnce(SendRequest<Bytes>)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(tinylb.address()).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        test(sender).await;
        driver.abort();
    });
}

#[test]
fn streams_are_exchanges_of_the_one_path() {
    let backend = Backend::answering(ok("hello"));
    let tinylb = Tinylb::before(&backend);
    with_client(&tinylb, async |mut sender| {
        for body in ["", "abc"] {
            let request = Request::post("http://example.com/a?b").body(()).unwrap();
            sender = sender.ready().await.unwrap();
            let (response, mut stream) = sender.send_request(request, body.is_empty()).unwrap();
            if !body.is_empty() {
                stream.send_data(Bytes::from(body), true).unwrap();
            }
            let (head, mut payload) = response.await.unwrap().into_parts();
            assert_eq!(head.status, 200);
            assert_eq!(head.headers["content-length"], "5");
            let data = payload.data().await.unwrap().unwrap();
            assert_eq!(data, "hello");
            assert!(payload.data().await.is_none() && payload.trailers().await.unwrap().is_none());
        }
    });
    let requests = backend.requests();
    let bodies: Vec<_> = requests.iter().map(|request| request.body.as_slice()).collect();
    assert_eq!(bodies, [&b""[..], b"abc"]);
    for request in &requests {
        assert_eq!(request.target(), "/a?b");
        assert_eq!(request.head.get("host"), Some("example.com"));
        assert!(request.head.get("via").unwrap().starts_with("2.0 tinylb"));
    }
}
