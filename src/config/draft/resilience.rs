//! What an upstream does about endpoints that fail, are full, or have just come.

use std::ops::RangeInclusive;

use super::places::Places;
use super::{MAX_AT_ONCE, bytes, health, set};
use crate::config::grpc::parse_grpc_failure;
use crate::config::model::{Ejection, GrpcStatuses, Limits, Queue, Retry, SlowStart, Statuses};
use crate::config::statuses::FAILURES;
use crate::config::table::{Table, Value};
use crate::config::values::parse_timeout;

/// Part of a whole.
const SHARE: RangeInclusive<f64> = 0.0..=1.0;

/// The most failures in a row that can be asked for. Whoever wants more wants none.
const MAX_FAILURES: u32 = 10_000;

/// The most tries of a request. More of them only load what is failing already.
const MAX_ATTEMPTS: u32 = 10;

/// The most bytes of one request or answer that are kept for another try: many at once of a
/// larger size would be all of the machine's memory.
const MAX_KEPT: u64 = 16 << 20;

/// The most requests that can wait, each of which holds a connection of its client.
const MAX_QUEUED: u32 = 1_000_000;

/// How slow start may bend. Beyond it there is hardly any start, or hardly anything else.
const CURVE: RangeInclusive<f64> = 0.1..=10.0;

/// A table, or `false`, which is `None`.
pub(super) fn ejection(value: &Value<'_>, places: &mut Places) -> Option<Ejection> {
    if value.is_false() {
        return None;
    }
    let mut ejection = Ejection::default();
    let mut table = value.inner("a table or `false`", "{ failures = 5 }")?;
    set(&mut ejection.failures, table.count("failures", 0..=MAX_FAILURES));
    set(&mut ejection.rate, table.number("rate", SHARE));
    failures(&mut ejection.status, &mut table, "status");
    set(&mut ejection.time, table.timeout("time"));
    // The default is no reason to refuse a longer first time.
    ejection.max_time = table.timeout("max_time").unwrap_or(ejection.max_time.max(ejection.time));
    set(&mut ejection.max_share, table.number("max_share", SHARE));
    places.ejection = Some(value.span());
    places.ejection_max_time = table.place("max_time");
    table.finish();
    Some(ejection)
}

/// A share, or `false`, which is `None`.
pub(super) fn panic(value: &Value<'_>) -> Option<f64> {
    match value.is_false() {
        true => None,
        false => value.number(SHARE),
    }
}

/// A table, or `false`, which is one attempt.
pub(super) fn retry(retry: &mut Retry, value: &Value<'_>, places: &mut Places) {
    if value.is_false() {
        retry.attempts = 1;
        return;
    }
    let example = "{ attempts = 3 }";
    let Some(mut table) = value.inner("a table or `false`", example) else { return };
    set(&mut retry.attempts, table.count("attempts", 1..=MAX_ATTEMPTS));
    failures(&mut retry.on, &mut table, "on");
    set(&mut retry.grpc_on, table.get("grpc_on").and_then(|v| grpc_failures(&v)));
    retry.timeout = table.timeout("timeout");
    set(&mut retry.budget, table.number("budget", SHARE));
    set(&mut retry.buffer, kept(&mut table, "buffer"));
    set(&mut retry.hold, kept(&mut table, "hold"));
    places.retry_on = table.place("on");
    places.retry_grpc_on = table.place("grpc_on");
    places.retry_timeout = table.place("timeout");
    table.finish();
}

/// Statuses that say that something failed.
fn failures(statuses: &mut Statuses, table: &mut Table<'_>, key: &'static str) {
    set(statuses, table.get(key).and_then(|v| health::statuses(&v, &FAILURES)));
}

/// A list of names of gRPC's statuses.
fn grpc_failures(value: &Value<'_>) -> Option<GrpcStatuses> {
    let one = |value: &Value<'_>| Some(value.text(parse_grpc_failure)?.into_inner());
    // Each is read, so that every fault is shown.
    let read: Vec<_> = value.items("\"unavailable\"")?.iter().map(one).collect();
    read.into_iter().collect()
}

/// Bytes that are kept for another try.
fn kept(table: &mut Table<'_>, key: &'static str) -> Option<usize> {
    bytes(&table.get(key)?, MAX_KEPT).and_then(|bytes| usize::try_from(bytes).ok())
}

pub(super) fn limits(limits: &mut Limits, value: &Value<'_>, places: &mut Places) {
    let Some(mut table) = value.inner("a table", "{ requests = 1000 }") else { return };
    limits.requests = table.count("requests", 1..=MAX_AT_ONCE);
    limits.connections = table.count("connections", 1..=MAX_AT_ONCE);
    limits.endpoint_requests = table.count("endpoint_requests", 1..=MAX_AT_ONCE);
    limits.endpoint_connections = table.count("endpoint_connections", 1..=MAX_AT_ONCE);
    set(&mut limits.adaptive, table.boolean("adaptive"));
    places.endpoint_requests = table.place("endpoint_requests");
    places.endpoint_connections = table.place("endpoint_connections");
    table.finish();
}

pub(super) fn queue(queue: &mut Queue, value: &Value<'_>) {
    let Some(mut table) = value.inner("a table", "{ size = 1024 }") else { return };
    let size = table.count("size", 0..=MAX_QUEUED);
    set(&mut queue.size, size.and_then(|size| usize::try_from(size).ok()));
    set(&mut queue.timeout, table.timeout("timeout"));
    set(&mut queue.order, table.parsed("order"));
    table.finish();
}

/// A time, or `{ time = "30s", curve = 1.0 }`.
pub(super) fn slow_start(value: &Value<'_>) -> Option<SlowStart> {
    if !value.is_table() {
        return value.duration(parse_timeout).map(|time| SlowStart { time, curve: 1.0 });
    }
    let mut table = value.inner("a table", "{ time = \"30s\" }")?;
    let time = table.require("time", "\"30s\"").and_then(|v| v.duration(parse_timeout));
    let curve = table.number("curve", CURVE).unwrap_or(1.0);
    table.finish();
    Some(SlowStart { time: time?, curve })
}
