//! How an endpoint that was left alone comes back: by a dial in the background, and by a single
//! request.

use std::time::{Duration, Instant};

use crate::support::{Backend, Gate, Refusing, Tinylb, eventually, ok, ranked};

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";

/// Fails on its first connections, and is well on those after them.
fn failing_first(count: usize) -> Backend {
    Backend::new(move |mut conn| {
        if conn.index >= count {
            return conn.answer_all(ok("back"));
        }
        if conn.request().is_some() {
            conn.reset();
        }
    })
}

#[test]
fn one_request_finds_out_whether_it_is_well_again() {
    let gate = Gate::new();
    let bad = Backend::new({
        let gate = gate.clone();
        move |mut conn| {
            if conn.index < 3 {
                conn.request();
                return;
            }
            while conn.request().is_some() {
                gate.pass();
                conn.send(ok("back"));
            }
        }
    });
    let good = Backend::named("good");
    let upstream = "ejection = { failures = 3, time = \"200ms\" }";
    let tinylb = Tinylb::run(&ranked(&[bad.url(), good.url()], "", upstream));
    let mut client = tinylb.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "good");
    }
    assert_eq!(tinylb.state(&bad.url()), "ejected");
    // Each asks once; the one that goes there waits.
    let mut waiting = Vec::new();
    eventually("a request goes there", || {
        let mut client = tinylb.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        waiting.push(client);
        (bad.requests().len() > 3).then_some(())
    });
    assert_eq!(tinylb.state(&bad.url()), "probation");
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "good", "one at a time");
    }
    assert_eq!(bad.requests().len(), 4);
    gate.open();
    tinylb.wait_for_log("back in: it answered a request");
    let answers: Vec<_> = waiting.iter_mut().map(|client| client.response().text()).collect();
    assert_eq!(answers.iter().filter(|answer| *answer == "back").count(), 1, "{answers:?}");
    let standing = tinylb.standing(&bad.url());
    assert_eq!(
        (&standing["state"], &standing["why"]),
        (&"up".into(), &"it answered a request".into())
    );
    assert_eq!(tinylb.metric("tinylb_endpoint_up", &[&bad.url()]), 1.0);
    assert_eq!(client.get("/").text(), "back");
}

#[test]
fn who_fails_then_is_left_alone_for_twice_as_long() {
    let (bad, good) = (Backend::resetting(), Backend::named("good"));
    let upstream = "ejection = { failures = 3, time = \"100ms\", max_time = \"300ms\" }";
    let tinylb = Tinylb::run(&ranked(&[bad.url(), good.url()], "", upstream));
    let mut client = tinylb.connect();
    eventually("it is ejected for the fifth time", || {
        assert_eq!(client.get("/").text(), "good");
        (tinylb.standing(&bad.url())["ejections"] == 5).then_some(())
    });
    assert_eq!(bad.requests().len(), 7, "three, and each time one more");
    let log = eventually("all of it is in the log", || {
        let log = tinylb.log.all();
        (log.iter().filter(|line| line.contains("ejected: ")).count() == 5).then_some(log)
    });
    let said: Vec<_> = log.iter().filter_map(|line| line.split_once("ejected: ")).collect();
    let said: Vec<_> =
        said.iter().map(|(_, words)| words.split(" endpoint=").next().unwrap()).collect();
    assert_eq!(
        said,
        [
            "3 failures in a row, the last one connection_terminated, for 100ms",
            "connection_terminated on probation, for 200ms",
            "connection_terminated on probation, for 300ms",
            "connection_terminated on probation, for 300ms",
            "connection_terminated on probation, for 300ms",
        ]
    );
    assert_eq!(tinylb.metric("tinylb_endpoint_ejections_total", &[&bad.url()]), 5.0);
}

/// Asks again and again until `bad` answers, and returns how long after the ejection that was; at
/// most as long as it has been since it began to be ejected.
fn back_after(request: &str) -> Duration {
    let (bad, good) = (failing_first(3), Backend::named("good"));
    let upstream = "ejection = { failures = 3, time = \"500ms\" }";
    let tinylb = Tinylb::run(&ranked(&[bad.url(), good.url()], "", upstream));
    let began = Instant::now();
    let mut client = tinylb.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "good");
    }
    assert_eq!(tinylb.state(&bad.url()), "ejected");
    eventually("it is asked again", || {
        client.send(request);
        let answer = client.response();
        assert_eq!(answer.status, 200);
        (answer.text() == "back").then(|| began.elapsed())
    })
}

