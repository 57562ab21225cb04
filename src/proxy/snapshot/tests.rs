//! Routes, and what becomes of endpoints when names change.

use super::*;
use crate::config::{Drain, Log};

fn config(routes: &[(Option<HostPattern>, &str)], hosts: &[EndpointHost]) -> Config {
    let endpoint = |host: &EndpointHost| {
        let host = host.clone();
        config::Endpoint::new(EndpointUrl::http(host, 80))
    };
    Config {
        workers: None,
        admin: None,
        admin_hosts: vec![],
        log: Log::default(),
        drain: Drain::default(),
        listeners: vec![],
        routes: routes
            .iter()
            .map(|(host, path)| config::Route {
                host: host.clone(),
                path: (*path).into(),
                ..config::Route::any(0)
            })
            .collect(),
        upstreams: vec![config::Upstream::new("u", hosts.iter().map(endpoint).collect())],
    }
}

#[test]
fn the_most_specific_host_then_the_longest_path() {
    let exact = |h: &str| Some(HostPattern::Exact(h.into()));
    let suffix = |h: &str| Some(HostPattern::Suffix(h.into()));
    let routes = [
        (None, "/"),
        (None, "/v1/"),
        (exact("api.example.com"), "/v1"),
        (exact("api.example.com"), "/v1/users/"),
        (suffix(".example.com"), "/"),
        (suffix(".api.example.com"), "/v1"),
    ];
    let snapshot = Snapshot::build(
        &config(&routes, &[]),
        &Names::new(),
        &Clients::new(),
        &Snapshot::default(),
        1,
    );
    for (host, path, label) in [
        ("other", "/", "/"),
        ("other", "/v1", "/v1/"),
        ("other", "/v1/x", "/v1/"),
        ("API.example.com", "/v1/x", "api.example.com/v1"),
        ("api.example.com.", "/v1/users", "api.example.com/v1/users/"),
        ("api.example.com", "/v1/usersX", "api.example.com/v1"),
        ("api.example.com", "/v2", "*.example.com/"),
        ("www.example.com", "/v1", "*.example.com/"),
        ("x.api.example.com", "/v1/x", "*.api.example.com/v1"),
        ("example.com", "/v2", "/"),
        ("badexample.com", "/v2", "/"),
        ("", "/", "/"),
    ] {
        let route = snapshot.route(host.as_bytes(), path.as_bytes()).unwrap();
        assert_eq!(route.label, label, "{host}{path}");
    }
}

#[test]
fn state_survives_and_what_has_not_changed_stays_the_same_object() {
    let app = EndpointHost::Name("app".into());
    let ip = EndpointHost::Ip([10, 0, 0, 9].into());
    let config = config(&[(None, "/")], &[app, ip]);
    let names = |ips: &[[u8; 4]]| {
        Names::from([("app".to_owned(), ips.iter().map(|ip| (*ip).into()).collect())])
    };
    let one = Snapshot::build(
        &config,
        &names(&[[10, 0, 0, 1]]),
        &Clients::new(),
        &Snapshot::default(),
        1,
    );
    let same = Snapshot::build(&config, &names(&[[10, 0, 0, 1]]), &Clients::new(), &one, 1);
    assert!(Arc::ptr_eq(&one.upstreams[0], &same.upstreams[0]));
    let two = Snapshot::build(
        &config,
        &names(&[[10, 0, 0, 2], [10, 0, 0, 1]]),
        &Clients::new(),
        &same,
        1,
    );
    let endpoints = &two.upstreams[0].endpoints;
    let shares: Vec<_> = endpoints.iter().map(|e| (e.state.label.as_str(), e.weight)).collect();
    assert_eq!(
        shares,
        [("http://app:80#10.0.0.1", 1), ("http://app:80#10.0.0.2", 1), ("http://10.0.0.9:80", 2)]
    );
    let before = &one.upstreams[0].endpoints;
    assert!(Arc::ptr_eq(&endpoints[0].state, &before[0].state), "a second address has come");
    assert!(Arc::ptr_eq(&endpoints[2].state, &before[1].state));
    let other = Snapshot::build(&config, &names(&[[10, 0, 0, 2]]), &Clients::new(), &two, 1);
    let after = &other.upstreams[0].endpoints;
    assert_eq!(after[0].state.label, "http://app:80#10.0.0.2");
    assert!(Arc::ptr_eq(&endpoints[1].state, &after[0].state), "the first address has gone");
    let gone = Snapshot::build(&config, &Names::new(), &Clients::new(), &two, 1);
    assert!(!gone.upstreams[0].endpoints[0].is_usable());
    assert_eq!(gone.upstreams[0].endpoints.len(), 2);
}

/// Sessions and places on the hash ring of one address do not depend on the others.
#[test]
fn an_address_that_goes_takes_no_other_ones_cookies_and_keys_with_it() {
    let app = EndpointHost::Name("app".into());
    let ips = [8, 9].map(|n| EndpointHost::Ip([10, 0, 0, n].into()));
    let mut config = config(&[(None, "/")], &[app, ips[0].clone(), ips[1].clone()]);
    config.upstreams[0].policy = config::Policy::ConsistentHash;
    config.upstreams[0].sticky = Some(config::Sticky::new("s"));
    let build = |ips: &[[u8; 4]], before: &Snapshot| {
        let ips = ips.iter().map(|ip| (*ip).into()).collect();
        let names = Names::from([("app".to_owned(), ips)]);
        Snapshot::build(&config, &names, &Clients::new(), before, 1)
    };
    let two = build(&[[10, 0, 0, 1], [10, 0, 0, 2]], &Snapshot::default());
    let one = build(&[[10, 0, 0, 2]], &two);
    let (two, one) = (&two.upstreams[0], &one.upstreams[0]);
    let value = |upstream: &Upstream, index| {
        let cookie = upstream.sticky.as_ref().and_then(|s| s.set_cookie(index, false)).unwrap();
        cookie.split(['=', ';']).nth(1).unwrap().to_owned()
    };
    let found = |index| one.sticky.as_ref().unwrap().find(value(two, index).as_bytes());
    assert_eq!([0, 1, 2, 3].map(found), [None, Some(0), Some(1), Some(2)]);
    let now = std::time::Instant::now();
    let picked = |upstream: &Upstream, key: u32| {
        let key = Some(upstream::balance::key(&key.to_be_bytes()));
        let wanted = upstream::Wanted { key, ..upstream::Wanted::anything(now) };
        upstream.pick(&wanted).unwrap().endpoint.state.label.clone()
    };
    let mut stayed = 0;
    for key in 0..1000 {
        if picked(two, key) == "http://app:80#10.0.0.2" {
            assert_eq!(picked(one, key), "http://app:80#10.0.0.2", "key {key}");
            stayed += 1;
        }
    }
    assert!(stayed > 100, "{stayed}");
}
