//! Routes: where they lead, which of them are never reached, and what they ask of their upstreams.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use super::{can_be_picked, without_slash};
use crate::config::draft::{Draft, DraftRoute, DraftUpstream};
use crate::config::model::{HostPattern, Route};
use crate::config::report::Diagnostic;
use crate::config::table::Reader;
use crate::config::values::{list, nearest, quote};

/// The routes of `draft`.
pub(super) fn check(reader: &Reader<'_>, draft: &Draft) -> Vec<Route> {
    check_reached(reader, &draft.routes);
    let routes: Vec<_> = match draft.routes_missing {
        true => routes_to_only(reader, &draft.upstreams),
        false => draft.routes.iter().filter_map(|r| route(reader, r, &draft.upstreams)).collect(),
    };
    warn_of_unused(reader, &draft.upstreams, &routes);
    warn_of_shared_cookies(reader, &draft.upstreams, &routes);
    routes
}

/// A host and a path, so that two routes with the same one are for the same requests.
fn requests_of(route: &DraftRoute) -> (Option<&HostPattern>, &str) {
    (route.host.as_ref(), without_slash(&route.path))
}

/// Of two routes for the same requests, the later one gets none.
fn check_reached(reader: &Reader<'_>, routes: &[DraftRoute]) {
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
    if let (Some(hedge), Some(upstream)) = (&draft.hedge, upstreams.get(upstream))
        && upstream.whole
        && upstream.endpoints.iter().filter(|e| can_be_picked(e.get_ref())).count() < 2
    {
        let title = format!("there is no second endpoint in {} to ask", quote(wanted));
        reader.say(
            Diagnostic::warning(title)
                .at(hedge.span())
                .see(upstream.span.clone(), "the upstream")
                .help("give it another endpoint, or remove `hedge`"),
        );
    }
    Some(Route {
        host: draft.host.clone(),
        path: draft.path.clone(),
        upstream,
        idempotent: draft.idempotent,
        hedge: draft.hedge.as_ref().map(|hedge| *hedge.get_ref()),
    })
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

/// Cookies of one name on one host replace each other, whichever path they were set on.
fn warn_of_shared_cookies(reader: &Reader<'_>, upstreams: &[DraftUpstream], routes: &[Route]) {
    let cookie = |route: &Route| {
        let upstream = upstreams.get(route.upstream)?;
        Some((upstream.upstream.sticky.as_ref()?.cookie.as_str(), upstream.places.sticky.clone()?))
    };
    let mut seen: HashMap<_, (usize, Range<usize>)> = HashMap::new();
    for route in routes {
        let Some((name, place)) = cookie(route) else { continue };
        let (other, first) =
            seen.entry((&route.host, name)).or_insert_with(|| (route.upstream, place.clone()));
        if *other != route.upstream {
            let title = format!("two upstreams on one host have the cookie {}", quote(name));
            reader.say(
                Diagnostic::warning(title)
                    .at(place)
                    .see(first.clone(), "the other")
                    .help("give one of them another name, or clients stay with neither"),
            );
        }
    }
}
