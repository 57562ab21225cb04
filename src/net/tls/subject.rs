//! The subject of a client's certificate as text (RFC 4514), which is safe in a header field.

use std::borrow::Cow;
use std::fmt::Write;

use x509_parser::asn1_rs::{FromDer, Tag, ToDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

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
    text_of(certificate.subject())
}

/// The common name in a subject as it is written here; `None` where there is none, or more than one, of
/// which nobody knows who is meant.
pub fn common_name(subject: &str) -> Option<Cow<'_, [u8]>> {
    let mut names = attributes(subject).filter_map(|attribute| attribute.strip_prefix("CN="));
    let name = names.next().filter(|_| names.next().is_none())?;
    // What is not text.
    if name.starts_with('#') {
        return None;
    }
    if !name.contains('\\') {
        return Some(Cow::Borrowed(name.as_bytes()));
    }
    let (mut unescaped, mut rest) = (Vec::with_capacity(name.len()), name.as_bytes());
    while let [byte, behind @ ..] = rest {
        let (byte, behind) = match (byte, behind) {
            (b'\\', [high, low, behind @ ..]) if high.is_ascii_hexdigit() => {
                (digit(*high) << 4 | digit(*low), behind)
            }
            (b'\\', [byte, behind @ ..]) => (*byte, behind),
            _ => (*byte, behind),
        };
        unescaped.push(byte);
        rest = behind;
    }
    Some(Cow::Owned(unescaped))
}

/// The attributes of a subject: a comma or a plus that is part of a value is escaped.
fn attributes(subject: &str) -> impl Iterator<Item = &str> {
    let mut is_escaped = false;
    subject.split(move |c| {
        let is_end = !is_escaped && matches!(c, ',' | '+');
        is_escaped = !is_escaped && c == '\\';
        is_end
    })
}

/// What a hexadecimal digit stands for.
fn digit(digit: u8) -> u8 {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok()).unwrap_or_default()
}

