//! Responses: an endpoint's to text, and text to the client's.

use std::io::Write;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT};
use http::response::Parts;
use http::{Response, StatusCode, Version};

use super::fields::{NOT_RENDERED, check, content_length, is_of_connection, map};
use super::fields::{section_length, start_line};
use super::request::Switch;
use crate::error::{Error, Kind};
use crate::http::head::{self, Field, FieldId, MAX_HEAD, StatusLine};
use crate::http::request::Method;
use crate::http::rewrite::{decimal_line, line};

/// Appends the head of an endpoint's response to a `method` as text, for
/// [`parse_response`]. Informational ones are no exception.
///
/// `is_end` says that nothing follows the head, which gets a length of 0 then if there could be a
/// body. One that follows without a length is not framed in the text, so that it reads as one that
/// ends with the connection, which here is the stream.
///
/// `switch` is what was asked for by extended CONNECT: its success becomes a 101 (RFC 8441 5).
///
/// # Errors
/// [`Kind::ResponseMalformed`] (RFC 9113 8.1.1) or [`Kind::ResponseHeadTooLarge`]; `out` then ends in
/// a part of it.
pub fn response_text(
    parts: &Parts,
    method: Method,
    is_end: bool,
    switch: Option<&Switch>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    // RFC 9113 8.6.
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Error::bad_response("101 in HTTP/2"));
    }
    let start = out.len();
    let switched = switch.filter(|_| parts.status.is_success());
    let status = switched.map_or(parts.status, |_| StatusCode::SWITCHING_PROTOCOLS);
    // Writing to a Vec can't fail.
    let reason = status.canonical_reason().unwrap_or_default();
    let _ = write!(out, "HTTP/1.1 {} {reason}\r\n", status.as_u16());
    for (name, value) in &parts.headers {
        match check(name, value).map_err(Error::bad_response)? {
            FieldId::ContentLength => {}
            // Ours, or none: HTTP/2 has no use for it (RFC 8441 5).
            _ if name == SEC_WEBSOCKET_ACCEPT && switched.is_some() => {}
            _ => line(out, name.as_str().as_bytes(), value.as_bytes()),
        }
    }
    let length = content_length(&parts.headers).map_err(Error::bad_response)?;
    let has_body = method != Method::Head && !matches!(status.as_u16(), 100..=199 | 204 | 304);
    match (switched, length) {
        (Some(switch), _) => switching(switch, out),
        (None, Some(1..)) if is_end && has_body => {
            return Err(Error::bad_response("END_STREAM before all of Content-Length"));
        }
        (None, Some(length)) => decimal_line(out, b"Content-Length", length),
        (None, None) if is_end && has_body => decimal_line(out, b"Content-Length", 0),
        (None, None) => {}
    }
    out.extend_from_slice(b"\r\n");
    if out.len() - start > MAX_HEAD {
        return Err(Error::new(Kind::ResponseHeadTooLarge, "head over 32 KiB"));
    }
    Ok(())
}

/// Parses the text that [`response_text`] made, and fills `fields`.
///
/// # Errors
/// Those of [`head::parse_response`].
pub fn parse_response(text: &[u8], fields: &mut Vec<Field>) -> Result<StatusLine, Error> {
    let line = head::parse_response(text, fields)?;
    Ok(StatusLine { version: head::Version::Http2, ..line })
}

/// Appends what a 101 says.
fn switching(switch: &Switch, out: &mut Vec<u8>) {
    line(out, b"Connection", b"Upgrade");
    line(out, b"Upgrade", &switch.protocol);
    if let Some(accept) = &switch.accept {
        line(out, b"Sec-WebSocket-Accept", accept);
    }
}

/// The response for a client whose head, rendered for HTTP/1.1, is at the front of `text`, and how
/// long the head is; informational ones are no exception.
///
/// After an extended CONNECT (`is_connect`) a 101 becomes the 200 that means the same, and no other
/// success can be told from that.
///
/// # Errors
/// [`Kind::UpgradeFailed`] for a success that is no switch, or a switch that nobody asked for,
/// [`Kind::Internal`] for text that is no such head.
pub fn response_head(text: &[u8], is_connect: bool) -> Result<(Response<()>, usize), Error> {
    let length = section_length(text)?;
    let head = Bytes::copy_from_slice(text.get(..length).unwrap_or_default());
    let (line, at) = start_line(&head)?;
    let status = line.split(|b| *b == b' ').nth(1).ok_or(NOT_RENDERED)?;
    let status = StatusCode::from_bytes(status).map_err(|_| NOT_RENDERED)?;
    let mut fields = map(&head, at, |id, _| !is_of_connection(id))?;
    let is_switch = status == StatusCode::SWITCHING_PROTOCOLS;
    if is_switch != is_connect && (is_switch || status.is_success()) {
        return Err(Error::new(Kind::UpgradeFailed, "the endpoint did not switch as asked"));
    }
    let mut response = Response::new(());
    *response.version_mut() = Version::HTTP_2;
    *response.status_mut() = if is_switch { StatusCode::OK } else { status };
    if is_switch {
        fields.remove(SEC_WEBSOCKET_ACCEPT);
        fields.remove(CONTENT_LENGTH);
    }
    *response.headers_mut() = fields;
    Ok((response, length))
}
