//! What the admin address tells of endpoints, and lets operators do to them.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::view::View;
use crate::upstream::Upstream;
use crate::upstream::endpoint::Endpoint;

/// The standing of every endpoint, as JSON.
pub(super) fn render(view: &View) -> String {
    let now = Instant::now();
    let upstreams: Vec<_> = view.snapshot.upstreams.iter().map(|u| upstream(u, now)).collect();
    let mut text = format!("{:#}", json!({ "upstreams": upstreams }));
    text.push('\n');
    text
}

fn upstream(upstream: &Upstream, now: Instant) -> Value {
    let endpoints: Vec<_> = upstream.endpoints.iter().map(|e| endpoint(upstream, e, now)).collect();
    json!({
        "name": upstream.config.name,
        "policy": upstream.config.policy.name(),
        "panic": upstream.shared.is_panicking(),
        "queue_length": upstream.shared.queue.len(),
        "retries_running": upstream.shared.budget.running(),
        "p95_ms": upstream.shared.p95().map(millis),
        "endpoints": endpoints,
    })
}

fn endpoint(upstream: &Upstream, endpoint: &Endpoint, now: Instant) -> Value {
    let description = endpoint.describe(now, upstream.config.slow_start);
    let limit = |limit: u32| (limit != u32::MAX).then_some(limit);
    let addresses: Vec<_> = endpoint.addresses.iter().map(ToString::to_string).collect();
    json!({
        "endpoint": endpoint.state.label,
        "state": description.condition.name(),
        "why": description.why,
        "for_seconds": description.since.as_secs(),
        "addresses": addresses,
        "weight": endpoint.weight,
        "priority": endpoint.priority,
        "requests_in_flight": endpoint.state.in_flight(),
        "requests_limit": limit(endpoint.limit()),
        "connections": endpoint.state.connections(),
        "connections_limit": limit(endpoint.max_connections),
        "latency_ms": endpoint.state.recent_latency().map(millis),
        "ejections": endpoint.state.ejections(),
    })
}

/// In milliseconds, to the microsecond.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Why a drain was not begun or ended.
pub(super) enum Refused {
    /// There is no such endpoint; says what there is.
    Unknown(String),
    /// The file drains the endpoint, which only the file ends.
    DrainedByFile,
}

/// Begins or ends the draining of the endpoint that is called `label` in the upstream `name`.
///
/// Ends only drains that an operator began. An endpoint with `drain = true` stays drained until a reload changes
/// the file.
///
/// # Errors
/// The upstream or endpoint is unknown, or the file drains the endpoint whose drain is to end.
pub(super) fn drain(view: &View, name: &str, label: &str, is_drain: bool) -> Result<(), Refused> {
    let list = |names: Vec<&str>| names.join("\n  ");
    let upstreams = &view.snapshot.upstreams;
    let Some(upstream) = upstreams.iter().find(|upstream| upstream.config.name == name) else {
        let names = upstreams.iter().map(|upstream| upstream.config.name.as_str()).collect();
        let there_is = format!("no such upstream; there is\n  {}\n", list(names));
        return Err(Refused::Unknown(there_is));
    };
    let endpoints = &upstream.endpoints;
    let Some(endpoint) = find(endpoints, label) else {
        let labels = endpoints.iter().map(|endpoint| endpoint.state.label.as_str()).collect();
        let help = "write the # before an address as %23";
        let there_is =
            format!("no such endpoint of {name}; there is\n  {}\n{help}\n", list(labels));
        return Err(Refused::Unknown(there_is));
    };
    endpoint.state.drain(Instant::now(), is_drain);
    match is_drain || !endpoint.drain {
        true => Ok(()),
        false => Err(Refused::DrainedByFile),
    }
}

/// The endpoint that is called `label`; the URL alone is enough where its name has one address.
fn find<'e>(endpoints: &'e [Endpoint], label: &str) -> Option<&'e Endpoint> {
    let whole = |endpoint: &&Endpoint| endpoint.state.label == label;
    let by_url = |endpoint: &&Endpoint| {
        let parts = endpoint.state.label.rsplit_once('#');
        parts.is_some_and(|(url, ip)| url == label && ip.parse::<IpAddr>().is_ok())
    };
    endpoints.iter().find(whole).or_else(|| {
        let mut of_url = endpoints.iter().filter(by_url);
        of_url.next().filter(|_| of_url.next().is_none())
    })
}
