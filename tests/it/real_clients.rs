//! Clients that others wrote.

use std::process::{Command, Output};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;

use crate::support::{Backend, Tinylb};

/// Sends each request's body back, says "go on" where that is expected.
fn echo() -> Backend {
    Backend::new(|mut conn| {
        while let Some(head) = conn.head() {
            let expects = head.has("expect");
            if expects && !conn.send("HTTP/1.1 100 Continue\r\n\r\n") {
                return;
            }
            let Some(request) = conn.body(head) else { return };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len());
            let body = if request.method() == "HEAD" { &[][..] } else { &request.body };
            if !conn.send([head.as_bytes(), body].concat()) {
                return;
            }
        }
    })
}

/// Runs curl; `None` where it is not installed.
fn curl(arguments: &[&str]) -> Option<Output> {
    let common = ["-sS", "--max-time", "20", "--noproxy", "*"];
    match Command::new("curl").args(common).args(arguments).output() {
        Ok(output) => {
            assert!(output.status.success(), "curl: {}", String::from_utf8_lossy(&output.stderr));
            Some(output)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: curl is not installed");
            None
        }
        Err(e) => panic!("curl: {e}"),
    }
}

#[test]
fn curl_keeps_its_connection() {
    let backend = echo();
    let tinylb = Tinylb::before(&backend);
    let url = format!("http://{}/x", tinylb.address());
    let arguments = ["-d", "hello", "-w", "[%{http_code} %{num_connects}]", &url, &url, &url];
    let Some(output) = curl(&arguments) else { return };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, "hello[200 1]hello[200 0]hello[200 0]");
}

#[test]
fn curl_uploads_whichever_way() {
    let backend = echo();
    let tinylb = Tinylb::before(&backend);
    let url = format!("http://{}/up", tinylb.address());
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("upload-{}", std::process::id()));
    let mut body = vec![0; 1 << 20];
    fastrand::Rng::with_seed(1).fill(&mut body);
    std::fs::write(&file, &body).unwrap();
    let data = format!("@{}", file.display());
    for header in ["Transfer-Encoding: chunked", "Expect: 100-continue", "Expect:"] {
        let Some(output) = curl(&["-H", header, "--data-binary", &data, &url]) else { break };
        assert!(output.stdout == body, "{header}: {} bytes", output.stdout.len());
    }
    let _ = std::fs::remove_file(&file);
}

#[test]
fn curl_asks_for_a_head_and_speaks_http_1_0() {
    let backend = echo();
    let tinylb = Tinylb::before(&backend);
    let url = format!("http://{}/x", tinylb.address());
    let Some(output) = curl(&["-I", &url]) else { return };
    assert!(output.stdout.starts_with(b"HTTP/1.1 200"), "{:?}", output.stdout.escape_ascii());
    let Some(output) = curl(&["-0", "-d", "old", &url]) else { return };
    assert_eq!(output.stdout, b"old");
}

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
        tokio::time::timeout(Duration::from_secs(30), talk).await.expect("they talk");
    });
    assert_eq!(backend.connections(), 1);
}
