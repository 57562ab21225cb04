//! `health` of an upstream, and sets of statuses.

use std::ops::{Range, RangeInclusive};

use super::places::Places;
use super::set;
use crate::config::choices::choose;
use crate::config::fields::{
    parse_check_body, parse_check_field, parse_check_host, parse_check_method, parse_check_path,
    parse_field_value, parse_regex, parse_service,
};
use crate::config::model::{BodyMatch, Check, Health, HttpCheck, Statuses};
use crate::config::report::Diagnostic;
use crate::config::statuses::{ANY_STATUS, parse_statuses};
use crate::config::table::{Reader, Table, Value};

/// The most checks in a row that turn an endpoint's state: at the default interval more than eight
/// minutes.
const MAX_IN_A_ROW: u32 = 100;

/// Keys that only say something about a check by HTTP.
const HTTP_KEYS: [&str; 7] =
    ["method", "path", "host", "headers", "status", "body", "body_matches"];

/// Keys that only say something about a check by gRPC.
const GRPC_KEYS: [&str; 1] = ["service"];

/// What is asked, before anything is known of it.
#[derive(Clone, Copy)]
enum Kind {
    Http,
    Tcp,
    Grpc,
}

/// `health`; `None` where nothing of it can be read.
pub(super) fn read(reader: &Reader<'_>, value: &Value<'_>, places: &mut Places) -> Option<Health> {
    let mut table = value.inner("a table", "{ path = \"/healthz\" }")?;
    let kinds = [("http", Kind::Http), ("tcp", Kind::Tcp), ("grpc", Kind::Grpc)];
    let kind = match table.get("type") {
        None => Some(Kind::Http),
        Some(value) => {
            value.text(|text| choose("type of check", text, &kinds)).map(|k| *k.get_ref())
        }
    };
    let mut health = Health::new(match kind {
        Some(Kind::Http) => {
            refuse_keys(reader, &mut table, "http", &GRPC_KEYS, "grpc");
            Check::Http(http_check(reader, &mut table))
        }
        Some(Kind::Tcp) => {
            refuse_keys(reader, &mut table, "tcp", &HTTP_KEYS, "http");
            refuse_keys(reader, &mut table, "tcp", &GRPC_KEYS, "grpc");
            Check::Tcp
        }
        // Of a type that cannot be read, so any key may belong to it.
        None => {
            let _ = table.text("service", parse_service);
            Check::Http(http_check(reader, &mut table))
        }
        Some(Kind::Grpc) => {
            refuse_keys(reader, &mut table, "grpc", &HTTP_KEYS, "http");
            Check::Grpc(table.text("service", parse_service).unwrap_or_default())
        }
    });
    set(&mut health.interval, table.timeout("interval"));
    // The next check never waits for the last one, unless the file says so.
    health.timeout = table.timeout("timeout").unwrap_or(health.timeout.min(health.interval));
    set(&mut health.rise, table.count("rise", 1..=MAX_IN_A_ROW));
    set(&mut health.fall, table.count("fall", 1..=MAX_IN_A_ROW));
    health.port = table.count("port", 1..=u16::MAX);
    places.health_timeout = table.place("timeout");
    places.health_port = table.place("port");
    table.finish();
    Some(health)
}

/// Says of each of `keys`, which belong to checks of type `other`, that those of type `kind` have none.
fn refuse_keys(
    reader: &Reader<'_>,
    table: &mut Table<'_>,
    kind: &str,
    keys: &[&'static str],
    other: &str,
) {
    for key in keys {
        if let Some(value) = table.get(key) {
            reader.say(
                Diagnostic::error(format!("a check of type `{kind}` has no `{key}`"))
                    .at(value.span())
                    .help(format!("remove it, or write `type = \"{other}\"`")),
            );
        }
    }
}

fn http_check(reader: &Reader<'_>, table: &mut Table<'_>) -> HttpCheck {
    let mut check = HttpCheck::default();
    set(&mut check.method, table.text("method", parse_check_method));
    set(&mut check.path, table.text("path", parse_check_path));
    check.host = table.text("host", parse_check_host);
    if let Some(value) = table.get("headers") {
        check.headers = headers(reader, &value);
    }
    if let Some(value) = table.get("status") {
        set(&mut check.status, statuses(&value, &ANY_STATUS));
        if check.status.0.is_empty() {
            reader.say(
                Diagnostic::error("with no status every check fails")
                    .at(value.span())
                    .help("write such as `status = [\"2xx\"]`, or leave it out for 2xx and 3xx"),
            );
        }
    }
    let text = table.text("body", parse_check_body).map(BodyMatch::Contains);
    let pattern = table.text("body_matches", parse_regex).map(BodyMatch::Matches);
    check.body = text.or(pattern);
    check_bodies(reader, table, &check.method);
    check
}

/// One thing can be asked of a body, if there is one.
fn check_bodies(reader: &Reader<'_>, table: &Table<'_>, method: &str) {
    let (text, pattern) = (table.place("body"), table.place("body_matches"));
    let say = |title: &str, at: &Range<usize>, see: Option<Range<usize>>, help| {
        let fault = Diagnostic::error(title).at(at.clone()).help(help);
        reader.say(match see {
            Some(other) => fault.see(other, "the other"),
            None => fault,
        });
    };
    if let (Some(text), Some(pattern)) = (&text, &pattern) {
        let help = "remove one of them; the regular expression can say both";
        say("a check has `body` and `body_matches`", pattern, Some(text.clone()), help);
    }
    if let (Some(body), "HEAD") = (text.or(pattern), method) {
        let help = "write `method = \"GET\"`, or remove it";
        say("an answer to HEAD has no body", &body, table.place("method"), help);
    }
}

fn headers(reader: &Reader<'_>, value: &Value<'_>) -> Vec<(String, String)> {
    let Some(table) = value.inner("a table", "{ X-Check = \"1\" }") else { return Vec::new() };
    let field = |name: &str, at: Range<usize>, value: &Value<'_>| {
        let name = parse_check_field(name).map_err(|error| {
            reader.say(Diagnostic::error(error.wrong()).at(at).help(error.help()));
        });
        let value = value.text(parse_field_value)?.into_inner();
        Some((name.ok()?, value))
    };
    let entries = table.entries();
    entries.iter().filter_map(|(name, value)| field(name.get_ref(), name.span(), value)).collect()
}

/// A list of statuses, each within `within`.
pub(super) fn statuses(value: &Value<'_>, within: &RangeInclusive<u16>) -> Option<Statuses> {
    let (first, last) = within.clone().into_inner();
    let one = |value: &Value<'_>| match value.is_integer() {
        true => {
            let status = value.integer(i64::from(first)..=i64::from(last))?;
            u16::try_from(status).ok().map(|status| status..=status)
        }
        false => Some(value.text(|text| parse_statuses(text, within))?.into_inner()),
    };
    let example = if within.contains(&200) { "\"2xx\"" } else { "\"5xx\"" };
    // Each is read, so that every fault is shown.
    let read: Vec<_> = value.items(example)?.iter().map(one).collect();
    read.into_iter().collect::<Option<Statuses>>()
}
