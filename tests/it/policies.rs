//! How each policy spreads requests, seen from outside.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use crate::support::{Backend, Client, PATIENCE, Tinylb, config, ok};

fn named(names: &[&str]) -> (Vec<Backend>, Vec<String>) {
    let backends: Vec<_> = names.iter().map(|name| Backend::named(name)).collect();
    let urls = backends.iter().map(Backend::url).collect();
    (backends, urls)
}

/// A configuration of `policy` over endpoints with weights.
fn weighted(policy: &str, endpoints: &[(String, u32)]) -> String {
    let list: Vec<_> =
        endpoints.iter().map(|(url, w)| format!("{{ url = {url:?}, weight = {w} }}")).collect();
    let text = config(&[], "", &format!("policy = {policy:?}"));
    text.replace("endpoints = []", &format!("endpoints = [{}]", list.join(", ")))
}

/// Which endpoint answered each of `n` requests, one after the other over some connections.
fn picks(tinylb: &Tinylb, n: usize) -> Vec<String> {
    let mut clients: Vec<_> = (0..5).map(|_| tinylb.connect()).collect();
    (0..n).map(|i| clients[i % 5].get("/").text()).collect()
}

fn count<T: std::hash::Hash + Eq>(items: impl IntoIterator<Item = T>) -> HashMap<T, usize> {
    let mut counts = HashMap::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    counts
}

/// Pearson's statistic of counts against their expectations.
fn chi_square(observed_and_expected: impl IntoIterator<Item = (usize, f64)>) -> f64 {
    let term = |(observed, expected): (usize, f64)| (observed as f64 - expected).powi(2) / expected;
    observed_and_expected.into_iter().map(term).sum()
}

#[test]
fn random_is_uniform_and_independent() {
    let (_backends, urls) = named(&["a", "b", "c"]);
    let tinylb = Tinylb::start(&urls, &["--policy", "random"]);
    let picks = picks(&tinylb, 3000);
    let counts = count(&picks);
    let chi = chi_square(
        ["a", "b", "c"].map(|n| (counts.get(&n.to_owned()).copied().unwrap_or(0), 1000.0)),
    );
    // Two degrees of freedom: one in a million is above 27.6.
    assert!(chi < 27.6, "uniform: {chi} of {counts:?}");
    let pairs = count(picks.chunks(2).map(|pair| pair.concat()));
    let all = ["a", "b", "c"].iter().flat_map(|x| ["a", "b", "c"].map(|y| format!("{x}{y}")));
    let chi = chi_square(all.map(|p| (pairs.get(&p).copied().unwrap_or(0), 1500.0 / 9.0)));
    // Eight degrees of freedom: one in a million is above 42.7.
    assert!(chi < 42.7, "independent: {chi} of {pairs:?}");
}

#[test]
fn random_honours_weights() {
    let (_backends, urls) = named(&["a", "b", "c"]);
    let endpoints: Vec<_> = urls.into_iter().zip([1, 3, 6]).collect();
    let tinylb = Tinylb::run(&weighted("random", &endpoints));
    let counts = count(picks(&tinylb, 3000));
    let expected = [("a", 300.0), ("b", 900.0), ("c", 1800.0)];
    let chi = chi_square(expected.map(|(n, e)| (counts.get(n).copied().unwrap_or(0), e)));
    assert!(chi < 27.6, "{chi} of {counts:?}");
}

#[test]
fn round_robin_goes_round_exactly() {
    let (_backends, urls) = named(&["a", "b", "c"]);
    let tinylb = Tinylb::start(&urls, &["--policy", "round-robin"]);
    let picks = picks(&tinylb, 300);
    assert_eq!(count(&picks[..3]).len(), 3, "{:?}", &picks[..3]);
    for (i, pick) in picks.iter().enumerate() {
        assert_eq!(pick, &picks[i % 3], "one cursor for all connections, at {i}");
    }
}

#[test]
fn round_robin_is_exact_by_weight_and_smooth() {
    let (_backends, urls) = named(&["a", "b", "c", "none"]);
    let endpoints: Vec<_> = urls.into_iter().zip([5, 1, 1, 0]).collect();
    let tinylb = Tinylb::run(&weighted("round-robin", &endpoints));
    let picks = picks(&tinylb, 70);
    for window in picks.windows(7) {
        let counts = count(window);
        assert_eq!(counts.get(&"a".to_owned()), Some(&5), "{picks:?}");
        assert_eq!(counts.len(), 3, "{picks:?}");
    }
    let order = picks.concat();
    assert!(!order.contains("bc") && !order.contains("cb"), "not in a lump: {order}");
    assert!(!order.contains("aaaaa"), "not in a lump: {order}");
}

#[test]
fn weight_zero_gets_nothing() {
    for policy in ["random", "round-robin", "least-requests", "p2c"] {
        let (backends, urls) = named(&["a", "none", "b"]);
        let endpoints: Vec<_> = urls.into_iter().zip([1, 0, 1]).collect();
        let tinylb = Tinylb::run(&weighted(policy, &endpoints));
        let counts = count(picks(&tinylb, 200));
        assert_eq!(counts.len(), 2, "{policy}: {counts:?}");
        assert_eq!(backends[1].connections(), 0, "{policy}");
    }
}

