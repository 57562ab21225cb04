//! Every file in `examples/` can be run, `full.toml` tells the truth about the defaults, and the
//! reference in `docs/` leaves nothing out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is a failure of the test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use tinylb::config::{
    self, Check, Config, DEFAULT_ADMIN, Drain, Health, HttpCheck, Listener, Log, Policy, ServerTls,
    Sticky, Upstream,
};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn example(name: &str) -> Config {
    config::load(&directory().join(name)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_example_is_right_and_raises_no_doubt() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        let (_, doubts) = config::load_with_doubts(&path).unwrap_or_else(|error| panic!("{error}"));
        assert!(doubts.is_empty(), "{doubts}");
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(
        names,
        [
            "article.toml",
            "full.toml",
            "minimal.toml",
            "protocols.toml",
            "resilience.toml",
            "routes.toml"
        ]
    );
}

#[test]
fn the_full_example_shows_the_defaults() {
    let full = example("full.toml");
    assert_eq!(full.workers, Some(2));
    assert_eq!(full.admin, Some(DEFAULT_ADMIN));
    assert_eq!((full.log, full.drain), (Log::default(), Drain::default()));
    assert_eq!(full.listeners, [Listener::new(":8080".parse().unwrap())]);
    let [upstream] = full.upstreams.try_into().unwrap();
    assert_eq!(upstream, Upstream::new("api", upstream.endpoints.clone()));
}

/// Comments are examples of keys: without their marks the file is right, and what they call a
/// default is one.
#[test]
fn the_full_example_is_right_with_its_comments_too() {
    let full = std::fs::read_to_string(directory().join("full.toml")).unwrap();
    let is_key = |text: &str| {
        let word = |b: u8| b.is_ascii_lowercase() || b == b'_';
        text.starts_with(['[', '{'])
            || text.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(word))
    };
    // Each stands instead of another one.
    let others = ["body", "redirect_https", "certificates", "self_signed", "service"];
    let is_other =
        |text: &str| text.split_once(" = ").is_some_and(|(key, _)| others.contains(&key));
    let plain = |line: &str| match line.trim_start().strip_prefix("# ") {
        Some(text) if is_other(text) => String::new(),
        Some(text) if is_key(text) => text.to_owned(),
        _ => line.to_owned(),
    };
    let text: Vec<_> = full.lines().map(plain).collect();
    let env = |name: &str| (name == "STICKY_SECRET").then(|| "0123456789abcdef".to_owned());
    let config = config::parse("full.toml", &text.join("\n"), &env);
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    let [listener] = config.listeners.try_into().unwrap();
    assert!(listener.max_connections_per_client.is_some() && listener.max_body.is_some());
    let tls = listener.tls.unwrap();
    let [certificate] = tls.certificates.clone().try_into().unwrap();
    assert!(certificate.ocsp.is_some() && tls.hsts.is_some() && tls.client.unwrap().required);
    assert_eq!(tls.min_version, ServerTls::new(Vec::new()).min_version);
    assert!(config.routes[0].host.is_some() && config.routes[0].hedge.is_some());
    let [upstream] = config.upstreams.try_into().unwrap();
    assert!(upstream.endpoints.last().unwrap().max_requests.is_some());
    assert!(upstream.proxy_protocol.is_some() && upstream.tls.identity.is_some());
    assert!(upstream.tls.ca.is_some() && !upstream.tls.insecure_skip_verify);
    assert!(upstream.retry.timeout.is_some() && upstream.limits.endpoint_connections.is_some());
    assert_eq!(upstream.slow_start.unwrap().curve, 1.0);
    assert_eq!(upstream.sticky.unwrap().same_site, Sticky::new("x").same_site);
    let health = upstream.health.unwrap();
    let Check::Http(check) = health.check.clone() else { panic!("{health:?}") };
    let check = HttpCheck { host: None, headers: Vec::new(), body: None, ..check };
    let health = Health { check: Check::Http(check), port: None, ..health };
    assert_eq!(health, Health::new(Check::Http(HttpCheck::default())));
}

#[test]
fn the_article_example_is_the_article() {
    let article = example("article.toml");
    assert_eq!(article.listeners, [Listener::new(":8080".parse().unwrap())]);
    let [upstream] = article.upstreams.try_into().unwrap();
    assert_eq!(upstream.policy, Policy::Random);
    let urls: Vec<_> = upstream.endpoints.iter().map(|e| (e.url.to_string(), e.weight)).collect();
    let url = |port| (format!("http://localhost:{port}"), 1);
    assert_eq!(urls, [url(8001), url(8002), url(8003)]);
}

#[test]
fn without_routes_everything_goes_to_the_only_upstream() {
    let minimal = example("minimal.toml");
    let [route] = minimal.routes.try_into().unwrap();
    assert_eq!((route.host, route.path.as_str(), route.upstream), (None, "/", 0));
}

#[test]
fn the_reference_has_every_key_and_every_option() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let reference = std::fs::read_to_string(reference).unwrap();
    let full = std::fs::read_to_string(directory().join("full.toml")).unwrap();
    let keys: Vec<_> = full
        .lines()
        .filter_map(|line| line.trim_start_matches("# ").split_once(" = "))
        .map(|(key, _)| key)
        .filter(|key| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        .collect();
    assert!(keys.len() > 20, "{keys:?}");
    for key in keys {
        assert!(reference.contains(&format!("| `{key}` | ")), "{key}");
    }
    for command in [&["--help"][..], &["run", "--help"], &["check", "--help"], &["demo", "--help"]]
    {
        let help = Command::new(env!("CARGO_BIN_EXE_tinylb")).args(command).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        for option in help.split_whitespace().filter(|word| word.starts_with("--")) {
            let known = ["--help", "--version"].contains(&option) || reference.contains(option);
            assert!(known, "{option} of {command:?}");
        }
    }
}
