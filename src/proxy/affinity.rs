//! Where a request belongs: the key that `consistent-hash` goes by, and the endpoint of its session.

use std::net::IpAddr;

use super::client::Facts;
use super::worker::Listener;
use crate::config::{HashKey, Policy};
use crate::http::cookie::cookies;
use crate::http::head::{FieldId, elements};
use crate::http::query::query_parameter;
use crate::http::request::{Request, Target};
use crate::upstream::Upstream;
use crate::upstream::balance::key;
use crate::upstream::endpoint::Endpoint;

/// Where a request belongs, if anywhere.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Affinity {
    /// What `consistent-hash` goes by.
    pub key: Option<u64>,
    /// The endpoint of its session, by index.
    pub session: Option<usize>,
}

impl Affinity {
    /// Of `request`, which came from `peer` to `listener`.
    pub(super) fn of(
        upstream: &Upstream,
        request: &Request<'_>,
        peer: IpAddr,
        listener: &Listener,
    ) -> Self {
        let key = match upstream.config.policy {
            Policy::ConsistentHash => {
                hash_key(&upstream.config.hash.on, request, || client(request, peer, listener))
            }
            _ => None,
        };
        let session = upstream.sticky.as_ref().and_then(|sticky| {
            // One that stands for nothing is of another site, or of an endpoint that is gone.
            cookies(request.head, sticky.cookie.as_bytes()).find_map(|value| sticky.find(value))
        });
        Self { key, session }
    }

    /// The cookie that tells a client where its session is, if it has to be told: the request went
    /// to the endpoint `index`, and its session does not belong elsewhere. If it does, this request
    /// alone went astray, where the endpoint was full or failed it, and the next ones will not.
    pub(super) fn cookie(
        &self,
        upstream: &Upstream,
        index: usize,
        came_by_tls: impl FnOnce() -> bool,
    ) -> Option<String> {
        let sticky = upstream.sticky.as_ref()?;
        let belongs = |e: &Endpoint| !e.addresses.is_empty() && e.state.is_healthy();
        let home = self.session.and_then(|session| upstream.endpoints.get(session));
        if self.session == Some(index) || home.is_some_and(belongs) {
            return None;
        }
        sticky.set_cookie(index, came_by_tls())
    }
}

/// The client's address: the peer's, or, where that is a trusted proxy, the last one in
/// `X-Forwarded-For` that is not.
fn client(request: &Request<'_>, peer: IpAddr, listener: &Listener) -> IpAddr {
    let mut client = peer;
    let named: Vec<&[u8]> =
        request.head.values(FieldId::XForwardedFor).flat_map(elements).collect();
    for element in named.into_iter().rev() {
        if !listener.trusts(client) {
            break;
        }
        let address = str::from_utf8(element).ok().and_then(|text| text.parse().ok());
        let Some(address) = address else { break };
        client = address;
    }
    client
}

/// Whether the client of `request` came by TLS: to us, or, as a trusted one says, to a proxy before us.
pub(super) fn came_by_tls(request: &Request<'_>, client: &Facts) -> bool {
    let mut said = request.head.values(FieldId::XForwardedProto);
    match said.next() {
        Some(protocol) if client.is_trusted => protocol == b"https",
        _ => client.came_by_tls(),
    }
}

/// What a request is hashed by; `None` where it has no such thing, so that it belongs nowhere.
fn hash_key(on: &HashKey, request: &Request<'_>, client: impl FnOnce() -> IpAddr) -> Option<u64> {
    match on {
        HashKey::Client => Some(match client() {
            IpAddr::V4(v4) => key(&v4.octets()),
            IpAddr::V6(v6) => key(&v6.octets()),
        }),
        HashKey::Path => Some(key(request.path())),
        HashKey::Header(name) => {
            let is_it =
                |line: &(FieldId, &[u8], &[u8])| line.1.eq_ignore_ascii_case(name.as_bytes());
            request.head.lines().find(is_it).map(|(_, _, value)| key(value))
        }
        HashKey::Cookie(name) => cookies(request.head, name.as_bytes()).next().map(key),
        HashKey::Query(name) => match request.target {
            Target::Path(_, [b'?', query @ ..]) => query_parameter(query, name.as_bytes()).map(key),
            _ => None,
        },
    }
}
