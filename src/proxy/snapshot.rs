//! Snapshots: the routes and upstreams in force at one time, immutable and swapped whole.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{self, Config, EndpointHost, EndpointUrl, HostPattern, Scheme};
use crate::health::resolve::{Names, resolve};
use crate::http::path;
use crate::net::dial::Address;
use crate::net::tls::client::Clients;
use crate::upstream::endpoint::{Endpoint, Protocol, State};
use crate::upstream::{self, Upstream};

/// Weights are multiplied by a common multiple of the numbers of addresses that share them, up to
/// this; beyond it shares are rounded.
const MAX_WEIGHT_SCALE: usize = 10_080;

/// The routes and upstreams in force.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Where requests can go.
    pub upstreams: Vec<Arc<Upstream>>,
    routes: Vec<Route>,
    exact: HashMap<String, Vec<usize>>,
    /// Longest first.
    suffixes: Vec<(String, Vec<usize>)>,
    any: Vec<usize>,
    /// The number that the next endpoint gets.
    next_id: u64,
    secret: Secret,
}

/// What this process makes cookies with where the operator gave it nothing for that; random, and
/// the same in every snapshot.
#[derive(Clone)]
struct Secret([u8; 32]);

impl Default for Secret {
    fn default() -> Self {
        let mut secret = [0; 32];
        let drawn = rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty());
        if drawn != Ok(secret.len()) {
            // Only on a kernel without it; a value that can be guessed chooses an endpoint, no more.
            secret.fill_with(|| fastrand::u8(..));
        }
        Self(secret)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// A route in force.
#[derive(Debug)]
pub struct Route {
    /// Host pattern and path, as in logs.
    pub label: String,
    /// Index into [`Snapshot::upstreams`].
    pub upstream: usize,
    /// Whether every request may be sent twice, whatever its method.
    pub idempotent: bool,
    /// When a second endpoint is asked beside one that has not answered yet.
    pub hedge: Option<config::Hedge>,
    path: String,
}

/// The identity of an endpoint within its upstream: its URL and, where that has a name, the IP address
/// in use. State, session cookies, the hash ring and labels all go by it, so that it must not depend on
/// how many addresses the name has. An address written as one, and a Unix socket, are in the URL.
fn identity(url: &EndpointUrl, address: Option<&Address>) -> String {
    match (&url.host, address) {
        (EndpointHost::Name(_), Some(Address::Ip(address))) => format!("{url}#{}", address.ip()),
        _ => url.to_string(),
    }
}

/// What is spoken with the endpoint at `url`, as `before` where that has not changed.
fn protocol(
    upstream: &config::Upstream,
    url: &EndpointUrl,
    clients: &Clients,
    before: Option<&Protocol>,
) -> Option<Protocol> {
    Some(match url.scheme {
        Scheme::Http | Scheme::Unix => Protocol::Http1,
        Scheme::H2c => Protocol::Http2,
        Scheme::Https => {
            let client = clients.get(&upstream.name)?;
            let tls = match before {
                Some(Protocol::Tls { tls, .. }) if tls.is_of(client) => Arc::clone(tls),
                _ => Arc::new(client.endpoint(&url.host.certified()).ok()?),
            };
            // A connection that says whose it is belongs to one client.
            let http2 = upstream.http2 && upstream.proxy_protocol.is_none();
            Protocol::Tls { tls, http2 }
        }
    })
}

impl Snapshot {
    /// What `config` means as `names` are. Endpoints that `previous` had keep their state, and
    /// upstreams that have not changed stay the same objects.
    pub fn build(
        config: &Config,
        names: &Names,
        clients: &Clients,
        previous: &Self,
        workers: usize,
    ) -> Self {
        let secret = previous.secret.clone();
        let mut snapshot = Self { next_id: previous.next_id, secret, ..Self::default() };
        for upstream in &config.upstreams {
            let built = snapshot.build_upstream(upstream, (names, clients), previous, workers);
            snapshot.upstreams.push(built);
        }
        for route in &config.routes {
            snapshot.add_route(route);
        }
        snapshot.sort_routes();
        snapshot
    }

