//! Requests: a client's to text, and text to an endpoint's.

use ::h2::ext::Protocol;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, COOKIE, HOST, SEC_WEBSOCKET_KEY};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri};

use super::Refusal;
use super::fields::{
    NOT_RENDERED, check, content_length, is_of_connection, map, section_length, start_line,
};
use crate::error::{Error, Kind};
use crate::http::head::{self, Field, FieldId, MAX_HEAD, RequestLine, Version, is_token_byte};
use crate::http::rewrite::{decimal_line, line};
use crate::http::websocket;

/// Appends the head of a client's request as text, for [`parse_request`].
///
/// `protocol` is that of an extended CONNECT (RFC 8441), which becomes an upgrade. `is_end` says that
/// nothing follows the head. A body without a length is announced as chunked, since that is how an
/// endpoint of HTTP/1.1 gets it; the client's is not.
///
/// `:scheme` may be `http` or `https`, whatever the connection is: in front of us something else may
/// have ended TLS, and nothing here goes by it.
///
/// # Errors
/// What is wrong with the request; `out` then ends in a part of it.
pub fn request_head(
    parts: &Parts,
    protocol: Option<&str>,
    is_end: bool,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let start = out.len();
    let length = content_length(&parts.headers).map_err(Refusal::Malformed)?;
    match length {
        Some(1..) if is_end => {
            return Err(Refusal::Malformed("END_STREAM before all of Content-Length"));
        }
        // What follows belongs to the tunnel (RFC 9110 9.3.6).
        Some(_) if protocol.is_some() => {
            return Err(Refusal::Malformed("Content-Length in an extended CONNECT"));
        }
        _ => {}
    }
    request_line(parts, protocol, out)?;
    line(out, b"Host", host(parts)?);
    fields(parts, out)?;
    match (protocol, length) {
        (Some(protocol), _) => upgrade(parts, protocol, out)?,
        (None, Some(length)) => decimal_line(out, b"Content-Length", length),
        (None, None) if !is_end => line(out, b"Transfer-Encoding", b"chunked"),
        // Servers of HTTP/1.1 may insist on a length (411) where a body has a meaning (RFC 9110 8.6).
        (None, None) if matches!(parts.method, Method::POST | Method::PUT | Method::PATCH) => {
            decimal_line(out, b"Content-Length", 0);
        }
        (None, None) => {}
    }
    out.extend_from_slice(b"\r\n");
    if out.len() - start > MAX_HEAD {
        return Err(Refusal::Answer(Error::new(Kind::HeadTooLarge, "head over 32 KiB")));
    }
    Ok(())
}

/// Parses the text that [`request_head`] made, and fills `fields`.
///
/// # Errors
/// Those of [`head::parse_request`].
pub fn parse_request(text: &[u8], fields: &mut Vec<Field>) -> Result<RequestLine, Error> {
    let line = head::parse_request(text, fields)?;
    Ok(RequestLine { version: Version::Http2, ..line })
}

fn request_line(parts: &Parts, protocol: Option<&str>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let Parts { method, uri, .. } = parts;
    if uri.scheme().is_some_and(|s| *s != Scheme::HTTP && *s != Scheme::HTTPS) {
        return Err(Refusal::Answer(Error::bad_request("a scheme other than http and https")));
    }
    let is_connect = *method == Method::CONNECT;
    if protocol.is_some() && !is_connect {
        return Err(Refusal::Malformed(":protocol without CONNECT"));
    }
    // Without an authority, a path that is not there reads as "/" in any way but this one.
    let path = uri.path_and_query().filter(|_| !uri.path().is_empty()).map(PathAndQuery::as_str);
    let target = match path {
        // RFC 9113 8.5; it will be refused like any other.
        None if is_connect => uri.authority().map(Authority::as_str),
        Some("*") if *method == Method::OPTIONS => Some("*"),
        path => path.filter(|path| path.starts_with('/')),
    };
    let target = target.ok_or(Refusal::Malformed("malformed :path"))?;
    // An upgrade in HTTP/1.1 is always a GET (RFC 8441 5).
    let method = if protocol.is_some() { "GET" } else { method.as_str() };
    out.reserve(method.len() + target.len() + 12);
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    Ok(())
}

/// `:authority`, or the Host field that stands for it (RFC 9113 8.3.1).
fn host(parts: &Parts) -> Result<&[u8], Refusal> {
    let mut fields = parts.headers.get_all(HOST).iter();
    let authority = parts.uri.authority().map(|a| a.as_str().as_bytes());
    let fault = match (authority, fields.next(), fields.next()) {
        (_, _, Some(_)) => "more than one Host",
        (Some(authority), Some(host), None) if !authority.eq_ignore_ascii_case(host.as_bytes()) => {
            "Host differs from :authority"
        }
        (Some(authority), _, None) => return Ok(authority),
        (None, Some(host), None) => return Ok(host.as_bytes()),
        (None, None, None) => "neither :authority nor Host",
    };
    Err(Refusal::Answer(Error::bad_request(fault)))
}

