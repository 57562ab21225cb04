//! What a route is for, as text: hosts and path prefixes.

use std::str::FromStr;

use super::model::{EndpointHost, HostPattern};
use super::url::{check_path, encodings, is_unreserved, parse_host, split_port};
use super::values::{ValueError, quote};

impl FromStr for HostPattern {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refused =
            |help: &str| ValueError::new(format!("{} is not a host to match", quote(text)), help);
        if text == "*" || text.is_empty() {
            return Err(refused("leave `host` out for any host"));
        }
        let (star, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        if name.contains('*') {
            return Err(refused("write `*.` only at the front, such as `*.example.com`"));
        }
        if name.contains("://") || name.contains('/') {
            return Err(refused("write the host alone, such as `example.com`"));
        }
        if let Some((host, Some(_))) = split_port(name) {
            return Err(refused(&format!("write it without the port: {}", quote(host))));
        }
        if let Some(name) = name.strip_suffix('.') {
            return Err(refused(&format!("write it without the last dot: {}", quote(name))));
        }
        match (star, parse_host(name)?) {
            (false, host) => Ok(Self::Exact(host.to_string())),
            (true, EndpointHost::Name(name)) => Ok(Self::Suffix(format!(".{name}"))),
            (true, EndpointHost::Ip(_) | EndpointHost::Unix(_)) => {
                Err(refused("write `*.` only before a name"))
            }
        }
    }
}

/// The path prefix of a route.
///
/// # Errors
/// What no request's path can begin with, in the form in which it is matched.
pub fn parse_route_path(text: &str) -> Result<String, ValueError> {
    if !text.starts_with('/') {
        return Err(ValueError::new(
            format!("the path {} does not begin with a slash", quote(text)),
            format!("write {}", quote(&format!("/{text}"))),
        ));
    }
    check_path(text)?;
    // Requests are matched with these decoded, so an encoded one would never match.
    if let Some((encoded, plain)) = encodings(text).find(|(_, byte)| is_unreserved(*byte)) {
        let plain = char::from(plain);
        return Err(ValueError::new(
            format!("the path {} can match nothing: requests are matched decoded", quote(text)),
            format!("write `{plain}` in place of `{encoded}`"),
        ));
    }
    if let Some(prefix) = prefix_of_glob(text) {
        return Err(ValueError::new(
            format!("the path {} has a `*`: paths are prefixes, not patterns", quote(text)),
            format!("write {}, which is for everything below it", quote(prefix)),
        ));
    }
    Ok(text.to_owned())
}

/// The prefix that a path with a `*` was probably meant for; `None` where it has none.
///
/// A literal `*` is valid in a path (RFC 3986 3.3) but rare; write it as `%2A`.
fn prefix_of_glob(text: &str) -> Option<&str> {
    let (before, behind) = text.split_once('*')?;
    if behind.bytes().all(|byte| byte == b'*') {
        return Some(before);
    }
    before.rfind('/').and_then(|slash| before.get(..=slash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_are_in_lower_case_and_without_port() {
        for (text, shown) in [
            ("API.example.com", "api.example.com"),
            ("*.Example.com", "*.example.com"),
            ("10.0.0.1", "10.0.0.1"),
            ("[::0:1]", "[::1]"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(text.parse::<HostPattern>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_no_host_can_match_is_refused() {
        for (text, part) in [
            ("*", "leave `host` out"),
            ("", "leave `host` out"),
            ("a.*.com", "only at the front"),
            ("*example.com", "only at the front"),
            ("*.*.com", "only at the front"),
            ("example.com:8080", "without the port: `example.com`"),
            ("[::1]:80", "without the port: `[::1]`"),
            ("example.com.", "without the last dot: `example.com`"),
            ("http://example.com", "the host alone"),
            ("*.10.0.0.1", "only before a name"),
            ("::1", "not a host name"),
            ("münchen.de", "not a host name"),
        ] {
            let wrong = text.parse::<HostPattern>().unwrap_err().to_string();
            assert!(wrong.contains(part), "{text}: {wrong}");
        }
    }

    #[test]
    fn paths_are_in_the_form_in_which_they_are_matched() {
        for text in ["/", "/v1", "/v1/", "/a//b", "/a%2Fb", "/a:b@c", "/a%2A"] {
            assert_eq!(parse_route_path(text).as_deref(), Ok(text));
        }
        for (text, part) in [
            ("", "write `/`"),
            ("v1", "write `/v1`"),
            ("/a?b", "a query or a fragment"),
            ("/a#b", "a query or a fragment"),
            ("/a b", "a character that paths do not have"),
            ("/ä", "write it percent-encoded"),
            ("/a/../b", "a dot segment"),
            ("/%2e", "a percent-encoded dot"),
            ("/%61pi", "write `a` in place of `%61`"),
            ("/a%", "a bare `%`"),
            ("/*", "write `/`, which"),
            ("/api/*", "write `/api/`, which"),
            ("/api/**", "write `/api/`, which"),
            ("/api*", "write `/api`, which"),
            ("/api/*/edit", "write `/api/`, which"),
            ("/api/v*/edit", "write `/api/`, which"),
            ("/img/*.png", "write `/img/`, which"),
        ] {
            let wrong = parse_route_path(text).unwrap_err().to_string();
            assert!(wrong.contains(part), "{text}: {wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(host in "(\\*\\.)?[a-z0-9.:*/\\[\\]ä-]{0,20}", path in "/?[a-z0-9.%/?ä ]{0,20}") {
            if let Ok(pattern) = host.parse::<HostPattern>() {
                prop_assert_eq!(pattern.to_string().parse(), Ok(pattern));
            }
            let _ = parse_route_path(&path);
        }
    }
}
