//! What values are only wrong together: a configuration that each key allows and that still cannot
//! work.

mod listeners;
mod protocols;
mod routes;
mod upstream;

use toml::Spanned;

use super::draft::{Draft, DraftUpstream};
use super::model::{Config, Endpoint, Upstream};
use super::places::FilePlaces;
use super::table::Reader;

/// Checks `draft` as a whole and makes it a configuration. What is wrong is said to `reader`; if
/// anything was, the configuration is not to be used.
pub(super) fn check(reader: &Reader<'_>, draft: Draft) -> (Config, FilePlaces) {
    listeners::check(reader, &draft);
    for upstream in &draft.upstreams {
        upstream::check(reader, upstream, &draft.listeners);
        protocols::check(reader, upstream);
    }
    let routes = routes::check(reader, &draft);
    let listeners = draft.listeners.iter().map(|l| (l.places.tls.clone(), l.span.clone()));
    let upstreams = draft.upstreams.iter().map(|u| (u.places.tls.clone(), u.span.clone()));
    let places = FilePlaces { listeners: listeners.collect(), upstreams: upstreams.collect() };
    let config = Config {
        workers: draft.workers,
        admin: draft.admin,
        admin_hosts: draft.admin_hosts,
        log: draft.log,
        drain: draft.drain,
        listeners: draft.listeners.into_iter().map(|draft| draft.listener).collect(),
        routes,
        upstreams: draft.upstreams.into_iter().map(finished).collect(),
    };
    (config, places)
}

fn finished(draft: DraftUpstream) -> Upstream {
    let endpoints = draft.endpoints.into_iter().map(Spanned::into_inner).collect();
    let mut upstream = Upstream { endpoints, ..draft.upstream };
    protocols::settle(&mut upstream);
    upstream
}

/// A slash at the end of a path prefix or a base path makes no difference.
fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// Whether requests of new clients can go there.
const fn can_be_picked(endpoint: &Endpoint) -> bool {
    endpoint.weight > 0 && !endpoint.drain
}
