//! Where endpoints are, as text: `http://host:port/base` and its like, `host:port` or `unix:/path`, the
//! same in the file and on the command line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use super::model::{EndpointHost, EndpointUrl, Scheme};
use super::values::{ValueError, quote};

/// The longest host name in bytes (RFC 1035 2.3.4), and the longest of its labels.
const MAX_HOST: usize = 253;
const MAX_LABEL: usize = 63;

/// The longest path of a Unix socket in bytes: Linux has room for 108, with a NUL (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

impl FromStr for EndpointUrl {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let host = EndpointHost::Unix(parse_socket_path(path)?);
            return Ok(Self { scheme: Scheme::Unix, host, port: 0, base_path: String::new() });
        }
        let (scheme, authority, base_path) = split_url(text)?;
        let refused =
            |wrong: &str, help: &str| ValueError::new(format!("{wrong} in {}", quote(text)), help);
        if authority.contains('@') {
            return Err(refused("a user name", "write the URL without it"));
        }
        let (host, port) = split_port(authority).ok_or_else(|| {
            refused("an IPv6 address without brackets", "write `http://[::1]:8001`")
        })?;
        if host.is_empty() {
            return Err(refused("no host", "write `http://host:port`"));
        }
        let host = parse_host(host)?;
        if matches!(host, EndpointHost::Ip(ip) if ip.is_unspecified()) {
            return Err(refused(
                "an address that nothing can be sent to",
                "write `127.0.0.1` or `[::1]` for this machine",
            ));
        }
        let port = match port {
            None => scheme.default_port(),
            Some(port) => parse_port(port).filter(|port| *port != 0),
        };
        let port = port.ok_or_else(|| refused("no port", "write a port from 1 to 65535"))?;
        check_path(base_path)?;
        Ok(Self { scheme, host, port, base_path: base_path.to_owned() })
    }
}

/// The path behind `unix:`, all of it as it stands.
pub(super) fn parse_socket_path(path: &str) -> Result<PathBuf, ValueError> {
    let refused = |wrong: &str, help: &str| {
        ValueError::new(format!("{wrong} in {}", quote(&format!("unix:{path}"))), help)
    };
    if let Some(rest) = path.strip_prefix("//") {
        let rest = rest.trim_start_matches('/');
        return Err(refused("a host", &format!("write `unix:/{rest}`")));
    }
    if !path.starts_with('/') || path.ends_with('/') {
        let help = "write an absolute path, such as `unix:/run/app.sock`";
        return Err(refused("no path of a Unix socket", help));
    }
    if path.chars().any(char::is_control) {
        return Err(refused("a control character", "write a path without it"));
    }
    if path.len() > MAX_SOCKET_PATH {
        let wrong = format!("a path of {} bytes", path.len());
        let help =
            format!("choose one of at most {MAX_SOCKET_PATH}, which is all that Linux takes");
        return Err(refused(&wrong, &help));
    }
    Ok(PathBuf::from(path))
}

/// The scheme, the authority and the base path of `http://authority/base` or of a bare `host:port`.
fn split_url(text: &str) -> Result<(Scheme, &str, &str), ValueError> {
    let refused = |wrong: String, help: String| Err(ValueError::new(wrong, help));
    if text.bytes().any(|b| !b.is_ascii_graphic()) {
        return refused(
            format!("{} has characters that no URL has", quote(text)),
            "write names outside ASCII as `xn--…`, and other characters percent-encoded".to_owned(),
        );
    }
    if let Some(at) = text.find(['?', '#']) {
        return refused(
            format!("a query or a fragment in {}", quote(text)),
            format!("write `{}`; the request's own query is passed on", &text[..at]),
        );
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return match split_port(text) {
            Some((_, Some(port))) if parse_port(port).is_some() => Ok((Scheme::Http, text, "")),
            _ => refused(
                format!("{} is not an endpoint", quote(text)),
                "write `http://host:port`, `https://…`, `h2c://…`, `host:port` or `unix:/path`"
                    .to_owned(),
            ),
        };
    };
    let known = [Scheme::Http, Scheme::Https, Scheme::H2c];
    let Some(scheme) = known.into_iter().find(|known| scheme.eq_ignore_ascii_case(known.name()))
    else {
        return refused(
            format!("{} asks for `{scheme}`", quote(text)),
            format!("write `http://{rest}`, or `https://…` or `h2c://…`"),
        );
    };
    let (authority, base_path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Ok((scheme, authority, base_path))
}

/// Host and, behind a colon, port. Brackets stay. `None` where colons are left over.
pub(super) fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let host_end = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(host_end);
    match port.strip_prefix(':') {
        None if port.is_empty() => Some((host, None)),
        Some(port) if !port.contains(':') => Some((host, Some(port))),
        _ => None,
    }
}

