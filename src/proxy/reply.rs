//! Answers in our own name: the one place where an [`Error`] becomes a status and a `Proxy-Status`
//! (RFC 9209).

use std::io::Write;
use std::time::Duration;

use super::worker::Worker;
use crate::error::{Error, Kind};
use crate::http::grpc;
use crate::http::request::{Request, Target};
use crate::http::rewrite::{self, line};

/// The methods that an `Allow` field of ours names.
const ALLOWED: &[u8] = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What a client that found no room is told to wait, in seconds: as long as a burst, or the default
/// time in the queue, lasts.
const RETRY_AFTER: &[u8] = b"1";

/// The shape of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Whether a body may follow the head (not for HEAD).
    pub has_body: bool,
    /// Whether the connection closes, or an HTTP/1.0 client must be told that it doesn't.
    pub connection: Option<&'static str>,
    /// For how long the client is told to come by HTTPS only.
    pub hsts: Option<Duration>,
    /// Whether it is the answer to a call of gRPC, which is always a 200 without messages.
    pub is_grpc: bool,
}

impl Shape {
    /// Of an answer to something that was no request, behind which the connection closes.
    pub(super) const fn closing(hsts: Option<Duration>) -> Self {
        Self { has_body: true, connection: Some("close"), hsts, is_grpc: false }
    }
}

/// The port of `https://` without one.
const HTTPS_PORT: u16 = 443;

/// Appends the answer to a request that failed with `error`. `upstream_status` is what an endpoint
/// said in `Proxy-Status` before its response was refused. Returns the length of the body in bytes.
pub(super) fn error(
    out: &mut Vec<u8>,
    worker: &Worker,
    error: Error,
    upstream_status: &[u8],
    request_id: Option<&[u8]>,
    shape: Shape,
) -> u64 {
    let status = error.kind.status();
    let body = match shape.is_grpc {
        true => String::new(),
        false => format!("{status} {}\n{error}\n", reason(status)),
    };
    if shape.is_grpc {
        grpc::trailers_only(out, grpc::code_of(error.kind), &error.to_string());
        line(out, b"Date", worker.date().as_bytes());
    } else {
        head(out, worker, status, body.len(), shape);
    }
    out.extend_from_slice(b"Proxy-Status: ");
    if !upstream_status.is_empty() {
        out.extend_from_slice(upstream_status);
        out.extend_from_slice(b", ");
    }
    let _ = write!(out, "tinylb; error={}; details=\"{}\"\r\n", error.kind.name(), error.detail);
    if let Some(id) = request_id {
        line(out, b"X-Request-Id", id);
    }
    match error.kind {
        Kind::MethodNotAllowed => line(out, b"Allow", ALLOWED),
        Kind::Overloaded => line(out, b"Retry-After", RETRY_AFTER),
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
    if !shape.has_body {
        return 0;
    }
    out.extend_from_slice(body.as_bytes());
    body.len() as u64
}

/// Appends the trailers of a call that began well and failed with `error`.
pub(super) fn call_failed(out: &mut Vec<u8>, error: Error) {
    grpc::status_fields(out, grpc::code_of(error.kind), &error.to_string());
    out.extend_from_slice(b"\r\n");
}

/// Appends the answer that sends a client to the same place by HTTPS, at this `port`; returns its
/// status.
pub(super) fn redirect(
    out: &mut Vec<u8>,
    worker: &Worker,
    request: &Request<'_>,
    port: u16,
    request_id: &[u8],
    shape: Shape,
) -> u16 {
    // The method stays what it was (RFC 9110 15.4.9).
    let status = 308;
    head(out, worker, status, 0, shape);
    out.extend_from_slice(b"Location: https://");
    out.extend_from_slice(request.host());
    if port != HTTPS_PORT {
        let _ = write!(out, ":{port}");
    }
    match request.target {
        // A path that is empty is the root's (RFC 9110 4.2.3).
        Target::Path(b"", query) => out.extend_from_slice(&[b"/", query].concat()),
        Target::Path(path, query) => {
            out.extend_from_slice(path);
            out.extend_from_slice(query);
        }
        Target::Asterisk => out.push(b'/'),
    }
    out.extend_from_slice(b"\r\n");
    line(out, b"X-Request-Id", request_id);
    out.extend_from_slice(b"\r\n");
    status
}

/// Appends the answer to a client that has too many connections: to this one, whatever it asks.
pub(super) fn too_many_connections(out: &mut Vec<u8>, worker: &Worker) {
    let body = "429 Too Many Requests\nthis address has too many connections\n";
    head(out, worker, 429, body.len(), Shape::closing(None));
    line(out, b"Retry-After", RETRY_AFTER);
    let why =
        "tinylb; error=http_request_denied; details=\"this address has too many connections\"";
    line(out, b"Proxy-Status", why.as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body.as_bytes());
}

/// Appends the answer to an OPTIONS request that may not be forwarded any further (RFC 9110 7.6.2).
/// Returns its status.
pub(super) fn options(out: &mut Vec<u8>, worker: &Worker, shape: Shape) -> u16 {
    head(out, worker, 200, 0, shape);
    line(out, b"Allow", ALLOWED);
    out.extend_from_slice(b"\r\n");
    200
}

fn head(out: &mut Vec<u8>, worker: &Worker, status: u16, length: usize, shape: Shape) {
    let _ = write!(out, "HTTP/1.1 {status} {}\r\n", reason(status));
    line(out, b"Date", worker.date().as_bytes());
    if length > 0 {
        line(out, b"Content-Type", b"text/plain; charset=utf-8");
    }
    let _ = write!(out, "Content-Length: {length}\r\n");
    if let Some(option) = shape.connection {
        line(out, b"Connection", option.as_bytes());
    }
    if let Some(time) = shape.hsts {
        rewrite::hsts(out, time);
    }
}

/// The reason phrases of the statuses that we send (RFC 9110 15, RFC 6585).
const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}
