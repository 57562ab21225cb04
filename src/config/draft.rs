//! The file's sections, key by key, as a draft: values are right each for itself, and what refers
//! to something else still has its place in the file. The [check](super::check) makes it a
//! configuration.

use std::net::SocketAddr;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable};

use super::listen::{AdminAddress, DEFAULT_ADMIN};
use super::model::{
    ClientTimeouts, Drain, Endpoint, EndpointTimeouts, HostPattern, ListenAddress, Listener, Log,
    MAX_WEIGHT, Upstream,
};
use super::pattern::parse_route_path;
use super::report::Diagnostic;
use super::table::{Reader, Table, Value};
use super::values::{parse_duration, parse_name, parse_network, parse_size};

/// The most worker threads that can be asked for.
pub const MAX_WORKERS: usize = 1024;

/// The most connections that a listener can be given, far above what descriptors allow.
const MAX_CONNECTIONS: i64 = 10_000_000;

/// A file whose values are right each for itself.
pub(super) struct Draft {
    pub(super) workers: Option<usize>,
    pub(super) admin: Option<SocketAddr>,
    /// Where the file sets the admin address, if it does.
    pub(super) admin_span: Option<Range<usize>>,
    pub(super) log: Log,
    pub(super) drain: Drain,
    /// Each with the place of its address.
    pub(super) listeners: Vec<Spanned<Listener>>,
    pub(super) routes: Vec<DraftRoute>,
    /// Whether the file has no routes, not even wrong ones.
    pub(super) routes_missing: bool,
    pub(super) upstreams: Vec<DraftUpstream>,
}

pub(super) struct DraftRoute {
    pub(super) host: Option<HostPattern>,
    pub(super) path: String,
    pub(super) upstream: Spanned<String>,
    /// Its header.
    pub(super) span: Range<usize>,
}

/// An upstream whose endpoints still have their places.
pub(super) struct DraftUpstream {
    /// Everything but the endpoints.
    pub(super) upstream: Upstream,
    pub(super) endpoints: Vec<Spanned<Endpoint>>,
    /// Where its name is.
    pub(super) span: Range<usize>,
    /// Whether the list of endpoints is there and each of them could be read.
    pub(super) whole: bool,
}

/// Reads every section; what is wrong in them is said to `reader`.
pub(super) fn read<'r>(reader: &'r Reader<'r>, document: &'r Spanned<DeTable<'r>>) -> Draft {
    let mut root = Table::root(reader, document);
    let workers = root.get("workers").and_then(|v| v.integer(1..=MAX_WORKERS as i64));
    let mut draft = Draft {
        workers: workers.and_then(|number| usize::try_from(number).ok()),
        admin: Some(DEFAULT_ADMIN),
        admin_span: None,
        log: Log::default(),
        drain: Drain::default(),
        listeners: Vec::new(),
        routes: Vec::new(),
        routes_missing: false,
        upstreams: Vec::new(),
    };
    if let Some(table) = root.get("admin").and_then(|v| v.table("[admin]")) {
        admin(&mut draft, table);
    }
    if let Some(table) = root.get("log").and_then(|v| v.table("[log]")) {
        log(&mut draft.log, table);
    }
    if let Some(table) = root.get("drain").and_then(|v| v.table("[drain]")) {
        drain(&mut draft.drain, table);
    }
    if root.lacks("listeners") {
        let help = "write `[[listeners]]`, and below it `address = \":8080\"`";
        reader.say(Diagnostic::error("there is nothing to listen on").help(help));
    }
    if root.lacks("upstreams") {
        let help = "write `[upstreams.NAME]`, and below it `endpoints = [\"http://host:port\"]`";
        reader.say(Diagnostic::error("there is nothing to send requests to").help(help));
    }
    draft.routes_missing = root.lacks("routes");
    draft.listeners = root.tables("listeners").into_iter().filter_map(listener).collect();
    draft.routes = root.tables("routes").into_iter().filter_map(route).collect();
    if let Some(table) = root.get("upstreams").and_then(|v| v.table("[upstreams.NAME]")) {
        let written = table.entries();
        draft.upstreams =
            written.iter().filter_map(|(name, value)| upstream(reader, name, value)).collect();
    }
    root.finish();
    draft
}

fn admin(draft: &mut Draft, mut table: Table<'_>) {
    if let Some(address) = table.get("listen").and_then(|v| v.text(str::parse::<AdminAddress>)) {
        draft.admin_span = Some(address.span());
        draft.admin = address.into_inner().0;
    }
    table.finish();
}

fn log(log: &mut Log, mut table: Table<'_>) {
    set(&mut log.access, table.parsed("access"));
    set(&mut log.level, table.parsed("level"));
    table.finish();
}

fn drain(drain: &mut Drain, mut table: Table<'_>) {
    set(&mut drain.timeout, table.get("timeout").and_then(|v| v.duration(parse_duration)));
    set(&mut drain.delay, table.get("delay").and_then(|v| v.duration(parse_duration)));
    table.finish();
}

