//! What stands in messages, as text: names and values of fields, cookies and parameters, and what
//! a health check asks for. Whatever is refused here could never be sent, or never be found.

use super::url::{parse_host, parse_port, split_port};
use super::values::{ValueError, quote, suggest};

/// The longest text of a health check, in bytes: what common servers take as one line of a head.
pub const MAX_CHECK_TEXT: usize = 8 * 1024;

/// The longest name of a field, a cookie or a parameter, in bytes. Longer ones are slips of the
/// pen.
const MAX_FIELD_NAME: usize = 128;

/// The longest name of a gRPC service, in bytes, so that the question fits in one small frame.
const MAX_SERVICE: usize = 256;

/// Methods of checks: those that change nothing (RFC 9110 9.2.1), since they come all the time.
const CHECK_METHODS: [&str; 3] = ["GET", "HEAD", "OPTIONS"];

/// Fields of a check that are not the operator's: they say where it goes and how it is framed.
const OWN_FIELDS: [&str; 6] =
    ["host", "content-length", "transfer-encoding", "connection", "upgrade", "expect"];

/// The name of a field (RFC 9110 5.1), in lower case.
///
/// # Errors
/// What is not a token of at most 128 bytes.
pub fn parse_field_name(text: &str) -> Result<String, ValueError> {
    match is_token(text) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(ValueError::new(
            format!("{} cannot be the name of a field", quote(text)),
            "write letters, digits and hyphens, such as `X-User`",
        )),
    }
}

/// The name of a cookie (RFC 6265 4.1.1), which has a case.
///
/// # Errors
/// What is not a token of at most 128 bytes.
pub fn parse_cookie_name(text: &str) -> Result<String, ValueError> {
    match is_token(text) {
        true => Ok(text.to_owned()),
        false => Err(ValueError::new(
            format!("{} cannot be the name of a cookie", quote(text)),
            "write letters, digits, hyphens and underscores, such as `session_id`",
        )),
    }
}

/// The name of a parameter in a query, as clients write it.
///
/// # Errors
/// Empty, longer than 128 bytes, or with characters that end a name or that no query has.
pub fn parse_parameter(text: &str) -> Result<String, ValueError> {
    let allowed = |b: u8| b.is_ascii_graphic() && !matches!(b, b'&' | b'=' | b'#');
    match (1..=MAX_FIELD_NAME).contains(&text.len()) && text.bytes().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err(ValueError::new(
            format!("{} cannot be the name of a parameter", quote(text)),
            "write it as it stands in the query, percent-encoded, without `&`, `=` and `#`",
        )),
    }
}

/// The name of a field that checks are sent with, as written.
///
/// # Errors
/// Those of [`parse_field_name`], and the fields that every check has of its own.
pub fn parse_check_field(text: &str) -> Result<String, ValueError> {
    let name = parse_field_name(text)?;
    if OWN_FIELDS.contains(&name.as_str()) {
        let help = match name.as_str() {
            "host" => "write `host = \"…\"` beside `headers`",
            _ => "remove it; how a check is framed is not up to its fields",
        };
        return Err(ValueError::new(format!("checks have a {} of their own", quote(text)), help));
    }
    Ok(text.to_owned())
}

/// The value of a field that checks are sent with (RFC 9110 5.5).
///
/// # Errors
/// Control characters other than tabs, space around it, more than [`MAX_CHECK_TEXT`] bytes.
pub fn parse_field_value(text: &str) -> Result<String, ValueError> {
    let refused = |what: &str, help| Err(ValueError::new(format!("{} {what}", quote(text)), help));
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return refused("has control characters", "write it on one line, without them");
    }
    if text.trim_matches([' ', '\t']) != text {
        return refused("has space around it", "write it without; on the wire it means nothing");
    }
    within_bound(text)
}

/// The method of a check.
///
/// # Errors
/// Others than those that change nothing.
pub fn parse_check_method(text: &str) -> Result<String, ValueError> {
    match CHECK_METHODS.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(ValueError::new(
            format!("{} is not a method of checks, which change nothing", quote(text)),
            suggest(text, &CHECK_METHODS),
        )),
    }
}

/// The path of a check, with its query.
///
/// # Errors
/// What cannot stand in a request line (RFC 9112 3.2.1).
pub fn parse_check_path(text: &str) -> Result<String, ValueError> {
    let refused = |what: &str, help: &str| {
        Err(ValueError::new(format!("the path {} {what}", quote(text)), help))
    };
    if !text.starts_with('/') {
        let help = match text.contains("://") {
            true => "write the path alone, such as `/healthz`".to_owned(),
            false => format!("write {}", quote(&format!("/{text}"))),
        };
        return refused("does not begin with a slash", &help);
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return refused("has a character that paths do not have", "write it percent-encoded");
    }
    if text.contains('#') {
        return refused("has a fragment, which is never sent", "write it without");
    }
    within_bound(text)
}

/// The Host of a check: `host` or `host:port`.
///
/// # Errors
/// What no Host field is (RFC 9110 7.2).
pub fn parse_check_host(text: &str) -> Result<String, ValueError> {
    let refused = || {
        ValueError::new(
            format!("{} is not a host", quote(text)),
            "write `api.internal`, or `api.internal:8080`",
        )
    };
    let (host, port) = split_port(text).ok_or_else(refused)?;
    if port.is_some_and(|port| parse_port(port).is_none_or(|port| port == 0)) {
        return Err(refused());
    }
    parse_host(host)?;
    Ok(text.to_owned())
}