/// Appends the fields as they are, but for those that are rendered anew.
fn fields(parts: &Parts, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let mut has_cookie = false;
    for (name, value) in &parts.headers {
        match check(name, value).map_err(Refusal::Malformed)? {
            FieldId::Host | FieldId::ContentLength => {}
            _ if name == COOKIE => {
                if !has_cookie {
                    cookies(parts, out);
                }
                has_cookie = true;
            }
            _ => line(out, name.as_str().as_bytes(), value.as_bytes()),
        }
    }
    Ok(())
}

/// Appends the crumbs of cookies as one field, which they must be in HTTP/1.1 (RFC 9113 8.2.3).
fn cookies(parts: &Parts, out: &mut Vec<u8>) {
    out.extend_from_slice(b"cookie: ");
    for (index, crumb) in parts.headers.get_all(COOKIE).iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(crumb.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends what makes an extended CONNECT an upgrade.
fn upgrade(parts: &Parts, protocol: &str, out: &mut Vec<u8>) -> Result<(), Refusal> {
    if protocol.is_empty() || !protocol.bytes().all(is_token_byte) {
        return Err(Refusal::Malformed("malformed :protocol"));
    }
    // Behind it the endpoint would talk to the client past every rule of this proxy.
    if protocol.eq_ignore_ascii_case("h2c") {
        return Err(Refusal::Answer(Error::new(Kind::NotImplemented, "h2c is not offered on")));
    }
    line(out, b"Connection", b"Upgrade");
    line(out, b"Upgrade", protocol.as_bytes());
    // HTTP/2 has no use for the key (RFC 8441 5), HTTP/1.1 insists on it.
    let is_websocket = protocol.eq_ignore_ascii_case("websocket");
    if is_websocket && !parts.headers.contains_key(SEC_WEBSOCKET_KEY) {
        line(out, b"sec-websocket-key", &websocket::key());
    }
    Ok(())
}

/// What a client asked to switch to, when an endpoint was asked by extended CONNECT.
#[derive(Debug, Clone)]
pub struct Switch {
    /// The protocol.
    pub protocol: Bytes,
    /// The value of `Sec-WebSocket-Accept` that the client expects.
    pub accept: Option<[u8; 28]>,
}

/// The request for an endpoint whose head, rendered for HTTP/1.1, is at the front of `text`.
///
/// Where `may_connect`, which the endpoint's settings say, an upgrade to a single protocol becomes
/// an extended CONNECT (RFC 8441), whose [`Switch`] is for [`response_text`](super::response_text);
/// else it is left out, as any server may leave one unanswered.
///
/// # Errors
/// [`Kind::BadRequest`] for a target that HTTP/2's library doesn't take, [`Kind::Internal`] for text
/// that is no such head.
pub fn endpoint_request(
    text: &[u8],
    scheme: Scheme,
    may_connect: bool,
) -> Result<(Request<()>, Option<Switch>), Error> {
    let text = Bytes::copy_from_slice(text.get(..section_length(text)?).unwrap_or_default());
    let (line, at) = start_line(&text)?;
    let mut words = line.split(|b| *b == b' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(NOT_RENDERED);
    };
    let target = PathAndQuery::from_maybe_shared(text.slice_ref(target));
    let target = target.map_err(|_| Error::bad_request("a target that HTTP/2 does not carry"))?;
    let (mut host, mut upgrade) = (&b""[..], None);
    let mut fields = map(&text, at, |id, value| {
        match id {
            FieldId::Host => host = value,
            FieldId::Upgrade => upgrade = Some(value),
            _ => {}
        }
        id != FieldId::Host && !is_of_connection(id)
    })?;
    let is_protocol = |value: &&[u8]| value.iter().all(|b| is_token_byte(*b));
    let switch = upgrade.filter(|_| may_connect && method == b"GET").filter(is_protocol);
    let switch = switch.map(|protocol| Switch {
        protocol: text.slice_ref(protocol),
        accept: fields.remove(SEC_WEBSOCKET_KEY).map(|key| websocket::accept(key.as_bytes())),
    });
    let authority = Authority::from_maybe_shared(text.slice_ref(host));
    let mut request = Request::new(());
    *request.method_mut() = match &switch {
        Some(_) => Method::CONNECT,
        None => Method::from_bytes(method).map_err(|_| NOT_RENDERED)?,
    };
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(scheme);
    uri.authority = Some(authority.map_err(|_| NOT_RENDERED)?);
    uri.path_and_query = Some(target);
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| NOT_RENDERED)?;
    if let Some(switch) = &switch {
        fields.remove(CONTENT_LENGTH);
        let protocol = str::from_utf8(&switch.protocol).map_err(|_| NOT_RENDERED)?;
        request.extensions_mut().insert(Protocol::from(protocol));
    }
    *request.headers_mut() = fields;
    Ok((request, switch))
}
