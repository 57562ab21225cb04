//! What is tried again, where, and what never is.

use crate::support::{Backend, Refusing, Tinylb, eventually, ok};

const POLICIES: [&str; 4] = ["random", "round-robin", "least-requests", "p2c"];

#[test]
fn one_dead_endpoint_of_three_fails_no_request() {
    for policy in POLICIES {
        let (one, dead, two) = (Backend::named("1"), Refusing::new(), Backend::named("2"));
        let urls = [one.url(), dead.url(), two.url()];
        let tinylb = Tinylb::start(&urls, &["--policy", policy]);
        let mut client = tinylb.connect();
        for i in 0..60 {
            let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
            assert_eq!(client.get("/").status, 200, "{policy}, {i}");
            assert_eq!(tinylb.exchange(post).status, 200, "{policy}, {i}: no byte was written");
        }
        assert!(!one.requests().is_empty() && !two.requests().is_empty(), "{policy}");
        assert_eq!(one.requests().len() + two.requests().len(), 120, "{policy}: each once");
    }
}

#[test]
fn two_dead_endpoints_of_three_fail_no_request() {
    let (dead, one, gone) = (Refusing::new(), Backend::named("1"), Refusing::new());
    let tinylb = Tinylb::start(&[dead.url(), one.url(), gone.url()], &["--policy", "random"]);
    for i in 0..60 {
        assert_eq!(tinylb.get("/").status, 200, "{i}");
    }
}

#[test]
fn all_dead_is_a_502_that_says_so() {
    let dead = [Refusing::new(), Refusing::new()];
    let tinylb = Tinylb::start(&[dead[0].url(), dead[1].url()], &[]);
    for _ in 0..3 {
        let response = tinylb.get("/");
        response.assert_fault(502, "connection_refused");
        let said = format!("{}{}", response.head.raw, response.text());
        assert!(!said.contains("127.0.0.1"), "{said}");
    }
    let mut client = tinylb.connect();
    client.get("/").assert_fault(502, "connection_refused");
    client.get("/").assert_fault(502, "connection_refused");
}

#[test]
fn an_endpoint_that_refused_is_left_alone_for_a_while() {
    let (one, dead) = (Backend::named("1"), Refusing::new());
    let urls = [one.url(), dead.url()];
    for policy in POLICIES {
        let tinylb = Tinylb::start(&urls, &["--policy", policy]);
        let mut client = tinylb.connect();
        for _ in 0..200 {
            assert_eq!(client.get("/").status, 200);
        }
        let again = tinylb.metric("tinylb_retries_total", &["reason=\"connect\""]);
        // Drawn each time it would be about a hundred, or all two hundred by its empty queue.
        assert!(again < 50.0, "{policy}: {again} of 200 requests found it out anew");
        let refused = tinylb.metric("tinylb_endpoint_connect_failures_total", &[]);
        assert!(refused > 0.0, "{policy}: it was tried");
    }
}

#[test]
fn an_endpoint_that_comes_back_is_used_again() {
    let (one, dead) = (Backend::named("1"), Refusing::new());
    let tinylb = Tinylb::start(&[one.url(), dead.url()], &["--policy", "round-robin"]);
    for _ in 0..10 {
        assert_eq!(tinylb.get("/").status, 200);
    }
    let back = dead.revive(|mut conn| conn.answer_all(ok("back")));
    eventually("the endpoint that came back is used", || {
        (tinylb.get("/").text() == "back").then_some(())
    });
    drop(back);
}

/// On its first connection the backend answers once, then takes a request and closes without an
/// answer: the idle connection turns out closed when it is used.
fn closing_on_reuse() -> Backend {
    Backend::new(|mut conn| {
        if conn.index > 0 {
            return conn.answer_all(ok("fresh"));
        }
        conn.request().unwrap();
        conn.send(ok("first"));
        conn.request();
    })
}

#[test]
fn a_reused_connection_that_turns_out_closed_is_replaced_where_that_is_safe() {
    for method in ["GET", "OPTIONS", "DELETE"] {
        let backend = closing_on_reuse();
        let tinylb = Tinylb::before(&backend);
        let mut client = tinylb.connect();
        assert_eq!(client.get("/").text(), "first");
        client.send(format!("{method} /again HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.response().text(), "fresh", "{method}");
        client.assert_open();
    }
}

#[test]
fn a_post_that_was_written_is_not_sent_again() {
    for body in ["Content-Length: 4\r\n\r\nbody", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"] {
        let backend = closing_on_reuse();
        let tinylb = Tinylb::before(&backend);
        let mut client = tinylb.connect();
        assert_eq!(client.get("/").text(), "first");
        client.send(format!("POST /once HTTP/1.1\r\nHost: a\r\n{body}"));
        let response = client.response();
        response.assert_fault(502, "connection_terminated");
        let posts = backend.requests().iter().filter(|r| r.target() == "/once").count();
        assert_eq!(posts, 1);
    }
}

#[test]
fn a_backend_that_closes_after_each_answer_is_never_noticed_by_a_get() {
    let backend = Backend::closing_after(ok("and bye"));
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    for i in 0..300 {
        assert_eq!(client.get(&format!("/{i}")).text(), "and bye", "{i}");
    }
}

/// Whether the kernel has a connection to `port` on this machine whose peer has not closed. Slow
/// where many connections have been of late.
fn is_established(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (remote, established) = (format!("0100007F:{port:04X}"), "01");
    table.lines().skip(1).any(|line| {
        let mut columns = line.split_whitespace().skip(2);
        columns.next() == Some(&remote) && columns.next() == Some(established)
    })
}

/// Once the FIN has come, nothing is written to that connection, so even a POST is safe.
#[test]
fn a_connection_that_is_known_to_be_closed_is_not_used() {
    let backend = Backend::closing_after(ok("and bye"));
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    for i in 0..10 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
        assert_eq!(client.response().text(), "and bye", "{i}");
        let port = backend.address().port();
        eventually("the FIN has come", || (!is_established(port)).then_some(()));
    }
    assert_eq!(backend.requests().len(), 10);
}

#[test]
fn a_fresh_connection_that_closes_is_not_tried_for_ever() {
    let backend = Backend::new(|mut conn| {
        conn.request();
    });
    let tinylb = Tinylb::before(&backend);
    tinylb.get("/").assert_fault(502, "connection_terminated");
    assert_eq!(backend.requests().len(), 3, "{} times", backend.requests().len());
}
