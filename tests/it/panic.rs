//! What becomes of requests where no endpoint, or too few of them, are well.

use crate::support::{Backend, Refusing, Tinylb, config, eventually, ok};

/// Both endpoints of this refuse connections, and the balancer knows.
fn all_gone(upstream: &str) -> (Tinylb, [Refusing; 2]) {
    let gone = [Refusing::new(), Refusing::new()];
    let tinylb = Tinylb::run(&config(&[gone[0].url(), gone[1].url()], "", upstream));
    tinylb.get("/").assert_fault(502, "connection_refused");
    eventually("both are known to be unreachable", || {
        let up = tinylb.metric("tinylb_endpoint_up", &[]);
        (up == 0.0).then_some(())
    });
    (tinylb, gone)
}

fn is_panicking(tinylb: &Tinylb) -> bool {
    tinylb.metric("tinylb_upstream_panic", &["upstream=\"app\""]) == 1.0
}

#[track_caller]
fn wait_for_panic(tinylb: &Tinylb, is_wanted: bool) {
    eventually(&format!("panic is {is_wanted}"), || {
        (is_panicking(tinylb) == is_wanted).then_some(())
    });
}

#[test]
fn where_none_is_well_requests_go_to_all_until_one_is() {
    let (tinylb, gone) = all_gone("");
    tinylb.get("/").assert_fault(502, "connection_refused");
    assert!(is_panicking(&tinylb));
    tinylb.wait_for_log("panic: no endpoint is healthy");
    assert!(tinylb.metric("tinylb_panic_requests_total", &["upstream=\"app\""]) > 0.0);
    let json: serde_json::Value = serde_json::from_str(&tinylb.admin("/endpoints").text()).unwrap();
    assert_eq!(json["upstreams"][0]["panic"], true);
    let _back = gone.map(|gone| gone.revive(|mut conn| conn.answer_all(ok("back"))));
    eventually("requests are answered", || {
        let response = tinylb.get("/");
        (response.status == 200).then_some(())
    });
    // From then on none is lost.
    for _ in 0..20 {
        assert_eq!(tinylb.get("/").text(), "back");
    }
    wait_for_panic(&tinylb, false);
    tinylb.wait_for_log("panic is over");
}

/// One that the balancer has not noticed to be back yet is found by a request.
#[test]
fn in_panic_a_request_finds_the_one_that_is_back() {
    let (tinylb, [first, second]) = all_gone("policy = \"round-robin\"");
    tinylb.get("/").assert_fault(502, "connection_refused");
    let _back = second.revive(|mut conn| conn.answer_all(ok("back")));
    assert_eq!(tinylb.get("/").text(), "back", "tried on the other one if need be");
    drop(first);
}

#[test]
fn without_panic_requests_are_refused_until_one_is_well() {
    let (tinylb, gone) = all_gone("panic = false");
    for _ in 0..10 {
        tinylb.get("/").assert_fault(503, "destination_unavailable");
    }
    assert!(!is_panicking(&tinylb));
    assert_eq!(tinylb.metric("tinylb_panic_requests_total", &[]), 0.0);
    assert!(tinylb.log.all().iter().all(|line| !line.contains("panic")));
    let _back = gone.map(|gone| gone.revive(|mut conn| conn.answer_all(ok("back"))));
    eventually("requests are answered", || (tinylb.get("/").status == 200).then_some(()));
}

/// Unwell until it is told to be well: then it answers 200, before that 500.
fn changing(name: &str) -> (Backend, std::sync::Arc<std::sync::atomic::AtomicBool>) {
    use std::sync::atomic::{AtomicBool, Ordering};
    let is_well = std::sync::Arc::new(AtomicBool::new(true));
    let (name, well) = (name.to_owned(), std::sync::Arc::clone(&is_well));
    let backend = Backend::new(move |mut conn| {
        while conn.request().is_some() {
            match well.load(Ordering::Relaxed) {
                true => conn.send(ok(&name)),
                false => conn.send("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"),
            };
        }
    });
    (backend, is_well)
}

