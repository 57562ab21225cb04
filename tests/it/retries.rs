//! A try that failed, and whether there is another: by method, by what is known to have been sent,
//! and how often.

use std::time::{Duration, Instant};

use crate::support::{Backend, Refusing, Tinylb, config, ok, ranked};

/// A log of JSON besides, for the configurations of [`config`].
const LOGGING: &str = "workers = 2\nlog = { access = \"json\" }";

/// Reads one whole request, then closes in order.
fn hanging_up() -> Backend {
    Backend::new(|mut conn| {
        conn.request();
    })
}

fn request(method: &str, path: &str) -> String {
    let body = match method {
        "PUT" | "POST" | "PATCH" => "Content-Length: 4\r\n\r\nbody",
        _ => "\r\n",
    };
    format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{body}")
}

#[test]
fn what_can_be_asked_twice_is_answered_by_another_endpoint() {
    for failing in [Backend::resetting, hanging_up] {
        let (failing, other) = (failing(), Backend::named("other"));
        let urls = [failing.url(), other.url()];
        let tinylb = Tinylb::run(&ranked(&urls, "", "ejection = false"));
        let methods = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"];
        let mut client = tinylb.connect();
        for method in methods {
            client.send(request(method, &format!("/{method}")));
            let response = client.response_to(method);
            assert_eq!(response.status, 200, "{method}");
            assert_eq!(response.text(), if method == "HEAD" { "" } else { "other" });
            tinylb.assert_tries(&format!("/{method}"), 2, Some("reset"));
            assert_eq!(tinylb.told(&format!("/{method}"))["endpoint"], other.url(), "{method}");
        }
        let expected = methods.map(String::from);
        for backend in [&failing, &other] {
            let asked: Vec<_> = backend.requests().iter().map(|r| r.method().to_owned()).collect();
            assert_eq!(asked, expected, "each once");
        }
        assert_eq!(tinylb.metric("tinylb_retries_total", &["reason=\"reset\""]), 5.0);
        assert_eq!(tinylb.metric("tinylb_retries_total", &[]), 5.0, "and for no other reason");
        client.assert_open();
    }
}

#[test]
fn a_post_is_sent_once() {
    for failing in [Backend::resetting, hanging_up] {
        for method in ["POST", "PATCH", "BREW"] {
            let (failing, other) = (failing(), Backend::named("other"));
            let tinylb = Tinylb::run(&ranked(&[failing.url(), other.url()], "", ""));
            let response = tinylb.exchange(request(method, "/once"));
            response.assert_fault(502, "connection_terminated");
            assert_eq!(failing.request().method(), method, "it arrived exactly once");
            assert_eq!(other.connections(), 0);
            tinylb.assert_tries("/once", 1, None);
        }
    }
}

#[test]
fn a_post_is_sent_twice_where_the_route_says_that_it_may_be() {
    for method in ["POST", "PATCH"] {
        let (failing, other) = (Backend::resetting(), Backend::named("other"));
        let urls = [failing.url(), other.url()];
        let tinylb = Tinylb::run(&ranked(&urls, "idempotent = true", ""));
        assert_eq!(tinylb.exchange(request(method, "/twice")).text(), "other");
        assert_eq!(failing.request().body, b"body");
        assert_eq!(other.request().body, b"body");
        tinylb.assert_tries("/twice", 2, Some("reset"));
    }
}

/// Nothing was sent, so any request may go elsewhere, however few attempts there may be.
#[test]
fn a_post_whose_connection_could_not_be_made_goes_elsewhere() {
    for retry in ["", "retry = false"] {
        let (dead, other) = (Refusing::new(), Backend::named("other"));
        let tinylb = Tinylb::run(&ranked(&[dead.url(), other.url()], "", retry));
        assert_eq!(tinylb.exchange(request("POST", "/elsewhere")).text(), "other", "{retry}");
        assert_eq!(other.request().body, b"body");
        tinylb.assert_tries("/elsewhere", 1, Some("connect"));
        assert_eq!(tinylb.metric("tinylb_retries_total", &["reason=\"connect\""]), 1.0);
        let refused = ["endpoint=", &dead.url()];
        assert_eq!(tinylb.metric("tinylb_endpoint_connect_failures_total", &refused), 1.0);
    }
}

#[test]
fn a_request_is_sent_no_more_often_than_attempts_say() {
    for (retry, attempts) in [
        ("retry = false", 1),
        ("retry = { attempts = 1 }", 1),
        ("retry = { attempts = 2 }", 2),
        ("", 3),
        ("retry = { attempts = 5 }", 5),
        ("retry = { attempts = 7 }", 7),
    ] {
        let backends = [(); 4].map(|()| Backend::resetting());
        let urls: Vec<_> = backends.iter().map(Backend::url).collect();
        let tinylb = Tinylb::run(&ranked(&urls, "", &format!("ejection = false\n{retry}")));
        tinylb.get("/failing").assert_fault(502, "connection_terminated");
        let counts: Vec<_> = backends.iter().map(|backend| backend.requests().len()).collect();
        // All others come before any is asked again.
        let expected: Vec<_> = (0..4).map(|index| (attempts + 3 - index) / 4).collect();
        assert_eq!(counts, expected, "{retry}");
        let reasons = (attempts > 1).then_some("reset");
        tinylb.assert_tries("/failing", u32::try_from(attempts).unwrap(), reasons);
    }
}

