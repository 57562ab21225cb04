//! Endpoints that fail again and again, and are left alone.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::support::{Backend, Tinylb, config, eventually, ok, ranked};

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";

/// Ejects after three failures, for longer than a test.
const THREE: &str = "ejection = { failures = 3, time = \"10m\" }";

/// Asserts that the endpoint is ejected, `why`, in the log, on the admin address and in the metrics.
#[track_caller]
fn assert_ejected(tinylb: &Tinylb, backend: &Backend, why: &str) {
    let line = tinylb.wait_for_log("ejected: ");
    assert!(line.contains(why) && line.contains(&backend.url()), "{line}");
    let standing = tinylb.standing(&backend.url());
    assert_eq!(standing["state"], "ejected");
    assert!(standing["why"].as_str().unwrap().starts_with(why), "{standing}");
    assert_eq!(standing["ejections"], 1);
    let url = backend.url();
    let of = |name| tinylb.metric(name, &[&url]);
    assert_eq!((of("tinylb_endpoint_up"), of("tinylb_endpoint_ejections_total")), (0.0, 1.0));
    let state = |state| tinylb.metric("tinylb_endpoint_state", &[&url, state]);
    assert_eq!((state("state=\"ejected\""), state("state=\"up\"")), (1.0, 0.0));
}

#[test]
fn some_failures_in_a_row_eject() {
    let (bad, good) = (Backend::resetting(), Backend::named("good"));
    let tinylb = Tinylb::run(&ranked(&[bad.url(), good.url()], "", THREE));
    for _ in 0..20 {
        assert_eq!(tinylb.get("/").text(), "good");
    }
    assert_eq!((bad.requests().len(), good.requests().len()), (3, 20));
    assert_ejected(&tinylb, &bad, "3 failures in a row, the last one connection_terminated");
    assert_eq!(tinylb.state(&good.url()), "up");
    let failures = tinylb.metric("tinylb_endpoint_failures_total", &[&bad.url()]);
    assert_eq!(failures, 3.0);
}

#[test]
fn five_failures_in_a_row_eject_where_nothing_is_said() {
    let (bad, good) = (Backend::resetting(), Backend::named("good"));
    let tinylb = Tinylb::run(&ranked(&[bad.url(), good.url()], "", ""));
    for _ in 0..10 {
        assert_eq!(tinylb.get("/").text(), "good");
    }
    assert_eq!(bad.requests().len(), 5);
    let line = tinylb.wait_for_log("ejected: ");
    assert!(line.contains("5 failures in a row") && line.contains(", for 10s "), "{line}");
}

#[test]
fn every_kind_of_failure_counts() {
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    let malformed = "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n";
    // Nobody but the silent one has to be in time, and the good one has a second.
    for (bad, timeouts, what) in [
        (Backend::closing_after(cut), "", "http_response_incomplete"),
        (Backend::closing_after(malformed), "", "http_protocol_error"),
        (Backend::silent(), "timeouts = { response = \"1s\" }", "http_response_timeout"),
    ] {
        let good = Backend::named("good");
        let upstream = format!("{THREE}\n{timeouts}");
        let tinylb = Tinylb::run(&ranked(&[bad.url(), good.url()], "", &upstream));
        for _ in 0..3 {
            let mut client = tinylb.connect();
            client.send(POST);
            assert_ne!(client.response().text(), "good");
        }
        assert_eq!(tinylb.exchange(POST).text(), "good", "{what}");
        assert_ejected(&tinylb, &bad, &format!("3 failures in a row, the last one {what}"));
    }
}

/// Fails where `fails` says so of the request's number, from 0 on; answers all others.
fn failing_where(fails: fn(usize) -> bool) -> Backend {
    let count = AtomicUsize::new(0);
    Backend::new(move |mut conn| {
        while conn.request().is_some() {
            if fails(count.fetch_add(1, Relaxed)) || !conn.send(ok("sometimes")) {
                return;
            }
        }
    })
}

#[test]
fn failures_between_successes_are_no_row() {
    let (sometimes, good) = (failing_where(|number| number % 3 != 2), Backend::named("good"));
    let tinylb = Tinylb::run(&ranked(&[sometimes.url(), good.url()], "", THREE));
    let mut client = tinylb.connect();
    for _ in 0..30 {
        client.send(POST);
        client.response();
    }
    assert_eq!(sometimes.requests().len(), 30);
    assert_eq!(tinylb.state(&sometimes.url()), "up");
}

#[test]
fn who_is_never_to_be_ejected_is_not() {
    let (bad, good) = (Backend::resetting(), Backend::named("good"));
    let urls = [bad.url(), good.url()];
    for upstream in ["ejection = false", "ejection = { failures = 0, rate = 0.5 }"] {
        let before = bad.requests().len();
        let tinylb = Tinylb::run(&ranked(&urls, "", upstream));
        for _ in 0..15 {
            assert_eq!(tinylb.get("/").text(), "good");
        }
        assert_eq!(bad.requests().len() - before, 15, "{upstream}");
        assert_eq!(tinylb.state(&bad.url()), "up");
    }
}

