//! Answers in our own name: the one place where an [`Error`] becomes a status and a `Proxy-Status`
//! (RFC 9209).

use std::io::Write;

use super::worker::Worker;
use crate::error::{Error, Kind};
use crate::http::rewrite::line;

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
}

/// Appends the answer to a request that failed with `error`. `upstream_status` is what an endpoint
/// said in `Proxy-Status` before its response was refused.
pub(super) fn error(
    out: &mut Vec<u8>,
    worker: &Worker,
    error: Error,
    upstream_status: &[u8],
    request_id: Option<&[u8]>,
    shape: Shape,
) {
    let status = error.kind.status();
    let body = format!("{status} {}\n{error}\n", reason(status));
    head(out, worker, status, body.len(), shape);
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
    if shape.has_body {
        out.extend_from_slice(body.as_bytes());
    }
}

/// Appends the answer to a client that has too many connections: to this one, whatever it asks.
pub(super) fn too_many_connections(out: &mut Vec<u8>, worker: &Worker) {
    let body = "429 Too Many Requests\nthis address has too many connections\n";
    head(out, worker, 429, body.len(), Shape { has_body: true, connection: Some("close") });
    line(out, b"Retry-After", RETRY_AFTER);
    let why =
        "tinylb; error=http_request_denied; details=\"this address has too many connections\"";
    line(out, b"Proxy-Status", why.as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body.as_bytes());
}

/// Appends the answer to an OPTIONS request that may not be forwarded any further (RFC 9110 7.6.2).
pub(super) fn options(out: &mut Vec<u8>, worker: &Worker, shape: Shape) {
    head(out, worker, 200, 0, shape);
    line(out, b"Allow", ALLOWED);
    out.extend_from_slice(b"\r\n");
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
}

/// The reason phrases of the statuses that we send (RFC 9110 15, RFC 6585).
const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
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
