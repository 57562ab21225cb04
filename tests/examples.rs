//! Every file in `examples/` can be run, and `full.toml` tells the truth about the defaults.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is a failure of the test")]

use std::path::{Path, PathBuf};

use tinylb::config::{self, Config, DEFAULT_ADMIN, Drain, Listener, Log, Policy, Upstream};

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
    assert_eq!(names, ["article.toml", "full.toml", "minimal.toml", "routes.toml"]);
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