#[test]
fn answers_count_as_failures_by_their_status_where_that_is_asked_for() {
    let answer = "HTTP/1.1 500 Oops\r\nContent-Length: 3\r\n\r\nbad";
    let (bad, good) = (Backend::answering(answer), Backend::named("good"));
    let urls = [bad.url(), good.url()];
    let upstream = "ejection = { failures = 3, time = \"10m\", status = [\"500\", \"502-504\"] }";
    let tinylb = Tinylb::run(&ranked(&urls, "", upstream));
    let texts: Vec<_> = (0..6).map(|_| tinylb.get("/").text()).collect();
    assert_eq!(texts, ["bad", "bad", "bad", "good", "good", "good"], "all of them are passed on");
    assert_ejected(&tinylb, &bad, "3 failures in a row, the last one a status that counts as one");

    let tinylb = Tinylb::run(&ranked(&urls, "", THREE));
    let mut client = tinylb.connect();
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "bad");
    }
    assert_eq!(tinylb.state(&bad.url()), "up", "an answer is no failure by itself");
}

#[test]
fn at_most_a_share_is_ejected() {
    for (count, share, out) in
        [(4, "0.5", 2), (4, "1.0", 3), (3, "0.1", 1), (3, "0.0", 0), (2, "0.5", 1)]
    {
        let backends: Vec<_> = (0..count).map(|_| Backend::resetting()).collect();
        let urls: Vec<_> = backends.iter().map(Backend::url).collect();
        let ejection =
            format!("ejection = {{ failures = 2, time = \"10m\", max_share = {share} }}");
        let tinylb = Tinylb::run(&ranked(&urls, "", &format!("{ejection}\nretry = false")));
        for _ in 0..6 * count {
            tinylb.get("/").assert_fault(502, "connection_terminated");
        }
        let states: Vec<_> = urls.iter().map(|url| tinylb.state(url)).collect();
        let ejected = states.iter().filter(|state| *state == "ejected").count();
        assert_eq!(ejected, out, "{count} endpoints, {share}: {states:?}");
    }
}

#[test]
fn the_only_endpoint_is_never_ejected() {
    let bad = Backend::resetting();
    let upstream = "ejection = { failures = 1, max_share = 1.0 }\nretry = false";
    let tinylb = Tinylb::run(&ranked(&[bad.url()], "", upstream));
    for _ in 0..10 {
        tinylb.get("/").assert_fault(502, "connection_terminated");
    }
    assert_eq!((tinylb.state(&bad.url()).as_str(), bad.requests().len()), ("up", 10));
}

#[test]
fn who_fails_more_often_than_the_others_is_ejected() {
    // A connection that was kept and fails would be taken for one that was closed meanwhile.
    let bad = Backend::new(|mut conn| {
        if conn.request().is_some() && conn.index % 2 == 0 {
            conn.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbad");
        }
    });
    let goods = [Backend::named("good"), Backend::named("good")];
    let urls = [goods[0].url(), bad.url(), goods[1].url()];
    let upstream = "policy = \"round-robin\"\nejection = { rate = 0.3, time = \"10m\" }";
    let tinylb = Tinylb::run(&config(&urls, "", upstream));
    let mut client = tinylb.connect();
    eventually("it is ejected", || {
        for _ in 0..30 {
            assert_eq!(client.get("/").status, 200);
        }
        (tinylb.state(&bad.url()) == "ejected").then_some(())
    });
    let line = tinylb.wait_for_log("ejected: ");
    assert!(line.contains("failed, 0 % at the others, for 10m"), "{line}");
    let asked = bad.requests().len();
    for _ in 0..30 {
        assert_eq!(client.get("/").text(), "good");
    }
    assert_eq!(bad.requests().len(), asked);
    assert!(goods.iter().all(|good| tinylb.state(&good.url()) == "up"));
}

/// Whoever goes away says nothing of the endpoint.
#[test]
fn clients_that_give_up_eject_nobody() {
    let (silent, good) = (Backend::silent(), Backend::named("good"));
    let tinylb = Tinylb::run(&ranked(&[silent.url(), good.url()], "", THREE));
    for number in 0..6 {
        let mut client = tinylb.connect();
        client.send(POST);
        silent.wait_for_requests(number + 1);
        client.reset();
        silent.end_of(number);
    }
    assert_eq!(tinylb.state(&silent.url()), "up");
    assert_eq!(tinylb.metric("tinylb_endpoint_failures_total", &[&silent.url()]), 0.0);
}

/// A share of nothing is nobody, whatever fails.
#[test]
fn a_share_of_0_ejects_nobody() {
    let bad = failing_where(|_| true);
    let good = Backend::named("good");
    let upstream = "ejection = { failures = 2, rate = 0.1, time = \"10m\", max_share = 0 }";
    let tinylb = Tinylb::run(&ranked(&[bad.url(), good.url()], "", upstream));
    for _ in 0..30 {
        assert_eq!(tinylb.get("/").text(), "good");
    }
    assert_eq!(tinylb.state(&bad.url()), "up");
    assert_eq!(bad.requests().len(), 30, "it is asked each time");
}