/// Digits only, which `u16::from_str` is too lax about.
pub(super) fn parse_port(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A name, an IPv4 address, or an IPv6 address in brackets; in lower case.
pub(super) fn parse_host(text: &str) -> Result<EndpointHost, ValueError> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let address = bracketed.strip_suffix(']').and_then(|text| text.parse::<Ipv6Addr>().ok());
        return match address {
            Some(ip) => Ok(EndpointHost::Ip(IpAddr::V6(ip).to_canonical())),
            None => Err(ValueError::new(
                format!("{} is not an IPv6 address", quote(text)),
                "write it like `[::1]`, without a zone",
            )),
        };
    }
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Ok(EndpointHost::Ip(IpAddr::V4(ip)));
    }
    let name = text.to_ascii_lowercase();
    let labels = name.strip_suffix('.').unwrap_or(&name);
    // Resolvers take a name that ends in a number for some spelling of an IPv4 address.
    if labels.rsplit('.').next().is_some_and(is_numeric) {
        return Err(ValueError::new(
            format!("{} is neither a name nor an IPv4 address", quote(text)),
            "write four numbers from 0 to 255, such as `10.0.0.1`",
        ));
    }
    if labels.len() > MAX_HOST || !labels.split('.').all(is_label) {
        return Err(ValueError::new(
            format!("{} is not a host name", quote(text)),
            "write letters, digits and hyphens, with dots between",
        ));
    }
    Ok(EndpointHost::Name(name))
}

fn is_numeric(label: &str) -> bool {
    match label.strip_prefix("0x") {
        Some(hex) => hex.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !label.is_empty() && label.bytes().all(|b| b.is_ascii_digit()),
    }
}

/// A label of a host name; with underscores, since container networks have them.
fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Checks a path that is empty or begins with a slash (RFC 3986 3.3, and no dot segments).
pub(super) fn check_path(path: &str) -> Result<(), ValueError> {
    let refused = |wrong: &str, help: &str| {
        Err(ValueError::new(format!("{wrong} in the path {}", quote(path)), help))
    };
    if path.contains(['?', '#']) {
        return refused("a query or a fragment", "write the path alone");
    }
    if !path.bytes().all(is_path_byte) {
        return refused("a character that paths do not have", "write it percent-encoded");
    }
    if path.matches('%').count() != encodings(path).count() {
        return refused("a bare `%`", "write `%25`, or two hexadecimal digits behind it");
    }
    if encodings(path).any(|(_, byte)| byte == b'.') {
        return refused("a percent-encoded dot", "write a plain dot");
    }
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return refused("a dot segment", "write the path that it leads to");
    }
    Ok(())
}

/// Each percent-encoded byte, as written and decoded.
pub(super) fn encodings(path: &str) -> impl Iterator<Item = (&str, u8)> {
    path.match_indices('%').filter_map(|(at, _)| {
        let encoded = path.get(at..at + 3)?;
        let digits = &encoded[1..];
        // `from_str_radix` alone would take a sign.
        digits.bytes().all(|b| b.is_ascii_hexdigit()).then_some(())?;
        Some((encoded, u8::from_str_radix(digits, 16).ok()?))
    })
}