#[test]
fn what_may_be_sent_again_goes_there_first() {
    let get = back_after("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(get >= Duration::from_millis(500), "{get:?}");
    let post = back_after(POST);
    assert!(post >= Duration::from_millis(1000), "only if there is nothing else: {post:?}");
}

#[test]
fn what_cannot_be_reached_costs_requests_nothing_and_is_found_when_it_is_back() {
    for upstream in ["", "ejection = false"] {
        let (dead, good) = (Refusing::new(), Backend::named("good"));
        let url = dead.url();
        let tinylb = Tinylb::run(&ranked(&[url.clone(), good.url()], "", upstream));
        assert_eq!(tinylb.get("/").text(), "good");
        let line = tinylb.wait_for_log("unreachable: dialled again in");
        assert!(line.contains(&url) && line.contains("connection_refused"), "{line}");
        let standing = tinylb.standing(&url);
        assert_eq!(standing["state"], "unreachable");
        assert_eq!(standing["why"], "connection_refused");
        let began = Instant::now();
        let mut asked = 0;
        // For long enough that it is due several times.
        while asked < 200 || began.elapsed() < Duration::from_millis(600) {
            assert_eq!(tinylb.exchange(POST).text(), "good");
            asked += 1;
        }
        let failures = || tinylb.metric("tinylb_endpoint_connect_failures_total", &[&url]);
        assert_eq!(failures(), 1.0, "of {asked} requests");
        assert_eq!(tinylb.metric("tinylb_retries_total", &[]), 1.0);
        let back = dead.revive(|mut conn| conn.answer_all(ok("back")));
        let line = tinylb.wait_for_log("reachable again: one request goes there first");
        assert!(line.contains(&url), "{line}");
        assert_eq!(back.requests().len(), 0, "nobody had to ask for that");
        assert_eq!(tinylb.get("/").text(), "back");
        tinylb.wait_for_log("back in: it answered a request");
        assert_eq!(tinylb.state(&url), "up");
        assert_eq!(failures(), 1.0);
    }
}

/// It can be connected to, but the request fails: that is a matter for ejection.
#[test]
fn a_connection_alone_does_not_let_it_back_in() {
    let (dead, good) = (Refusing::new(), Backend::named("good"));
    let url = dead.url();
    let upstream = "ejection = { time = \"10m\" }";
    let tinylb = Tinylb::run(&ranked(&[url.clone(), good.url()], "", upstream));
    assert_eq!(tinylb.get("/").text(), "good");
    let back = dead.revive(|mut conn| {
        conn.request();
    });
    tinylb.wait_for_log("reachable again");
    for _ in 0..10 {
        assert_eq!(tinylb.get("/").text(), "good");
    }
    assert_eq!(back.requests().len(), 1);
    assert_eq!(tinylb.standing(&url)["why"], "connection_terminated on probation, for 10m");
}

/// It only means that it could be asked.
#[test]
fn being_looked_at_for_a_retry_does_not_end_a_slow_start() {
    let failing = Backend::resetting();
    let dead = Refusing::new();
    let url = dead.url();
    let upstream = "ejection = false\nslow_start = \"1h\"";
    let tinylb = Tinylb::run(&ranked(&[failing.url(), url.clone()], "", upstream));
    tinylb.get("/").assert_fault(502, "connection_terminated");
    assert_eq!(tinylb.state(&url), "unreachable");
    let _back = dead.revive(|mut conn| conn.answer_all(ok("back")));
    tinylb.wait_for_log("reachable again");
    for _ in 0..3 {
        assert_eq!(tinylb.get("/").text(), "back");
        assert_eq!(tinylb.state(&url), "warming");
    }
}

/// Nothing could be sent again after it.
#[test]
fn the_last_try_is_not_the_one_that_finds_out() {
    let first = Backend::new(|mut conn| {
        if conn.request().is_some_and(|request| request.target() == "/well") {
            conn.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nwell");
        }
    });
    let (bad, good) = (Backend::resetting(), Backend::named("good"));
    let upstream = "retry = { attempts = 2 }\nejection = { failures = 3, time = \"3s\" }";
    let urls = [first.url(), bad.url(), good.url()];
    let tinylb = Tinylb::run(&ranked(&urls, "", upstream));
    let began = Instant::now();
    for _ in 0..3 {
        assert_eq!(tinylb.get("/well").text(), "well");
        tinylb.get("/fail").assert_fault(502, "connection_terminated");
    }
    assert_eq!(tinylb.state(&bad.url()), "ejected");
    // Its time is over after three seconds, and whatever is asked goes there after six.
    while began.elapsed() < Duration::from_secs(4) {
        assert_eq!(tinylb.get("/well").text(), "well");
        assert_eq!(tinylb.get("/fail").text(), "good");
    }
    assert_eq!(bad.requests().len(), 3);
}
