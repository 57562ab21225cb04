//! `[upstreams.NAME]`.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeString;

use super::places::Places;
use super::{MAX_AT_ONCE, health, policy, resilience, set, tls};
use crate::config::model::{BACKUP, Endpoint, EndpointTimeouts, MAX_WEIGHT, Upstream};
use crate::config::report::Diagnostic;
use crate::config::table::{Reader, Table, Value};
use crate::config::values::parse_name;

/// An upstream whose endpoints still have their places.
pub(in crate::config) struct DraftUpstream {
    /// Everything but the endpoints.
    pub(in crate::config) upstream: Upstream,
    pub(in crate::config) endpoints: Vec<Spanned<Endpoint>>,
    /// Where its name is.
    pub(in crate::config) span: Range<usize>,
    /// Whether the list of endpoints is there and each of them could be read.
    pub(in crate::config) whole: bool,
    pub(in crate::config) places: Places,
}

/// One upstream; `None` where it is not even a table.
pub(super) fn read(
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
    let mut places = Places::default();
    set(&mut upstream.policy, table.parsed("policy"));
    set(&mut upstream.host, table.parsed("host"));
    set(&mut upstream.forwarded, table.boolean("forwarded"));
    set(&mut upstream.via, table.boolean("via"));
    set(&mut upstream.resolve, table.timeout("resolve"));
    protocols(reader, &mut table, &mut upstream, &mut places);
    if let Some(value) = table.get("timeouts") {
        timeouts(&mut upstream.timeouts, &value);
    }
    resilience(reader, &mut table, &mut upstream, &mut places);
    let example = "\"http://host:port\"";
    let written =
        table.require("endpoints", &format!("[{example}]")).and_then(|v| v.items(example));
    table.finish();
    let endpoints: Vec<_> =
        written.iter().flatten().filter_map(|value| endpoint(reader, value)).collect();
    let whole = written.is_some_and(|written| written.len() == endpoints.len());
    Some(DraftUpstream { upstream, endpoints, span, whole, places })
}

/// What is spoken with the endpoints.
fn protocols(
    reader: &Reader<'_>,
    table: &mut Table<'_>,
    upstream: &mut Upstream,
    places: &mut Places,
) {
    if let Some(value) = table.get("tls") {
        tls::client(reader, &mut upstream.tls, &value, &mut places.tls);
    }
    places.http2 = table.place("http2");
    set(&mut upstream.http2, table.boolean("http2"));
    places.proxy_protocol = table.place("proxy_protocol");
    upstream.proxy_protocol = table.parsed("proxy_protocol");
}

fn timeouts(timeouts: &mut EndpointTimeouts, value: &Value<'_>) {
    let Some(mut table) = value.inner("a table", "{ connect = \"2s\" }") else { return };
    set(&mut timeouts.connect, table.timeout("connect"));
    set(&mut timeouts.response, table.timeout("response"));
    set(&mut timeouts.body, table.timeout("body"));
    set(&mut timeouts.idle, table.timeout("idle"));
    table.finish();
}

/// What has tables, shorthands or `false` of its own.
fn resilience(
    reader: &Reader<'_>,
    table: &mut Table<'_>,
    upstream: &mut Upstream,
    places: &mut Places,
) {
    if let Some(value) = table.get("hash") {
        places.hash = Some(value.span());
        policy::hash(&mut upstream.hash, &value);
    }
    if let Some(value) = table.get("sticky") {
        places.sticky = Some(value.span());
        upstream.sticky = policy::sticky(&value);
    }
    if let Some(value) = table.get("health") {
        places.health = Some(value.span());
        upstream.health = health::read(reader, &value, places);
    }
    if let Some(value) = table.get("ejection") {
        upstream.ejection = resilience::ejection(&value, places);
    }
    if let Some(value) = table.get("panic") {
        upstream.panic = resilience::panic(&value);
    }
    if let Some(value) = table.get("retry") {
        resilience::retry(&mut upstream.retry, &value, places);
    }
    if let Some(value) = table.get("limits") {
        resilience::limits(&mut upstream.limits, &value, places);
    }
    if let Some(value) = table.get("queue") {
        places.queue = Some(value.span());
        resilience::queue(&mut upstream.queue, &value);
    }
    if let Some(value) = table.get("slow_start") {
        upstream.slow_start = resilience::slow_start(&value);
    }
}

/// One endpoint, with the place of its URL.
fn endpoint(reader: &Reader<'_>, value: &Value<'_>) -> Option<Spanned<Endpoint>> {
    if !value.is_table() {
        let url = value.text(str::parse)?;
        return Some(Spanned::new(url.span(), Endpoint::new(url.into_inner())));
    }
    let mut table = value.table("an endpoint")?;
    let url = table.require("url", "\"http://host:port\"").and_then(|v| v.text(str::parse));
    let weight = table.get("weight").map(|v| v.integer(0..=i64::from(MAX_WEIGHT)));
    let priority = priority(reader, &mut table);
    let drain = table.boolean("drain").unwrap_or(false);
    let max_requests = table.count("max_requests", 1..=MAX_AT_ONCE);
    let max_connections = table.count("max_connections", 1..=MAX_AT_ONCE);
    table.finish();
    // Without its weight it must not count as one that can be picked.
    let weight = weight.map_or(Some(1), |weight| u32::try_from(weight?).ok())?;
    let url = url?;
    let span = url.span();
    let url = url.into_inner();
    let endpoint = Endpoint { url, weight, priority, drain, max_requests, max_connections };
    Some(Spanned::new(span, endpoint))
}

/// `priority`, or `backup`, which is the last one.
fn priority(reader: &Reader<'_>, table: &mut Table<'_>) -> u8 {
    let mut priority = 0;
    set(&mut priority, table.count("priority", 0..=u8::MAX));
    if table.boolean("backup") != Some(true) {
        return priority;
    }
    if let (Some(backup), Some(other)) = (table.place("backup"), table.place("priority")) {
        reader.say(
            Diagnostic::error("an endpoint has a `priority` and is a `backup`")
                .at(backup)
                .see(other, "the other")
                .help(format!("remove one; `backup = true` is the same as `priority = {BACKUP}`")),
        );
    }
    BACKUP
}
