//! `[[listeners]]`.

use std::ops::Range;

use ipnet::IpNet;
use toml::Spanned;

use super::{MAX_AT_ONCE, set, tls};
use crate::config::model::{ClientTimeouts, ListenAddress, Listener};
use crate::config::places::TlsPlaces;
use crate::config::table::{Reader, Table, Value};
use crate::config::values::{parse_network, parse_size};

/// The port of `https://` without one (RFC 9110 4.2.2).
const HTTPS_PORT: u16 = 443;

/// A listener whose values still have their places.
pub(in crate::config) struct DraftListener {
    pub(in crate::config) listener: Listener,
    /// Where its address is.
    pub(in crate::config) span: Range<usize>,
    pub(in crate::config) places: Places,
}

/// Where those values are that can be wrong together with others; `None` where the file has none.
#[derive(Default)]
pub(in crate::config) struct Places {
    pub(in crate::config) tls: TlsPlaces,
    pub(in crate::config) redirect_https: Option<Range<usize>>,
    pub(in crate::config) proxy_protocol: Option<Range<usize>>,
    pub(in crate::config) trusted_proxies: Option<Range<usize>>,
    pub(in crate::config) max_connections_per_client: Option<Range<usize>>,
    pub(in crate::config) handshake: Option<Range<usize>>,
}

/// One listener.
pub(super) fn read(reader: &Reader<'_>, mut table: Table<'_>) -> Option<DraftListener> {
    let address = table.require("address", "\":8080\"").and_then(|v| v.text(str::parse));
    // Read on without an address, so that the other keys' faults are found too.
    let span = address.as_ref().map_or_else(|| table.span(), Spanned::span);
    let known = address.is_some();
    let any = ListenAddress::Ip { ip: None, port: 0 };
    let mut listener = Listener::new(address.map_or(any, Spanned::into_inner));
    let mut places = Places {
        redirect_https: table.place("redirect_https"),
        proxy_protocol: table.place("proxy_protocol"),
        trusted_proxies: table.place("trusted_proxies"),
        max_connections_per_client: table.place("max_connections_per_client"),
        ..Places::default()
    };
    if let Some(value) = table.get("tls") {
        listener.tls = tls::server(reader, &value, &mut places.tls);
    }
    set(&mut listener.http2, table.boolean("http2"));
    listener.redirect_https = table.get("redirect_https").and_then(|v| redirect_https(&v));
    listener.proxy_protocol = networks(&mut table, "proxy_protocol");
    listener.trusted_proxies = networks(&mut table, "trusted_proxies");
    let connections = table.count("max_connections", 1..=MAX_AT_ONCE);
    listener.max_connections = connections.and_then(|n| usize::try_from(n).ok());
    listener.max_connections_per_client =
        table.count("max_connections_per_client", 1..=MAX_AT_ONCE);
    listener.max_body = table.get("max_body").and_then(|v| max_body(&v));
    set(&mut listener.half_close, table.boolean("half_close"));
    if let Some(value) = table.get("timeouts") {
        timeouts(&mut listener.timeouts, &value, &mut places);
    }
    table.finish();
    known.then_some(DraftListener { listener, span, places })
}

fn networks(table: &mut Table<'_>, key: &'static str) -> Vec<IpNet> {
    let networks = table.get(key).and_then(|v| v.items("\"10.0.0.0/8\""));
    let networks = networks.into_iter().flatten();
    networks.filter_map(|v| Some(v.text(parse_network)?.into_inner())).collect()
}

/// `true`, which is the usual port, or another port; `false` is the same as nothing.
fn redirect_https(value: &Value<'_>) -> Option<u16> {
    if value.is_integer() {
        let port = value.integer(1..=i64::from(u16::MAX))?;
        return u16::try_from(port).ok();
    }
    match value.is_true() || value.is_false() {
        true => value.is_true().then_some(HTTPS_PORT),
        false => value.mismatch(
            "`true` or a port",
            "write `true` for port 443, or the port of the HTTPS listener",
        ),
    }
}

fn timeouts(timeouts: &mut ClientTimeouts, value: &Value<'_>, places: &mut Places) {
    let Some(mut table) = value.inner("a table", "{ head = \"10s\" }") else { return };
    places.handshake = table.place("handshake");
    set(&mut timeouts.handshake, table.timeout("handshake"));
    set(&mut timeouts.head, table.timeout("head"));
    set(&mut timeouts.idle, table.timeout("idle"));
    set(&mut timeouts.body, table.timeout("body"));
    set(&mut timeouts.tunnel, table.timeout("tunnel"));
    table.finish();
}

/// A number of bytes, with or without a unit; not 0, which would let no body pass.
fn max_body(value: &Value<'_>) -> Option<u64> {
    match value.is_integer() {
        true => value.integer(1..=i64::MAX).and_then(|bytes| u64::try_from(bytes).ok()),
        false => value.text(parse_size).map(Spanned::into_inner),
    }
}
