//! The kernel spreads connections over sockets by hash; the balancer evens that out.

use std::collections::HashMap;

use crate::support::{Backend, Tinylb, eventually};

/// Open connections by worker.
fn by_worker(tinylb: &Tinylb) -> HashMap<String, f64> {
    let samples = tinylb.samples("tinylb_worker_connections");
    assert!(samples.iter().all(|(labels, _)| labels.contains("worker=\"")), "{samples:?}");
    samples.into_iter().collect()
}

#[test]
fn sixteen_long_connections_on_two_workers_are_eight_each() {
    for _ in 0..5 {
        let backend = Backend::named("fine");
        let tinylb = Tinylb::start(&[backend.url()], &["--workers", "2"]);
        let mut clients: Vec<_> = (0..16).map(|_| tinylb.connect()).collect();
        for client in &mut clients {
            assert_eq!(client.get("/").status, 200);
        }
        let counts = by_worker(&tinylb);
        assert_eq!(counts.len(), 2, "{counts:?}");
        assert_eq!(counts.values().sum::<f64>(), 16.0, "{counts:?}");
        assert!(counts.values().all(|n| (7.0..=9.0).contains(n)), "8 ± 1 each: {counts:?}");
    }
}

#[test]
fn connections_that_end_are_counted_off() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::start(&[backend.url()], &["--workers", "2"]);
    let mut clients: Vec<_> = (0..8).map(|_| tinylb.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(by_worker(&tinylb).values().sum::<f64>(), 8.0);
    drop(clients);
    eventually("all are counted off", || {
        (by_worker(&tinylb).values().sum::<f64>() == 0.0).then_some(())
    });
}

/// One that stays long weighs on its worker: those that come after go to the other.
#[test]
fn new_connections_go_to_the_worker_with_fewer() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::start(&[backend.url()], &["--workers", "2"]);
    let mut kept = Vec::new();
    for n in 1..=16 {
        let mut client = tinylb.connect();
        assert_eq!(client.get("/").status, 200);
        kept.push(client);
        let counts = by_worker(&tinylb);
        let least = counts.values().copied().fold(f64::MAX, f64::min);
        let most = counts.values().copied().fold(0.0, f64::max);
        assert!(most - least <= 1.0, "after {n}: {counts:?}");
    }
}
