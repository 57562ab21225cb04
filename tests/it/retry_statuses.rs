//! Answers that are asked for again by their status.

use crate::support::{Backend, Gate, Tinylb, ok, ranked};

const ON: &str = "retry = { on = [\"502-504\"] }";

fn failing(status: u16, words: &str) -> Backend {
    let length = words.len();
    Backend::answering(format!(
        "HTTP/1.1 {status} Sorry\r\nContent-Length: {length}\r\n\r\n{words}"
    ))
}

fn post(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
}

#[test]
fn the_answer_of_another_endpoint_is_given() {
    for status in [502, 503, 504] {
        let (first, second) = (failing(status, "not now"), Backend::named("second"));
        let tinylb = Tinylb::run(&ranked(&[first.url(), second.url()], "", ON));
        let mut client = tinylb.connect();
        let response = client.get("/again");
        assert_eq!((response.status, response.text().as_str()), (200, "second"));
        assert!(!response.head.has("proxy-status"), "{}", response.head.raw);
        tinylb.assert_tries("/again", 2, Some("status"));
        let line = tinylb.told("/again");
        assert_eq!((&line["status"], &line["endpoint"]), (&200.into(), &second.url().into()));
        assert_eq!(line["bytes_out"], 6, "the first answer is none: {line}");
        assert_eq!(tinylb.metric("tinylb_retries_total", &["reason=\"status\""]), 1.0);
        first.end_of(0);
        assert_eq!((first.requests().len(), second.requests().len()), (1, 1));
        assert_eq!(tinylb.metric("tinylb_endpoint_failures_total", &[]), 0.0, "an answer is none");
        client.assert_open();
    }
}

#[test]
fn if_all_say_the_same_the_client_gets_it_from_the_last() {
    let backends = [failing(503, "one"), failing(503, "two"), failing(503, "three")];
    let urls: Vec<_> = backends.iter().map(Backend::url).collect();
    let tinylb = Tinylb::run(&ranked(&urls, "", ON));
    let mut client = tinylb.connect();
    let response = client.get("/all");
    assert_eq!((response.status, response.text().as_str()), (503, "three"));
    assert!(!response.head.has("proxy-status"), "it is theirs: {}", response.head.raw);
    tinylb.assert_tries("/all", 3, Some("status"));
    assert!(backends.iter().all(|backend| backend.requests().len() == 1));
    assert_eq!(client.get("/all").status, 503, "the connection stays");
}

#[test]
fn there_are_no_more_tries_than_attempts() {
    let backends = [failing(503, "one"), failing(503, "two"), Backend::named("three")];
    let urls: Vec<_> = backends.iter().map(Backend::url).collect();
    let retry = "retry = { attempts = 2, on = [503] }";
    let tinylb = Tinylb::run(&ranked(&urls, "", retry));
    let response = tinylb.get("/two");
    assert_eq!((response.status, response.text().as_str()), (503, "two"));
    tinylb.assert_tries("/two", 2, Some("status"));
    assert_eq!(backends[2].connections(), 0);
}

#[test]
fn what_is_not_asked_for_again_is_passed_on_at_once() {
    let (first, second) = (failing(503, "not now"), Backend::named("second"));
    let urls = [first.url(), second.url()];
    let tinylb = Tinylb::run(&ranked(&urls, "", ON));
    let response = tinylb.exchange(post("/post"));
    assert_eq!((response.status, response.text().as_str()), (503, "not now"), "a POST");
    tinylb.assert_tries("/post", 1, None);
    let tinylb = Tinylb::run(&ranked(&urls, "", "retry = { on = [500] }"));
    assert_eq!(tinylb.get("/other").text(), "not now", "another status");
    let tinylb = Tinylb::run(&ranked(&urls, "", ""));
    assert_eq!(tinylb.get("/default").text(), "not now", "none is by default");
    let tinylb = Tinylb::run(&ranked(&urls[..1], "", ON));
    assert_eq!(tinylb.get("/only").text(), "not now", "there is no other");
    tinylb.assert_tries("/only", 1, None);
    assert_eq!(second.connections(), 0);
    let tinylb = Tinylb::run(&ranked(&urls, "idempotent = true", ON));
    assert_eq!(tinylb.exchange(post("/twice")).text(), "second", "a POST that may be sent twice");
}

/// The endpoint does not wait for the rest of the body; whoever is asked next gets all of it.
#[test]
fn a_status_before_the_body_was_whole() {
    let begun = Gate::new();
    let first = Backend::new(|mut conn| {
        if conn.head().is_some() {
            conn.wire.take(4);
            conn.send("HTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n");
            conn.drain();
        }
    });
    let second = Backend::new({
        let begun = begun.clone();
        move |mut conn| {
            let Some(head) = conn.head() else { return };
            begun.open();
            if conn.body(head).is_some() {
                conn.send(ok("second"));
            }
        }
    });
    let tinylb = Tinylb::run(&ranked(&[first.url(), second.url()], "", ON));
    let mut client = tinylb.connect();
    client.send("PUT /early HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
    begun.pass();
    client.send("67890");
    assert_eq!(client.response().text(), "second");
    assert_eq!(second.request().body, b"1234567890");
    client.send(post("/next"));
    assert_eq!(client.response().status, 503, "the connection is in order");
}
