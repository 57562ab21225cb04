//! Hedges of which one or both endpoints fail, or cannot be asked.

use std::thread;
use std::time::Duration;

use crate::hedging::{HEDGE, answering_after, hedging, resetting_after, told_of, won};
use crate::support::{Backend, Gate, Refusing, Tinylb, eventually, ok, ranked};

/// Asks for `path`, and opens `gate` once the failure of `failing` has been seen; returns the answer.
fn answer_after_failure(tinylb: &Tinylb, path: &str, failing: &Backend, gate: &Gate) -> String {
    let mut client = tinylb.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    eventually("the failure is seen", || (failures(tinylb, failing) == 1.0).then_some(()));
    gate.open();
    client.response().text()
}

fn failures(tinylb: &Tinylb, backend: &Backend) -> f64 {
    tinylb.metric("tinylb_endpoint_failures_total", &[&backend.url()])
}

#[test]
fn the_first_fails_while_the_second_is_asked() {
    let (asked, failed) = (Gate::new(), Gate::new());
    let first = resetting_after(&asked, &Gate::new());
    let second = told_of(&asked, &failed, "second");
    let tinylb = hedging(&first, &second, "");
    assert_eq!(answer_after_failure(&tinylb, "/first-fails", &first, &failed), "second");
    tinylb.assert_tries("/first-fails", 2, Some("hedge"));
    assert_eq!((failures(&tinylb, &first), failures(&tinylb, &second)), (1.0, 0.0));
    assert_eq!((won(&tinylb), first.requests().len(), second.requests().len()), (1.0, 1, 1));
}

#[test]
fn the_second_fails_while_the_first_is_asked() {
    let failed = Gate::new();
    let first = answering_after(&failed, "first", &Gate::new());
    let second = Backend::resetting();
    let tinylb = hedging(&first, &second, "");
    assert_eq!(answer_after_failure(&tinylb, "/second-fails", &second, &failed), "first");
    tinylb.assert_tries("/second-fails", 2, Some("hedge"));
    assert_eq!((failures(&tinylb, &first), failures(&tinylb, &second)), (0.0, 1.0));
    assert_eq!(won(&tinylb), 0.0);
}

#[test]
fn both_fail() {
    for first_is_first in [true, false] {
        let (asked, failed) = (Gate::new(), Gate::new());
        let told = |gate: &Gate| {
            let (asked, gate) = (asked.clone(), gate.clone());
            Backend::new(move |mut conn| {
                if conn.request().is_some() {
                    asked.open();
                    gate.pass();
                    conn.reset();
                }
            })
        };
        let (first, second) = match first_is_first {
            true => (resetting_after(&asked, &failed), told(&failed)),
            false => {
                asked.open();
                (resetting_after(&failed, &Gate::new()), resetting_after(&asked, &failed))
            }
        };
        let tinylb = hedging(&first, &second, "retry = { attempts = 2 }");
        tinylb.get("/both").assert_fault(502, "connection_terminated");
        tinylb.assert_tries("/both", 2, Some("hedge"));
        assert_eq!((first.requests().len(), second.requests().len()), (1, 1));
        for backend in [&first, &second] {
            assert_eq!(failures(&tinylb, backend), 1.0, "each has failed once");
        }
    }
}

#[test]
fn where_both_fail_a_third_is_asked() {
    let (asked, failed) = (Gate::new(), Gate::new());
    let first = resetting_after(&asked, &failed);
    let second = Backend::new({
        let (asked, failed) = (asked.clone(), failed.clone());
        move |mut conn| {
            if conn.request().is_some() {
                asked.open();
                failed.pass();
            }
        }
    });
    let third = Backend::named("third");
    let urls = [first.url(), second.url(), third.url()];
    let tinylb = Tinylb::run(&ranked(&urls, HEDGE, ""));
    assert_eq!(tinylb.get("/third").text(), "third");
    tinylb.assert_tries("/third", 3, Some("reset,hedge"));
}