/// A text that a body must have in it.
///
/// # Errors
/// Empty, or more than [`MAX_CHECK_TEXT`] bytes.
pub fn parse_check_body(text: &str) -> Result<String, ValueError> {
    match text.is_empty() {
        true => Err(ValueError::new(
            "the empty text is in every body",
            "write what the body must have in it, or leave `body` out",
        )),
        false => within_bound(text),
    }
}

/// A regular expression that a body must match, in the syntax of the crate regex-lite.
///
/// # Errors
/// One that is not valid or needs too much memory, or more than [`MAX_CHECK_TEXT`] bytes.
pub fn parse_regex(text: &str) -> Result<String, ValueError> {
    match regex_lite::Regex::new(text) {
        Ok(_) => within_bound(text),
        Err(error) => Err(ValueError::new(
            format!("{} is not a regular expression: {error}", quote(text)),
            "write one such as `^ok$`; in single quotes TOML leaves backslashes alone",
        )),
    }
}

/// The name of a gRPC service, as its health is asked for: `package.Service`.
///
/// # Errors
/// What could not be one, or more than 256 bytes.
pub fn parse_service(text: &str) -> Result<String, ValueError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
    match text.len() <= MAX_SERVICE && text.bytes().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err(ValueError::new(
            format!("{} is not the name of a gRPC service", quote(text)),
            "write such as `package.Service`, or leave `service` out for the server as a whole",
        )),
    }
}

fn within_bound(text: &str) -> Result<String, ValueError> {
    match text.len() <= MAX_CHECK_TEXT {
        true => Ok(text.to_owned()),
        false => Err(ValueError::new(
            format!("the text is longer than {} KiB", MAX_CHECK_TEXT >> 10),
            "write a shorter one",
        )),
    }
}

/// RFC 9110 5.6.2.
fn is_token(text: &str) -> bool {
    (1..=MAX_FIELD_NAME).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Parse = fn(&str) -> Result<String, ValueError>;

    #[test]
    fn what_can_be_sent_is_taken() {
        for (parse, text) in [
            (parse_cookie_name as Parse, "__Host-SID"),
            (parse_check_field, "X-Check"),
            (parse_field_value, "a b\tc; d=\"ü\""),
            (parse_field_value, ""),
            (parse_check_method, "HEAD"),
            (parse_check_path, "/"),
            (parse_check_path, "/healthz?full=1&x=%20"),
            (parse_check_host, "api.internal:8080"),
            (parse_check_host, "[::1]:80"),
            (parse_check_host, "10.0.0.1"),
            (parse_check_body, " "),
            (parse_service, "my_package.v1.My-Service"),
            (parse_service, ""),
            (parse_regex, r#"^\{"status":\s*"(ok|warn)""#),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_cannot_be_sent_says_why() {
        let long = "x".repeat(MAX_CHECK_TEXT + 1);
        for (parse, text, part) in [
            (parse_cookie_name as Parse, "a b", "cannot be the name of a cookie"),
            (parse_cookie_name, "", "cannot be the name of a cookie"),
            (parse_cookie_name, "ä", "cannot be the name of a cookie"),
            (parse_check_field, "X Check", "cannot be the name of a field"),
            (parse_check_field, "X-Check:", "cannot be the name of a field"),
            (parse_check_field, "HOST", "write `host = \"…\"` beside `headers`"),
            (parse_check_field, "Content-Length", "checks have a `Content-Length` of their own"),
            (parse_check_field, "transfer-encoding", "of their own"),
            (parse_check_field, "Connection", "of their own"),
            (parse_field_value, "a\r\nX-Evil: 1", "control characters"),
            (parse_field_value, "a\0", "control characters"),
            (parse_field_value, " a", "space around it"),
            (parse_field_value, &long, "longer than 8 KiB"),
            (parse_check_method, "get", "did you mean `GET`?"),
            (parse_check_method, "DELETE", "write one of `GET`, `HEAD` and `OPTIONS`"),
            (parse_check_path, "healthz", "write `/healthz`"),
            (parse_check_path, "http://a/b", "write the path alone"),
            (parse_check_path, "", "write `/`"),
            (parse_check_path, "/a b", "percent-encoded"),
            (parse_check_path, "/ä", "percent-encoded"),
            (parse_check_path, "/a\r\n", "percent-encoded"),
            (parse_check_path, "/a#b", "a fragment"),
            (parse_check_host, "a b", "not a host name"),
            (parse_check_host, "a:0", "is not a host"),
            (parse_check_host, "a:b", "is not a host"),
            (parse_check_host, "::1", "is not a host"),
            (parse_check_body, "", "the empty text is in every body"),
            (parse_regex, "(ok", "`(ok` is not a regular expression: "),
            (parse_regex, "((a{1000}){1000}){1000}", "is not a regular expression: "),
            (parse_regex, &long, "longer than 8 KiB"),
        ] {
            let wrong = parse(text).unwrap_err().to_string();
            assert!(wrong.contains(part), "{text}: {wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_stays_on_one_line(text in "/?[a-z0-9:.\\[\\]#=%\\r\\n\\t\u{0}\u{85}ä -]{0,12}") {
            for parse in [
                parse_field_name as Parse, parse_cookie_name, parse_parameter, parse_check_field,
                parse_field_value, parse_check_method, parse_check_path, parse_check_host,
            ] {
                if let Ok(taken) = parse(&text) {
                    prop_assert!(!taken.contains(['\r', '\n', '\0']));
                }
            }
            let _ = (parse_check_body(&text), parse_regex(&text));
        }
    }
}