/// A gate that backends wait at in mid-body.
type Gate = Arc<(Mutex<bool>, Condvar)>;

/// A backend that begins each response, and ends it when the gate opens.
fn gated(gate: &Gate) -> Backend {
    let gate = Arc::clone(gate);
    Backend::new(move |mut conn| {
        while conn.request().is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
            let mut open = gate.0.lock().unwrap();
            while !*open {
                open = gate.1.wait_timeout(open, PATIENCE).unwrap().0;
            }
            drop(open);
            conn.send("k");
        }
    })
}

fn open(gate: &Gate) {
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
}

/// One request more, begun but not ended.
fn begin(tinylb: &Tinylb) -> Client {
    let mut client = tinylb.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.wire().head().expect("the response begins");
    client
}

#[test]
fn load_is_spread_by_what_is_in_flight_until_its_body_ends() {
    for (policy, endpoints) in [("least-requests", 3), ("p2c", 2)] {
        let gate = Gate::default();
        let backends: Vec<_> = (0..endpoints).map(|_| gated(&gate)).collect();
        let urls: Vec<_> = backends.iter().map(Backend::url).collect();
        let tinylb = Tinylb::start(&urls, &["--policy", policy]);
        let mut clients = Vec::new();
        for round in 1..=4 {
            clients.extend((0..endpoints).map(|_| begin(&tinylb)));
            let counts: Vec<_> = backends.iter().map(|b| b.requests().len()).collect();
            assert_eq!(counts, vec![round; endpoints], "{policy}: over all workers, exactly");
        }
        open(&gate);
        for client in &mut clients {
            assert_eq!(client.wire().take(2), b"ok");
        }
    }
}

#[test]
fn load_is_spread_by_weight() {
    for policy in ["least-requests", "p2c"] {
        let gate = Gate::default();
        let backends = [gated(&gate), gated(&gate)];
        let tinylb =
            Tinylb::run(&weighted(policy, &[(backends[0].url(), 1), (backends[1].url(), 3)]));
        let clients: Vec<_> = (0..16).map(|_| begin(&tinylb)).collect();
        let counts = [backends[0].requests().len(), backends[1].requests().len()];
        assert!((3..=5).contains(&counts[0]), "{policy}: a quarter of 16: {counts:?}");
        assert_eq!(counts[0] + counts[1], clients.len());
        open(&gate);
    }
}

#[test]
fn weights_are_honoured_also_where_nothing_is_in_flight() {
    for policy in ["least-requests", "p2c"] {
        let (_backends, urls) = named(&["light", "heavy"]);
        let endpoints: Vec<_> = urls.into_iter().zip([1, 4]).collect();
        let tinylb = Tinylb::run(&weighted(policy, &endpoints));
        let counts = count(picks(&tinylb, 1000));
        let light = counts.get("light").copied().unwrap_or(0);
        assert!((100..350).contains(&light), "{policy}: about a fifth: {counts:?}");
    }
}

#[test]
fn ties_are_broken_at_random() {
    for policy in ["least-requests", "p2c"] {
        let (_backends, urls) = named(&["a", "b", "c"]);
        let tinylb = Tinylb::start(&urls, &["--policy", policy]);
        let counts = count(picks(&tinylb, 1500));
        let chi = chi_square(["a", "b", "c"].map(|n| (counts.get(n).copied().unwrap_or(0), 500.0)));
        assert!(chi < 27.6, "{policy}: {chi} of {counts:?}");
    }
}

#[test]
fn a_slow_endpoint_gets_less() {
    for policy in ["least-requests", "p2c"] {
        let slow = Backend::new(|mut conn| {
            while conn.request().is_some() {
                // Much longer than the others take, on a busy machine as well.
                thread::sleep(Duration::from_millis(300));
                conn.send(ok("slow"));
            }
        });
        let (_fast, mut urls) = named(&["fast", "fast"]);
        urls.push(slow.url());
        let tinylb = Tinylb::start(&urls, &["--policy", policy]);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut client = tinylb.connect();
                    for _ in 0..100 {
                        assert_eq!(client.get("/").status, 200);
                    }
                });
            }
        });
        let slow = slow.requests().len();
        assert!(slow < 160, "{policy}: {slow} of 800 went to the slow one");
    }
}

/// A client that leaves takes its weight off the endpoint.
#[test]
fn a_request_that_was_given_up_is_no_longer_in_flight() {
    for policy in ["least-requests", "p2c"] {
        let endless = || {
            Backend::new(|mut conn| {
                conn.request();
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
                conn.drain();
            })
        };
        let backends = [endless(), endless()];
        let urls = [backends[0].url(), backends[1].url()];
        let tinylb = Tinylb::start(&urls, &["--policy", policy]);
        for client in (0..10).map(|_| begin(&tinylb)).collect::<Vec<_>>() {
            client.reset();
        }
        for backend in &backends {
            assert_eq!(backend.requests().len(), 5, "{policy}");
            for i in 0..5 {
                backend.end_of(i);
            }
        }
        let _clients: Vec<_> = (0..11).map(|_| begin(&tinylb)).collect();
        for backend in &backends {
            let again = backend.requests().len() - 5;
            assert!((5..=6).contains(&again), "{policy}: {again} of 11");
        }
    }
}
