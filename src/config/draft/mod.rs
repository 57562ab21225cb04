//! The file's sections, key by key, as a draft: values are right each for itself, and what is only
//! wrong together with something else still has its place in the file. The [check](super::check)
//! makes it a configuration.

mod health;
mod listener;
mod places;
mod policy;
mod resilience;
mod tls;
mod upstream;

use std::net::SocketAddr;
use std::ops::Range;

use toml::Spanned;
use toml::de::DeTable;

use super::listen::{AdminAddress, DEFAULT_ADMIN, parse_host_name};
use super::model::{Drain, Hedge, HostPattern, Log};
use super::pattern::parse_route_path;
use super::report::Diagnostic;
use super::table::{Reader, Table, Value};
use super::values::{parse_bytes, parse_duration, parse_name};

pub(super) use listener::DraftListener;
pub(super) use upstream::DraftUpstream;

/// The most worker threads that can be asked for.
pub const MAX_WORKERS: usize = 1024;

/// The most connections or requests at once that can be asked for, far above what descriptors
/// allow.
const MAX_AT_ONCE: u32 = 10_000_000;

/// A file whose values are right each for itself.
pub(super) struct Draft {
    pub(super) workers: Option<usize>,
    pub(super) admin: Option<SocketAddr>,
    /// Where the file sets the admin address, if it does.
    pub(super) admin_span: Option<Range<usize>>,
    /// Allowed host names of the admin address.
    pub(super) admin_hosts: Vec<String>,
    pub(super) log: Log,
    pub(super) drain: Drain,
    pub(super) listeners: Vec<DraftListener>,
    pub(super) routes: Vec<DraftRoute>,
    /// Whether the file has no routes, not even wrong ones.
    pub(super) routes_missing: bool,
    pub(super) upstreams: Vec<DraftUpstream>,
}

/// A route whose upstream is still a name.
pub(super) struct DraftRoute {
    pub(super) host: Option<HostPattern>,
    pub(super) path: String,
    pub(super) upstream: Spanned<String>,
    pub(super) idempotent: bool,
    pub(super) hedge: Option<Spanned<Hedge>>,
    /// Its header.
    pub(super) span: Range<usize>,
}

/// Reads every section; what is wrong in them is said to `reader`.
pub(super) fn read<'r>(reader: &'r Reader<'r>, document: &'r Spanned<DeTable<'r>>) -> Draft {
    let mut root = Table::root(reader, document);
    let workers = root.get("workers").and_then(|v| v.integer(1..=MAX_WORKERS as i64));
    let mut draft = Draft {
        workers: workers.and_then(|number| usize::try_from(number).ok()),
        admin: Some(DEFAULT_ADMIN),
        admin_span: None,
        admin_hosts: Vec::new(),
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
    let listeners = root.tables("listeners").into_iter();
    draft.listeners = listeners.filter_map(|table| listener::read(reader, table)).collect();
    draft.routes = root.tables("routes").into_iter().filter_map(route).collect();
    if let Some(table) = root.get("upstreams").and_then(|v| v.table("[upstreams.NAME]")) {
        let written = table.entries();
        draft.upstreams = written
            .iter()
            .filter_map(|(name, value)| upstream::read(reader, name, value))
            .collect();
    }
    root.finish();
    draft
}

fn admin(draft: &mut Draft, mut table: Table<'_>) {
    if let Some(address) = table.get("listen").and_then(|v| v.text(str::parse::<AdminAddress>)) {
        draft.admin_span = Some(address.span());
        draft.admin = address.into_inner().0;
    }
    let hosts = table.get("hosts").and_then(|v| v.items("\"lb.example.com\""));
    let hosts = hosts.into_iter().flatten();
    draft.admin_hosts = hosts.filter_map(|v| Some(v.text(parse_host_name)?.into_inner())).collect();
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

/// One route.
fn route(mut table: Table<'_>) -> Option<DraftRoute> {
    let host = table.get("host").map(|v| v.text(str::parse));
    let path = table.get("path").map(|v| v.text(parse_route_path));
    let upstream = table.require("upstream", "\"NAME\"").and_then(|v| v.text(parse_name));
    let idempotent = table.boolean("idempotent").unwrap_or(false);
    let hedge = table
        .get("hedge")
        .and_then(|v| Some(Spanned::new(v.span(), v.duration(str::parse::<Hedge>)?)));
    let span = table.span();
    table.finish();
    // A host or path that cannot be read must not make it a route for any host or path.
    let host = host.map_or(Some(None), |host| host.map(|h| Some(h.into_inner())))?;
    let path = path.map_or(Some("/".to_owned()), |path| path.map(Spanned::into_inner))?;
    Some(DraftRoute { host, path, upstream: upstream?, idempotent, hedge, span })
}

/// A number of bytes from 0 to `most`, with or without a unit.
fn bytes(value: &Value<'_>, most: u64) -> Option<u64> {
    if value.is_integer() {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        return value.integer(0..=most).and_then(|bytes| u64::try_from(bytes).ok());
    }
    let bytes = value.text(parse_bytes)?.into_inner();
    if bytes > most {
        let help = format!("write at most `{}MiB`", most >> 20);
        return value.refuse(format!("{bytes} bytes are too many"), help);
    }
    Some(bytes)
}

/// Puts a value that could be read in the place of the default.
fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}
