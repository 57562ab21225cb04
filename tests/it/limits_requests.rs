//! Limits of requests in flight: never more at the endpoints than allowed, and as many as that.

use std::time::Duration;

use crate::support::{Held, Signal, Tinylb, config, config_of, eventually, load};

/// What a request takes the backends of these tests.
const WORK: Duration = Duration::from_millis(3);

/// Nothing is in flight or waiting any more.
#[track_caller]
fn assert_idle(tinylb: &Tinylb) {
    eventually("nothing is in flight", || {
        let in_flight = tinylb.metric("tinylb_endpoint_requests_in_flight", &[]);
        let waiting = tinylb.metric("tinylb_upstream_queue_length", &[]);
        (in_flight + waiting == 0.0).then_some(())
    });
}

#[test]
fn never_more_at_once_than_all_endpoints_may_have() {
    for policy in ["p2c", "round-robin", "consistent-hash", "least-time"] {
        let a = Held::working("a", WORK);
        let b = a.working_beside("b", WORK);
        let limit = "limits = { requests = 5 }\nqueue = { timeout = \"30s\" }";
        let upstream = format!("policy = {policy:?}\n{limit}");
        let tinylb = Tinylb::run(&config(&[a.url(), b.url()], "", &upstream));
        load(&tinylb, 16, 30);
        assert_eq!(a.most(), 5, "{policy}: the limit, and no less");
        assert!(tinylb.metric("tinylb_queued_requests_total", &[]) > 0.0, "{policy}");
        assert_eq!(tinylb.metric("tinylb_queue_full_requests_total", &[]), 0.0, "{policy}");
        assert_idle(&tinylb);
    }
}

#[test]
fn never_more_at_once_than_each_endpoint_may_have() {
    let (a, b) = (Held::working("a", WORK), Held::working("b", WORK));
    let upstream = "limits = { endpoint_requests = 3 }\nqueue = { timeout = \"30s\" }";
    let tinylb = Tinylb::run(&config(&[a.url(), b.url()], "", upstream));
    load(&tinylb, 16, 30);
    assert_eq!((a.most(), b.most()), (3, 3));
    let limits = tinylb.samples("tinylb_endpoint_requests_limit");
    assert!(limits.len() == 2 && limits.iter().all(|(_, limit)| *limit == 3.0), "{limits:?}");
    assert_idle(&tinylb);
}

#[test]
fn an_endpoint_may_have_a_limit_of_its_own() {
    let backends = ["few", "usual", "many"].map(|name| Held::working(name, WORK));
    let [few, usual, many] = [0, 1, 2].map(|i| backends[i].url());
    let endpoints = format!(
        "[{{ url = {few:?}, max_requests = 1 }}, {usual:?}, {{ url = {many:?}, max_requests = 6 }}]"
    );
    let upstream = "limits = { endpoint_requests = 2 }\nqueue = { timeout = \"30s\" }";
    let tinylb = Tinylb::run(&config_of(&endpoints, "", upstream));
    load(&tinylb, 20, 30);
    assert_eq!([0, 1, 2].map(|i| backends[i].most()), [1, 2, 6]);
    assert_idle(&tinylb);
}

/// Each needs a connection, so where those are limited, so are requests.
#[test]
fn a_limit_of_connections_is_one_of_requests() {
    let (a, b) = (Held::working("a", WORK), Held::working("b", WORK));
    let upstream = "limits = { endpoint_connections = 2 }\nqueue = { timeout = \"30s\" }";
    let tinylb = Tinylb::run(&config(&[a.url(), b.url()], "", upstream));
    load(&tinylb, 12, 30);
    assert!(a.most() <= 2 && b.most() <= 2, "{} and {}", a.most(), b.most());
    assert_idle(&tinylb);
}

/// A slow body counts to its end.
#[test]
fn a_request_counts_until_its_response_ends() {
    let (go, goes) = std::sync::mpsc::channel::<()>();
    let goes = std::sync::Mutex::new(goes);
    let backend = crate::support::Backend::new(move |mut conn| {
        while conn.request().is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
            goes.lock().unwrap().recv().unwrap();
            conn.send("k");
        }
    });
    let tinylb = Tinylb::run(&config(&[backend.url()], "", "limits = { requests = 1 }"));
    let mut first = tinylb.connect();
    first.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
    first.wire().head().expect("the response begins");
    let mut second = tinylb.connect();
    second.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the second waits", || {
        (tinylb.metric("tinylb_upstream_queue_length", &[]) == 1.0).then_some(())
    });
    assert_eq!(backend.requests().len(), 1);
    go.send(()).unwrap();
    assert_eq!(first.wire().take(2), b"ok");
    go.send(()).unwrap();
    assert_eq!(second.response().text(), "ok");
}

/// A reload that raises the limit lets in who waits.
#[test]
fn a_limit_that_is_raised_lets_in_those_who_wait() {
    let backend = Held::new("fine");
    let limited = |n: usize| {
        let upstream = format!("limits = {{ requests = {n} }}\nqueue = {{ timeout = \"1m\" }}");
        config(&[backend.url()], "", &upstream)
    };
    let tinylb = Tinylb::run(&limited(1));
    let mut clients: Vec<_> = (0..6).map(|_| tinylb.connect()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.send(format!("GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    backend.wait_for(1);
    eventually("the others wait", || {
        (tinylb.metric("tinylb_upstream_queue_length", &[]) == 5.0).then_some(())
    });
    tinylb.rewrite(&limited(6));
    tinylb.signal(Signal::HUP);
    tinylb.wait_for_log("reloaded");
    backend.wait_for(6);
    backend.open();
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
}

/// So does one that brings an endpoint, and one that takes the limit away.
#[test]
fn who_waits_goes_where_a_reload_says() {
    let (full, new) = (Held::new("full"), Held::new("new"));
    let limited = "limits = { endpoint_requests = 1 }\nqueue = { timeout = \"1m\" }";
    for (endpoints, upstream) in
        [(vec![full.url(), new.url()], limited), (vec![new.url()], limited), (vec![new.url()], "")]
    {
        let tinylb = Tinylb::run(&config(&[full.url()], "", limited));
        let mut clients: Vec<_> = (0..2).map(|_| tinylb.connect()).collect();
        for (i, client) in clients.iter_mut().enumerate() {
            client.send(format!("GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n"));
            full.wait_for(1);
        }
        eventually("the second waits", || {
            (tinylb.metric("tinylb_upstream_queue_length", &[]) == 1.0).then_some(())
        });
        tinylb.rewrite(&config(&endpoints, "", upstream));
        tinylb.signal(Signal::HUP);
        new.wait_for(1);
        new.answer("/1");
        full.answer("/0");
        assert_eq!(clients[0].response().text(), "full", "{endpoints:?} {upstream}");
        assert_eq!(clients[1].response().text(), "new", "{endpoints:?} {upstream}");
    }
}