/// Fails on its first connections, and is well on those after them.
fn failing_first(count: usize) -> Backend {
    Backend::new(move |mut conn| {
        if conn.index >= count {
            return conn.answer_all(ok("well"));
        }
        conn.request();
    })
}

#[test]
fn the_only_endpoint_is_asked_again_after_a_while() {
    let backend = failing_first(2);
    let tinylb = Tinylb::run(&ranked(&[backend.url()], "", ""));
    let began = Instant::now();
    assert_eq!(tinylb.get("/patient").text(), "well");
    // At least half of 25 and of 50 ms.
    assert!(began.elapsed() >= Duration::from_millis(37), "{:?}", began.elapsed());
    assert_eq!(backend.requests().len(), 3);
    tinylb.assert_tries("/patient", 3, Some("reset"));
}

#[test]
fn with_retries_off_a_request_is_sent_once() {
    let (failing, other) = (failing_first(1), Backend::named("other"));
    let tinylb = Tinylb::run(&ranked(&[failing.url(), other.url()], "", "retry = false"));
    tinylb.get("/once").assert_fault(502, "connection_terminated");
    tinylb.assert_tries("/once", 1, None);
    assert_eq!((failing.requests().len(), other.connections()), (1, 0));
    assert_eq!(tinylb.get("/").text(), "well");
}

const MALFORMED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok";

#[test]
fn a_malformed_answer_is_asked_for_again_elsewhere() {
    let (odd, other) = (Backend::answering(MALFORMED), Backend::named("other"));
    let tinylb = Tinylb::run(&ranked(&[odd.url(), other.url()], "", ""));
    assert_eq!(tinylb.get("/malformed").text(), "other");
    tinylb.assert_tries("/malformed", 2, Some("malformed"));
    assert_eq!(tinylb.metric("tinylb_retries_total", &["reason=\"malformed\""]), 1.0);
    tinylb.exchange(request("POST", "/post")).assert_fault(502, "http_protocol_error");
    assert_eq!((odd.requests().len(), other.requests().len()), (2, 1));
}

/// It would most likely say the same again.
#[test]
fn nobody_is_asked_twice_who_answered_with_nonsense() {
    let backends = [Backend::answering(MALFORMED), Backend::answering(MALFORMED)];
    let one = Tinylb::run(&ranked(&[backends[0].url()], "", ""));
    one.get("/").assert_fault(502, "http_protocol_error");
    assert_eq!(backends[0].requests().len(), 1);
    let urls = [backends[0].url(), backends[1].url()];
    let two = Tinylb::run(&ranked(&urls, "", ""));
    two.get("/both").assert_fault(502, "http_protocol_error");
    two.assert_tries("/both", 2, Some("malformed"));
    assert_eq!((backends[0].requests().len(), backends[1].requests().len()), (2, 1));
}

#[test]
fn an_interim_answer_has_gone_to_the_client_and_is_no_answer() {
    let failing = Backend::new(|mut conn| {
        if conn.request().is_some() {
            conn.send("HTTP/1.1 103 Early Hints\r\nLink: </first>\r\n\r\n");
            conn.reset();
        }
    });
    let other = Backend::answering(format!(
        "HTTP/1.1 103 Early Hints\r\nLink: </second>\r\n\r\n{}",
        ok("other")
    ));
    let tinylb = Tinylb::run(&ranked(&[failing.url(), other.url()], "", ""));
    let mut client = tinylb.connect();
    let response = client.get("/hints");
    // A reset may overtake what was sent before it.
    let second = match response.head.get("link") {
        Some("</first>") => client.response(),
        _ => response,
    };
    assert_eq!((second.status, second.head.get("link")), (103, Some("</second>")));
    assert_eq!(client.response().text(), "other");
    tinylb.assert_tries("/hints", 2, Some("reset"));
}

/// Answers the first request of its first connection and closes it at the second one; resets its second
/// connection if `resets`; answers everything after that.
fn losing_its_idle_connection(resets: bool) -> Backend {
    Backend::new(move |mut conn| match conn.index {
        0 => {
            conn.request();
            conn.send(ok("first"));
            conn.request();
        }
        1 if resets => {
            conn.request();
            conn.reset();
        }
        _ => conn.answer_all(ok("fresh")),
    })
}

