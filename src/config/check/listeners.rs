//! Listeners: addresses that collide, and keys that contradict each other or say nothing.

use std::ops::Range;

use ipnet::IpNet;

use crate::config::draft::{Draft, DraftListener};
use crate::config::listen::UNIX_CLIENT;
use crate::config::model::{ClientTimeouts, ListenAddress};
use crate::config::report::Diagnostic;
use crate::config::table::Reader;

/// Everything about the listeners of `draft`.
pub(super) fn check(reader: &Reader<'_>, draft: &Draft) {
    check_addresses(reader, draft);
    for listener in &draft.listeners {
        check_redirect(reader, listener);
        match listener.listener.address {
            ListenAddress::Unix(_) => warn_of_networks(reader, listener),
            ListenAddress::Ip { port, .. } => warn_of_circle(reader, listener, port),
        }
        warn_of_idle_keys(reader, listener);
    }
}

/// No two may want one address, and the admin address is one more.
fn check_addresses(reader: &Reader<'_>, draft: &Draft) {
    let address = |listener: &DraftListener| listener.listener.address.clone();
    for (index, later) in draft.listeners.iter().enumerate() {
        let collides = |earlier: &&DraftListener| address(earlier).collides(&address(later));
        if let Some(earlier) = draft.listeners[..index].iter().find(collides) {
            let what = match address(later) {
                ListenAddress::Ip { .. } => "port",
                ListenAddress::Unix(_) => "path",
            };
            let title =
                format!("the listeners {} and {} collide", address(earlier), address(later));
            reader.say(
                Diagnostic::error(title)
                    .at(later.span.clone())
                    .see(earlier.span.clone(), "the other")
                    .help(format!("remove one of them, or give it another {what}")),
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
            .see(listener.span.clone(), "the listener")
            .help("give one of them another port"),
        None => Diagnostic::error(title)
            .at(listener.span.clone())
            .help("write `listen = \"127.0.0.1:PORT\"` below `[admin]`, or another port here"),
    });
}

/// Who has come by HTTPS is not sent to HTTPS.
fn check_redirect(reader: &Reader<'_>, draft: &DraftListener) {
    if let (Some(_), Some(place), Some(tls)) =
        (draft.listener.redirect_https, &draft.places.redirect_https, &draft.places.tls.table)
    {
        reader.say(
            Diagnostic::error("a listener with `tls` has `redirect_https`")
                .at(place.clone())
                .see(tls.clone(), "who comes here has come by HTTPS")
                .help("remove it; it belongs to the listener of plain HTTP"),
        );
    }
}

/// A redirect to the port that it comes from never ends.
fn warn_of_circle(reader: &Reader<'_>, draft: &DraftListener, port: u16) {
    if let (Some(to), Some(place)) = (draft.listener.redirect_https, &draft.places.redirect_https)
        && to == port
    {
        reader.say(
            Diagnostic::warning(format!(
                "this leads to port {port} again, where there is no HTTPS"
            ))
            .at(place.clone())
            .see(draft.span.clone(), "the same port")
            .help("write the port of the HTTPS listener, as clients reach it"),
        );
    }
}

/// Clients of a Unix socket are all [`UNIX_CLIENT`], unless a PROXY header says who they are.
fn warn_of_networks(reader: &Reader<'_>, draft: &DraftListener) {
    let (listener, places) = (&draft.listener, &draft.places);
    let warn = |place: &Option<Range<usize>>, title: String, help: String| {
        if let Some(place) = place {
            reader.say(
                Diagnostic::warning(title)
                    .at(place.clone())
                    .see(draft.span.clone(), format!("its clients are {UNIX_CLIENT}"))
                    .help(help),
            );
        }
    };
    let has_clients =
        |networks: &[IpNet]| networks.iter().any(|network| network.contains(&UNIX_CLIENT));
    for (key, networks, place) in [
        ("proxy_protocol", &listener.proxy_protocol, &places.proxy_protocol),
        ("trusted_proxies", &listener.trusted_proxies, &places.trusted_proxies),
    ] {
        if !networks.is_empty() && !has_clients(networks) {
            let title = format!("`{key}` has no client of a Unix socket");
            warn(
                place,
                title,
                format!("write `[\"{UNIX_CLIENT}\"]` for all of them, or remove it"),
            );
        }
    }
    if !has_clients(&listener.proxy_protocol) {
        let title = "the clients of a Unix socket count as one".to_owned();
        let help = "remove it; `max_connections` is for all together".to_owned();
        warn(&places.max_connections_per_client, title, help);
    }
}

/// Keys that say nothing without another one, or something that nobody means.
fn warn_of_idle_keys(reader: &Reader<'_>, draft: &DraftListener) {
    let (listener, places) = (&draft.listener, &draft.places);
    let is_default = listener.timeouts.handshake == ClientTimeouts::default().handshake;
    if let (Some(place), false, None) = (&places.handshake, is_default, &places.tls.table)
        && places.proxy_protocol.is_none()
    {
        reader.say(
            Diagnostic::warning("there is no handshake without `tls` or `proxy_protocol`")
                .at(place.clone())
                .help("remove it; `head` is the time for a request's head"),
        );
    }
    if let (Some(tls), Some(place)) = (&listener.tls, places.tls.of("hsts"))
        && tls.self_signed
        && tls.hsts.is_some_and(|time| !time.is_zero())
    {
        reader.say(
            Diagnostic::warning("`hsts` with `self_signed` may lock browsers out of this host")
                .at(place)
                .label("it holds for every port, and allows no exception")
                .help("remove it until the certificate is one that browsers trust"),
        );
    }
}
