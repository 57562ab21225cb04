//! `tls`, of a listener and of an upstream.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use super::set;
use crate::config::choices::choose;
use crate::config::model::{Certificate, ClientAuth, ClientTls, EndpointHost, ServerTls};
use crate::config::places::TlsPlaces;
use crate::config::report::Diagnostic;
use crate::config::table::{Reader, Table, Value};
use crate::config::url::parse_host;
use crate::config::values::{ValueError, parse_duration_to, quote};

/// One certificate.
const PAIR: &str = "{ cert = \"cert.pem\", key = \"key.pem\" }";

/// The longest that browsers can be told to come by HTTPS only. Two years is the most that anybody
/// recommends.
const MAX_HSTS: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// The shortest `max-age`, which counts whole seconds (RFC 6797 6.1.1); zero takes it back.
const MIN_HSTS: Duration = Duration::from_secs(1);

/// `tls` of a listener; `None` where nothing of it can be read.
pub(super) fn server(
    reader: &Reader<'_>,
    value: &Value<'_>,
    places: &mut TlsPlaces,
) -> Option<ServerTls> {
    places.table = Some(value.span());
    let mut table = value.inner("a table", PAIR)?;
    let single = certificate(reader, &mut table, 0, places);
    let listed = table.get("certificates").and_then(|list| certificates(reader, &list, places));
    let mut tls = ServerTls::new(listed.unwrap_or_else(|| single.into_iter().collect::<Vec<_>>()));
    places.note("self_signed", 0, table.place("self_signed"));
    set(&mut tls.self_signed, table.boolean("self_signed"));
    check_sources(reader, &table, tls.self_signed);
    set(&mut tls.min_version, table.parsed("min_version"));
    tls.client = client_auth(reader, &mut table, places);
    places.note("hsts", 0, table.place("hsts"));
    tls.hsts = table.get("hsts").and_then(|value| value.duration(parse_hsts));
    table.finish();
    Some(tls)
}

/// `cert`, `key` and `ocsp`; `None` where one of the first two is missing or cannot be read.
fn certificate(
    reader: &Reader<'_>,
    table: &mut Table<'_>,
    number: usize,
    places: &mut TlsPlaces,
) -> Option<Certificate> {
    let (cert, key) = pair(reader, table, number, places);
    let ocsp = table.path("ocsp");
    places.note("ocsp", number, table.place("ocsp"));
    if let (Some(place), None) = (table.place("ocsp"), table.place("cert").or(table.place("key"))) {
        reader.say(
            Diagnostic::error("there is no certificate for this `ocsp`").at(place).help(
                "write `cert = \"cert.pem\"` and `key = \"key.pem\"` beside it, or remove it",
            ),
        );
    }
    Some(Certificate { cert: cert?, key: key?, ocsp })
}

/// `cert` and `key`, which are nothing without each other.
fn pair(
    reader: &Reader<'_>,
    table: &mut Table<'_>,
    number: usize,
    places: &mut TlsPlaces,
) -> (Option<PathBuf>, Option<PathBuf>) {
    let read = (table.path("cert"), table.path("key"));
    let (cert, key) = (table.place("cert"), table.place("key"));
    places.note("cert", number, cert.clone());
    places.note("key", number, key.clone());
    let alone = |place: Range<usize>, here: &str, missing: &str, what: &str| {
        reader.say(
            Diagnostic::error(format!("`{here}` has no `{missing}`"))
                .at(place)
                .help(format!("write `{missing} = \"{missing}.pem\"` beside it, {what}")),
        );
    };
    match (cert, key) {
        (Some(cert), None) => {
            alone(cert, "cert", "key", "its private key; the same file if that has both");
        }
        (None, Some(key)) => alone(key, "key", "cert", "the certificate with its chain"),
        _ => {}
    }
    read
}

/// Certificates for different names.
fn certificates(
    reader: &Reader<'_>,
    list: &Value<'_>,
    places: &mut TlsPlaces,
) -> Option<Vec<Certificate>> {
    let items = list.items(PAIR)?;
    if items.is_empty() {
        return list.refuse("there is no certificate in `certificates`", example());
    }
    let mut read = Vec::new();
    for (number, item) in items.iter().enumerate() {
        let Some(mut table) = item.table_or("a certificate".to_owned(), "tables", &example())
        else {
            continue;
        };
        if table.place("cert").is_none() && table.place("key").is_none() {
            // Says so.
            let _ = table.require("cert", "\"cert.pem\"");
        }
        read.extend(certificate(reader, &mut table, number, places));
        table.finish();
    }
    Some(read)
}

fn example() -> String {
    format!("write `certificates = [{PAIR}]`")
}

