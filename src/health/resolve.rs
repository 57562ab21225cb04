//! Names of endpoints: looked up at start and then on a timer, the last good answer kept.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::config::{Endpoint, EndpointHost};
use crate::net::dial::Address;

/// How long one lookup may take. The system's resolver has its own, longer, patience.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses by name, in the resolver's order of preference (RFC 6724).
pub type Names = HashMap<String, Vec<IpAddr>>;

/// The addresses of `name`, in order of preference, each once.
///
/// # Errors
/// What the system's resolver says, in words.
pub async fn look_up(name: &str) -> Result<Vec<IpAddr>, String> {
    let lookup = tokio::net::lookup_host((name, 0));
    let found = match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
        Err(_) => {
            return Err(format!("no answer within {}", humantime::format_duration(LOOKUP_TIMEOUT)));
        }
        Ok(Err(error)) => return Err(error.to_string()),
        Ok(Ok(found)) => found,
    };
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found.map(|socket| socket.ip()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err("the name has no address".into()) } else { Ok(addresses) }
}

/// One address of a configured endpoint, to be balanced over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Where to connect: the address in use, then alternatives in the other family. Empty while
    /// the name has no address.
    pub addresses: Vec<Address>,
    /// Of how many that share the endpoint's weight.
    pub of: usize,
}

/// What `endpoint` stands for as `names` are: one [`Resolved`] for each address of the family that
/// is preferred, with the other family's as alternatives; so `localhost`, which has one of each,
/// is one. An address is itself, and so is a Unix socket.
pub fn resolve(endpoint: &Endpoint, names: &Names) -> Vec<Resolved> {
    let port = endpoint.url.port;
    let found = match &endpoint.url.host {
        EndpointHost::Ip(ip) => std::slice::from_ref(ip),
        EndpointHost::Name(name) => names.get(name).map(Vec::as_slice).unwrap_or_default(),
        EndpointHost::Unix(path) => {
            let addresses = vec![Address::Unix(path.as_path().into())];
            return vec![Resolved { addresses, of: 1 }];
        }
    };
    let Some(first) = found.first() else {
        return vec![Resolved { addresses: Vec::new(), of: 1 }];
    };
    // Sorted, so that a resolver that shuffles its answers changes nothing.
    let (mut in_use, mut others): (Vec<IpAddr>, Vec<IpAddr>) =
        found.iter().partition(|ip| ip.is_ipv4() == first.is_ipv4());
    in_use.sort_unstable();
    others.sort_unstable();
    let of = in_use.len();
    let alternatives = others.iter().cycle();
    let resolved = |(index, ip): (usize, &IpAddr)| {
        // Each begins with another one, so that all share the load if the family is unreachable.
        let alternatives =
            alternatives.clone().skip(index % others.len().max(1)).take(others.len());
        let addresses = std::iter::once(ip).chain(alternatives);
        let addresses = addresses.map(|ip| SocketAddr::new(*ip, port).into()).collect();
        Resolved { addresses, of }
    };
    in_use.iter().enumerate().map(resolved).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EndpointUrl;

    fn endpoint(host: EndpointHost) -> Endpoint {
        Endpoint::new(EndpointUrl::http(host, 80))
    }

    fn resolved(answers: &[&str]) -> Vec<Vec<String>> {
        let names =
            Names::from([("app".into(), answers.iter().map(|a| a.parse().unwrap()).collect())]);
        let all = resolve(&endpoint(EndpointHost::Name("app".into())), &names);
        assert!(all.iter().all(|r| r.of == all.len()));
        all.iter()
            .map(|r| r.addresses.iter().map(|a| a.ip().unwrap().to_string()).collect())
            .collect()
    }

    #[test]
    fn one_of_each_family_is_one_endpoint_with_an_alternative() {
        assert_eq!(resolved(&["::1", "127.0.0.1"]), [["::1", "127.0.0.1"]]);
        assert_eq!(resolved(&["127.0.0.1", "::1"]), [["127.0.0.1", "::1"]]);
    }

    #[test]
    fn several_of_the_family_in_use_share_and_their_order_does_not_matter() {
        let expected = [
            ["10.0.0.1", "fd::1", "fd::2"],
            ["10.0.0.2", "fd::2", "fd::1"],
            ["10.0.0.3", "fd::1", "fd::2"],
        ];
        assert_eq!(resolved(&["10.0.0.3", "10.0.0.1", "fd::2", "fd::1", "10.0.0.2"]), expected);
        assert_eq!(resolved(&["10.0.0.1", "10.0.0.2", "fd::1", "10.0.0.3", "fd::2"]), expected);
    }

    #[test]
    fn a_name_without_an_address_is_an_endpoint_that_is_down() {
        assert_eq!(resolved(&[]), [Vec::<String>::new()]);
        let unknown = resolve(&endpoint(EndpointHost::Name("other".into())), &Names::new());
        assert_eq!(unknown, [Resolved { addresses: vec![], of: 1 }]);
        let ip = resolve(&endpoint(EndpointHost::Ip([10, 0, 0, 1].into())), &Names::new());
        assert_eq!(ip[0].addresses, [Address::Ip(([10, 0, 0, 1], 80).into())]);
    }

    #[test]
    fn a_unix_socket_is_where_it_is() {
        let url = "unix:/run/app.sock".parse().unwrap();
        let addresses = vec![Address::Unix(std::path::Path::new("/run/app.sock").into())];
        let resolved = resolve(&Endpoint::new(url), &Names::new());
        assert_eq!(resolved, [Resolved { addresses, of: 1 }]);
    }

    #[tokio::test]
    async fn localhost_has_addresses_and_an_invalid_name_has_none() {
        assert!(look_up("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
        assert!(look_up("nope.invalid").await.is_err());
    }
}
