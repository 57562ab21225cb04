//! The reader of the configuration from outside: what it makes of a file, and the report of what
//! is wrong with one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is a failure of the test")]

mod doubts;
mod faults;
mod properties;
mod protocol_faults;
mod protocols;
mod resilience;

use std::time::Duration;

use tinylb::config::{self, AccessLog, Config, HostMode, LogLevel, Policy};

/// The least that is right, for tests to add to.
const LEAST: &str = "\
[[listeners]]
address = \":8080\"

[upstreams.app]
endpoints = [\"http://a:1\"]
";

fn env(name: &str) -> Option<String> {
    (name == "PORT").then(|| "8001".to_owned())
}

#[track_caller]
fn right(text: &str) -> Config {
    config::parse("t.toml", text, &env).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn wrong(text: &str) -> String {
    config::parse("t.toml", text, &env).unwrap_err().to_string()
}

/// The titles, places and advice of a report, one line each.
#[track_caller]
fn faults(text: &str) -> Vec<String> {
    let report = wrong(text);
    let shown = |line: &str| {
        let line = line.trim_start();
        ["error: ", "--> ", "= help: "]
            .iter()
            .find_map(|mark| line.strip_prefix(mark).map(str::to_owned))
    };
    report.lines().filter_map(shown).collect()
}

#[test]
fn every_key_reaches_the_model() {
    let config = right(
        r#"
workers = 3
admin.listen = "off"
admin.hosts = ["LB.example.com", "${PORT}.internal"]
log = { access = "json", level = "debug" }
drain = { timeout = "1m 30s", delay = "5s" }

[[listeners]]
address = "[::1]:8443"
trusted_proxies = ["10.0.0.0/8", "fd00::1"]
max_connections = 10
max_body = "10MiB"
half_close = true
timeouts = { head = "1s", idle = "2s", body = "3s", tunnel = "4s" }

[[listeners]]
address = ":8080"
max_body = 1000

[[routes]]
host = "*.Example.com"
path = "/v1/"
upstream = "b"

[[routes]]
upstream = "a"

[upstreams.b]
policy = "least-requests"
host = "endpoint"
forwarded = true
via = false
resolve = "1m"
endpoints = [{ url = "http://b:${PORT}/base/", weight = 0 }, "10.0.0.1:${NO:-80}"]
timeouts = { connect = "1s", response = "2s", body = "3s", idle = "4s" }

[upstreams.a]
endpoints = ["http://a"]
"#,
    );
    assert_eq!((config.workers, config.admin), (Some(3), None));
    assert_eq!(config.admin_hosts.join(" "), "lb.example.com 8001.internal");
    assert_eq!((config.log.access, config.log.level), (AccessLog::Json, LogLevel::Debug));
    let seconds = Duration::from_secs;
    assert_eq!((config.drain.timeout, config.drain.delay), (seconds(90), seconds(5)));

    let [first, second] = config.listeners.try_into().unwrap();
    assert_eq!(first.address.to_string(), "[::1]:8443");
    let networks: Vec<_> = first.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "fd00::1/128"]);
    assert_eq!((first.max_connections, first.max_body), (Some(10), Some(10 << 20)));
    let t = first.timeouts;
    assert_eq!([t.head, t.idle, t.body, t.tunnel], [1, 2, 3, 4].map(seconds));
    assert_eq!(second.max_body, Some(1000));
    assert_eq!((first.half_close, second.half_close), (true, false));

    // In the order of the file, not of the alphabet.
    let [b, a] = config.upstreams.try_into().unwrap();
    assert_eq!((b.name.as_str(), a.name.as_str()), ("b", "a"));
    assert_eq!((b.policy, b.host, b.forwarded), (Policy::LeastRequests, HostMode::Endpoint, true));
    assert_eq!((b.resolve, b.via, a.via), (seconds(60), false, true));
    let t = b.timeouts;
    assert_eq!([t.connect, t.response, t.body, t.idle], [1, 2, 3, 4].map(seconds));
    let urls: Vec<_> = b.endpoints.iter().map(|e| (e.url.to_string(), e.weight)).collect();
    assert_eq!(urls, [("http://b:8001/base/".into(), 0), ("http://10.0.0.1:80".into(), 1)]);
    let routes: Vec<_> = config.routes.iter().map(|r| (r.to_string(), r.upstream)).collect();
    assert_eq!(routes, [("*.example.com/v1/".into(), 0), ("/".into(), 1)]);
}

#[test]
fn a_report_shows_the_line_the_caret_and_what_to_write() {
    assert_eq!(
        wrong(&format!("{LEAST}policyy = \"p2c\"\n")),
        "\
error: unknown key `policyy` in [upstreams.app]
 --> t.toml:6:1
  |
6 | policyy = \"p2c\"
  | ^^^^^^^
  |
  = help: did you mean `policy`?

t.toml: 1 error"
    );
}

