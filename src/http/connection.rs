//! The fields that both kinds of message share: `Connection` (RFC 9110 7.6.1), `Content-Length`
//! and `Transfer-Encoding` (RFC 9112 6).

use super::body::{Framing, MAX_LENGTH};
use super::head::{FieldId, Head, MAX_FIELDS, Version, elements, is_token_byte, trim};
use crate::error::{Error, Kind};

/// The most options that `Connection` may name; each is compared with every field.
const MAX_OPTIONS: usize = 32;

/// What `Connection` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// The connection closes after this message.
    pub close: bool,
    /// An HTTP/1.0 peer would like it to stay.
    pub keep_alive: bool,
    /// The message asks for, or grants, another protocol.
    pub upgrade: bool,
    /// One bit for each field, in order, that is named and so stops here.
    named: u128,
}

const _: () = assert!(MAX_FIELDS <= u128::BITS as usize);

impl Options {
    /// What the `Connection` fields of `head` say.
    ///
    /// # Errors
    /// More than a sane number of options.
    pub fn of(head: Head<'_>) -> Result<Self, Error> {
        let mut options = Self::default();
        let mut count = 0;
        for option in head.values(FieldId::Connection).flat_map(elements) {
            count += 1;
            if count > MAX_OPTIONS {
                return Err(Error::bad_request("more than 32 connection options"));
            }
            if option.eq_ignore_ascii_case(b"keep-alive") {
                options.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"close") {
                options.close = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                options.upgrade = true;
            } else {
                options.name(head, option);
            }
        }
        Ok(options)
    }

    fn name(&mut self, head: Head<'_>, option: &[u8]) {
        for (index, (id, name, _)) in head.lines().enumerate() {
            // Fields that the balancer interprets are not removed: the endpoint must understand the message as
            // the balancer did. Hop-by-hop fields are removed elsewhere.
            let is_end_to_end = !matches!(id, FieldId::Other | FieldId::Alias);
            if !is_end_to_end && name.eq_ignore_ascii_case(option) {
                self.named |= 1 << index;
            }
        }
    }

    /// Whether the field at `index` is named, and so stops here.
    pub const fn names(&self, index: usize) -> bool {
        self.named >> index & 1 == 1
    }
}

/// Whether a field is the business of this connection alone, whatever `Connection` names (RFC 9110
/// 7.6.1), or is rendered anew.
pub const fn is_hop_by_hop(field: FieldId) -> bool {
    matches!(
        field,
        FieldId::Connection
            | FieldId::ContentLength
            | FieldId::KeepAlive
            | FieldId::ProxyConnection
            | FieldId::Te
            | FieldId::TransferEncoding
            | FieldId::Upgrade
    )
}

/// The body framing that the fields of a message announce; `None` where they announce nothing.
///
/// # Errors
/// Both fields at once, any transfer coding but a single `chunked`, or one in HTTP/1.0, lengths that differ or are
/// not plain decimal numbers: each has been read in two ways by two implementations.
pub fn announced_framing(head: Head<'_>, version: Version) -> Result<Option<Framing>, Error> {
    let has = |id| head.values(id).next().is_some();
    match (has(FieldId::TransferEncoding), has(FieldId::ContentLength)) {
        (false, false) => Ok(None),
        (true, true) => Err(Error::bad_request("Content-Length with Transfer-Encoding")),
        (true, false) if version == Version::Http10 => {
            Err(Error::bad_request("Transfer-Encoding in HTTP/1.0"))
        }
        (true, false) => transfer_encoding(head).map(Some),
        (false, true) => content_length(head).map(|n| Some(Framing::of_length(n))),
    }
}

fn transfer_encoding(head: Head<'_>) -> Result<Framing, Error> {
    let mut values = head.values(FieldId::TransferEncoding);
    match (values.next(), values.next()) {
        (Some(value), None)
            if value.eq_ignore_ascii_case(b"chunked")
                && !head.has_odd_space(FieldId::TransferEncoding) =>
        {
            Ok(Framing::Chunked)
        }
        _ => Err(coding_fault(head)),
    }
}

