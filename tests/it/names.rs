//! Endpoints by name: a name is one endpoint, and one that does not resolve yet stops nobody.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Backend, Client, Tinylb, config, eventually};

fn at_localhost(backend: &Backend) -> String {
    format!("http://localhost:{}", backend.address().port())
}

/// localhost is often `::1` first, and the usual backend listens on 127.0.0.1 only.
#[test]
fn the_addresses_of_a_name_are_alternatives() {
    let backend = Backend::named("found");
    let tinylb = Tinylb::start(&[at_localhost(&backend)], &["--access-log", "json"]);
    for i in 0..20 {
        assert_eq!(tinylb.get(&format!("/{i}!")).text(), "found");
    }
    tinylb.wait_for_access("/19!");
    let lines: Vec<serde_json::Value> =
        tinylb.access.all().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let endpoints: std::collections::HashSet<_> =
        lines.iter().map(|line| line["endpoint"].as_str().unwrap_or_default()).collect();
    assert_eq!(endpoints.len(), 1, "one endpoint: {endpoints:?}");
    assert!(lines.iter().all(|line| line["status"] == 200));
}

#[test]
fn three_at_localhost_get_a_third_each() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let urls = [0, 1, 2].map(|i| at_localhost(&backends[i]));
    let tinylb = Tinylb::start(&urls, &["--policy", "random"]);
    let mut client = tinylb.connect();
    for _ in 0..1500 {
        assert_eq!(client.get("/").status, 200);
    }
    let counts = backends.each_ref().map(|backend| backend.requests().len());
    let chi: f64 = counts.iter().map(|n| (*n as f64 - 500.0).powi(2) / 500.0).sum();
    // Two degrees of freedom: one in a million is above 27.6.
    assert!(chi < 27.6, "{counts:?}");
}

#[test]
fn the_hosts_name_is_what_the_endpoint_mode_sends() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::start(&[at_localhost(&backend)], &["--host", "endpoint"]);
    assert_eq!(tinylb.get("/").status, 200);
    let expected = format!("localhost:{}", backend.address().port());
    assert_eq!(backend.request().head.get("host"), Some(expected.as_str()));
}

#[test]
fn a_name_that_does_not_resolve_is_a_warning_and_others_answer() {
    let backend = Backend::named("here");
    for policy in ["random", "round-robin", "least-requests", "p2c"] {
        let urls = ["http://nope.invalid:8001".to_owned(), backend.url()];
        let tinylb = Tinylb::start(&urls, &["--policy", policy]);
        for _ in 0..20 {
            assert_eq!(tinylb.get("/").text(), "here", "{policy}");
        }
        let warning = tinylb.wait_for_log("nope.invalid");
        assert!(warning.contains("WARN"), "{warning}");
    }
}

#[test]
fn no_name_that_resolves_is_said_so() {
    let tinylb = Tinylb::start(&["http://nope.invalid:8001".to_owned()], &[]);
    let response = tinylb.get("/");
    assert!(matches!(response.status, 502 | 503), "{:?}", response.head.raw);
    let status = response.proxy_status();
    let words = ["error=dns_error", "error=destination_unavailable"];
    assert!(words.iter().any(|word| status.contains(word)), "{status}");
    assert!(!response.text().contains("nope.invalid"), "{:?}", response.text());
}

/// A file for `/etc/hosts`, removed when it is dropped.
struct Hosts(PathBuf);

impl Hosts {
    fn new(test: &str) -> Self {
        let name = format!("hosts-{}-{test}", std::process::id());
        let hosts = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        hosts.have(&[]);
        hosts
    }

    /// Lets `app.test` have these addresses. The file stays the same one, which is mounted.
    fn have(&self, addresses: &[&str]) {
        let line = |address: &&str| format!("{address} app.test\n");
        let lines: String = addresses.iter().map(line).collect();
        std::fs::write(&self.0, format!("127.0.0.1 localhost\n{lines}")).unwrap();
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The state of each endpoint by its label.
fn states(tinylb: &Tinylb) -> BTreeMap<String, String> {
    let json: Value = serde_json::from_str(&tinylb.admin("/endpoints").text()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let endpoints = json["upstreams"][0]["endpoints"].as_array().unwrap();
    endpoints.iter().map(|e| (text(&e["endpoint"]), text(&e["state"]))).collect()
}

#[track_caller]
fn wait_for_states(tinylb: &Tinylb, expected: &[(&str, &str)]) {
    let expected = expected.iter().map(|(l, s)| ((*l).to_owned(), (*s).to_owned())).collect();
    let mut last = BTreeMap::new();
    eventually(&format!("the states are {expected:?}"), || {
        last = states(tinylb);
        (last == expected).then_some(())
    });
}

/// An address of a name is the same endpoint however many addresses the name has: its state, its
/// sessions and its label stay when another one goes or comes.
#[test]
fn an_address_that_comes_or_goes_leaves_the_others_as_they_are() {
    let (a, b) = eventually("one port is free at both addresses", || {
        let b = Backend::named_at(([127, 0, 0, 12], 0), "b")?;
        Some((Backend::named_at(([127, 0, 0, 11], b.address().port()), "a")?, b))
    });
    let port = b.address().port();
    let hosts = Hosts::new("come-and-go");
    hosts.have(&["127.0.0.11", "127.0.0.12"]);
    let url = format!("http://app.test:{port}");
    let labels = [format!("{url}#127.0.0.11"), format!("{url}#127.0.0.12")];
    let [first, second] = labels.each_ref().map(String::as_str);
    let upstream = "resolve = \"100ms\"\nsticky = { cookie = \"s\" }\npanic = false";
    let text = config(std::slice::from_ref(&url), "", upstream);
    let Some(tinylb) = Tinylb::run_with_hosts(&text, &hosts.0) else { return };
    wait_for_states(&tinylb, &[(first, "up"), (second, "up")]);
    let cookie = eventually("a session begins at b", || {
        let response = tinylb.get("/");
        let cookie = response.head.get("set-cookie")?.split(';').next()?.to_owned();
        (response.text() == "b").then_some(cookie)
    });
    let operate = |verb: &str, endpoint: &str| {
        let mut client = Client::connect(tinylb.admin_address());
        let endpoint = endpoint.replace('#', "%23");
        let target = format!("/{verb}?upstream=app&endpoint={endpoint}");
        client.send(format!("POST {target} HTTP/1.1\r\nHost: admin\r\n\r\n"));
        client.response().status
    };
    let assert_session_at_b = || {
        let mut client = tinylb.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n"));
        let response = client.response();
        assert_eq!((response.text().as_str(), response.head.get("set-cookie")), ("b", None));
    };
    assert_eq!(operate("drain", &url), 404, "which of the two?");
    assert_eq!(operate("drain", second), 200);
    wait_for_states(&tinylb, &[(first, "up"), (second, "draining")]);
    hosts.have(&["127.0.0.12"]);
    wait_for_states(&tinylb, &[(second, "draining")]);
    assert_session_at_b();
    hosts.have(&["127.0.0.12", "127.0.0.11"]);
    wait_for_states(&tinylb, &[(first, "up"), (second, "draining")]);
    assert_session_at_b();
    assert_eq!(tinylb.get("/").text(), "a");
    hosts.have(&["127.0.0.12"]);
    wait_for_states(&tinylb, &[(second, "draining")]);
    assert_eq!(operate("undrain", &url), 200, "the only one of the URL");
    wait_for_states(&tinylb, &[(second, "up")]);
    drop(a);
}
