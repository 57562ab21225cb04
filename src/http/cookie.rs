//! Cookies of a request: what clients bring back, by name.

use super::head::{Head, trim};

/// The values of the cookies called `name`, without quotes around them, in order.
///
/// There may be several: of other paths, or of the domain above (RFC 6265 4.2.2).
///
/// RFC 6265 4.2.1 and 5.4 have `name=value` pairs with `; ` between them in one field. This is laxer,
/// as servers are: there may be several fields, and any white space around names, values and
/// semicolons; what has no name is passed over. Names are case-sensitive.
pub fn cookies<'a>(head: Head<'a>, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    // Few upstreams look at cookies, so the field has no id of its own that every head would pay.
    let fields = head.lines().filter(|(_, field, _)| field.eq_ignore_ascii_case(b"cookie"));
    fields.flat_map(|(_, _, value)| pairs(value)).filter(move |(n, _)| *n == name).map(|(_, v)| v)
}

/// The pairs of a Cookie field's value, in order.
fn pairs(value: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    value.split(|b| *b == b';').filter_map(|pair| {
        let equals = memchr::memchr(b'=', pair)?;
        let (name, value) = (trim(pair.get(..equals)?), trim(pair.get(equals + 1..)?));
        let unquoted = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\""));
        (!name.is_empty()).then_some((name, unquoted.unwrap_or(value)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::parse_request;
    use proptest::prelude::*;

    /// The cookie `name` of a request with these field lines.
    fn find(lines: &str, name: &str) -> Option<String> {
        let bytes = format!("GET / HTTP/1.1\r\n{lines}\r\n").into_bytes();
        let mut fields = Vec::new();
        parse_request(&bytes, &mut fields).unwrap();
        let value = cookies(Head::new(&bytes, &fields), name.as_bytes()).next()?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    #[test]
    fn all_cookies_of_that_name_in_order() {
        let bytes = b"GET / HTTP/1.1\r\nCookie: a=1; b=2; a=\r\nX: y\r\ncookie: A=3; a=4\r\n\r\n";
        let mut fields = Vec::new();
        parse_request(bytes, &mut fields).unwrap();
        let found: Vec<_> = cookies(Head::new(bytes, &fields), b"a").collect();
        assert_eq!(found, [&b"1"[..], b"", b"4"]);
    }

    #[test]
    fn the_first_cookie_of_that_name_in_all_fields() {
        for (lines, found) in [
            ("Host: a\r\n", None),
            ("Cookie: a=1\r\n", Some("1")),
            ("cOOKIE: a=1\r\n", Some("1")),
            ("Cookie: b=2; a=1; c=3\r\n", Some("1")),
            ("Cookie: b=2;a=1;c=3\r\n", Some("1")),
            ("Cookie:   b=2 ;\t a = 1 ; c=3\r\n", Some("1")),
            ("Cookie: b=2\r\nHost: a\r\nCookie: a=1\r\n", Some("1")),
            ("Cookie: a=1; a=2\r\nCookie: a=3\r\n", Some("1")),
            ("Cookie: a=\"1\"\r\n", Some("1")),
            ("Cookie: a=\" 1\"\r\n", Some(" 1")),
            ("Cookie: a=\"\r\n", Some("\"")),
            ("Cookie: a=\"1\r\n", Some("\"1")),
            ("Cookie: a=1=2==\r\n", Some("1=2==")),
            ("Cookie: a=\r\n", Some("")),
            ("Cookie: a=; a=1\r\n", Some("")),
            ("Cookie: a\r\n", None),
            ("Cookie: a; a=1\r\n", Some("1")),
            ("Cookie: =a; ;;=; a=1;\r\n", Some("1")),
            ("Cookie: A=1\r\n", None),
            ("Cookie: aa=1; ba=2; a-=3\r\n", None),
            ("Cookie: b=a=1\r\n", None),
            ("Cookie: b=2,a=1\r\n", None),
            ("Cookies: a=1\r\nSet-Cookie: a=2\r\nX-Cookie: a=3\r\n", None),
            ("Cookie:\r\n", None),
        ] {
            assert_eq!(find(lines, "a").as_deref(), found, "{lines:?}");
        }
        assert_eq!(find("Cookie: =1; b=2\r\n", ""), None, "no name is no name");
    }

    proptest! {
        #[test]
        fn what_was_put_in_is_found(
            cookies in prop::collection::vec(("[a-e!#_]{1,2}", "[!#-+\\--:<-\\[\\]-~]{0,12}"), 1..6),
            fields in 1usize..3,
        ) {
            // Names and values are those of RFC 6265 4.1.1.
            let line = |cookies: &[(String, String)]| {
                let pairs: Vec<_> = cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
                format!("Cookie: {}\r\n", pairs.join("; "))
            };
            let each = cookies.len().div_ceil(fields);
            let lines: String = cookies.chunks(each).map(line).collect();
            for (name, _) in &cookies {
                let first = cookies.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
                prop_assert_eq!(find(&lines, name), first, "{}", lines);
            }
            prop_assert_eq!(find(&lines, "absent"), None);
        }

        #[test]
        fn whatever_clients_send_is_read(value in "[ -~\t]{0,40}", name in "[a-z]{0,2}") {
            if let Some(found) = find(&format!("Cookie: {value}\r\n"), &name) {
                prop_assert!(!name.is_empty() && !found.contains(';') && value.contains(&found));
            }
        }
    }
}