/// RFC 3986 2.3.
pub(super) const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `pchar` of RFC 3986 3.3, the percent sign and the slash.
const fn is_path_byte(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b'/' | b'%' | b':' | b'@' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')')
        || matches!(byte, b'*' | b'+' | b',' | b';' | b'=')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn endpoints_are_read() {
        for (text, shown) in [
            ("http://localhost:8001", "http://localhost:8001"),
            ("HTTP://Example.COM", "http://example.com:80"),
            ("localhost:8001", "http://localhost:8001"),
            ("10.0.0.1:80", "http://10.0.0.1:80"),
            ("[::1]:8001", "http://[::1]:8001"),
            ("http://[::FFFF:10.0.0.1]:1/", "http://10.0.0.1:1/"),
            ("http://my_service:1/a/b%20c/", "http://my_service:1/a/b%20c/"),
            ("http://api.internal.:8001", "http://api.internal.:8001"),
            ("https://a", "https://a:443"),
            ("HTTPS://a:8443/base", "https://a:8443/base"),
            ("h2c://[::1]", "h2c://[::1]:80"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("unix:/run/a b?c#d%", "unix:/run/a b?c#d%"),
        ] {
            assert_eq!(text.parse::<EndpointUrl>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_cannot_be_an_endpoint_is_refused_with_a_sentence() {
        for (text, part) in [
            ("ftp://a", "write `http://a`, or `https://…` or `h2c://…`"),
            ("unix:", "an absolute path, such as `unix:/run/app.sock`"),
            ("unix:app.sock", "an absolute path"),
            ("unix:/run/", "an absolute path"),
            ("unix:///run/app.sock", "write `unix:/run/app.sock`"),
            ("unix://run/app.sock", "write `unix:/run/app.sock`"),
            ("unix:/a\nb", "a control character"),
            (&format!("unix:/{}", "a".repeat(107)), "a path of 108 bytes"),
            ("https://user@a", "a user name"),
            ("http://user:secret@a:1", "a user name"),
            ("http://a:1/b?c=d", "write `http://a:1/b`"),
            ("http://a:1#b", "a query or a fragment"),
            ("http://", "no host"),
            ("http://:8001", "no host"),
            ("http://a:0", "no port"),
            ("http://a:", "no port"),
            ("http://a:+80", "no port"),
            ("http://a:65536", "no port"),
            ("http://ä.example", "xn--"),
            ("http://a b", "characters that no URL has"),
            ("http://::1:80", "IPv6 address without brackets"),
            ("http://[::1", "IPv6 address without brackets"),
            ("http://[::1]x:80", "IPv6 address without brackets"),
            ("http://[fe80::1%eth0]:80", "not an IPv6 address"),
            ("http://10.0.0.256", "neither a name nor an IPv4 address"),
            ("http://127.1", "neither a name nor an IPv4 address"),
            ("http://0x7f000001", "neither a name nor an IPv4 address"),
            ("http://0.0.0.0:80", "nothing can be sent to"),
            ("http://-a", "not a host name"),
            ("http://a..b", "not a host name"),
            ("http://a/../b", "a dot segment"),
            ("http://a/b/.", "a dot segment"),
            ("http://a/%2e%2E/b", "a percent-encoded dot"),
            ("http://a/%zz", "a bare `%`"),
            ("http://a/%+1", "a bare `%`"),
            ("http://a/<b>", "a character that paths do not have"),
            ("localhost", "is not an endpoint"),
            ("localhost:8001/base", "is not an endpoint"),
            ("chek", "is not an endpoint"),
            ("", "is not an endpoint"),
            ("http:/a", "is not an endpoint"),
        ] {
            let wrong = text.parse::<EndpointUrl>().unwrap_err().to_string();
            assert!(wrong.contains(part), "{text}: {wrong}");
        }
    }

    #[test]
    fn the_authority_has_no_port_that_goes_without_saying() {
        for (text, authority) in [
            ("http://a:80", "a"),
            ("http://a:443", "a:443"),
            ("https://a", "a"),
            ("https://a:80/base", "a:80"),
            ("h2c://[::1]:80", "[::1]"),
            ("h2c://a:50051", "a:50051"),
            ("unix:/run/app.sock", "localhost"),
        ] {
            assert_eq!(text.parse::<EndpointUrl>().unwrap().authority(), authority, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_is_shown_is_read_again(
            text in "(http://|HTTP://|https://|h2c://|unix:|unix:/|)[a-z0-9.:@%#?/\\[\\]ä -]{0,20}",
        ) {
            if let Ok(url) = text.parse::<EndpointUrl>() {
                prop_assert_eq!(url.to_string().parse(), Ok(url));
            }
        }
    }
}