#[test]
fn a_report_shows_both_places_of_a_collision() {
    assert_eq!(
        wrong(&format!("{LEAST}\n[[listeners]]\naddress = \"127.0.0.1:8080\"\n")),
        "\
error: the listeners :8080 and 127.0.0.1:8080 collide
 --> t.toml:8:11
  |
2 | address = \":8080\"
  |           ------- the other
...
8 | address = \"127.0.0.1:8080\"
  |           ^^^^^^^^^^^^^^^^
  |
  = help: remove one of them, or give it another port

t.toml: 1 error"
    );
}

#[test]
fn a_pattern_in_a_path_says_what_to_write() {
    assert_eq!(
        wrong(&format!("{LEAST}\n[[routes]]\npath = \"/api/*\"\nupstream = \"app\"\n")),
        "\
error: the path `/api/*` has a `*`: paths are prefixes, not patterns
 --> t.toml:8:8
  |
8 | path = \"/api/*\"
  |        ^^^^^^^^
  |
  = help: write `/api/`, which is for everything below it

t.toml: 1 error"
    );
}

#[test]
fn all_faults_are_shown_at_once_in_the_order_of_the_file() {
    let text = r#"
workers = 0
[log]
access = "jsn"
[drain]
timeout = 30
[[listeners]]
adress = ":8080"
max_connections = 0
[[routes]]
path = "v1"
upstream = "app"
[upstreams.app]
endpoints = ["ftp://a", "http://${MISSING}:1"]
forwarded = "yes"
"#;
    assert_eq!(
        faults(text),
        [
            "`workers` cannot be 0",
            "t.toml:2:11",
            "write a number from 1 to 1024",
            "unknown access log format `jsn`",
            "t.toml:4:10",
            "did you mean `json`?",
            "`timeout` takes a duration with its unit, not a number",
            "t.toml:6:11",
            "write `\"30s\"` or `\"30ms\"`",
            "[[listeners]] has no `address`",
            "t.toml:7:1",
            "write `address = \":8080\"`",
            "unknown key `adress` in [[listeners]]",
            "t.toml:8:1",
            "did you mean `address`?",
            "`max_connections` cannot be 0",
            "t.toml:9:19",
            "write a number from 1 to 10000000",
            "the path `v1` does not begin with a slash",
            "t.toml:11:8",
            "write `/v1`",
            "`ftp://a` asks for `ftp`",
            "t.toml:14:14",
            "write `http://a`, or `https://…` or `h2c://…`",
            "the environment has no variable `MISSING`",
            "t.toml:14:33",
            "set it, or write a default: `${MISSING:-default}`",
            "`forwarded` takes true or false, not a string",
            "t.toml:15:13",
            "write `true` or `false`, without quotes",
        ]
    );
}

#[test]
fn faults_of_the_toml_have_places_too() {
    assert_eq!(
        faults("[log]\naccess = json\nlevel = info\nlevel = \"info\"\n"),
        [
            "string values must be quoted",
            "t.toml:2:10",
            "write `\"json\"`",
            "string values must be quoted",
            "t.toml:3:9",
            "write `\"info\"`",
            "duplicate key",
            "t.toml:4:1",
            "remove one of the two `level`",
        ]
    );
}

#[test]
fn values_of_another_type_say_which_is_wanted() {
    for (text, fault) in [
        ("listeners = 1", "`listeners` takes a list, not a number"),
        ("[listeners]\naddress = \":80\"", "`listeners` takes a list, not a table"),
        ("listeners = [1]", "`listeners` takes a table, not a number"),
        ("upstreams = []", "`upstreams` takes a table, not a list"),
        ("[upstreams]\napp = \"http://a\"", "`app` takes a table, not a string"),
        ("[upstreams.app]\nendpoints = \"http://a\"", "`endpoints` takes a list, not a string"),
        ("[upstreams.app]\nendpoints = [1]", "`endpoints` takes a string, not a number"),
        ("[upstreams.app]\nresolve = 2024-01-01", "`resolve` takes a string, not a date"),
        ("workers = 1.5", "`workers` takes a whole number, not a number"),
    ] {
        assert!(faults(text).iter().any(|f| f == fault), "{text}: {:?}", faults(text));
    }
}

