//! The admin address: `/metrics`, `/healthz`, `/readyz`. Only for operators; it is not hardened
//! against the world, but neither does anybody on it delay traffic.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::metrics;
use super::view::View;

/// Connections at once; whoever scrapes has one or two.
const MAX_CONNECTIONS: usize = 64;

/// How long a client may take to send a head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection lasts, so that clients that stop reading don't block the others.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// How long accepting pauses when it fails.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the admin address for as long as the process lives.
pub(super) async fn serve(listener: TcpListener, view: Rc<RefCell<View>>) {
    let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let view = Rc::clone(&view);
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| {
                let response = answer(&request, &view.borrow());
                async { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // Whoever is cut off by time connects again.
            if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
                tracing::debug!(%error, "admin connection");
            }
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, view: &View) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/" => text(StatusCode::OK, INDEX),
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" if view.is_ready => text(StatusCode::OK, "ready\n"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        "/metrics" => match metrics::render(view) {
            Ok(rendered) => {
                let mut response = text(StatusCode::OK, rendered);
                let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be rendered\n"),
        },
        _ => text(StatusCode::NOT_FOUND, INDEX),
    }
}

const INDEX: &str = "tinylb admin\n\n\
    /metrics  counters, gauges and histograms for Prometheus\n\
    /healthz  200 while the process lives\n\
    /readyz   200 while it welcomes traffic, 503 once it drains\n";

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
