//! Limits of connections: never more open at the endpoints than allowed, and nobody is kept out by
//! those that lie idle with another worker.

use std::time::{Duration, Instant};

use crate::support::{Client, Held, PATIENCE, Tinylb, config, config_of, eventually, load};

/// Idle connections stay for longer than any test, so that only need can close them.
const KEPT: &str = "timeouts = { idle = \"5m\", connect = \"20s\" }\nqueue = { timeout = \"30s\" }";

/// A connection to each of the two workers: of two, each gets one.
fn one_on_each_worker(tinylb: &Tinylb) -> [Client; 2] {
    let clients = [tinylb.connect(), tinylb.connect()];
    eventually("each worker has one of them", || {
        let counts = tinylb.samples("tinylb_worker_connections");
        counts.iter().all(|(_, n)| *n == 1.0).then_some(())
    });
    clients
}

/// Both workers' clients ask in turn; nobody waits for long.
#[track_caller]
fn take_turns(tinylb: &Tinylb, turns: usize) {
    let mut clients = one_on_each_worker(tinylb);
    let start = Instant::now();
    for turn in 0..turns {
        for (worker, client) in clients.iter_mut().enumerate() {
            let response = client.get(&format!("/{worker}/{turn}"));
            assert_eq!(response.status, 200, "turn {turn}: {:?}", response.head.raw);
        }
    }
    assert!(start.elapsed() < PATIENCE / 2, "{turns} took {:?}", start.elapsed());
}

#[test]
fn the_only_place_at_an_endpoint_changes_hands_between_workers() {
    let backend = Held::working("fine", Duration::ZERO);
    let upstream = format!("limits = {{ endpoint_connections = 1 }}\n{KEPT}");
    let tinylb = Tinylb::run(&config(&[backend.url()], "", &upstream));
    take_turns(&tinylb, 20);
    assert_eq!(backend.most_connections(), 1);
}

#[test]
fn the_only_place_of_an_upstream_changes_hands_between_workers() {
    let backend = Held::working("fine", Duration::ZERO);
    let upstream = format!("limits = {{ connections = 1 }}\n{KEPT}");
    let tinylb = Tinylb::run(&config(&[backend.url()], "", &upstream));
    take_turns(&tinylb, 20);
    assert_eq!(backend.most_connections(), 1);
}

/// Of three endpoints only two can have a connection at once, so one is always to be closed.
#[test]
fn the_places_of_an_upstream_change_hands_between_endpoints() {
    let a = Held::working("a", Duration::ZERO);
    let b = a.working_beside("b", Duration::ZERO);
    let c = a.working_beside("c", Duration::ZERO);
    let upstream = format!("policy = \"round-robin\"\nlimits = {{ connections = 2 }}\n{KEPT}");
    let tinylb = Tinylb::run(&config(&[a.url(), b.url(), c.url()], "", &upstream));
    take_turns(&tinylb, 15);
    for backend in [&a, &b, &c] {
        assert_eq!(backend.backend().requests().len(), 10, "each in turn");
    }
    assert!(a.most_connections() <= 2, "{}", a.most_connections());
}

#[test]
fn never_more_are_open_than_allowed_under_load() {
    let work = Duration::from_millis(2);
    for (limits, most) in [
        ("connections = 3", 3),
        ("endpoint_connections = 2", 4),
        ("connections = 3, endpoint_connections = 2", 3),
        ("requests = 20, connections = 4", 4),
    ] {
        let a = Held::working("a", work);
        let b = a.working_beside("b", work);
        let upstream = format!("limits = {{ {limits} }}\n{KEPT}");
        let tinylb = Tinylb::run(&config(&[a.url(), b.url()], "", &upstream));
        load(&tinylb, 12, 20);
        let (connections, requests) = (a.most_connections(), a.most());
        assert!(connections <= most, "{limits}: {connections} connections");
        assert!(requests <= most, "{limits}: {requests} requests");
        let open = tinylb.metric("tinylb_endpoint_connections_open", &[]);
        assert!(open <= most as f64, "{limits}: {open} said to be open");
        assert_eq!(tinylb.metric("tinylb_endpoint_ejections_total", &[]), 0.0, "{limits}");
    }
}

#[test]
fn an_endpoint_may_have_a_limit_of_its_own() {
    let work = Duration::from_millis(2);
    let (few, many) = (Held::working("few", work), Held::working("many", work));
    let endpoints = format!("[{{ url = {:?}, max_connections = 1 }}, {:?}]", few.url(), many.url());
    let upstream = format!("limits = {{ endpoint_connections = 4 }}\n{KEPT}");
    let tinylb = Tinylb::run(&config_of(&endpoints, "", &upstream));
    load(&tinylb, 12, 20);
    assert_eq!((few.most_connections(), few.most()), (1, 1));
    assert!(many.most_connections() <= 4, "{}", many.most_connections());
    assert!(!few.backend().requests().is_empty());
}

/// What the balancer itself allows no place for is no failure of the endpoint.
#[test]
fn an_endpoint_is_not_unreachable_because_there_is_no_place() {
    let backend = Held::working("fine", Duration::from_millis(700));
    let upstream = "limits = { connections = 1 }\n\
        timeouts = { idle = \"5m\", connect = \"500ms\" }\nqueue = { timeout = \"30s\" }";
    let tinylb = Tinylb::run(&config(&[backend.url()], "", upstream));
    load(&tinylb, 6, 1);
    assert_eq!(tinylb.metric("tinylb_endpoint_ejections_total", &[]), 0.0);
    assert_eq!(backend.most_connections(), 1);
}