    fn build_upstream(
        &mut self,
        config: &config::Upstream,
        (names, clients): (&Names, &Clients),
        previous: &Self,
        workers: usize,
    ) -> Arc<Upstream> {
        let before = previous.upstreams.iter().find(|u| u.config.name == config.name);
        let resolved: Vec<_> = config.endpoints.iter().map(|e| (e, resolve(e, names))).collect();
        let scale = resolved.iter().map(|(_, r)| r.len()).fold(1, lcm_up_to_limit);
        let mut endpoints = Vec::new();
        for (endpoint, addresses) in resolved {
            for one in addresses {
                let label = identity(&endpoint.url, one.addresses.first());
                let known =
                    before.and_then(|u| u.endpoints.iter().find(|e| e.state.label == label));
                let protocol = protocol(config, &endpoint.url, clients, known.map(|k| &k.protocol));
                // A certificate that nobody can have is found before.
                let Some(protocol) = protocol else { continue };
                let state = known.map_or_else(
                    || self.new_state(config, label, workers, before.is_some()),
                    |endpoint| Arc::clone(&endpoint.state),
                );
                if config.health.is_none() {
                    state.is_not_checked();
                }
                let weight = endpoint.weight * u32::try_from(scale / one.of).unwrap_or(1).max(1);
                let limits = &config.limits;
                endpoints.push(Endpoint::new(
                    endpoint,
                    limits,
                    weight,
                    one.addresses,
                    protocol,
                    state,
                ));
            }
        }
        match before {
            Some(before) if before.config == *config && before.endpoints == endpoints => {
                Arc::clone(before)
            }
            _ => {
                let new = || Arc::new(upstream::Shared::new(workers));
                let shared = before.map_or_else(new, |before| Arc::clone(&before.shared));
                Arc::new(Upstream::new(config.clone(), endpoints, shared, &self.secret.0))
            }
        }
    }

    /// The state of an endpoint that was not there before; others of its upstream may have been.
    fn new_state(
        &mut self,
        upstream: &config::Upstream,
        label: String,
        workers: usize,
        has_others: bool,
    ) -> Arc<State> {
        self.next_id += 1;
        let state = State::new(self.next_id, upstream.name.clone(), label, workers);
        if upstream.health.is_some() {
            state.awaits_check();
        }
        if has_others {
            state.is_new();
        }
        Arc::new(state)
    }

    fn add_route(&mut self, route: &config::Route) {
        let index = self.routes.len();
        match &route.host {
            None => self.any.push(index),
            Some(HostPattern::Exact(host)) => {
                self.exact.entry(host.clone()).or_default().push(index);
            }
            Some(HostPattern::Suffix(suffix)) => {
                match self.suffixes.iter_mut().find(|(known, _)| known == suffix) {
                    Some((_, routes)) => routes.push(index),
                    None => self.suffixes.push((suffix.clone(), vec![index])),
                }
            }
        }
        let (label, path) = (route.to_string(), route.path.clone());
        let config::Route { upstream, idempotent, hedge, .. } = *route;
        self.routes.push(Route { label, upstream, idempotent, hedge, path });
    }

    /// Longest path first, and longest suffix first, so that the first match is the best.
    fn sort_routes(&mut self) {
        let length = |index: &usize| {
            std::cmp::Reverse(
                self.routes.get(*index).map_or(0, |r| r.path.trim_end_matches('/').len()),
            )
        };
        self.any.sort_by_key(length);
        self.exact.values_mut().for_each(|routes| routes.sort_by_key(length));
        self.suffixes.iter_mut().for_each(|(_, routes)| routes.sort_by_key(length));
        self.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
    }

    /// The route for `path` (resolved) on `host` (without a port): the one with the most specific
    /// host, and of these the longest path.
    pub fn route(&self, host: &[u8], path: &[u8]) -> Option<&Route> {
        let first = |routes: &[usize]| {
            let mut routes = routes.iter().filter_map(|index| self.routes.get(*index));
            routes.find(|route| path::is_below(path, route.path.as_bytes()))
        };
        if self.exact.is_empty() && self.suffixes.is_empty() {
            return first(&self.any);
        }
        let host =
            String::from_utf8_lossy(host.strip_suffix(b".").unwrap_or(host)).to_ascii_lowercase();
        let exact = self.exact.get(&host).and_then(|routes| first(routes));
        let suffixes = || {
            let matching = self
                .suffixes
                .iter()
                .filter(|(suffix, _)| host.len() > suffix.len() && host.ends_with(suffix.as_str()));
            matching.into_iter().find_map(|(_, routes)| first(routes))
        };
        exact.or_else(suffixes).or_else(|| first(&self.any))
    }
}

fn lcm_up_to_limit(a: usize, b: usize) -> usize {
    let gcd = |mut a: usize, mut b: usize| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let lcm = a / gcd(a, b).max(1) * b;
    if lcm > MAX_WEIGHT_SCALE { MAX_WEIGHT_SCALE } else { lcm }
}

#[cfg(test)]
mod tests;