fn listener(mut table: Table<'_>) -> Option<Spanned<Listener>> {
    let address = table.require("address", "\":8080\"").and_then(|v| v.text(str::parse));
    // Read on without an address, so that the other keys' faults are found too.
    let span = address.as_ref().map_or_else(|| table.span(), Spanned::span);
    let known = address.is_some();
    let any = ListenAddress { ip: None, port: 0 };
    let mut listener = Listener::new(address.map_or(any, Spanned::into_inner));
    let networks = table.get("trusted_proxies").and_then(|v| v.items("\"10.0.0.0/8\""));
    listener.trusted_proxies = networks
        .into_iter()
        .flatten()
        .filter_map(|v| Some(v.text(parse_network)?.into_inner()))
        .collect();
    let connections = table.get("max_connections").and_then(|v| v.integer(1..=MAX_CONNECTIONS));
    listener.max_connections = connections.and_then(|n| usize::try_from(n).ok());
    listener.max_body = table.get("max_body").and_then(|v| size(&v));
    if let Some(table) = table.get("timeouts").and_then(|v| v.table("`timeouts`")) {
        client_timeouts(&mut listener.timeouts, table);
    }
    table.finish();
    known.then(|| Spanned::new(span, listener))
}

fn client_timeouts(timeouts: &mut ClientTimeouts, mut table: Table<'_>) {
    set(&mut timeouts.head, table.timeout("head"));
    set(&mut timeouts.idle, table.timeout("idle"));
    set(&mut timeouts.body, table.timeout("body"));
    set(&mut timeouts.tunnel, table.timeout("tunnel"));
    table.finish();
}

fn route(mut table: Table<'_>) -> Option<DraftRoute> {
    let host = table.get("host").map(|v| v.text(str::parse));
    let path = table.get("path").map(|v| v.text(parse_route_path));
    let upstream = table.require("upstream", "\"NAME\"").and_then(|v| v.text(parse_name));
    let span = table.span();
    table.finish();
    // A host or path that cannot be read must not make it a route for any host or path.
    let host = host.map_or(Some(None), |host| host.map(|h| Some(h.into_inner())))?;
    let path = path.map_or(Some("/".to_owned()), |path| path.map(Spanned::into_inner))?;
    Some(DraftRoute { host, path, upstream: upstream?, span })
}

fn upstream(
    reader: &Reader<'_>,
    name: &Spanned<DeString<'_>>,
    value: &Value<'_>,
) -> Option<DraftUpstream> {
    let span = name.span();
    if let Err(error) = parse_name(name.get_ref()) {
        reader.say(Diagnostic::error(error.wrong()).at(span.clone()).help(error.help()));
    }
    let mut table = value.table(format!("[upstreams.{}]", name.get_ref().escape_debug()))?;
    let mut upstream = Upstream::new(name.get_ref().as_ref(), Vec::new());
    set(&mut upstream.policy, table.parsed("policy"));
    set(&mut upstream.host, table.parsed("host"));
    set(&mut upstream.forwarded, table.get("forwarded").and_then(|v| v.boolean()));
    set(&mut upstream.resolve, table.timeout("resolve"));
    if let Some(table) = table.get("timeouts").and_then(|v| v.table("`timeouts`")) {
        endpoint_timeouts(&mut upstream.timeouts, table);
    }
    let example = "\"http://host:port\"";
    let written =
        table.require("endpoints", &format!("[{example}]")).and_then(|v| v.items(example));
    table.finish();
    let endpoints: Vec<_> = written.iter().flatten().filter_map(endpoint).collect();
    let whole = written.is_some_and(|written| written.len() == endpoints.len());
    Some(DraftUpstream { upstream, endpoints, span, whole })
}

fn endpoint_timeouts(timeouts: &mut EndpointTimeouts, mut table: Table<'_>) {
    set(&mut timeouts.connect, table.timeout("connect"));
    set(&mut timeouts.response, table.timeout("response"));
    set(&mut timeouts.body, table.timeout("body"));
    set(&mut timeouts.idle, table.timeout("idle"));
    table.finish();
}

/// A URL, or a table of a URL and a weight; with the place of the URL.
fn endpoint(value: &Value<'_>) -> Option<Spanned<Endpoint>> {
    if !value.is_table() {
        let url = value.text(str::parse)?;
        return Some(Spanned::new(url.span(), Endpoint::new(url.into_inner())));
    }
    let mut table = value.table("an endpoint")?;
    let url = table.require("url", "\"http://host:port\"").and_then(|v| v.text(str::parse));
    let weight = table.get("weight").map(|v| v.integer(0..=i64::from(MAX_WEIGHT)));
    table.finish();
    let weight = weight.map_or(Some(1), |weight| u32::try_from(weight?).ok())?;
    let url = url?;
    Some(Spanned::new(url.span(), Endpoint { weight, ..Endpoint::new(url.into_inner()) }))
}

/// A number of bytes, with or without a unit.
fn size(value: &Value<'_>) -> Option<u64> {
    match value.is_integer() {
        true => value.integer(1..=i64::MAX).and_then(|bytes| u64::try_from(bytes).ok()),
        false => value.text(parse_size).map(Spanned::into_inner),
    }
}

/// Puts a value that could be read in the place of the default.
fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}
