//! One upstream: endpoints that cannot be told apart or never be picked, and keys that contradict
//! each other.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use toml::Spanned;

use super::{can_be_picked, without_slash};
use crate::config::draft::{DraftListener, DraftUpstream};
use crate::config::model::{Endpoint, GrpcStatuses, Hash, Limits, Policy, Queue};
use crate::config::report::Diagnostic;
use crate::config::table::Reader;
use crate::config::values::quote;

/// Everything about `draft`, and what of it is wrong together with a listener.
pub(super) fn check(reader: &Reader<'_>, draft: &DraftUpstream, listeners: &[DraftListener]) {
    check_endpoints(reader, draft, listeners);
    check_ejection(reader, draft);
    warn_of_idle_keys(reader, draft);
    warn_of_times(reader, draft);
    warn_of_limits(reader, draft);
}

/// What one upstream's endpoints are only wrong in together, or with a listener.
fn check_endpoints(reader: &Reader<'_>, draft: &DraftUpstream, listeners: &[DraftListener]) {
    let name = quote(&draft.upstream.name).to_string();
    let error = |title: String| Diagnostic::error(title).at(draft.span.clone());
    if draft.whole && draft.endpoints.is_empty() {
        let help = "write `endpoints = [\"http://host:port\"]`";
        reader.say(error(format!("the upstream {name} has no endpoints")).help(help));
    }
    let idle = |endpoint: &Spanned<Endpoint>| endpoint.get_ref().weight == 0;
    let away = |endpoint: &Spanned<Endpoint>| !can_be_picked(endpoint.get_ref());
    if draft.whole && !draft.endpoints.is_empty() && draft.endpoints.iter().all(idle) {
        reader.say(
            error(format!("no endpoint of the upstream {name} can be picked"))
                .label("each has weight 0")
                .help("give at least one of them a weight from 1"),
        );
    }
    if draft.whole && !draft.endpoints.is_empty() && draft.endpoints.iter().all(away) {
        reader.say(
            Diagnostic::warning(format!("nothing new is sent to the upstream {name}"))
                .at(draft.span.clone())
                .label("each endpoint drains or has weight 0")
                .help("remove `drain` from one of them that has a weight"),
        );
    }
    let mut seen = HashMap::new();
    for endpoint in &draft.endpoints {
        let url = &endpoint.get_ref().url;
        let place = (&url.host, url.port, without_slash(&url.base_path));
        match seen.entry(place) {
            Entry::Vacant(free) => drop(free.insert(endpoint.span())),
            Entry::Occupied(first) => reader.say(
                Diagnostic::error(format!("the endpoint {url} is listed twice"))
                    .at(endpoint.span())
                    .see(first.get().clone(), "the first")
                    .help("write it once, with `weight = 2` for a double share"),
            ),
        }
        if let Some(l) = listeners.iter().find(|l| l.listener.address.is_dialled_by(url)) {
            reader.say(
                Diagnostic::error(format!("the endpoint {url} is this balancer itself"))
                    .at(endpoint.span())
                    .see(l.span.clone(), "the listener")
                    .help("write the address of a server behind the balancer"),
            );
        }
    }
}

/// The first ejection cannot be longer than the longest.
fn check_ejection(reader: &Reader<'_>, draft: &DraftUpstream) {
    let (Some(ejection), places) = (&draft.upstream.ejection, &draft.places) else { return };
    if let Some(place) = &places.ejection_max_time
        && ejection.max_time < ejection.time
    {
        reader.say(
            Diagnostic::error("the longest ejection is shorter than the first")
                .at(place.clone())
                .help("write a `max_time` that is at least `time`"),
        );
    }
    if let Some(place) = &places.ejection
        && ejection.failures == 0
        && ejection.rate == 0.0
    {
        reader.say(
            Diagnostic::warning("nothing is ever ejected, with `failures` and `rate` both 0")
                .at(place.clone())
                .help("write `ejection = false` if that is what is meant"),
        );
    }
}

