//! What a file says about health, failures, limits and clients that stay: every key, every
//! shorthand, and the defaults.

use std::time::Duration;

use tinylb::config::{
    BACKUP, BodyMatch, Check, Config, Ejection, GrpcStatuses, Hash, HashKey, Health, Hedge,
    HttpCheck, Limits, Policy, Queue, QueueOrder, Retry, SameSite, SlowStart, Statuses, Sticky,
    Upstream,
};

use super::right;

/// A file in which the only upstream has `rest`.
pub(super) fn with(rest: &str) -> String {
    format!(
        "[[listeners]]\naddress = \":8080\"\n[upstreams.app]\n{rest}\n\
         endpoints = [\"a:1\", \"b:1\"]\n"
    )
}

/// The only upstream of a file in which it has `rest`.
#[track_caller]
fn upstream(rest: &str) -> Upstream {
    only(right(&with(rest)))
}

#[track_caller]
fn only(config: Config) -> Upstream {
    let [upstream] = config.upstreams.try_into().unwrap();
    upstream
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

#[test]
fn every_key_reaches_the_model() {
    let config = right(
        r#"
[[listeners]]
address = ":8080"
max_connections_per_client = 100

[[routes]]
upstream = "app"
idempotent = true
hedge = "p95"

[[routes]]
path = "/slow"
upstream = "app"
hedge = "50ms"

[upstreams.app]
policy = "consistent-hash"
hash = { on = "header:X-User", bound = 2 }
endpoints = [
    { url = "a:1", weight = 3, max_requests = 10, max_connections = 5, priority = 1 },
    { url = "b:1", backup = true },
    { url = "c:1", drain = true, backup = false },
]
panic = 0.25
limits = { requests = 100, connections = 90, endpoint_requests = 80, endpoint_connections = 70, adaptive = true }
queue = { size = 10, timeout = "2s", order = "fifo" }
slow_start = { time = "30s", curve = 0.5 }

[upstreams.app.sticky]
cookie = "SID"
secret = "0123456789abcde${PORT}"
max_age = "1h"
same_site = "strict"

[upstreams.app.health]
type = "http"
method = "OPTIONS"
path = "/healthz?full"
host = "api.internal:80"
headers = { X-Check = "1", Accept = "text/plain" }
status = [204, "300-399", "2xx"]
body_matches = '^ok\b'
port = 8081
interval = "10s"
timeout = "2s"
rise = 4
fall = 5

[upstreams.app.ejection]
failures = 7
rate = 0.5
status = ["502-504", 500]
time = "1s"
max_time = "1m"
max_share = 1

[upstreams.app.retry]
attempts = 5
on = ["503", "5xx"]
timeout = "3s"
budget = 0.1
buffer = "1MiB"
hold = 1000
"#,
    );
    assert_eq!(config.listeners[0].max_connections_per_client, Some(100));
    let routes: Vec<_> = config.routes.iter().map(|r| (r.idempotent, r.hedge)).collect();
    let after = Hedge::After(Duration::from_millis(50));
    assert_eq!(routes, [(true, Some(Hedge::P95)), (false, Some(after))]);

    let app = only(config);
    assert_eq!(app.policy, Policy::ConsistentHash);
    assert_eq!(app.hash, Hash { on: HashKey::Header("x-user".into()), bound: 2.0 });
    let of: Vec<_> = app.endpoints.iter().map(|e| (e.weight, e.priority, e.drain)).collect();
    assert_eq!(of, [(3, 1, false), (1, BACKUP, false), (1, 0, true)]);
    let first = &app.endpoints[0];
    assert_eq!((first.max_requests, first.max_connections), (Some(10), Some(5)));
    assert_eq!(app.panic, Some(0.25));
    let limits = Limits {
        requests: Some(100),
        connections: Some(90),
        endpoint_requests: Some(80),
        endpoint_connections: Some(70),
        adaptive: true,
    };
    assert_eq!(app.limits, limits);
    assert_eq!(app.queue, Queue { size: 10, timeout: seconds(2), order: QueueOrder::Fifo });
    assert_eq!(app.slow_start, Some(SlowStart { time: seconds(30), curve: 0.5 }));
    let sticky = Sticky {
        cookie: "SID".into(),
        secret: Some("0123456789abcde8001".into()),
        max_age: Some(seconds(3600)),
        same_site: SameSite::Strict,
    };
    assert_eq!(app.sticky, Some(sticky));
    let check = HttpCheck {
        method: "OPTIONS".into(),
        path: "/healthz?full".into(),
        host: Some("api.internal:80".into()),
        headers: vec![("X-Check".into(), "1".into()), ("Accept".into(), "text/plain".into())],
        status: Statuses(vec![200..=399]),
        body: Some(BodyMatch::Matches(r"^ok\b".into())),
    };
    let health = Health {
        check: Check::Http(check),
        interval: seconds(10),
        timeout: seconds(2),
        rise: 4,
        fall: 5,
        port: Some(8081),
    };
    assert_eq!(app.health, Some(health));
    let ejection = Ejection {
        failures: 7,
        rate: 0.5,
        status: Statuses(vec![500..=500, 502..=504]),
        time: seconds(1),
        max_time: seconds(60),
        max_share: 1.0,
    };
    assert_eq!(app.ejection, Some(ejection));
    let retry = Retry {
        attempts: 5,
        on: Statuses(vec![500..=599]),
        timeout: Some(seconds(3)),
        budget: 0.1,
        buffer: 1 << 20,
        hold: 1000,
        grpc_on: GrpcStatuses::default(),
    };
    assert_eq!(app.retry, retry);
}

#[test]
fn what_is_left_out_has_its_default() {
    let app = upstream("");
    assert_eq!(app, Upstream::new("app", app.endpoints.clone()));
    for empty in ["ejection = {}", "retry = {}", "limits = {}", "queue = {}", "hash = {}"] {
        assert_eq!(upstream(empty), app, "{empty}");
    }
    let http = Health::new(Check::Http(HttpCheck::default()));
    assert_eq!(upstream("health = {}").health, Some(http.clone()));
    assert_eq!(upstream("health.status = [\"2xx\", \"3xx\"]").health, Some(http));
    assert_eq!(upstream("health.type = \"tcp\"").health, Some(Health::new(Check::Tcp)));
}

#[test]
fn shorthands_are_the_same_as_their_tables() {
    for (short, long) in [
        ("hash = \"path\"", "hash = { on = \"path\", bound = 1.5 }"),
        ("sticky = \"SID\"", "sticky = { cookie = \"SID\", same_site = \"lax\" }"),
        ("slow_start = \"30s\"", "slow_start = { time = \"30s\", curve = 1.0 }"),
        ("retry = false", "retry = { attempts = 1 }"),
        ("panic = 0", "panic = 0.0"),
    ] {
        assert_eq!(upstream(short), upstream(long), "{short}");
    }
    assert_eq!(upstream("ejection = false").ejection, None);
    assert_eq!(upstream("panic = false").panic, None);
    let file = with("").replace("\"b:1\"", "{ url = \"b:1\", priority = 255 }");
    assert_eq!(right(&file), right(&file.replace("priority = 255", "backup = true")));
}

#[test]
fn a_default_never_contradicts_what_is_written() {
    let health = upstream("health = { interval = \"200ms\" }").health.unwrap();
    assert_eq!(health.timeout, Duration::from_millis(200));
    let ejection = upstream("ejection = { time = \"10m\" }").ejection.unwrap();
    assert_eq!(ejection.max_time, seconds(600));
}
