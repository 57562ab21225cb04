//! A second endpoint that is asked as well, where the first takes its time.

use std::thread;
use std::time::Duration;

use crate::support::{Backend, Gate, Tinylb, eventually, ok, ranked};

pub const HEDGE: &str = "hedge = \"50ms\"";

/// Answers `name` once `gate` is open, then opens `next`.
pub fn answering_after(gate: &Gate, name: &'static str, next: &Gate) -> Backend {
    let (gate, next) = (gate.clone(), next.clone());
    Backend::new(move |mut conn| {
        if conn.request().is_some() {
            gate.pass();
            conn.send(ok(name));
            next.open();
            conn.drain();
        }
    })
}

/// Resets once `gate` is open, then opens `next`.
pub fn resetting_after(gate: &Gate, next: &Gate) -> Backend {
    let (gate, next) = (gate.clone(), next.clone());
    Backend::new(move |mut conn| {
        if conn.request().is_some() {
            gate.pass();
            conn.reset();
            next.open();
        }
    })
}

/// Says that it is asked, and waits for `gate` before it answers `name`.
pub fn told_of(asked: &Gate, gate: &Gate, name: &'static str) -> Backend {
    let (asked, gate) = (asked.clone(), gate.clone());
    Backend::new(move |mut conn| {
        if conn.request().is_some() {
            asked.open();
            gate.pass();
            conn.send(ok(name));
            conn.drain();
        }
    })
}

pub fn hedging(first: &Backend, second: &Backend, upstream: &str) -> Tinylb {
    Tinylb::run(&ranked(&[first.url(), second.url()], HEDGE, upstream))
}

pub fn won(tinylb: &Tinylb) -> f64 {
    tinylb.metric("tinylb_hedges_won_total", &[])
}

#[test]
fn the_second_endpoint_answers_where_the_first_does_not() {
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        let (slow, fast) = (Backend::silent(), Backend::named("fast"));
        let tinylb = hedging(&slow, &fast, "");
        let mut client = tinylb.connect();
        client.send(format!("{method} /hedged?x=1 HTTP/1.1\r\nHost: a\r\nX-Own: 1\r\n\r\n"));
        let response = client.response_to(method);
        assert_eq!(response.status, 200, "{method}");
        assert_eq!(response.text(), if method == "HEAD" { "" } else { "fast" });
        slow.end_of(0);
        tinylb.assert_tries("/hedged", 2, Some("hedge"));
        let line = tinylb.told("/hedged");
        assert_eq!((&line["endpoint"], &line["status"]), (&fast.url().into(), &200.into()));
        assert_eq!(won(&tinylb), 1.0);
        assert_eq!(tinylb.metric("tinylb_retries_total", &["reason=\"hedge\""]), 1.0);
        assert_eq!(tinylb.metric("tinylb_endpoint_failures_total", &[]), 0.0, "it was only slow");
        assert_eq!(tinylb.metric("tinylb_endpoint_requests_in_flight", &[]), 0.0);
        let (one, two) = (slow.request(), fast.request());
        assert_eq!(one.head.first_line, two.head.first_line);
        for name in ["x-own", "x-request-id"] {
            assert!(one.head.has(name) && one.head.get(name) == two.head.get(name), "{name}");
        }
        client.assert_open();
    }
}

#[test]
fn who_answers_first_is_listened_to_and_the_other_let_go() {
    let asked = Gate::new();
    let first = answering_after(&asked, "first", &Gate::new());
    let second = Backend::new({
        let asked = asked.clone();
        move |mut conn| {
            if conn.request().is_some() {
                asked.open();
                conn.drain();
            }
        }
    });
    let tinylb = hedging(&first, &second, "");
    assert_eq!(tinylb.get("/first").text(), "first");
    second.end_of(0);
    tinylb.assert_tries("/first", 2, Some("hedge"));
    assert_eq!(tinylb.told("/first")["endpoint"], first.url());
    assert_eq!((won(&tinylb), first.requests().len()), (0.0, 1));
}

#[test]
fn where_seconds_are_asked_in_vain_few_are() {
    let first = Backend::new(|mut conn| {
        while conn.request().is_some() {
            thread::sleep(Duration::from_millis(30));
            conn.send(ok("first"));
        }
    });
    let second = Backend::silent();
    let urls = [first.url(), second.url()];
    let tinylb = Tinylb::run(&ranked(&urls, "hedge = \"1ms\"", ""));
    let mut client = tinylb.connect();
    for _ in 0..60 {
        assert_eq!(client.get("/vain").text(), "first");
    }
    let hedges = tinylb.metric("tinylb_retries_total", &["reason=\"hedge\""]);
    assert_eq!((hedges, won(&tinylb)), (20.0, 0.0), "then one in a hundred requests");
}