#[test]
fn below_a_threshold_requests_go_to_all_and_above_it_no_longer() {
    use std::sync::atomic::Ordering::Relaxed;
    let [a, b, c] = ["a", "b", "c"].map(changing);
    let urls = [a.0.url(), b.0.url(), c.0.url()];
    let upstream = "policy = \"round-robin\"\npanic = 0.5\n\
        ejection = { failures = 2, status = [\"500\"], time = \"3s\", max_time = \"3s\", max_share = 1.0 }";
    let tinylb = Tinylb::run(&config(&urls, "", upstream));
    a.1.store(false, Relaxed);
    b.1.store(false, Relaxed);
    eventually("two of three are out", || {
        let _ = tinylb.get("/");
        is_panicking(&tinylb).then_some(())
    });
    tinylb.wait_for_log("panic: too few endpoints are healthy");
    let before = [&a.0, &b.0, &c.0].map(|backend| backend.requests().len());
    let panics = tinylb.metric("tinylb_panic_requests_total", &[]);
    let statuses: Vec<_> = (0..9).map(|_| tinylb.get("/").status).collect();
    let got: Vec<_> =
        [&a.0, &b.0, &c.0].iter().zip(before).map(|(b, n)| b.requests().len() - n).collect();
    assert_eq!(got, [3, 3, 3], "all have their share, well or not: {statuses:?}");
    assert_eq!(tinylb.metric("tinylb_panic_requests_total", &[]), panics + 9.0);
    a.1.store(true, Relaxed);
    b.1.store(true, Relaxed);
    eventually("panic is over, since requests find them well", || {
        let _ = tinylb.get("/");
        (!is_panicking(&tinylb)).then_some(())
    });
    tinylb.wait_for_log("panic is over");
    eventually("all are well", || {
        assert_eq!(tinylb.get("/").status, 200);
        (tinylb.metric("tinylb_endpoint_up", &[]) == 3.0).then_some(())
    });
}

/// Endpoints that cannot be connected to count as well.
#[test]
fn a_threshold_counts_the_unreachable_and_their_return() {
    let here = Backend::named("here");
    let gone = [Refusing::new(), Refusing::new()];
    let urls = [here.url(), gone[0].url(), gone[1].url()];
    let tinylb = Tinylb::run(&config(&urls, "", "policy = \"round-robin\"\npanic = 0.5"));
    for _ in 0..6 {
        assert_eq!(tinylb.get("/").text(), "here");
    }
    wait_for_panic(&tinylb, true);
    for _ in 0..10 {
        assert_eq!(tinylb.get("/").text(), "here", "tried elsewhere where it is refused");
    }
    let back = gone.map(|gone| gone.revive(|mut conn| conn.answer_all(ok("here"))));
    eventually("panic is over", || {
        assert_eq!(tinylb.get("/").text(), "here");
        (!is_panicking(&tinylb)).then_some(())
    });
    eventually("all have requests", || {
        assert_eq!(tinylb.get("/").text(), "here");
        (tinylb.metric("tinylb_endpoint_up", &[]) == 3.0).then_some(())
    });
    assert!(back.iter().all(|backend| !backend.requests().is_empty()));
}

/// One that drains is left alone also then.
#[test]
fn no_panic_goes_to_an_endpoint_that_drains() {
    let (gone, drained) = (Refusing::new(), Backend::named("drained"));
    let endpoints = format!("[{:?}, {{ url = {:?}, drain = true }}]", gone.url(), drained.url());
    let tinylb = Tinylb::run(&crate::support::config_of(&endpoints, "", ""));
    for _ in 0..10 {
        tinylb.get("/").assert_fault(502, "connection_refused");
    }
    assert!(is_panicking(&tinylb));
    assert_eq!(drained.connections(), 0);
}

/// Where many endpoints are known to be unreachable, a request dials few of them, and the next one
/// others.
#[test]
fn a_request_dials_few_of_many_endpoints_that_are_down() {
    const ENDPOINTS: usize = 60;
    const REQUESTS: usize = 40;
    for policy in ["p2c", "round-robin", "least-requests", "consistent-hash"] {
        let mut gone: Vec<_> = (0..ENDPOINTS).map(|_| Refusing::new()).collect();
        let urls: Vec<_> = gone.iter().map(Refusing::url).collect();
        let hash = if policy == "consistent-hash" { "hash = \"path\"\n" } else { "" };
        let tinylb = Tinylb::run(&config(&urls, "", &format!("{hash}policy = {policy:?}")));
        eventually("all are known to be unreachable", || {
            tinylb.get("/").assert_fault(502, "connection_refused");
            (tinylb.metric("tinylb_endpoint_up", &[]) == 0.0).then_some(())
        });
        let failures = || tinylb.samples("tinylb_endpoint_connect_failures_total");
        let before = failures();
        for request in 0..REQUESTS {
            tinylb.get(&format!("/{request}")).assert_fault(502, "connection_refused");
        }
        let after = failures();
        let dials: Vec<_> = after.iter().zip(&before).map(|(a, b)| a.1 - b.1).collect();
        let all: f64 = dials.iter().sum();
        assert!(all >= REQUESTS as f64, "{policy}: some are tried: {all} dials");
        assert!(all <= 10.0 * REQUESTS as f64, "{policy}: {all} dials");
        let dialled = dials.iter().filter(|dials| **dials > 0.0).count();
        assert!(dialled > ENDPOINTS / 2, "{policy}: not always the same: {dialled}");
        let _back = gone.pop().unwrap().revive(|mut conn| conn.answer_all(ok("back")));
        eventually("the one that is back is found", || {
            (tinylb.get("/").status == 200).then_some(())
        });
    }
}
