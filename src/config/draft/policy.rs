//! `hash` and `sticky` of an upstream.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::set;
use crate::config::fields::parse_cookie_name;
use crate::config::model::{Hash, Sticky};
use crate::config::table::Value;
use crate::config::values::{ValueError, parse_timeout, quote};

/// How far above the mean load an endpoint may go. At 1 every key would move with every request,
/// and beyond 100 times nothing is bounded any more.
const HASH_BOUND: RangeInclusive<f64> = 1.05..=100.0;

/// The least bytes of a secret: with 128 bits nobody finds it by trying.
const MIN_SECRET: usize = 16;

/// The shortest `Max-Age`, which counts whole seconds (RFC 6265 4.1.1); 0 would delete the cookie.
const MIN_MAX_AGE: Duration = Duration::from_secs(1);

/// `"client"`, or `{ on = "client", bound = 1.5 }`.
pub(super) fn hash(hash: &mut Hash, value: &Value<'_>) {
    if !value.is_table() {
        return set(&mut hash.on, value.text(str::parse).map(|key| key.into_inner()));
    }
    let Some(mut table) = value.inner("a table", "{ on = \"client\" }") else { return };
    set(&mut hash.on, table.parsed("on"));
    set(&mut hash.bound, table.number("bound", HASH_BOUND));
    table.finish();
}

/// The cookie's name, or `{ cookie = "NAME" }` with more about it.
pub(super) fn sticky(value: &Value<'_>) -> Option<Sticky> {
    if !value.is_table() {
        return value.text(parse_cookie_name).map(|cookie| Sticky::new(cookie.into_inner()));
    }
    let mut table = value.inner("a table", "{ cookie = \"tinylb\" }")?;
    let cookie = table.require("cookie", "\"tinylb\"").and_then(|v| v.text(parse_cookie_name));
    let mut sticky = Sticky::new(cookie.map(|cookie| cookie.into_inner()).unwrap_or_default());
    sticky.secret = table.text("secret", parse_secret);
    sticky.max_age = table.get("max_age").and_then(|v| v.duration(parse_max_age));
    set(&mut sticky.same_site, table.parsed("same_site"));
    table.finish();
    (!sticky.cookie.is_empty()).then_some(sticky)
}

/// The message must not have the secret in it: it may come from the environment.
fn parse_secret(text: &str) -> Result<String, ValueError> {
    match text.len() {
        MIN_SECRET.. => Ok(text.to_owned()),
        bytes => Err(ValueError::new(
            format!("the secret has only {bytes} bytes"),
            format!(
                "write at least {MIN_SECRET}, such as from `openssl rand -hex {MIN_SECRET}`, or \
                 leave it out for one that is drawn at start"
            ),
        )),
    }
}

fn parse_max_age(text: &str) -> Result<Duration, ValueError> {
    match parse_timeout(text)? {
        age if age < MIN_MAX_AGE => Err(ValueError::new(
            format!("{} is less than cookies can say", quote(text)),
            "write at least `1s`, or leave it out for a cookie of the browser's session",
        )),
        age => Ok(age),
    }
}