/// Returns the fault in codings other than a single `chunked`: 501 if a well-formed coding before a final `chunked`
/// is unknown (RFC 9112 6.1), else 400. Without a final `chunked` the body has no certain end (6.3).
fn coding_fault(head: Head<'_>) -> Error {
    let malformed = Error::bad_request("malformed Transfer-Encoding");
    let mut has_unknown = false;
    let mut ends_in_chunked = false;
    for value in head.values(FieldId::TransferEncoding) {
        for coding in Codings(value) {
            // Nothing comes behind `chunked`, and it is applied once (RFC 9112 6.1).
            let Some(coding) = coding.filter(|_| !ends_in_chunked) else { return malformed };
            ends_in_chunked = coding.eq_ignore_ascii_case(b"chunked");
            has_unknown |= !ends_in_chunked;
        }
    }
    match has_unknown && ends_in_chunked {
        true => Error::new(Kind::NotImplemented, "a transfer coding other than chunked"),
        false => malformed,
    }
}

/// The codings of a Transfer-Encoding value in order, by name; `None` for one that is malformed, or a `chunked`
/// with parameters, of which it has none (RFC 9112 7, 7.1).
struct Codings<'a>(&'a [u8]);

impl<'a> Iterator for Codings<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = trim(std::mem::take(&mut self.0));
        if rest.is_empty() {
            return None;
        }
        let Some((name, mut rest)) = token(rest) else { return Some(None) };
        let mut has_parameters = false;
        loop {
            rest = trim(rest);
            match rest {
                [] => break,
                // One must come behind a comma.
                [b',', behind @ ..] if !trim(behind).is_empty() => {
                    self.0 = behind;
                    break;
                }
                [b';', behind @ ..] => match parameter(trim(behind)) {
                    Some(behind) => rest = behind,
                    None => return Some(None),
                },
                _ => return Some(None),
            }
            has_parameters = true;
        }
        let is_fine = !(has_parameters && name.eq_ignore_ascii_case(b"chunked"));
        Some(is_fine.then_some(name))
    }
}

/// The token at the front of `bytes`, and what is behind it.
fn token(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|b| !is_token_byte(*b)).unwrap_or(bytes.len());
    bytes.split_at_checked(end).filter(|(token, _)| !token.is_empty())
}

/// What is behind the parameter at the front of `bytes`: `token BWS "=" BWS ( token / quoted-string )` (RFC 9112 7).
fn parameter(bytes: &[u8]) -> Option<&[u8]> {
    let value = trim(trim(token(bytes)?.1).strip_prefix(b"=")?);
    let Some(mut quoted) = value.strip_prefix(b"\"") else { return Some(token(value)?.1) };
    loop {
        quoted = match quoted {
            [b'"', behind @ ..] => return Some(behind),
            [b'\\', _, behind @ ..] | [_, behind @ ..] => behind,
            [] => return None,
        };
    }
}

/// The value of the `Content-Length` fields, which must all say the same.
///
/// # Errors
/// None, different ones, or one that is not a plain decimal number.
pub fn content_length(head: Head<'_>) -> Result<u64, Error> {
    let mut length = None;
    for value in head.values(FieldId::ContentLength) {
        let value = decimal(value).ok_or(Error::bad_request("malformed Content-Length"))?;
        if length.replace(value).is_some_and(|other| other != value) {
            return Err(Error::bad_request("differing Content-Lengths"));
        }
    }
    length.ok_or(Error::bad_request("no Content-Length"))
}