#[test]
fn what_cannot_work_is_refused() {
    let route = |rest: &str| format!("{LEAST}\n[[routes]]\nupstream = \"app\"\n{rest}");
    let listener = |rest: &str| format!("{LEAST}\n[[listeners]]\n{rest}");
    let upstream =
        |rest: &str| format!("[[listeners]]\naddress = \":8080\"\n[upstreams.app]\n{rest}");
    for (text, fault) in [
        (String::new(), "there is nothing to listen on"),
        (String::new(), "there is nothing to send requests to"),
        (listener("address = \":8080\""), "the listeners :8080 and :8080 collide"),
        (listener("address = \"0.0.0.0:8080\""), "the listeners :8080 and 0.0.0.0:8080 collide"),
        (
            listener("address = \":9900\""),
            "the admin address 127.0.0.1:9900 and the listener :9900 collide",
        ),
        (
            format!("{LEAST}[admin]\nlisten = \"127.0.0.1:8080\""),
            "the admin address 127.0.0.1:8080 and the listener :8080 collide",
        ),
        (
            format!("{LEAST}[admin]\nhosts = [\"*.example.com\"]"),
            "`*.example.com` is not a host name",
        ),
        (format!("{LEAST}[admin]\nhosts = [\"lb:9900\"]"), "`lb:9900` is not a host name"),
        (route("[[routes]]\nupstream = \"ap\""), "unknown upstream `ap`"),
        (route("[[routes]]\nupstream = \"app\""), "this route is written twice"),
        (
            route("[[routes]]\npath=\"/\"\nupstream = \"b\"\n[upstreams.b]\nendpoints=[\"b:1\"]"),
            "this route is never reached",
        ),
        (
            route(
                "[[routes]]\npath=\"/v\"\nupstream=\"app\"\n[[routes]]\npath=\"/v/\"\nupstream=\"app\"",
            ),
            "this route is written twice",
        ),
        (
            format!("{LEAST}[upstreams.b]\nendpoints=[\"b:1\"]"),
            "there are several upstreams and no routes",
        ),
        (upstream("endpoints = []"), "the upstream `app` has no endpoints"),
        (upstream(""), "[upstreams.app] has no `endpoints`"),
        (
            upstream("endpoints = [{ url = \"a:1\", weight = 0 }]"),
            "no endpoint of the upstream `app` can be picked",
        ),
        (upstream("endpoints = [{ url = \"a:1\", weight = 257 }]"), "`weight` cannot be 257"),
        (upstream("endpoints = [{ weight = 1 }]"), "an endpoint has no `url`"),
        (
            upstream("endpoints = [\"a:1\", \"http://A:1/\"]"),
            "the endpoint http://a:1/ is listed twice",
        ),
        (
            upstream("endpoints = [\"localhost:8080\"]"),
            "the endpoint http://localhost:8080 is this balancer itself",
        ),
        (format!("{LEAST}[upstreams.\"a b\"]\nendpoints=[\"b:1\"]"), "`a b` cannot be a name"),
        (upstream("endpoints=[\"a:1\"]\ntimeouts.connect = \"0s\""), "`0s` leaves no time at all"),
    ] {
        assert!(faults(&text).iter().any(|f| f == fault), "{text}\n{:?}", faults(&text));
    }
}

#[test]
fn one_fault_does_not_cause_others() {
    for text in [
        // The listener exists, only its address is wrong.
        LEAST.replace("\":8080\"", "\"8080\""),
        // The endpoint exists, only its URL is wrong.
        LEAST.replace("http://a:1", "ftp://a:1"),
        // A route whose host is wrong is not a second route for any host.
        format!("{LEAST}[[routes]]\nupstream=\"app\"\n[[routes]]\nhost=\"*\"\nupstream=\"app\""),
        // An upstream that is wrong inside is still known to routes.
        format!("{LEAST}policy=\"p3c\"\n[[routes]]\nupstream=\"app\""),
    ] {
        assert!(wrong(&text).ends_with("t.toml: 1 error"), "{}", wrong(&text));
    }
}

#[test]
fn several_listeners_can_share_a_port_on_other_addresses() {
    let listen = |address: &str| format!("[[listeners]]\naddress = \"{address}\"\n");
    let rest = "[upstreams.app]\nendpoints = [\"http://a:1\"]\n";
    for (a, b) in [
        ("127.0.0.1:80", "127.0.0.2:80"),
        ("0.0.0.0:80", "[::1]:80"),
        (":0", ":0"),
        ("127.0.0.1:0", "127.0.0.1:0"),
    ] {
        right(&format!("{}{}{rest}", listen(a), listen(b)));
    }
}

#[test]
fn files_that_are_no_configuration_are_refused_whole() {
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let load = |name: &str, bytes: Option<&[u8]>| {
        let path = directory.join(format!("config-{}-{name}", std::process::id()));
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).unwrap();
        }
        let report = config::load(&path).unwrap_err().to_string();
        let _ = std::fs::remove_file(&path);
        report
    };
    let large = vec![b'#'; config::MAX_FILE + 1];
    assert!(load("large.toml", Some(&large)).contains("the file is larger than 1024 KiB"));
    assert!(load("latin1.toml", Some(b"# \xe4")).contains("the file is not UTF-8 from byte 2"));
    assert!(load("missing.toml", None).contains("the file cannot be read: No such file"));
    let report = config::load(directory).unwrap_err().to_string();
    assert!(report.contains("the file cannot be read: Is a directory"), "{report}");
}

#[test]
fn reports_obey_no_terminal() {
    let report = wrong(
        "\"\\u001b[31m\" = 1\n[upstreams.\"\\u001b]0;x\\u0007\"]\nendpoints = [\"\\u001b[1m\"]\n",
    );
    assert!(!report.contains('\u{1b}') && !report.contains('\u{7}'), "{report}");
}
