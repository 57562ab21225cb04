//! A backend of the demo: a small HTTP server that says what it was sent.

use std::convert::Infallible;
use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use crate::cli::work::Work;

/// How long a backend waits before it accepts again after it could not.
const PAUSE: Duration = Duration::from_millis(100);

const DEMO_BACKEND: HeaderName = HeaderName::from_static("demo-backend");
const DEMO_WORK: HeaderName = HeaderName::from_static("demo-work");

/// A backend whose port is taken and that serves once it is [started](start).
#[derive(Debug)]
pub(super) struct Backend {
    /// What it calls itself in its answers.
    pub(super) name: String,
    /// Where it is, the real port in place of 0.
    pub(super) address: SocketAddr,
    listener: TcpListener,
}

impl Backend {
    /// Takes `port` of this machine.
    pub(super) fn bind(name: String, port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        Ok(Self { name, address: listener.local_addr()?, listener })
    }
}

/// Serves `backends` on a thread of their own until the process ends, so that they answer what is
/// in flight while the balancer drains.
pub(super) fn start(backends: Vec<Backend>, work: Work) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve_all = async move {
        for backend in backends {
            tokio::spawn(serve(backend, work));
        }
        std::future::pending::<()>().await
    };
    thread::Builder::new()
        .name("backends".to_owned())
        .spawn(move || runtime.block_on(serve_all))?;
    Ok(())
}

async fn serve(backend: Backend, work: Work) {
    let listener = match tokio::net::TcpListener::from_std(backend.listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(backend.name, %error, "a backend cannot serve"),
    };
    let name: &'static str = backend.name.leak();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let service = service_fn(move |request| answer(name, work, request));
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // How a connection ends is the balancer's business, which shows it.
                tokio::spawn(async move { drop(connection.await) });
            }
            Err(error) => {
                tracing::warn!(backend = name, %error, "a backend cannot accept");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Takes the whole request, works, and says so.
async fn answer(
    name: &'static str,
    work: Work,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, mut body) = request.into_parts();
    let mut received = 0;
    while let Some(Ok(frame)) = body.frame().await {
        received += frame.data_ref().map_or(0, Bytes::len);
    }
    let work = work.draw();
    tokio::time::sleep(work).await;
    let work = format!("{}ms", work.as_millis());

    let mut text = format!("{name} worked for {work}\n\n");
    // Writing to a string cannot fail. hyper has the names of fields in lower case.
    let _ = writeln!(text, "{} {} {:?}", head.method, head.uri, head.version);
    for (name, value) in &head.headers {
        let _ = writeln!(text, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    let _ = writeln!(text, "\nand a body of {received} bytes");

    let mut response = Response::new(Full::from(text));
    let fields: &mut HeaderMap = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    fields.insert(DEMO_BACKEND, HeaderValue::from_static(name));
    if let Ok(work) = HeaderValue::try_from(work) {
        fields.insert(DEMO_WORK, work);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    #[test]
    fn a_backend_says_what_it_was_sent() {
        let backend = Backend::bind("backend-7".to_owned(), 0).unwrap();
        let address = backend.address;
        start(vec![backend], "1ms".parse().unwrap()).unwrap();

        let mut client = TcpStream::connect(address).unwrap();
        client
            .write_all(
                b"POST /a/b?c=%20 HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 10.0.0.1\r\n\
                  Content-Length: 5\r\nConnection: close\r\n\r\nhello",
            )
            .unwrap();
        let mut response = String::new();
        client.read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        for line in [
            "demo-backend: backend-7",
            "demo-work: 1ms",
            "backend-7 worked for 1ms",
            "POST /a/b?c=%20 HTTP/1.1",
            "x-forwarded-for: 10.0.0.1",
            "and a body of 5 bytes",
        ] {
            assert!(response.lines().any(|l| l == line), "{line}: {response}");
        }
    }

    #[test]
    fn a_backend_works_for_many_at_once() {
        let backend = Backend::bind("backend-1".to_owned(), 0).unwrap();
        let address = backend.address;
        start(vec![backend], "300ms".parse().unwrap()).unwrap();

        let begun = std::time::Instant::now();
        let mut clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        for client in &mut clients {
            client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        }
        for client in &mut clients {
            let mut response = String::new();
            client.read_to_string(&mut response).unwrap();
            assert!(response.contains("worked for 300ms"), "{response}");
        }
        // One after the other they would take 6 s.
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
}