/// A number of nothing but digits, at most [`MAX_LENGTH`].
pub fn decimal(value: &[u8]) -> Option<u64> {
    let value = trim(value);
    if value.is_empty() {
        return None;
    }
    value
        .iter()
        .try_fold(0u64, |n, byte| {
            let digit = (*byte as char).to_digit(10)?;
            n.checked_mul(10)?.checked_add(u64::from(digit))
        })
        .filter(|n| *n <= MAX_LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::parse_request;

    fn with_head<T>(fields: &str, f: impl FnOnce(Head<'_>) -> T) -> T {
        let bytes = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        let mut parsed = Vec::new();
        parse_request(bytes.as_bytes(), &mut parsed).unwrap();
        f(Head::new(bytes.as_bytes(), &parsed))
    }

    #[test]
    fn one_way_to_say_how_long_a_body_is() {
        let framing = |fields| with_head(fields, |head| announced_framing(head, Version::Http11));
        assert_eq!(framing(""), Ok(None));
        assert_eq!(framing("Content-Length: 0\r\n"), Ok(Some(Framing::Empty)));
        assert_eq!(framing("content-length:5 \r\n"), Ok(Some(Framing::Length(5))));
        assert_eq!(
            framing("Content-Length: 5\r\nContent-Length: 5\r\n"),
            Ok(Some(Framing::Length(5)))
        );
        assert_eq!(framing("Transfer-Encoding: CHUNKED\r\n"), Ok(Some(Framing::Chunked)));
        for refused in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 5,6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length:\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length: 9223372036854775808\r\n",
            "Content-Length: 99999999999999999999999\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked,\r\n",
            "Transfer-Encoding:\r\n",
            "Transfer-Encoding:\tchunked\r\n",
            "Transfer-Encoding: chunked \t\r\n",
        ] {
            assert!(framing(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn unknown_codings_are_told_from_malformed_ones() {
        let kind = |value: &str, version| {
            let lines = format!("Transfer-Encoding: {value}\r\n");
            with_head(&lines, |head| announced_framing(head, version)).unwrap_err().kind
        };
        let (unknown, malformed) = (Kind::NotImplemented, Kind::BadRequest);
        for (value, expected) in [
            ("gzip", malformed),
            ("gzip, chunked", unknown),
            ("gzip ,\tchunked", unknown),
            ("a\r\nTransfer-Encoding: chunked", unknown),
            ("a;b=c, chunked", unknown),
            ("a ; b = \"c, \\\" d\" ;e=f, chunked", unknown),
            ("a ; b = \"c, \\\" d\" ;e=f", malformed),
            ("chunked, gzip", malformed),
            ("chunked, chunked", malformed),
            ("gzip, chunked, chunked", malformed),
            ("chunked;a=b", malformed),
            ("chunked;", malformed),
            ("gzip, chunked;a=b", malformed),
            (",", malformed),
            (", gzip", malformed),
            ("gzip,", malformed),
            ("gzip,,br", malformed),
            ("gzip br", malformed),
            ("\"gzip\"", malformed),
            ("a;b", malformed),
            ("a;=b", malformed),
            ("a;b=", malformed),
            ("a;b=\"c", malformed),
            ("a;b=\"c\"d", malformed),
            ("a/b", malformed),
            ("", malformed),
            ("\tchunked", malformed),
        ] {
            assert_eq!(kind(value, Version::Http11), expected, "{value:?}");
            assert_eq!(kind(value, Version::Http10), malformed, "{value:?}");
        }
    }

    #[test]
    fn named_fields_stop_here_but_never_those_that_frame_or_address() {
        let fields = "Host: a\r\nConnection: close, X-A , HOST\r\nx-a: 1\r\nB: 2\r\nX-A: 3\r\n\
                      connection: content-length\r\nContent-Length: 1\r\n";
        let options = with_head(fields, |head| Options::of(head).unwrap());
        assert!(options.close && !options.keep_alive);
        let named: Vec<usize> = (0..7).filter(|i| options.names(*i)).collect();
        assert_eq!(named, [2, 4]);
    }

    #[test]
    fn options_are_bounded() {
        let many = format!("Connection: {}\r\n", "a,".repeat(MAX_OPTIONS + 1));
        assert!(with_head(&many, Options::of).is_err());
    }
}
