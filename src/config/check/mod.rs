//! What values are only wrong together: a configuration that each key allows and that still cannot
//! work.

mod routes;
mod upstream;

use toml::Spanned;

use super::draft::{Draft, DraftUpstream};
use super::model::{Config, Endpoint, ListenAddress, Listener, Upstream};
use super::report::Diagnostic;
use super::table::Reader;

/// Checks `draft` as a whole and makes it a configuration. What is wrong is said to `reader`; if
/// anything was, the configuration is not to be used.
pub(super) fn check(reader: &Reader<'_>, draft: Draft) -> Config {
    check_listeners(reader, &draft);
    for upstream in &draft.upstreams {
        upstream::check(reader, upstream, &draft.listeners);
    }
    let routes = routes::check(reader, &draft);
    Config {
        workers: draft.workers,
        admin: draft.admin,
        log: draft.log,
        drain: draft.drain,
        listeners: draft.listeners.into_iter().map(Spanned::into_inner).collect(),
        routes,
        upstreams: draft.upstreams.into_iter().map(finished).collect(),
    }
}

fn finished(draft: DraftUpstream) -> Upstream {
    let endpoints = draft.endpoints.into_iter().map(Spanned::into_inner).collect();
    Upstream { endpoints, ..draft.upstream }
}

/// No two may want one address, and the admin address is one more.
fn check_listeners(reader: &Reader<'_>, draft: &Draft) {
    let address = |listener: &Spanned<Listener>| listener.get_ref().address.clone();
    for (index, later) in draft.listeners.iter().enumerate() {
        let collides = |earlier: &&Spanned<_>| address(earlier).collides(&address(later));
        if let Some(earlier) = draft.listeners[..index].iter().find(collides) {
            let title =
                format!("the listeners {} and {} collide", address(earlier), address(later));
            reader.say(
                Diagnostic::error(title)
                    .at(later.span())
                    .see(earlier.span(), "the other")
                    .help("remove one of them, or give it another port"),
            );
        }
    }
    let Some(admin) = draft.admin.map(ListenAddress::from) else { return };
    let Some(listener) = draft.listeners.iter().find(|l| address(l).collides(&admin)) else {
        return;
    };
    let title = format!("the admin address {admin} and the listener {} collide", address(listener));
    reader.say(match &draft.admin_span {
        Some(span) => Diagnostic::error(title)
            .at(span.clone())
            .see(listener.span(), "the listener")
            .help("give one of them another port"),
        None => Diagnostic::error(title)
            .at(listener.span())
            .help("write `listen = \"127.0.0.1:PORT\"` below `[admin]`, or another port here"),
    });
}

/// A slash at the end of a path prefix or a base path makes no difference.
fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// Whether requests of new clients can go there.
const fn can_be_picked(endpoint: &Endpoint) -> bool {
    endpoint.weight > 0 && !endpoint.drain
}
