//! What all heads and trailers of HTTP/2 have in common: their fields (RFC 9113 8.2).

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use memchr::{memchr, memmem};

use crate::error::{Error, Kind};
use crate::http::body::MAX_TRAILERS;
use crate::http::connection::decimal;
use crate::http::head::FieldId;
use crate::http::rewrite::line;

/// What was to be turned into fields is nothing that [`rewrite`](crate::http::rewrite) renders.
pub(super) const NOT_RENDERED: Error =
    Error::new(Kind::Internal, "a head that was rendered wrongly");

/// Whether a field belongs to a connection of HTTP/1.1, and makes a message of HTTP/2 malformed
/// (RFC 9113 8.2.2).
pub(super) const fn is_of_connection(id: FieldId) -> bool {
    matches!(
        id,
        FieldId::Connection
            | FieldId::KeepAlive
            | FieldId::ProxyConnection
            | FieldId::TransferEncoding
            | FieldId::Upgrade
    )
}

/// Which field `name` is, if it and `value` may stand in a message of HTTP/2; else what is wrong.
///
/// That a name is a token, and that no value has a CR, LF, NUL or another control character but
/// HTAB, the types say; the quotation mark, which they take for part of a token, falls to the
/// parser of the text.
pub(super) fn check(name: &HeaderName, value: &HeaderValue) -> Result<FieldId, &'static str> {
    // RFC 9113 8.2.1.
    if let [b' ' | b'\t', ..] | [.., b' ' | b'\t'] = value.as_bytes() {
        return Err("white space around a field value");
    }
    match FieldId::of(name.as_str().as_bytes()) {
        FieldId::Te if !value.as_bytes().eq_ignore_ascii_case(b"trailers") => {
            Err("TE other than trailers in HTTP/2")
        }
        id if is_of_connection(id) => Err("a field of HTTP/1.1 connections in HTTP/2"),
        id => Ok(id),
    }
}

/// The length that the fields announce, if any does.
pub(super) fn content_length(fields: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut length = None;
    for value in fields.get_all(CONTENT_LENGTH) {
        let value = decimal(value.as_bytes()).ok_or("malformed Content-Length")?;
        if length.replace(value).is_some_and(|other| other != value) {
            return Err("differing Content-Lengths");
        }
    }
    Ok(length)
}

/// Appends a trailer section: the fields of `trailers` and an empty line.
///
/// # Errors
/// [`Kind::BadRequest`], also where they came from an endpoint; see
/// [`as_response_fault`](crate::http::head::as_response_fault).
pub fn trailers_text(trailers: &HeaderMap, out: &mut Vec<u8>) -> Result<(), Error> {
    let start = out.len();
    for (name, value) in trailers {
        check(name, value).map_err(Error::bad_request)?;
        line(out, name.as_str().as_bytes(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    if out.len() - start > MAX_TRAILERS {
        return Err(Error::bad_request("trailers over 8 KiB"));
    }
    Ok(())
}

/// The fields of a trailer section that was rendered for the other side, up to its empty line.
///
/// # Errors
/// [`Kind::Internal`] if it is no such section.
pub fn trailers_map(section: &[u8]) -> Result<HeaderMap, Error> {
    let length = section_length(section)?;
    let section = Bytes::copy_from_slice(section.get(..length).unwrap_or_default());
    map(&section, 0, |id, _| !is_of_connection(id))
}

/// The length of the head or trailer section at the front of `text`, with its empty line.
pub(super) fn section_length(text: &[u8]) -> Result<usize, Error> {
    if text.starts_with(b"\r\n") {
        return Ok(2);
    }
    memmem::find(text, b"\r\n\r\n").map(|at| at + 4).ok_or(NOT_RENDERED)
}

/// The start line of a head, without its CRLF, and where the fields begin.
pub(super) fn start_line(head: &[u8]) -> Result<(&[u8], usize), Error> {
    let end = memchr(b'\r', head).ok_or(NOT_RENDERED)?;
    Ok((head.get(..end).unwrap_or_default(), end + 2))
}

/// Those fields of the `section`, from `at` to its empty line, that are `wanted`. Their values
/// share the section's memory, so that none is copied by itself.
pub(super) fn map<'a>(
    section: &'a Bytes,
    mut at: usize,
    mut wanted: impl FnMut(FieldId, &'a [u8]) -> bool,
) -> Result<HeaderMap, Error> {
    let mut fields = HeaderMap::with_capacity(16);
    loop {
        let rest = section.get(at..).unwrap_or_default();
        let end = memchr(b'\r', rest).ok_or(NOT_RENDERED)?;
        if rest.get(end + 1) != Some(&b'\n') {
            return Err(NOT_RENDERED);
        }
        if end == 0 {
            return Ok(fields);
        }
        let line = rest.get(..end).unwrap_or_default();
        let colon = memchr(b':', line).ok_or(NOT_RENDERED)?;
        let (name, value) = line.split_at_checked(colon).ok_or(NOT_RENDERED)?;
        let value = value.strip_prefix(b": ").ok_or(NOT_RENDERED)?;
        let id = FieldId::of(name);
        if wanted(id, value) {
            let name = HeaderName::from_bytes(name).map_err(|_| NOT_RENDERED)?;
            let value = HeaderValue::from_maybe_shared(section.slice_ref(value));
            let mut value = value.map_err(|_| NOT_RENDERED)?;
            // What is never the same again would only push others out of HPACK's table.
            value.set_sensitive(id == FieldId::XRequestId);
            fields.try_append(name, value).map_err(|_| NOT_RENDERED)?;
        }
        at += end + 2;
    }
}