#[test]
fn a_second_that_cannot_be_reached_is_none() {
    let slow = Backend::new(|mut conn| {
        while conn.request().is_some() {
            thread::sleep(Duration::from_secs(1));
            conn.send(ok("slow"));
        }
    });
    let dead = Refusing::new();
    let tinylb = Tinylb::run(&ranked(&[slow.url(), dead.url()], HEDGE, ""));
    assert_eq!(tinylb.get("/unreachable").text(), "slow");
    tinylb.assert_tries("/unreachable", 1, None);
    assert_eq!(tinylb.state(&dead.url()), "unreachable");
    let alone = Tinylb::run(&ranked(&[slow.url()], HEDGE, ""));
    assert_eq!(alone.get("/alone").text(), "slow");
    alone.assert_tries("/alone", 1, None);
}

#[test]
fn if_nobody_answers_the_time_is_over_for_both() {
    let silent = [Backend::silent(), Backend::silent()];
    let tinylb = hedging(&silent[0], &silent[1], "timeouts = { response = \"2s\" }");
    tinylb.get("/nobody").assert_fault(504, "http_response_timeout");
    for backend in &silent {
        backend.end_of(0);
    }
    tinylb.assert_tries("/nobody", 2, Some("hedge"));
}

#[test]
fn a_hedge_that_nobody_can_be_asked_for_keeps_the_time_of_one_try() {
    // It is back by the time that the try is given up.
    let (silent, dead) = (Backend::silent(), Refusing::new());
    let upstream = "retry = { timeout = \"3s\" }";
    let urls = [silent.url(), dead.url()];
    let tinylb = Tinylb::run(&ranked(&urls, HEDGE, upstream));
    let mut client = tinylb.connect();
    client.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
    tinylb.wait_for_log("unreachable");
    let back = dead.revive(|mut conn| conn.answer_all(ok("back")));
    assert_eq!(client.response().text(), "back");
    tinylb.assert_tries("/late", 2, Some("timeout"));
    drop(back);
}

#[test]
fn where_neither_answers_in_the_time_of_one_try_a_third_is_asked() {
    let (silent, third) = ([Backend::silent(), Backend::silent()], Backend::named("third"));
    let urls = [silent[0].url(), silent[1].url(), third.url()];
    let upstream = "retry = { timeout = \"1500ms\" }";
    let tinylb = Tinylb::run(&ranked(&urls, HEDGE, upstream));
    assert_eq!(tinylb.get("/third").text(), "third");
    tinylb.assert_tries("/third", 3, Some("timeout,hedge"));
    for backend in &silent {
        backend.end_of(0);
        assert_eq!(failures(&tinylb, backend), 1.0);
    }
    let slow = Backend::new(|mut conn| {
        while conn.request().is_some() {
            thread::sleep(Duration::from_millis(2000));
            conn.send(ok("slow"));
        }
    });
    let tinylb = hedging(&silent[0], &slow, upstream);
    assert_eq!(tinylb.get("/waited").text(), "slow", "there is no third");
    tinylb.assert_tries("/waited", 2, Some("hedge"));
}

/// It was closed while it was idle: that says nothing of the endpoint.
#[test]
fn a_stale_connection_of_the_second_is_no_failure_of_it() {
    let asked = Gate::new();
    let first = Backend::new({
        let asked = asked.clone();
        move |mut conn| {
            while let Some(request) = conn.request() {
                if request.target() == "/stale" {
                    asked.pass();
                    conn.send(ok("first"));
                } else {
                    conn.drain();
                }
            }
        }
    });
    let second = Backend::new(move |mut conn| {
        conn.request();
        conn.send(ok("second"));
        if conn.request().is_some() {
            conn.reset();
            asked.open();
        }
    });
    let urls = [first.url(), second.url()];
    let tinylb = Tinylb::run(&ranked(&urls, HEDGE, "ejection = false"));
    let mut client = tinylb.connect();
    assert_eq!(client.get("/second").text(), "second");
    assert_eq!(client.get("/stale").text(), "first");
    assert_eq!(tinylb.metric("tinylb_endpoint_failures_total", &[]), 0.0);
}
