//! What values are only wrong together: a configuration that each key allows and that still cannot
//! work.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use toml::Spanned;

use super::draft::{Draft, DraftRoute, DraftUpstream};
use super::model::{Config, Endpoint, HostPattern, ListenAddress, Listener, Route, Upstream};
use super::report::Diagnostic;
use super::table::Reader;
use super::values::{list, nearest, quote};

/// Checks `draft` as a whole and makes it a configuration. What is wrong is said to `reader`; if
/// anything was, the configuration is not to be used.
pub(super) fn check(reader: &Reader<'_>, draft: Draft) -> Config {
    check_listeners(reader, &draft);
    for upstream in &draft.upstreams {
        check_endpoints(reader, upstream, &draft.listeners);
    }
    check_routes(reader, &draft.routes);
    let routes = match draft.routes_missing {
        true => routes_to_only(reader, &draft.upstreams),
        false => draft.routes.iter().filter_map(|r| route(reader, r, &draft.upstreams)).collect(),
    };
    warn_of_unused(reader, &draft.upstreams, &routes);
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
    let address = |listener: &Spanned<Listener>| listener.get_ref().address;
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

/// What one upstream's endpoints are only wrong in together, or with a listener.
fn check_endpoints(reader: &Reader<'_>, draft: &DraftUpstream, listeners: &[Spanned<Listener>]) {
    let name = quote(&draft.upstream.name).to_string();
    let error = |title: String| Diagnostic::error(title).at(draft.span.clone());
    if draft.whole && draft.endpoints.is_empty() {
        let help = "write `endpoints = [\"http://host:port\"]`";
        reader.say(error(format!("the upstream {name} has no endpoints")).help(help));
    }
    let idle = |endpoint: &Spanned<Endpoint>| endpoint.get_ref().weight == 0;
    if draft.whole && !draft.endpoints.is_empty() && draft.endpoints.iter().all(idle) {
        reader.say(
            error(format!("no endpoint of the upstream {name} can be picked"))
                .label("each has weight 0")
                .help("give at least one of them a weight from 1"),
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
        if let Some(l) = listeners.iter().find(|l| l.get_ref().address.is_dialled_by(url)) {
            reader.say(
                Diagnostic::error(format!("the endpoint {url} is this balancer itself"))
                    .at(endpoint.span())
                    .see(l.span(), "the listener")
                    .help("write the address of a server behind the balancer"),
            );
        }
    }
}

/// A slash at the end of a path prefix or a base path makes no difference.
fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// A host and a path, so that two routes with the same one are for the same requests.
fn requests_of(route: &DraftRoute) -> (Option<&HostPattern>, &str) {
    (route.host.as_ref(), without_slash(&route.path))
}

/// Of two routes for the same requests, the later one gets none.
fn check_routes(reader: &Reader<'_>, routes: &[DraftRoute]) {
    let mut seen: HashMap<_, &DraftRoute> = HashMap::new();
    for route in routes {
        match seen.entry(requests_of(route)) {
            Entry::Vacant(free) => drop(free.insert(route)),
            Entry::Occupied(first) => {
                let first = *first.get();
                let same = first.upstream.get_ref() == route.upstream.get_ref();
                let title = match same {
                    true => "this route is written twice",
                    false => "this route is never reached",
                };
                reader.say(
                    Diagnostic::error(title)
                        .at(route.span.clone())
                        .see(first.span.clone(), "the same host and path stand here")
                        .help("remove it, or give it another `host` or `path`"),
                );
            }
        }
    }
}

fn route(reader: &Reader<'_>, draft: &DraftRoute, upstreams: &[DraftUpstream]) -> Option<Route> {
    let wanted = draft.upstream.get_ref();
    let Some(upstream) = upstreams.iter().position(|u| u.upstream.name == *wanted) else {
        let names: Vec<_> = upstreams.iter().map(|u| u.upstream.name.as_str()).collect();
        let help = match nearest(wanted, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if names.is_empty() => format!("write `[upstreams.{wanted}]`"),
            None => format!("write one of {}, or add `[upstreams.{wanted}]`", list(&names)),
        };
        let title = format!("unknown upstream {}", quote(wanted));
        reader.say(Diagnostic::error(title).at(draft.upstream.span()).help(help));
        return None;
    };
    Some(Route { host: draft.host.clone(), path: draft.path.clone(), ..Route::any(upstream) })
}

/// Without routes everything goes to the only upstream; with several, nobody can know where to.
fn routes_to_only(reader: &Reader<'_>, upstreams: &[DraftUpstream]) -> Vec<Route> {
    if let [first, second, ..] = upstreams {
        let name = &first.upstream.name;
        reader.say(
            Diagnostic::error("there are several upstreams and no routes")
                .at(first.span.clone())
                .see(second.span.clone(), "another")
                .help(format!("write `[[routes]]`, and below it `upstream = \"{name}\"`")),
        );
    }
    vec![Route::any(0)]
}

fn warn_of_unused(reader: &Reader<'_>, upstreams: &[DraftUpstream], routes: &[Route]) {
    for (index, draft) in upstreams.iter().enumerate() {
        if routes.iter().all(|route| route.upstream != index) {
            let title = format!("no route leads to the upstream {}", quote(&draft.upstream.name));
            let help = format!(
                "write `[[routes]]`, and below it `upstream = \"{}\"`, or remove it",
                draft.upstream.name
            );
            reader.say(Diagnostic::warning(title).at(draft.span.clone()).help(help));
        }
    }
}
