//! The subject of a client's certificate as text (RFC 4514), which is safe in a header field.

use std::borrow::Cow;
use std::fmt::Write;

use x509_parser::asn1_rs::{FromDer, Tag, ToDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::x509::AttributeTypeAndValue;

/// The longest subject that is told, in bytes. One that is longer is not: cut short it might be
/// somebody else's.
pub const MAX_SUBJECT: usize = 2048;

/// Names of the kinds of attributes: those of RFC 4514 3, and those that OpenSSL writes and everybody
/// expects. Others are written with their numbers.
const NAMES: [(&str, &str); 15] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// The subject of the certificate `der`; `None` where it has none, or one that is longer than
/// [`MAX_SUBJECT`].
pub(super) fn subject(der: &[u8]) -> Option<Box<str>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut text = String::new();
    // The last comes first (RFC 4514 2.1).
    let names: Vec<_> = certificate.subject().iter_rdn().collect();
    for name in names.into_iter().rev() {
        if !text.is_empty() {
            text.push(',');
        }
        for (index, attribute) in name.iter().enumerate() {
            if index > 0 {
                text.push('+');
            }
            push(&mut text, attribute)?;
            if text.len() > MAX_SUBJECT {
                return None;
            }
        }
    }
    (!text.is_empty()).then(|| text.into())
}

/// Adds `attribute`: `CN=x`, or `1.2.3=#0C0178` (RFC 4514 2.3 and 2.4).
fn push(text: &mut String, attribute: &AttributeTypeAndValue<'_>) -> Option<()> {
    let kind = attribute.attr_type().to_id_string();
    let name = NAMES.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name);
    let value = name.and_then(|_| value(attribute));
    text.push_str(name.unwrap_or(&kind));
    text.push('=');
    match value {
        Some(value) => push_escaped(text, &value),
        None => {
            text.push('#');
            for byte in attribute.attr_value().to_der_vec().ok()? {
                write!(text, "{byte:02X}").ok()?;
            }
        }
    }
    Some(())
}

/// The text of an attribute, as UTF-8.
fn value<'a>(attribute: &'a AttributeTypeAndValue<'_>) -> Option<Cow<'a, str>> {
    let any = attribute.attr_value();
    match any.tag() {
        Tag::Utf8String
        | Tag::PrintableString
        | Tag::Ia5String
        | Tag::NumericString
        | Tag::VisibleString => std::str::from_utf8(any.data).ok().map(Cow::Borrowed),
        // In practice it is Latin-1.
        Tag::T61String => Some(any.data.iter().copied().map(char::from).collect()),
        Tag::BmpString => {
            let (pairs, rest) = any.data.as_chunks::<2>();
            let units = pairs.iter().copied().map(u16::from_be_bytes);
            let text: Result<String, _> = char::decode_utf16(units).collect();
            text.ok().filter(|_| rest.is_empty()).map(Cow::Owned)
        }
        _ => None,
    }
}

/// Adds `value` so that nothing in it is taken for the end of it (RFC 4514 2.4), and so that it is
/// visible ASCII and single spaces: all else is `\` and two digits for each byte of its UTF-8.
fn push_escaped(text: &mut String, value: &str) {
    let last = value.len().saturating_sub(1);
    for (index, byte) in value.bytes().enumerate() {
        let is_outer = index == 0 || index == last;
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b' ' if is_outer => text.push_str("\\ "),
            b'#' if index == 0 => text.push_str("\\#"),
            b' '..=b'~' => text.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(text, "\\{byte:02X}")),
        }
    }
}
