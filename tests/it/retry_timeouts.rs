//! Times of one try, and the time of all of them.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Backend, Tinylb, assert_within, ok, ranked};

const POST: &str = "POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";

/// Answers after longer than the time of one try in these tests.
fn slow(name: &'static str) -> Backend {
    Backend::new(move |mut conn| {
        while conn.request().is_some() {
            thread::sleep(Duration::from_millis(500));
            if !conn.send(ok(name)) {
                return;
            }
        }
    })
}

const TRY: &str = "retry = { timeout = \"150ms\" }";

#[test]
fn a_try_that_takes_too_long_is_given_up_for_one_elsewhere() {
    let (silent, other) = (Backend::silent(), Backend::named("other"));
    let tinylb = Tinylb::run(&ranked(&[silent.url(), other.url()], "", TRY));
    let began = Instant::now();
    let mut client = tinylb.connect();
    assert_eq!(client.get("/slow").text(), "other");
    assert!(began.elapsed() >= Duration::from_millis(150), "not before its time");
    silent.end_of(0);
    tinylb.assert_tries("/slow", 2, Some("timeout"));
    assert_eq!(tinylb.metric("tinylb_retries_total", &["reason=\"timeout\""]), 1.0);
    let of_silent = ["endpoint=", &silent.url()];
    assert_eq!(tinylb.metric("tinylb_endpoint_failures_total", &of_silent), 1.0);
    client.assert_open();
}

#[test]
fn where_there_is_no_other_it_is_waited_for() {
    let only = slow("only");
    let tinylb = Tinylb::run(&ranked(&[only.url()], "", TRY));
    assert_eq!(tinylb.get("/only").text(), "only");
    tinylb.assert_tries("/only", 1, None);
    assert_eq!(tinylb.metric("tinylb_endpoint_failures_total", &[]), 0.0);
}

#[test]
fn what_may_not_be_sent_twice_is_waited_for() {
    let (first, other) = (slow("first"), Backend::named("other"));
    let tinylb = Tinylb::run(&ranked(&[first.url(), other.url()], "", TRY));
    assert_eq!(tinylb.exchange(POST).text(), "first");
    tinylb.assert_tries("/post", 1, None);
    assert_eq!(other.connections(), 0);
}

#[test]
fn the_last_try_is_waited_for() {
    let (silent, second, third) = (Backend::silent(), slow("second"), Backend::named("third"));
    let urls = [silent.url(), second.url(), third.url()];
    let retry = "retry = { attempts = 2, timeout = \"150ms\" }";
    let tinylb = Tinylb::run(&ranked(&urls, "", retry));
    assert_eq!(tinylb.get("/last").text(), "second");
    tinylb.assert_tries("/last", 2, Some("timeout"));
    assert_eq!(third.connections(), 0);
    let tinylb = Tinylb::run(&ranked(&urls[..2], "", TRY));
    assert_eq!(tinylb.get("/tried").text(), "second", "all others have been tried");
}

#[test]
fn the_time_for_an_answer_is_over_all_tries() {
    // A busy machine may take the time of a try from those that follow it.
    let is_exact = (0..5).any(|_| tries_in_700_ms() == 4);
    assert!(is_exact, "at 0, 200, 400 and 600 ms");
}

/// How often a request was sent that has 700 ms, and 200 ms for each try.
fn tries_in_700_ms() -> usize {
    let backends = [(); 6].map(|()| Backend::silent());
    let urls: Vec<_> = backends.iter().map(Backend::url).collect();
    let upstream = "retry = { attempts = 10, timeout = \"200ms\" }\n\
                    timeouts = { response = \"700ms\" }";
    let tinylb = Tinylb::run(&ranked(&urls, "", upstream));
    let began = Instant::now();
    tinylb.get("/all").assert_fault(504, "http_response_timeout");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(700), "not before its time: {took:?}");
    let asked = backends.iter().filter(|backend| backend.connections() > 0).count();
    assert!((1..=4).contains(&asked), "{asked} tries in {took:?}");
    tinylb.assert_tries("/all", asked.try_into().unwrap(), (asked > 1).then_some("timeout"));
    for backend in backends.iter().take(asked) {
        backend.end_of(0);
    }
    asked
}

#[test]
fn without_a_time_for_one_try_nobody_else_is_asked() {
    let (silent, other) = (Backend::silent(), Backend::named("other"));
    let timeouts = "timeouts = { response = \"300ms\" }";
    let tinylb = Tinylb::run(&ranked(&[silent.url(), other.url()], "", timeouts));
    tinylb.get("/get").assert_fault(504, "http_response_timeout");
    tinylb.exchange(POST).assert_fault(504, "http_response_timeout");
    assert_eq!(other.connections(), 0);
    tinylb.assert_tries("/get", 1, None);
    tinylb.assert_tries("/post", 1, None);
}

/// Failures that cost no time are not counted for ever either.
#[test]
fn a_reset_late_in_the_time_leaves_the_rest_of_it() {
    let first = Backend::new(|mut conn| {
        if conn.request().is_some() {
            thread::sleep(Duration::from_millis(1500));
            conn.reset();
        }
    });
    let silent = Backend::silent();
    let timeouts = "timeouts = { response = \"3s\" }";
    let tinylb = Tinylb::run(&ranked(&[first.url(), silent.url()], "", timeouts));
    // A new time for each try would end after 4.5 s.
    assert_within(Duration::from_millis(4400), || {
        let began = Instant::now();
        tinylb.get("/late").assert_fault(504, "http_response_timeout");
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(3), "not before its time: {took:?}");
        took
    });
    tinylb.assert_tries("/late", 2, Some("reset"));
}

/// The time of one try counts from the whole request, not while the client still sends it.
#[test]
fn a_slow_client_is_not_the_endpoints_fault() {
    let (first, other) = (Backend::named("first"), Backend::named("other"));
    let retry = "retry = { timeout = \"2s\" }";
    let tinylb = Tinylb::run(&ranked(&[first.url(), other.url()], "", retry));
    let mut client = tinylb.connect();
    client.send("PUT /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(500));
        client.send(".");
    }
    assert_eq!(client.response().text(), "first");
    tinylb.assert_tries("/slow", 1, None);
    assert_eq!(other.connections(), 0);
}