#[test]
fn nobody_else_is_asked_where_the_first_is_quick() {
    let (first, second) = (Backend::named("first"), Backend::named("second"));
    let urls = [first.url(), second.url()];
    let tinylb = Tinylb::run(&ranked(&urls, "hedge = \"1m\"", ""));
    let mut client = tinylb.connect();
    for _ in 0..20 {
        assert_eq!(client.get("/quick").text(), "first");
    }
    tinylb.assert_tries("/quick", 1, None);
    assert_eq!((first.connections(), second.connections()), (1, 0), "and connections are kept");
}

#[test]
fn what_may_not_be_sent_twice_or_has_a_body_goes_to_one_only() {
    let slow = Backend::new(|mut conn| {
        while conn.request().is_some() {
            thread::sleep(Duration::from_millis(200));
            conn.send(ok("slow"));
        }
    });
    let second = Backend::named("second");
    let body = "Content-Length: 4\r\n\r\nbody";
    for (method, rest) in [("POST", body), ("POST", "\r\n"), ("PUT", body), ("GET", body)] {
        let tinylb = hedging(&slow, &second, "");
        let request = format!("{method} /once HTTP/1.1\r\nHost: a\r\n{rest}");
        assert_eq!(tinylb.exchange(request).text(), "slow", "{method}");
        tinylb.assert_tries("/once", 1, None);
    }
    let tinylb = hedging(&slow, &second, "retry = false");
    assert_eq!(tinylb.get("/off").text(), "slow", "nor where nothing is sent twice");
    assert_eq!(second.connections(), 0);
}

/// Connections that were kept are used for either, and what is left of a race is in no answer.
#[test]
fn answers_are_whole_and_connections_in_order() {
    let sometimes = Backend::new(|mut conn| {
        while let Some(request) = conn.request() {
            if request.target().ends_with('0') {
                conn.drain();
                return;
            }
            conn.send(ok(&format!("first {}", request.target())));
        }
    });
    let second = Backend::new(|mut conn| {
        while let Some(request) = conn.request() {
            conn.send(ok(&format!("second {}", request.target())));
        }
    });
    let tinylb = hedging(&sometimes, &second, "");
    let mut client = tinylb.connect();
    for number in 1..=40 {
        let answer = client.get(&format!("/{number}")).text();
        let (who, target) = answer.split_once(' ').unwrap();
        assert_eq!(target, format!("/{number}"));
        // On a slow machine the second may win where the first is quick, too.
        assert!(who == "second" || number % 10 != 0, "{answer}");
    }
    assert!(won(&tinylb) >= 4.0);
}

#[test]
fn a_client_that_goes_away_lets_both_go() {
    let silent = [Backend::silent(), Backend::silent()];
    let tinylb = hedging(&silent[0], &silent[1], "");
    let mut client = tinylb.connect();
    client.send("GET /gone HTTP/1.1\r\nHost: a\r\n\r\n");
    silent[1].wait_for_requests(1);
    client.reset();
    for backend in &silent {
        backend.end_of(0);
    }
    assert_eq!(tinylb.told("/gone")["status"], 499);
    assert_eq!(tinylb.metric("tinylb_endpoint_failures_total", &[]), 0.0);
}

/// There is nobody to ask, so nothing of the budget is taken.
#[test]
fn who_cannot_be_hedged_leaves_the_budget_to_others() {
    let silent = Backend::silent();
    let tinylb = Tinylb::run(&ranked(&[silent.url()], HEDGE, "timeouts = { response = \"3s\" }"));
    let mut client = tinylb.connect();
    client.send("GET /alone HTTP/1.1\r\nHost: a\r\n\r\n");
    silent.wait_for_requests(1);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(tinylb.metric("tinylb_upstream_retries_running", &[]), 0.0);
    assert_eq!(tinylb.metric("tinylb_endpoint_requests_in_flight", &[]), 1.0);
    client.response().assert_fault(504, "http_response_timeout");
}

/// The usual time is what 95 of 100 answers of the upstream took; while that is not known, nobody
/// is asked beside another.
#[test]
fn after_the_usual_time_a_second_endpoint_is_asked() {
    let first = Backend::new(|mut conn| {
        while let Some(request) = conn.request() {
            match request.target() {
                "/usual" => drop(conn.send(ok("first"))),
                _ => _ = conn.drain(),
            }
        }
    });
    let second = Backend::named("second");
    let urls = [first.url(), second.url()];
    let tinylb = Tinylb::run(&ranked(&urls, "hedge = \"p95\"", ""));
    let mut client = tinylb.connect();
    for _ in 0..30 {
        assert_eq!(client.get("/usual").text(), "first");
    }
    assert!(second.requests().is_empty());
    eventually("the usual time is known", || {
        let all: serde_json::Value =
            serde_json::from_str(&tinylb.admin("/endpoints").text()).expect("JSON");
        all["upstreams"][0]["p95_ms"].as_f64()
    });
    assert_eq!(client.get("/unusual").text(), "second");
    tinylb.assert_tries("/unusual", 2, Some("hedge"));
    assert_eq!(won(&tinylb), 1.0);
}