/// There is one way to have certificates, and one is needed.
fn check_sources(reader: &Reader<'_>, table: &Table<'_>, self_signed: bool) {
    let place = |key: &str| table.place(key);
    let own = place("cert").or_else(|| place("key"));
    let single = own.clone().or_else(|| place("ocsp"));
    let list = place("certificates");
    let made = place("self_signed").filter(|_| self_signed);
    let beside = |title: &str, at: Range<usize>, other: Range<usize>, help: &str| {
        reader.say(Diagnostic::error(title).at(at).see(other, "the other").help(help));
    };
    if let (Some(single), Some(list)) = (&single, &list) {
        let help = "put it into that list, whose first is for names that none of them has";
        let title = "a certificate stands beside `certificates`";
        beside(title, single.clone(), list.clone(), help);
    } else if let (Some(made), Some(own)) = (&made, own.or(list.clone())) {
        let title = "`self_signed` stands beside a certificate of your own";
        beside(title, made.clone(), own, "remove one of the two");
    } else if made.or(single).or(list).is_none() {
        reader.say(Diagnostic::error("`tls` has no certificate").at(table.span()).help(
            "write `cert = \"cert.pem\"` and `key = \"key.pem\"`, or `self_signed = true` to try \
             things out",
        ));
    }
}

fn client_auth(
    reader: &Reader<'_>,
    table: &mut Table<'_>,
    places: &mut TlsPlaces,
) -> Option<ClientAuth> {
    let ca = table.path("client_ca");
    places.note("client_ca", 0, table.place("client_ca"));
    let required = table.text("client_auth", |text| {
        choose("way to treat clients", text, &[("required", true), ("optional", false)])
    });
    if let (Some(place), None) = (table.place("client_auth"), table.place("client_ca")) {
        reader.say(
            Diagnostic::error("`client_auth` says nothing without `client_ca`").at(place).help(
                "write `client_ca = \"ca.pem\"`, the authorities of clients' certificates, or \
                 remove it",
            ),
        );
    }
    Some(ClientAuth { ca: ca?, required: required.unwrap_or(true) })
}

fn parse_hsts(text: &str) -> Result<Duration, ValueError> {
    match parse_duration_to(text, MAX_HSTS, "ten years")? {
        time if time < MIN_HSTS && !time.is_zero() => Err(ValueError::new(
            format!("{} is less than the field can say", quote(text)),
            "write such as `365d`, or `0s` for browsers to forget it",
        )),
        time => Ok(time),
    }
}

/// `tls` of an upstream.
pub(super) fn client(
    reader: &Reader<'_>,
    tls: &mut ClientTls,
    value: &Value<'_>,
    places: &mut TlsPlaces,
) {
    places.table = Some(value.span());
    let Some(mut table) = value.inner("a table", "{ ca = \"ca.pem\" }") else { return };
    tls.ca = table.path("ca");
    tls.server_name = table.text("server_name", parse_server_name);
    let (cert, key) = pair(reader, &mut table, 0, places);
    tls.identity = cert.zip(key);
    set(&mut tls.insecure_skip_verify, table.boolean("insecure_skip_verify"));
    for key in ["ca", "server_name", "insecure_skip_verify"] {
        places.note(key, 0, table.place(key));
    }
    table.finish();
}

/// A name or an address, as certificates have them.
fn parse_server_name(text: &str) -> Result<String, ValueError> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok(text.to_ascii_lowercase());
    }
    if text.contains([':', '/', '*']) {
        return Err(ValueError::new(
            format!("{} is not the name of a server", quote(text)),
            "write the name alone, such as `app.internal`, or an address",
        ));
    }
    match parse_host(text)? {
        EndpointHost::Ip(ip) => Ok(ip.to_string()),
        EndpointHost::Name(name) => Ok(name),
        EndpointHost::Unix(path) => Ok(path.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_names_or_addresses() {
        for (text, name) in [
            ("App.Internal", "app.internal"),
            ("app.internal.", "app.internal"),
            ("10.0.0.1", "10.0.0.1"),
            ("FD00::1", "fd00::1"),
        ] {
            assert_eq!(parse_server_name(text).as_deref(), Ok(name));
        }
        for text in ["", "*.internal", "app:443", "https://app", "app/x", "[::1]", "a b", "10.1"] {
            assert!(parse_server_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hsts_counts_seconds_and_may_be_long() {
        let seconds = |text: &str| parse_hsts(text).map(|time| time.as_secs());
        assert_eq!(seconds("365d"), Ok(31_536_000));
        assert_eq!(seconds("730d"), Ok(63_072_000));
        assert_eq!(seconds("0s"), Ok(0));
        for text in ["10ms", "4000d", "365"] {
            assert!(parse_hsts(text).is_err(), "{text}");
        }
    }
}