fn text_of(subject: &X509Name<'_>) -> Option<Box<str>> {
    let mut text = String::new();
    // The last comes first (RFC 4514 2.1).
    let names: Vec<_> = subject.iter_rdn().collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls::tests::der;
    use proptest::prelude::*;

    /// CN, O and a kind that has no name here, as their OIDs are encoded.
    const CN: &[u8] = &[0x55, 4, 3];
    const O: &[u8] = &[0x55, 4, 10];
    const ODD: &[u8] = &[0x2a, 3, 4];

    const UTF8: u8 = 0x0c;

    /// One attribute.
    fn attribute(kind: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
        der(0x30, &[&der(6, &[kind]), &der(tag, &[value])])
    }

    fn text(names: &[Vec<Vec<u8>>]) -> Option<Box<str>> {
        let sets: Vec<_> = names
            .iter()
            .map(|set| der(0x31, &set.iter().map(|a| &**a).collect::<Vec<_>>()))
            .collect();
        let name = der(0x30, &sets.iter().map(|set| &**set).collect::<Vec<_>>());
        let (rest, name) = X509Name::from_der(&name).unwrap();
        assert!(rest.is_empty());
        text_of(&name)
    }

    #[test]
    fn values_are_escaped_as_the_rfc_has_it() {
        let cases: [(u8, &[u8], &str); 19] = [
            (UTF8, b"alice", "alice"),
            (UTF8, b"Ours, Inc.", "Ours\\, Inc."),
            (UTF8, b"a+b;c<d>e\"f\\g", "a\\+b\\;c\\<d\\>e\\\"f\\\\g"),
            (UTF8, b" a  b ", "\\ a  b\\ "),
            (UTF8, b" ", "\\ "),
            (UTF8, b"#a#", "\\#a#"),
            (UTF8, b"a=b", "a=b"),
            (UTF8, b"", ""),
            (UTF8, b"a\r\nX-Client-Subject: b", "a\\0D\\0AX-Client-Subject: b"),
            (UTF8, b"\0\x7f", "\\00\\7F"),
            (UTF8, "Lučić".as_bytes(), "Lu\\C4\\8Di\\C4\\87"),
            (0x13, b"printable", "printable"),
            (0x16, b"a@b", "a@b"),
            (0x14, b"caf\xe9", "caf\\C3\\A9"),
            (0x1e, &[0, b'a', 1, 0x0d], "a\\C4\\8D"),
            // Half a surrogate pair, half a character, and no text.
            (0x1e, &[0xd8, 0], "#1E02D800"),
            (0x1e, &[0, b'a', 0], "#1E03006100"),
            (2, &[5], "#020105"),
            (UTF8, b"\xff", "#0C01FF"),
        ];
        for (tag, value, expected) in cases {
            let text = text(&[vec![attribute(CN, tag, value)]]);
            assert_eq!(text.as_deref(), Some(&*format!("CN={expected}")), "{value:?}");
        }
    }

    #[test]
    fn the_last_name_comes_first() {
        let a = || attribute(CN, UTF8, b"a");
        let o = || attribute(O, UTF8, b"o");
        let odd = || attribute(ODD, UTF8, b"x");
        assert_eq!(text(&[vec![o()], vec![a()]]).as_deref(), Some("CN=a,O=o"));
        assert_eq!(text(&[vec![o(), a()]]).as_deref(), Some("O=o+CN=a"));
        assert_eq!(text(&[vec![odd()], vec![a()]]).as_deref(), Some("CN=a,1.2.3.4=#0C0178"));
        assert_eq!(text(&[]), None);
        let long = |length| text(&[vec![attribute(CN, UTF8, &vec![b'a'; length])]]);
        assert_eq!(long(MAX_SUBJECT - 3).unwrap().len(), MAX_SUBJECT);
        assert_eq!(long(MAX_SUBJECT - 2), None);
    }

    #[test]
    fn the_common_name_is_the_only_one() {
        for (subject, expected) in [
            ("CN=alice", Some("alice")),
            ("O=o,CN=alice", Some("alice")),
            ("O=a\\,CN=mallory,CN=alice", Some("alice")),
            ("O=a\\\\,CN=alice", Some("alice")),
            ("O=o+CN=alice,C=c", Some("alice")),
            ("CN=Ours\\, Inc.\\+\\\\", Some("Ours, Inc.+\\")),
            ("CN=Lu\\C4\\8Di\\C4\\87", Some("Lučić")),
            ("CN=\\#a", Some("#a")),
            ("CN=", Some("")),
            ("CN=#020105", None),
            ("CN=a,CN=b", None),
            ("O=CN", None),
            ("XCN=a", None),
            ("", None),
        ] {
            let name = common_name(subject).map(|name| String::from_utf8(name.into()).unwrap());
            assert_eq!(name.as_deref(), expected, "{subject}");
        }
    }

    proptest! {
        #[test]
        fn any_common_name_is_found_as_it_is(name in ".{0,40}", other in ".{0,20}") {
            let names = [vec![attribute(O, UTF8, other.as_bytes())], vec![attribute(CN, UTF8, name.as_bytes())]];
            let text = text(&names).unwrap();
            let found = common_name(&text);
            prop_assert_eq!(found.as_deref(), Some(name.as_bytes()));
        }

        /// Whatever is in it, it can stand in a field, and nothing in one value looks like another.
        #[test]
        fn any_value_is_one_value(value in ".{0,40}") {
            let text = text(&[vec![attribute(CN, UTF8, value.as_bytes())]]).unwrap();
            prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert!(!text.ends_with(' ') || text.ends_with("\\ "));
            let mut unescaped = Vec::new();
            let mut rest = text.strip_prefix("CN=").unwrap().bytes();
            while let Some(byte) = rest.next() {
                prop_assert!(!b"\"+,;<>".contains(&byte));
                if byte != b'\\' {
                    unescaped.push(byte);
                    continue;
                }
                let next = rest.next().unwrap();
                match char::from(next).to_digit(16) {
                    None => unescaped.push(next),
                    Some(high) => {
                        let low = char::from(rest.next().unwrap()).to_digit(16).unwrap();
                        unescaped.push(u8::try_from(high * 16 + low).unwrap());
                    }
                }
            }
            prop_assert_eq!(unescaped, value.into_bytes());
        }

        /// What comes from the wire makes no trouble.
        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = subject(&bytes);
            if let Ok((_, name)) = X509Name::from_der(&bytes) {
                let _ = text_of(&name);
            }
        }
    }
}
