//! The policies that go by response times. They differ by so much here that a machine that is busy
//! with something else does not turn them round.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use crate::support::{Backend, Tinylb, config, config_of, eventually, ok};

const BY_TIME: [&str; 2] = ["least-time", "peak-ewma"];

/// A backend that takes as many milliseconds for each request as it is told.
fn taking(name: &str, millis: u64) -> (Backend, Arc<AtomicU64>) {
    let takes = Arc::new(AtomicU64::new(millis));
    let (answer, for_script) = (ok(name), Arc::clone(&takes));
    let backend = Backend::new(move |mut conn| {
        while conn.request().is_some() {
            thread::sleep(Duration::from_millis(for_script.load(Relaxed)));
            conn.send(&answer);
        }
    });
    (backend, takes)
}

/// How many of `n` requests for each of some clients went to the backend called `name`.
fn went_to(tinylb: &Tinylb, name: &str, clients: usize, n: usize) -> usize {
    thread::scope(|scope| {
        let ask = || {
            let mut client = tinylb.connect();
            (0..n).filter(|_| client.get("/").text() == name).count()
        };
        let asking: Vec<_> = (0..clients).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).sum()
    })
}

#[test]
fn the_faster_one_has_nearly_all() {
    for policy in BY_TIME {
        let (fast, slow) = (taking("fast", 0), taking("slow", 150));
        let urls = [slow.0.url(), fast.0.url()];
        let tinylb = Tinylb::run(&config(&urls, "", &format!("policy = {policy:?}")));
        let fast = went_to(&tinylb, "fast", 2, 200);
        assert!(fast > 320, "{policy}: {fast} of 400 to the fast one");
        assert!(fast < 400, "{policy}: the slow one is known to be slow");
    }
}

/// Also over the same time, and among many that are asked at once.
#[test]
fn the_faster_one_has_more_under_load() {
    for policy in BY_TIME {
        let (fast, slow) = (taking("fast", 2), taking("slow", 200));
        let urls = [slow.0.url(), fast.0.url()];
        let tinylb = Tinylb::run(&config(&urls, "", &format!("policy = {policy:?}")));
        let fast = went_to(&tinylb, "fast", 6, 60);
        assert!(fast > 288, "{policy}: {fast} of 360 to the fast one");
    }
}

#[test]
fn equals_share_alike() {
    for policy in BY_TIME {
        let (a, b) = (taking("a", 50), taking("b", 50));
        let urls = [a.0.url(), b.0.url()];
        let tinylb = Tinylb::run(&config(&urls, "", &format!("policy = {policy:?}")));
        // With as many in flight as there are endpoints, the other one is always cheaper.
        let to_a = went_to(&tinylb, "a", 4, 25);
        assert!((15..85).contains(&to_a), "{policy}: {to_a} of 100");
    }
}

/// Which of them is the faster one changes, and so does who is asked.
#[test]
fn one_that_becomes_slow_loses_its_requests() {
    for policy in BY_TIME {
        let (first, second) = (taking("first", 0), taking("second", 150));
        let urls = [first.0.url(), second.0.url()];
        let tinylb = Tinylb::run(&config(&urls, "", &format!("policy = {policy:?}")));
        let before = went_to(&tinylb, "first", 1, 100);
        assert!(before > 80, "{policy}: {before} of 100");
        first.1.store(400, Relaxed);
        second.1.store(0, Relaxed);
        eventually("the other one has nearly all", || {
            (went_to(&tinylb, "second", 1, 50) >= 40).then_some(())
        });
    }
}

/// What nothing is known of gets a request, and not all of them at once.
#[test]
fn one_that_is_new_is_tried() {
    for policy in BY_TIME {
        let (old, new) = (taking("old", 100), taking("new", 0));
        let tinylb = Tinylb::run(&config(&[old.0.url()], "", &format!("policy = {policy:?}")));
        assert_eq!(went_to(&tinylb, "old", 1, 5), 5);
        let both = [old.0.url(), new.0.url()];
        tinylb.rewrite(&config(&both, "", &format!("policy = {policy:?}")));
        tinylb.signal(crate::support::Signal::HUP);
        tinylb.wait_for_log("reloaded");
        eventually("it has nearly all, being faster", || {
            (went_to(&tinylb, "new", 1, 50) >= 40).then_some(())
        });
    }
}

#[test]
fn weights_count_beside_times() {
    for policy in BY_TIME {
        let (light, heavy) = (taking("light", 50), taking("heavy", 50));
        let endpoints =
            format!("[{:?}, {{ url = {:?}, weight = 4 }}]", light.0.url(), heavy.0.url());
        let tinylb = Tinylb::run(&config_of(&endpoints, "", &format!("policy = {policy:?}")));
        let heavy = went_to(&tinylb, "heavy", 5, 20);
        assert!(heavy > 55, "{policy}: {heavy} of 100 to the heavy one");
    }
}

/// An endpoint that fails at once is not the fastest.
#[test]
fn one_that_fails_fast_does_not_attract_requests() {
    for policy in BY_TIME {
        let failing = Backend::new(|mut conn| drop(conn.request()));
        let well = taking("well", 5);
        let upstream = format!("policy = {policy:?}\nejection = false");
        let urls = [failing.url(), well.0.url()];
        let tinylb = Tinylb::run(&config(&urls, "", &upstream));
        let mut client = tinylb.connect();
        for _ in 0..100 {
            assert_eq!(client.get("/").text(), "well");
        }
        let asked = failing.requests().len();
        assert!(asked < 20, "{policy}: {asked} of 100 were tried there first");
    }
}
