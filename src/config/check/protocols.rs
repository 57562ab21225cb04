//! What an upstream's endpoints speak, and keys that do not go with it.

use std::ops::Range;

use toml::Spanned;

use crate::config::draft::DraftUpstream;
use crate::config::model::{Check, Endpoint, Scheme, Upstream};
use crate::config::report::Diagnostic;
use crate::config::table::Reader;
use crate::config::values::quote;

/// Everything about the protocols of `draft`.
pub(super) fn check(reader: &Reader<'_>, draft: &DraftUpstream) {
    check_proxy_protocol(reader, draft);
    check_grpc(reader, draft);
    warn_of_tls(reader, draft);
    warn_of_ports(reader, draft);
}

/// What comes out of the reader: a PROXY header speaks for one client, and HTTP/2 carries the requests
/// of many on one connection.
pub(super) fn settle(upstream: &mut Upstream) {
    upstream.http2 &= upstream.proxy_protocol.is_none();
}

/// Endpoints of this scheme, in the order of the file.
fn of_scheme(
    draft: &DraftUpstream,
    scheme: Scheme,
) -> impl Iterator<Item = &Spanned<Endpoint>> + Clone {
    draft.endpoints.iter().filter(move |endpoint| endpoint.get_ref().url.scheme == scheme)
}

fn check_proxy_protocol(reader: &Reader<'_>, draft: &DraftUpstream) {
    let places = &draft.places;
    let (Some(_), Some(place)) = (draft.upstream.proxy_protocol, &places.proxy_protocol) else {
        return;
    };
    for endpoint in of_scheme(draft, Scheme::H2c) {
        reader.say(
            Diagnostic::error(format!(
                "a PROXY header cannot be sent to {}",
                endpoint.get_ref().url
            ))
            .at(endpoint.span())
            .label("one connection carries many clients' requests")
            .see(place.clone(), "the header is for one client")
            .help("write `http://…`, or remove `proxy_protocol`; `X-Forwarded-For` is sent anyway"),
        );
    }
    if let (true, Some(http2)) = (draft.upstream.http2, &places.http2)
        && of_scheme(draft, Scheme::Https).next().is_some()
    {
        reader.say(
            Diagnostic::warning("HTTP/2 is not offered together with `proxy_protocol`")
                .at(http2.clone())
                .see(place.clone(), "a connection is for one client")
                .help("remove one of them"),
        );
    }
}

/// gRPC is HTTP/2.
fn check_grpc(reader: &Reader<'_>, draft: &DraftUpstream) {
    let upstream = &draft.upstream;
    let (Some(health), Some(place)) = (&upstream.health, &draft.places.health) else { return };
    if !matches!(health.check, Check::Grpc(_)) {
        return;
    }
    for endpoint in &draft.endpoints {
        let url = &endpoint.get_ref().url;
        let offered = upstream.http2 && upstream.proxy_protocol.is_none();
        let help = match url.scheme {
            Scheme::H2c => continue,
            Scheme::Https if offered => continue,
            Scheme::Https => "remove `http2 = false` or `proxy_protocol`",
            Scheme::Http | Scheme::Unix => {
                "write `h2c://…` or `https://…`, or a check of another `type`"
            }
        };
        reader.say(
            Diagnostic::error(format!("{url} cannot be asked by gRPC, which needs HTTP/2"))
                .at(endpoint.span())
                .see(place.clone(), "the check")
                .help(help),
        );
    }
}

/// What is said of TLS and is not of use, or gives it up.
fn warn_of_tls(reader: &Reader<'_>, draft: &DraftUpstream) {
    let (upstream, places) = (&draft.upstream, &draft.places);
    let warn = |place: Option<Range<usize>>, title: &str, help: &str| {
        if let Some(place) = place {
            reader.say(Diagnostic::warning(title).at(place).help(help));
        }
    };
    let is_without = draft.whole && of_scheme(draft, Scheme::Https).next().is_none();
    if is_without {
        let title = format!("no endpoint of the upstream {} speaks TLS", quote(&upstream.name));
        warn(places.tls.table.clone(), &title, "write `https://…` for those that do, or remove it");
        if !upstream.http2 {
            let help = "remove it; `h2c://…` speaks HTTP/2 in any case, and `http://…` never";
            warn(places.http2.clone(), "`http2` is about endpoints with `https://` only", help);
        }
    }
    if !upstream.tls.insecure_skip_verify {
        return;
    }
    warn(
        places.tls.of("insecure_skip_verify"),
        "whoever answers is taken for the endpoint",
        "write `ca = \"ca.pem\"`, the authority that its certificate is from, or `server_name`",
    );
    if upstream.tls.ca.is_some() {
        let title = "`ca` says nothing with `insecure_skip_verify`";
        warn(places.tls.of("ca"), title, "remove one of the two, best `insecure_skip_verify`");
    }
}

/// A Unix socket has no port that could be asked instead.
fn warn_of_ports(reader: &Reader<'_>, draft: &DraftUpstream) {
    let Some(place) = &draft.places.health_port else { return };
    if let Some(endpoint) = of_scheme(draft, Scheme::Unix).next() {
        reader.say(
            Diagnostic::warning("a Unix socket has no port, and is asked itself")
                .at(place.clone())
                .see(endpoint.span(), "the Unix socket")
                .help("put it into an upstream of its own, or remove `port`"),
        );
    }
}
