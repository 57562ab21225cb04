//! Endpoints by name: a name is one endpoint, and one that does not resolve yet stops nobody.

use crate::support::{Backend, Tinylb};

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