/// RFC 9112 9.3.1: a request that a closed connection has swallowed is sent again, which is no attempt.
#[test]
fn the_replacement_of_a_stale_connection_is_no_attempt() {
    let (first, second) = (losing_its_idle_connection(true), losing_its_idle_connection(false));
    let upstream = "policy = \"round-robin\"\nejection = false\nretry = { attempts = 2 }";
    let urls = [first.url(), second.url()];
    let tinylb = Tinylb::run(&config(&urls, "", upstream).replace("workers = 2", LOGGING));
    let mut client = tinylb.connect();
    for _ in 0..2 {
        assert_eq!(client.get("/").text(), "first");
    }
    // Four times sent, twice on fresh connections.
    assert_eq!(client.get("/stale").text(), "fresh");
    tinylb.assert_tries("/stale", 4, Some("stale_connection,reset"));
    assert_eq!((first.requests().len(), second.requests().len()), (3, 3));
}

/// A request that every endpoint fails on reaches no more than twice as many as `attempts` says.
#[test]
fn a_request_on_stale_connections_only_is_given_up_in_the_end() {
    let backends = [(); 8].map(|()| losing_its_idle_connection(true));
    let urls = backends.each_ref().map(Backend::url);
    let upstream = "policy = \"round-robin\"\nejection = false\nretry = { attempts = 2 }";
    let tinylb = Tinylb::run(&config(&urls, "", upstream).replace("workers = 2", LOGGING));
    let mut client = tinylb.connect();
    for _ in 0..8 {
        assert_eq!(client.get("/").text(), "first");
    }
    client.get("/deadly").assert_fault(502, "connection_terminated");
    tinylb.assert_tries("/deadly", 4, Some("stale_connection,reset"));
}

/// The rest of an earlier response makes a reused connection useless, and says nothing of the endpoint.
#[test]
fn a_malformed_response_on_a_reused_connection_is_asked_for_again_on_a_fresh_one() {
    let backend = Backend::new(|mut conn| {
        conn.request();
        conn.send(ok("first"));
        while conn.request().is_some() {
            conn.send(if conn.index == 0 { "stray rest\r\n\r\n".into() } else { ok("fresh") });
        }
    });
    let tinylb = Tinylb::run(&ranked(&[backend.url()], "", "retry = { attempts = 2 }"));
    let mut client = tinylb.connect();
    assert_eq!(client.get("/").text(), "first");
    assert_eq!(client.get("/spoilt").text(), "first");
    tinylb.assert_tries("/spoilt", 2, Some("malformed"));
    assert_eq!(tinylb.metric("tinylb_endpoint_failures_total", &[&backend.url()]), 0.0);
}

/// What may not be sent twice is not, whatever the connection.
#[test]
fn a_post_is_not_repeated_where_a_reused_connection_answers_nonsense() {
    let backend = Backend::new(|mut conn| {
        conn.request();
        conn.send(ok("first"));
        while conn.request().is_some() && conn.send("stray rest\r\n\r\n") {}
    });
    let tinylb = Tinylb::run(&ranked(&[backend.url()], "", ""));
    let mut client = tinylb.connect();
    assert_eq!(client.get("/").text(), "first");
    client.send(request("POST", "/once"));
    client.response().assert_fault(502, "http_protocol_error");
    assert_eq!(backend.requests().len(), 2);
}

/// What turns out closed costs no other endpoint anything.
#[test]
fn a_stale_connection_is_replaced_before_others_are_asked() {
    let backend = Backend::new(|mut conn| {
        if conn.index > 0 {
            return conn.answer_all(ok("fresh"));
        }
        conn.request();
        conn.send(ok("first"));
        conn.request();
    });
    let other = Backend::named("other");
    let tinylb =
        Tinylb::run(&ranked(&[backend.url(), other.url()], "", "retry = { attempts = 2 }"));
    let mut client = tinylb.connect();
    assert_eq!(client.get("/").text(), "first");
    assert_eq!(client.get("/stale").text(), "fresh");
    tinylb.assert_tries("/stale", 2, Some("stale_connection"));
    assert_eq!(tinylb.metric("tinylb_retries_total", &["reason=\"stale_connection\""]), 1.0);
    // It had been in use a moment ago, so it did not close for having been idle.
    assert_eq!(tinylb.metric("tinylb_endpoint_failures_total", &[&backend.url()]), 1.0);
    assert_eq!(other.connections(), 0);
}

/// Also one that turns out closed is sent no more often than `attempts` says.
#[test]
fn a_stale_connection_is_not_replaced_where_nothing_may_be_sent_again() {
    let backend = Backend::new(|mut conn| {
        conn.request();
        conn.send(ok("first"));
        conn.request();
    });
    let tinylb = Tinylb::run(&ranked(&[backend.url()], "", "retry = false"));
    let mut client = tinylb.connect();
    assert_eq!(client.get("/").text(), "first");
    client.get("/stale").assert_fault(502, "connection_terminated");
    tinylb.assert_tries("/stale", 1, None);
}
