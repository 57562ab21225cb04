//! hyper, as a client.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;

use super::echo;
use crate::support::Tinylb;

#[test]
fn hyper_keeps_its_connection() {
    let backend = echo();
    let tinylb = Tinylb::before(&backend);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let talk = async {
        let stream = tokio::net::TcpStream::connect(tinylb.address()).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        for size in [0, 1, 1000, 100_000, 1_000_000, 3] {
            let body = Bytes::from(vec![size as u8; size]);
            let request = hyper::Request::post("/x")
                .header("host", "a")
                .body(Full::new(body.clone()))
                .unwrap();
            sender.ready().await.expect("the connection stays open");
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200);
            let back = response.into_body().collect().await.unwrap().to_bytes();
            assert!(back == body, "{} of {size} bytes", back.len());
        }
    };
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(120), talk).await.expect("they talk");
    });
    assert_eq!(backend.connections(), 1);
}
