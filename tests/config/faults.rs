//! Faults of the keys about health, failures, limits and clients that stay: each with its place,
//! and with what to write instead.

use super::resilience::with;
use super::{faults, wrong};

#[test]
fn values_that_cannot_be_say_what_to_write() {
    for (rest, fault, advice) in [
        (
            "hash = \"ip\"",
            "`ip` is nothing to hash by",
            "write one of `client`, `path`, `header:NAME`, `cookie:NAME` and `query:NAME`",
        ),
        ("hash = { bound = 1.0 }", "`bound` cannot be 1.0", "write a number from 1.05 to 100"),
        ("hash = { bound = nan }", "`bound` cannot be nan", "write a number from 1.05 to 100"),
        (
            "sticky = \"a b\"",
            "`a b` cannot be the name of a cookie",
            "write letters, digits, hyphens and underscores, such as `session_id`",
        ),
        ("sticky = {}", "`sticky` has no `cookie`", "write `cookie = \"tinylb\"`"),
        (
            "sticky = { cookie = \"a\", max_age = \"10ms\" }",
            "`10ms` is less than cookies can say",
            "write at least `1s`, or leave it out for a cookie of the browser's session",
        ),
        (
            "sticky = { cookie = \"a\", same_site = \"Lax\" }",
            "unknown value of SameSite `Lax`",
            "did you mean `lax`?",
        ),
        (
            "health = \"/healthz\"",
            "`health` takes a table, not a string",
            "write `health = { path = \"/healthz\" }`",
        ),
        (
            "health = { path = \"healthz\" }",
            "the path `healthz` does not begin with a slash",
            "write `/healthz`",
        ),
        ("health = { type = \"htpt\" }", "unknown type of check `htpt`", "did you mean `http`?"),
        (
            "health = { type = \"tcp\", path = \"/\" }",
            "a check of type `tcp` has no `path`",
            "remove it, or write `type = \"http\"`",
        ),
        (
            "health = { method = \"POST\" }",
            "`POST` is not a method of checks, which change nothing",
            "write one of `GET`, `HEAD` and `OPTIONS`",
        ),
        (
            "health = { host = \"a b\" }",
            "`a b` is not a host name",
            "write letters, digits and hyphens, with dots between",
        ),
        (
            "health = { headers = { Host = \"a\" } }",
            "checks have a `Host` of their own",
            "write `host = \"…\"` beside `headers`",
        ),
        (
            "health = { headers = { X = \"a\\r\\nb\" } }",
            "`a\\r\\nb` has control characters",
            "write it on one line, without them",
        ),
        (
            "health = { headers = { X = 1 } }",
            "`X` takes a string, not a number",
            "write it in double quotes",
        ),
        (
            "health = { status = \"2xx\" }",
            "`status` takes a list, not a string",
            "write `status = [\"2xx\"]`",
        ),
        (
            "health = { status = [\"2x\"] }",
            "`2x` is not a status",
            "write such as `100`, `1xx` or `100-599`",
        ),
        ("health = { status = [99] }", "`status` cannot be 99", "write a number from 100 to 599"),
        (
            "health = { status = [] }",
            "with no status every check fails",
            "write such as `status = [\"2xx\"]`, or leave it out for 2xx and 3xx",
        ),
        (
            "health = { body = \"\" }",
            "the empty text is in every body",
            "write what the body must have in it, or leave `body` out",
        ),
        (
            "health = { body = \"a\", body_matches = \"b\" }",
            "a check has `body` and `body_matches`",
            "remove one of them; the regular expression can say both",
        ),
        (
            "health = { body = \"a\", method = \"HEAD\" }",
            "an answer to HEAD has no body",
            "write `method = \"GET\"`, or remove it",
        ),
        ("health = { port = 0 }", "`port` cannot be 0", "write a number from 1 to 65535"),
        ("health = { rise = 0 }", "`rise` cannot be 0", "write a number from 1 to 100"),
        (
            "health = { interval = 5 }",
            "`interval` takes a duration with its unit, not a number",
            "write `\"5s\"` or `\"5ms\"`",
        ),
        (
            "health = { intervall = \"5s\" }",
            "unknown key `intervall` in `health`",
            "did you mean `interval`?",
        ),
        (
            "ejection = true",
            "`ejection` takes a table or `false`, not `true`",
            "write `ejection = { failures = 5 }`",
        ),
        ("ejection = { rate = 30 }", "`rate` cannot be 30", "write a number from 0 to 1"),
        (
            "ejection = { rate = \"30%\" }",
            "`rate` takes a number, not a string",
            "write a number from 0 to 1",
        ),
        (
            "ejection = { status = [\"2xx\"] }",
            "`2xx` is not within 400 to 599",
            "write such as `400`, `4xx` or `400-599`",
        ),
        (
            "ejection = { failures = -1 }",
            "`failures` cannot be -1",
            "write a number from 0 to 10000",
        ),
        (
            "ejection = { max_time = \"1s\" }",
            "the longest ejection is shorter than the first",
            "write a `max_time` that is at least `time`",
        ),
        ("panic = 1.5", "`panic` cannot be 1.5", "write a number from 0 to 1"),
        ("panic = true", "`panic` takes a number, not `true`", "write a number from 0 to 1"),
        (
            "retry = 3",
            "`retry` takes a table or `false`, not a number",
            "write `retry = { attempts = 3 }`",
        ),
        ("retry = { attempts = 0 }", "`attempts` cannot be 0", "write a number from 1 to 10"),
        ("retry = { on = [200] }", "`on` cannot be 200", "write a number from 400 to 599"),
        ("retry = { on = [\"504-502\"] }", "`504-502` ends before it begins", "write `502-504`"),
        ("retry = { buffer = \"17MiB\" }", "17825792 bytes are too many", "write at most `16MiB`"),
        (
            "retry = { hold = 16777217 }",
            "`hold` cannot be 16777217",
            "write a number from 0 to 16777216",
        ),
        (
            "retry = { hold = \"64KB\" }",
            "`64KB` is not a size",
            "write a whole number of `B`, `KiB`, `MiB` or `GiB`, such as `10MiB`",
        ),
        (
            "retry = { timeout = \"0s\" }",
            "`0s` leaves no time at all",
            "write at least `1ms`; a timeout cannot be turned off",
        ),
        (
            "limits = { requests = 0 }",
            "`requests` cannot be 0",
            "write a number from 1 to 10000000",
        ),
        (
            "limits = { max_requests = 1 }",
            "unknown key `max_requests` in `limits`",
            "did you mean `requests`?",
        ),
        ("queue = { order = \"lifo\" }", "unknown order `lifo`", "did you mean `fifo`?"),
        (
            "queue = { size = 1000001 }",
            "`size` cannot be 1000001",
            "write a number from 0 to 1000000",
        ),
        (
            "slow_start = 30",
            "`slow_start` takes a duration with its unit, not a number",
            "write `\"30s\"` or `\"30ms\"`",
        ),
        (
            "slow_start = { time = \"1s\", curve = 0 }",
            "`curve` cannot be 0",
            "write a number from 0.1 to 10",
        ),
        (
            "timeouts = 1",
            "`timeouts` takes a table, not a number",
            "write `timeouts = { connect = \"2s\" }`",
        ),
        (
            "panic = .5",
            "invalid mantissa",
            "write digits on both sides of the point, such as `0.5`",
        ),
    ] {
        let [title, place, help] = faults(&with(rest)).try_into().unwrap();
        assert_eq!([title.as_str(), help.as_str()], [fault, advice], "{rest}");
        assert!(place.starts_with("t.toml:4:"), "{rest}: {place}");
    }
}

