//! The names that a certificate is valid for.

use std::net::IpAddr;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// The names that a certificate is valid for (RFC 9110 4.3.4, RFC 6125): those in its SANs, or where
/// there is none its common name, in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Names as they are.
    pub exact: Vec<Box<str>>,
    /// What follows the first label of `*.example.com`: `example.com`.
    pub wildcards: Vec<Box<str>>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
}

impl Names {
    /// Those of `certificate`.
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut names = Self::default();
        // One that is damaged has no names; that it is damaged is found by whoever checks it.
        let sans = certificate.subject_alternative_name().ok().flatten();
        for san in sans.iter().flat_map(|sans| &sans.value.general_names) {
            match san {
                GeneralName::DNSName(name) => names.add(name),
                GeneralName::IPAddress(bytes) => names.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        if names == Self::default() {
            let common = certificate.subject().iter_common_name().last();
            if let Some(name) = common.and_then(|name| name.as_str().ok()) {
                match name.parse() {
                    Ok(address) => names.addresses.push(address),
                    Err(_) => names.add(name),
                }
            }
        }
        names
    }

    fn add(&mut self, name: &str) {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        match name.strip_prefix("*.") {
            Some(rest) => self.wildcards.push(rest.into()),
            None if name.is_empty() => {}
            None => self.exact.push(name.into()),
        }
    }

    /// Whether `host`, as it stands in a Host field without its port, is among them.
    pub(super) fn covers(&self, host: &[u8]) -> bool {
        let Ok(host) = std::str::from_utf8(host) else { return false };
        let unbracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if let Ok(address) = unbracketed.unwrap_or(host).parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let is = |name: &str| name.eq_ignore_ascii_case(host);
        self.exact.iter().any(|name| is(name))
            || after_first_label(host).is_some_and(|rest| {
                self.wildcards.iter().any(|name| name.eq_ignore_ascii_case(rest))
            })
    }
}

/// What a wildcard has to be equal to: it stands for one whole label (RFC 6125 6.4.3).
pub(super) fn after_first_label(name: &str) -> Option<&str> {
    name.split_once('.').and_then(|(label, rest)| (!label.is_empty()).then_some(rest))
}

/// An address as a certificate has it: 4 bytes or 16.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
