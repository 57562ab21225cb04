//! Hedges, sessions, limits of time and the log, where endpoints speak HTTP/2: all as with HTTP/1.1.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use h2::Reason;

use crate::support::{
    Asked, Backend, Http2Backend, PATIENCE, Response, Tinylb, config, eventually, ok, ranked,
};

fn ask(tinylb: &Tinylb, method: &str, path: &str) -> JoinHandle<Response> {
    let mut client = tinylb.connect();
    let body = if method == "POST" { "Content-Length: 4\r\n\r\nbody" } else { "\r\n" };
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{body}"));
    thread::spawn(move || client.response())
}

/// One worker, and the endpoints in their order.
fn in_order(endpoints: &[String], route: &str, upstream: &str) -> Tinylb {
    let text = ranked(endpoints, route, upstream);
    Tinylb::run(&text.replace("workers = 2", "workers = 1"))
}

#[test]
fn a_second_endpoint_is_asked_where_the_first_is_slow_and_the_other_stream_is_given_up() {
    for is_first in [true, false] {
        let (slow, other) = (Http2Backend::held(), Http2Backend::held());
        let tinylb = in_order(&[slow.url(), other.url()], "hedge = \"20ms\"", "");
        let asked = ask(&tinylb, "GET", "/hedged");
        let (first, second) = (slow.next(), other.next());
        let (quick, mut late) = if is_first { (first, second) } else { (second, first) };
        quick.ok("quick");
        assert_eq!(asked.join().unwrap().text(), "quick");
        let reset = crate::support::streams::run(async {
            let reset = std::future::poll_fn(|cx| late.respond.poll_reset(cx));
            tokio::time::timeout(PATIENCE, reset).await
        });
        assert_eq!(reset.unwrap().unwrap(), Reason::CANCEL, "nobody waits for it");
        tinylb.assert_tries("/hedged", 2, Some("hedge"));
        // Both connections are as good as before.
        let again = ask(&tinylb, "POST", "/again");
        slow.next().ok("again");
        assert_eq!(again.join().unwrap().text(), "again");
        assert_eq!((slow.connections(), other.connections()), (1, 1));
        let won = tinylb.metric("tinylb_hedges_won_total", &[]);
        assert_eq!(won, if is_first { 0.0 } else { 1.0 });
    }
}

#[test]
fn a_hedge_may_be_between_http_1_1_and_http_2() {
    let (http2, http1) = (Http2Backend::held(), Backend::answering(ok("by 1.1")));
    let tinylb = in_order(&[http2.url(), http1.url()], "hedge = \"20ms\"", "");
    assert_eq!(ask(&tinylb, "GET", "/").join().unwrap().text(), "by 1.1");
    let silent = Backend::silent();
    let quick = Http2Backend::answering("by 2");
    let tinylb = in_order(&[silent.url(), quick.url()], "hedge = \"20ms\"", "");
    assert_eq!(ask(&tinylb, "GET", "/").join().unwrap().text(), "by 2");
}

#[test]
fn a_stream_that_fails_leaves_the_answer_to_the_other() {
    for reason in [Reason::REFUSED_STREAM, Reason::INTERNAL_ERROR] {
        let (failing, other) = (Http2Backend::held(), Http2Backend::held());
        let tinylb = in_order(&[failing.url(), other.url()], "hedge = \"20ms\"", "");
        let asked = ask(&tinylb, "GET", "/");
        let (first, second) = (failing.next(), other.next());
        first.reset(reason);
        thread::sleep(Duration::from_millis(20));
        second.ok("other");
        assert_eq!(asked.join().unwrap().text(), "other", "{reason:?}");
    }
}

/// Before a second endpoint is asked, a stream that is refused is sent again as if there were no hedges.
#[test]
fn a_stream_that_is_refused_before_the_hedge_goes_elsewhere() {
    let refusing = Http2Backend::new(async |asked| asked.reset(Reason::REFUSED_STREAM));
    let other = Http2Backend::answering("other");
    let tinylb = in_order(&[refusing.url(), other.url()], "hedge = \"5m\"", "");
    assert_eq!(ask(&tinylb, "GET", "/").join().unwrap().text(), "other");
}

#[test]
fn a_status_that_is_asked_for_again_and_a_try_that_takes_too_long() {
    let busy = Http2Backend::new(async |mut asked: Asked| {
        let head = http::Response::builder().status(503).body(()).unwrap();
        asked.respond.send_response(head, true).unwrap();
    });
    let other = Http2Backend::answering("other");
    let upstream = "retry = { on = [\"503\"] }";
    let tinylb = in_order(&[busy.url(), other.url()], "", upstream);
    assert_eq!(ask(&tinylb, "GET", "/busy").join().unwrap().text(), "other");
    tinylb.assert_tries("/busy", 2, Some("status"));
    assert_eq!(ask(&tinylb, "POST", "/").join().unwrap().status, 503);
    assert_eq!(busy.connections(), 1);
    let slow = Http2Backend::held();
    let upstream = "retry = { timeout = \"100ms\" }\ntimeouts = { response = \"3s\" }";
    let tinylb = in_order(&[slow.url(), other.url()], "", upstream);
    assert_eq!(ask(&tinylb, "GET", "/slow").join().unwrap().text(), "other");
    tinylb.assert_tries("/slow", 2, Some("timeout"));
    let late = ask(&tinylb, "POST", "/late");
    late.join().unwrap().assert_fault(504, "http_response_timeout");
}