/// Keys that say nothing without another one. What says the same as the default is no doubt.
fn warn_of_idle_keys(reader: &Reader<'_>, draft: &DraftUpstream) {
    let (upstream, places) = (&draft.upstream, &draft.places);
    let warn = |place: &Option<Range<usize>>, title: String, help: &str| {
        if let Some(place) = place {
            reader.say(Diagnostic::warning(title).at(place.clone()).help(help));
        }
    };
    if upstream.policy != Policy::ConsistentHash && upstream.hash != Hash::default() {
        let title = format!("`hash` says nothing to the policy `{}`", upstream.policy);
        warn(&places.hash, title, "write `policy = \"consistent-hash\"`, or remove it");
    }
    let own = |e: &Spanned<Endpoint>| {
        e.get_ref().max_requests.is_some() || e.get_ref().max_connections.is_some()
    };
    let unlimited = upstream.limits == Limits::default() && !draft.endpoints.iter().any(own);
    if unlimited && upstream.queue != Queue::default() && upstream.queue.size > 0 {
        let title = "nothing ever waits in this queue: there is no limit".to_owned();
        warn(&places.queue, title, "write such as `limits = { endpoint_requests = 100 }`");
    }
    if upstream.retry.attempts == 1 && !upstream.retry.on.0.is_empty() {
        let title = "no answer is retried with one attempt".to_owned();
        warn(&places.retry_on, title, "write `attempts = 2` or more, or remove `on`");
    }
    if upstream.retry.attempts == 1 && upstream.retry.grpc_on != GrpcStatuses::default() {
        let title = "no answer is retried with one attempt".to_owned();
        warn(&places.retry_grpc_on, title, "write `attempts = 2` or more, or remove `grpc_on`");
    }
}

/// Times that are never reached, or always.
fn warn_of_times(reader: &Reader<'_>, draft: &DraftUpstream) {
    let (upstream, places) = (&draft.upstream, &draft.places);
    if let (Some(place), Some(timeout)) = (&places.retry_timeout, upstream.retry.timeout)
        && timeout >= upstream.timeouts.response
    {
        reader.say(
            Diagnostic::warning("the timeout of one try is never reached")
                .at(place.clone())
                .help("write less than `response` of `timeouts`, which is over all tries"),
        );
    }
    if let (Some(place), Some(health)) = (&places.health_timeout, &upstream.health)
        && health.timeout > health.interval
    {
        reader.say(
            Diagnostic::warning("a check may take longer than until the next one")
                .at(place.clone())
                .help("write a `timeout` of at most `interval`"),
        );
    }
}

/// Limits of one endpoint that the limit of all is below.
fn warn_of_limits(reader: &Reader<'_>, draft: &DraftUpstream) {
    let (limits, places) = (&draft.upstream.limits, &draft.places);
    let exceeds = |one: Option<u32>, all: Option<u32>, place: Option<Range<usize>>, what: &str| {
        if let (Some(one), Some(all), Some(place)) = (one, all, place)
            && one > all
        {
            let title = format!("no endpoint ever gets {one} {what}");
            reader.say(
                Diagnostic::warning(title)
                    .at(place)
                    .label(format!("the whole upstream gets {all}"))
                    .help(format!("write less here, or more for `{what}` of `limits`")),
            );
        }
    };
    let (requests, connections) = (limits.requests, limits.connections);
    exceeds(limits.endpoint_requests, requests, places.endpoint_requests.clone(), "requests");
    let place = places.endpoint_connections.clone();
    exceeds(limits.endpoint_connections, connections, place, "connections");
    for endpoint in &draft.endpoints {
        let of = endpoint.get_ref();
        exceeds(of.max_requests, requests, Some(endpoint.span()), "requests");
        exceeds(of.max_connections, connections, Some(endpoint.span()), "connections");
    }
}
