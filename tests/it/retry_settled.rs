//! When a retry is none any more, and what it then gives back.

use crate::support::{Backend, Gate, Tinylb, config, eventually, ok};

/// Resets what comes first, then answers with an endless stream.
fn streaming_in_the_end() -> Backend {
    Backend::new(|mut conn| {
        if conn.request().is_none() {
            return;
        }
        if conn.index % 2 == 0 {
            return conn.reset();
        }
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n");
        let _ = conn.drain();
    })
}

/// A place in the budget is for finding an answer, not for the time that one lasts.
#[test]
fn an_answer_that_has_begun_gives_its_place_in_the_budget_back() {
    let backend = streaming_in_the_end();
    let tinylb = Tinylb::run(&config(&[backend.url()], "", "ejection = false"));
    let mut clients = Vec::new();
    // Twice as many as the budget has places.
    for _ in 0..6 {
        let mut client = tinylb.connect();
        client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = client.wire().head().expect("the stream begins");
        assert!(head.raw.starts_with("HTTP/1.1 200"), "{}", head.raw);
        clients.push(client);
    }
    assert_eq!(tinylb.metric("tinylb_upstream_retries_running", &[]), 0.0);
    assert_eq!(tinylb.metric("tinylb_retries_over_budget_total", &[]), 0.0);
}

/// What is held and does not end is a stream, and is passed on.
#[test]
fn a_held_answer_that_pauses_is_passed_on() {
    let backend = Backend::new(|mut conn| {
        if conn.request().is_some() {
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n");
            let _ = conn.drain();
        }
    });
    let tinylb = Tinylb::run(&config(&[backend.url()], "", "retry = { hold = \"64KiB\" }"));
    let mut client = tinylb.connect();
    client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.wire().head().expect("it is passed on after a while");
    assert!(head.raw.starts_with("HTTP/1.1 200"), "{}", head.raw);
}

/// Events are for now, not for when there are enough of them.
#[test]
fn a_stream_of_events_is_not_held() {
    let gate = Gate::new();
    let opened = gate.clone();
    let backend = Backend::new(move |mut conn| {
        if conn.request().is_some() {
            let kind = "Content-Type: text/event-stream; charset=utf-8";
            conn.send(format!("HTTP/1.1 200 OK\r\n{kind}\r\nTransfer-Encoding: chunked\r\n\r\n"));
            // An event every few milliseconds, until the first has been seen.
            while !opened.is_open() && conn.send("6\r\ndata:\n\r\n") {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    });
    let tinylb = Tinylb::run(&config(&[backend.url()], "", "retry = { hold = \"1MiB\" }"));
    let mut client = tinylb.connect();
    client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.wire().head().expect("it is passed on at once");
    assert!(head.raw.starts_with("HTTP/1.1 200"), "{}", head.raw);
    gate.open();
}

/// An answer that is asked for again leaves its connection as good as it was.
#[test]
fn a_status_that_is_asked_for_again_costs_no_connection() {
    let busy = Backend::answering("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy");
    let well = Backend::answering(ok("well"));
    let upstream = "policy = \"round-robin\"\nretry = { on = [\"503\"] }";
    let tinylb = Tinylb::run(&config(
        &[busy.url(), well.url()],
        "",
        &format!("{upstream}\nejection = false"),
    ));
    let mut client = tinylb.connect();
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "well");
    }
    eventually("both were asked", || (busy.requests().len() >= 8).then_some(()));
    // One for each worker at most.
    assert!(busy.connections() <= 2, "{} connections", busy.connections());
}