#[test]
fn an_answer_that_is_held_and_breaks_off_is_asked_for_again() {
    let breaking = Http2Backend::new(async |mut asked: Asked| {
        let mut stream = asked.begin();
        stream.send_data("half".into(), false).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.send_reset(Reason::INTERNAL_ERROR);
    });
    let other = Http2Backend::answering("whole");
    let upstream = "retry = { hold = \"16KiB\" }";
    let tinylb = in_order(&[breaking.url(), other.url()], "", upstream);
    let response = ask(&tinylb, "GET", "/held").join().unwrap();
    assert!(response.complete && response.text() == "whole", "{response:?}");
    tinylb.assert_tries("/held", 2, Some("incomplete"));
}

#[test]
fn clients_stay_with_their_endpoint() {
    let endpoints: Vec<_> = (0..3_u8)
        .map(|n| Http2Backend::new(async move |asked: Asked| asked.ok(&n.to_string())))
        .collect();
    let urls: Vec<_> = endpoints.iter().map(Http2Backend::url).collect();
    let tinylb = Tinylb::run(&config(&urls, "", "sticky = \"session\""));
    for _ in 0..6 {
        let first = tinylb.get("/");
        let cookie = first.head.get("set-cookie").unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        for _ in 0..6 {
            let request = format!("GET / HTTP/1.1\r\nHost: test\r\nCookie: {cookie}\r\n\r\n");
            let again = tinylb.exchange(request);
            assert_eq!(again.text(), first.text());
        }
    }
}

#[test]
fn the_log_tells_of_streams_as_of_connections() {
    let backend = Http2Backend::new(async |mut asked: Asked| {
        let (body, _) = asked.whole().await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        match asked.path() {
            "/reset" => asked.reset(Reason::INTERNAL_ERROR),
            _ => asked.ok(&format!("{} bytes", body.len())),
        }
    });
    let tinylb = in_order(&[backend.url()], "", "");
    assert_eq!(ask(&tinylb, "POST", "/told").join().unwrap().text(), "4 bytes");
    let told = tinylb.told("/told");
    assert_eq!(told["endpoint"], backend.url());
    assert_eq!((told["status"].as_u64(), told["attempts"].as_u64()), (Some(200), Some(1)));
    let took = told["upstream_duration"].as_f64();
    assert!(took.is_some_and(|took| (0.03..30.0).contains(&took)), "{told}");
    ask(&tinylb, "POST", "/reset").join().unwrap();
    let told = tinylb.told("/reset");
    assert_eq!((told["status"].as_u64(), told["attempts"].as_u64()), (Some(502), Some(1)));
    assert!(told.to_string().contains("http_response_incomplete"), "{told}");
    eventually("requests are counted as over", || {
        (tinylb.metric("tinylb_endpoint_requests_in_flight", &[]) == 0.0).then_some(())
    });
}

/// Requests that wait for an endpoint that goes down are given up for another at once.
#[test]
fn streams_of_an_endpoint_that_is_found_down_are_sent_elsewhere() {
    const WAITING: usize = 5;
    let waiting = Arc::new(AtomicUsize::new(0));
    let hanging = Http2Backend::new({
        let waiting = Arc::clone(&waiting);
        async move |asked: Asked| {
            let is_down = waiting.load(Ordering::SeqCst) == WAITING;
            if asked.path() == "/healthz" && !is_down {
                return asked.ok("well");
            }
            if asked.path() == "/app" {
                waiting.fetch_add(1, Ordering::SeqCst);
            }
            std::future::pending().await
        }
    });
    let other = Http2Backend::answering("other");
    let upstream = "retry = { budget = 1.0 }\n\
        health = { path = \"/healthz\", interval = \"500ms\", timeout = \"3s\", fall = 1 }";
    let tinylb = in_order(&[hanging.url(), other.url()], "", upstream);
    let asking: Vec<_> = (0..WAITING).map(|_| ask(&tinylb, "GET", "/app")).collect();
    eventually("they wait", || (waiting.load(Ordering::SeqCst) == WAITING).then_some(()));
    for asked in asking {
        assert_eq!(asked.join().unwrap().text(), "other");
    }
    tinylb.assert_tries("/app", 2, Some("endpoint_down"));
}
