//! Which hosts the admin address answers to.
//!
//! A page of another site could have its own name resolve to the admin address and then read what that says
//! ("DNS rebinding"): to the browser it would be the page's own site. The browser sends that name in `Host`,
//! so names that can be registered are refused. IP addresses, names without a dot and names below `.localhost`
//! (RFC 6761 6.3) cannot be.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::Request;
use hyper::header::HOST;

/// Whether every host that `request` names is ours: an IP address, a name that nobody can register, or one
/// of `hosts`, which are in lower case. A request without any is not a browser's.
pub(super) fn is_ours<B>(request: &Request<B>, hosts: &[String]) -> bool {
    let in_target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let in_fields = request.headers().get_all(HOST).iter().map(|value| value.as_bytes());
    let mut named = in_target.into_iter().chain(in_fields).filter(|host| !host.is_empty());
    named.all(|host| is_known(host, hosts))
}

/// The same for one host, with a port or without.
fn is_known(host: &[u8], hosts: &[String]) -> bool {
    let Ok(host) = str::from_utf8(host) else { return false };
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((address, port)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        return address.parse::<Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(is_label) {
        return false;
    }
    name.parse::<Ipv4Addr>().is_ok()
        || !name.contains('.')
        || name.ends_with(".localhost")
        || hosts.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_that_nobody_can_register_are_ours() {
        let hosts = ["lb.example.com".to_owned()];
        for (host, expected) in [
            ("127.0.0.1", true),
            ("10.0.0.1:9900", true),
            ("[::1]", true),
            ("[fd00::1]:9900", true),
            ("localhost", true),
            ("Localhost.:1", true),
            ("a.localhost", true),
            ("tinylb", true),
            ("tiny_lb:9900", true),
            ("LB.example.com.", true),
            ("lb.example.com:9900", true),
            ("", false),
            (".", false),
            (":9900", false),
            ("[::1]evil.example", false),
            ("[::1", false),
            ("[evil.example]", false),
            ("[::1]:port", false),
            ("evil.example", false),
            ("evil.example:9900", false),
            ("127.0.0.1.evil.example", false),
            ("1.2.3", false),
            ("user@localhost", false),
            ("localhost,evil.example", false),
            ("a b", false),
            ("b.lb.example.com", false),
        ] {
            assert_eq!(is_known(host.as_bytes(), &hosts), expected, "{host:?}");
        }
        assert!(!is_known(b"\xff", &hosts));
    }
}