#[test]
fn a_wrong_regular_expression_says_where() {
    let found = faults(&with("health.body_matches = \"(ok\""));
    assert!(found[0].starts_with("`(ok` is not a regular expression: "), "{found:?}");
}

#[test]
fn a_secret_out_of_the_environment_is_never_shown() {
    let report = wrong(&with("sticky = { cookie = \"a\", secret = \"${PORT}\" }"));
    assert!(report.contains("error: the secret has only 4 bytes"), "{report}");
    assert!(report.contains("`openssl rand -hex 16`") && !report.contains("8001"), "{report}");
}

#[test]
fn endpoints_routes_and_listeners_have_new_keys_with_faults() {
    let endpoint =
        |keys: &str| with("").replace("\"b:1\"", &format!("{{ url = \"b:1\", {keys} }}"));
    let route = |keys: &str| with("") + "[[routes]]\nupstream = \"app\"\n" + keys;
    let listener =
        |keys: &str| with("").replace("[upstreams.app]", &format!("{keys}\n[upstreams.app]"));
    for (text, fault) in [
        (endpoint("priority = 256"), "`priority` cannot be 256"),
        (endpoint("priority = 1, backup = true"), "an endpoint has a `priority` and is a `backup`"),
        (endpoint("backup = 1"), "`backup` takes true or false, not a number"),
        (endpoint("max_requests = 0"), "`max_requests` cannot be 0"),
        (endpoint("max_connection = 1"), "unknown key `max_connection` in an endpoint"),
        (route("hedge = 50"), "`hedge` takes a duration with its unit, not a number"),
        (route("hedge = \"p99\""), "`p99` is no time to wait for"),
        (route("idempotent = \"yes\""), "`idempotent` takes true or false, not a string"),
        (listener("max_connections_per_client = 0"), "`max_connections_per_client` cannot be 0"),
    ] {
        let found = faults(&text);
        assert!(found.len() == 3 && found[0] == fault, "{text}\n{found:?}");
    }
}
