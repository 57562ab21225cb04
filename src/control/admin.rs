//! The admin address: `/metrics`, `/healthz`, `/readyz`, `/endpoints`, and draining endpoints. Only
//! for operators; it is not hardened against the world, but neither does anybody on it delay
//! traffic, nor can a page in an operator's browser read or change anything.

mod connections;
mod host;

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::endpoints::{self, Refused};
use super::metrics;
use super::view::View;
use crate::http::query::query_parameter;
use crate::upstream::description::DRAINED_BY_FILE;
use connections::AdminConnections;

/// How long a client may take to send a head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection lasts, so that clients that stop reading don't block the others.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// How long accepting pauses when it fails.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the admin address for as long as the process lives, accepting the names in `hosts`.
pub(super) async fn serve(listener: TcpListener, hosts: Vec<String>, view: Rc<RefCell<View>>) {
    let (connections, hosts) = (Rc::new(AdminConnections::default()), Rc::new(hosts));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let slot = connections.open(Instant::now());
        let (hosts, view) = (Rc::clone(&hosts), Rc::clone(&view));
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| {
                slot.note_request(Instant::now());
                let response = answer(&request, &hosts, &view.borrow());
                async { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // A client that is cut off connects again.
            let ended = tokio::select! {
                ended = tokio::time::timeout(CONNECTION_TIMEOUT, connection) => ended,
                () = slot.evicted() => return,
            };
            if let Ok(Err(error)) = ended {
                tracing::debug!(%error, "admin connection");
            }
        });
    }
}

fn answer(request: &Request<Incoming>, hosts: &[String], view: &View) -> Response<Full<Bytes>> {
    let is_probe = matches!(request.uri().path(), "/healthz" | "/readyz");
    // Probes may send any host; their response reveals nothing.
    if !is_probe && !host::is_ours(request, hosts) {
        return text(StatusCode::MISDIRECTED_REQUEST, MISDIRECTED);
    }
    let path = request.uri().path();
    let is_drain = match path {
        "/drain" => Some(true),
        "/undrain" => Some(false),
        _ => None,
    };
    if let Some(is_drain) = is_drain {
        return drain(request, view, is_drain);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return not_allowed("only GET and HEAD\n", "GET, HEAD");
    }
    match path {
        "/" => text(StatusCode::OK, INDEX),
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" if view.is_ready => text(StatusCode::OK, "ready\n"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        "/endpoints" => of_kind("application/json", endpoints::render(view)),
        "/metrics" => match metrics::render(view) {
            Ok(rendered) => of_kind(metrics::CONTENT_TYPE, rendered),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be rendered\n"),
        },
        _ => text(StatusCode::NOT_FOUND, INDEX),
    }
}

/// Begins or ends the draining of an endpoint.
fn drain(request: &Request<Incoming>, view: &View, is_drain: bool) -> Response<Full<Bytes>> {
    if *request.method() != Method::POST {
        return not_allowed("only POST\n", "POST");
    }
    // Browsers send these with whatever a page of another site has them post here; operators'
    // tools don't.
    if [ORIGIN.as_str(), "sec-fetch-site"].iter().any(|name| request.headers().contains_key(*name))
    {
        return text(StatusCode::FORBIDDEN, "not from a browser\n");
    }
    let query = request.uri().query().unwrap_or_default().as_bytes();
    let parameter = |name: &[u8]| query_parameter(query, name).map(decoded);
    let (Some(upstream), Some(endpoint)) = (parameter(b"upstream"), parameter(b"endpoint")) else {
        return text(StatusCode::BAD_REQUEST, "write ?upstream=NAME&endpoint=URL\n");
    };
    match endpoints::drain(view, &upstream, &endpoint, is_drain) {
        Ok(()) => {
            text(StatusCode::OK, if is_drain { "draining\n" } else { "no longer draining\n" })
        }
        Err(Refused::Unknown(there_is)) => text(StatusCode::NOT_FOUND, there_is),
        Err(Refused::DrainedByFile) => {
            let why = format!("still draining: {DRAINED_BY_FILE}; remove it there and reload\n");
            text(StatusCode::CONFLICT, why)
        }
    }
}

/// With percent-encoded bytes decoded (RFC 3986 2.1); what is not valid stays as it is.
fn decoded(text: &[u8]) -> String {
    let hex = |digit: &u8| char::from(*digit).to_digit(16);
    let (mut rest, mut out) = (text, Vec::new());
    while let [first, behind @ ..] = rest {
        let pair = match behind {
            [a, b, ..] if *first == b'%' => hex(a).zip(hex(b)),
            _ => None,
        };
        match pair.and_then(|(a, b)| u8::try_from(a * 16 + b).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

const INDEX: &str = "tinylb admin\n\n\
    GET  /metrics    counters, gauges and histograms for Prometheus\n\
    GET  /endpoints  the standing of every endpoint, as JSON\n\
    GET  /healthz    200 while the process lives\n\
    GET  /readyz     200 while it welcomes traffic, 503 once it drains\n\
    POST /drain?upstream=NAME&endpoint=URL    nothing new goes there, sessions go on\n\
    POST /undrain?upstream=NAME&endpoint=URL  cancels a drain; 409 if the file has drain = true\n";

const MISDIRECTED: &str = "this host name is not allowed; use the IP address, or add the name to `hosts` \
    in [admin]\n";

fn not_allowed(words: &'static str, allowed: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, words);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn of_kind(kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoded_bytes_are_decoded_and_others_stay() {
        for (text, expected) in [
            ("http%3A%2F%2F10.0.0.1%3a8001", "http://10.0.0.1:8001"),
            ("http://a:1/b#c", "http://a:1/b#c"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
            ("%+1", "%+1"),
            ("%C3%A4%ff", "\u{e4}\u{fffd}"),
        ] {
            assert_eq!(decoded(text.as_bytes()), expected, "{text}");
        }
    }
}
