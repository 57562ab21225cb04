//! Endpoints of HTTP/2 that turn requests away, give them up, or vanish: what is sent again, and what is not.

use std::thread::{self, JoinHandle};

use h2::Reason;

use crate::support::{Asked, Http2Backend, Response, Signal, Tinylb, config, eventually, ranked};

/// Idle connections stay for longer than any test.
const KEPT: &str = "timeouts = { idle = \"5m\", connect = \"20s\" }";

fn alone(endpoints: &[String], upstream: &str) -> Tinylb {
    Tinylb::run(&config(endpoints, "", upstream).replace("workers = 2", "workers = 1"))
}

/// Sends a request without a body, or with one, and waits for the answer on a thread of its own.
fn ask(tinylb: &Tinylb, method: &str, path: &str) -> JoinHandle<Response> {
    let mut client = tinylb.connect();
    let body = if method == "POST" { "Content-Length: 4\r\n\r\nbody" } else { "\r\n" };
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{body}"));
    thread::spawn(move || client.response())
}

#[track_caller]
fn answered(asked: JoinHandle<Response>) -> String {
    let response = asked.join().unwrap();
    assert_eq!(response.status, 200, "{:?} {:?}", response.head.raw, response.text());
    assert!(response.complete);
    response.text()
}

/// The standing of the upstream's only or first endpoint, and the failures that were counted against all.
fn standing(tinylb: &Tinylb) -> (String, f64) {
    (tinylb.first_state(), tinylb.metric("tinylb_endpoint_failures_total", &[]))
}

#[test]
fn streams_that_are_under_way_when_a_connection_ends_gracefully_go_on() {
    let backend = Http2Backend::held();
    let tinylb = alone(&[backend.url()], KEPT);
    let before: Vec<_> = ["GET", "POST"].iter().map(|m| ask(&tinylb, m, "/before")).collect();
    let streams = backend.next_of(2);
    backend.end_gracefully(0);
    for n in 0..5 {
        let after = ask(&tinylb, "POST", "/after");
        let stream = backend.next();
        stream.ok("after");
        assert_eq!(answered(after), "after", "{n}");
    }
    assert_eq!(backend.connections(), 2);
    streams.into_iter().for_each(|asked| asked.ok("before"));
    before.into_iter().for_each(|asked| assert_eq!(answered(asked), "before"));
    eventually("the connection ends with its streams", || (backend.open() == 1).then_some(()));
    assert_eq!(standing(&tinylb), ("up".into(), 0.0));
}

#[test]
fn what_was_refused_goes_to_another_endpoint_whatever_it_is() {
    let refusing = Http2Backend::new(async |asked| asked.reset(Reason::REFUSED_STREAM));
    let other = Http2Backend::new(async |mut asked: Asked| {
        let (body, _) = asked.whole().await.unwrap();
        asked.ok(&String::from_utf8(body).unwrap());
    });
    let text = ranked(&[refusing.url(), other.url()], "", KEPT);
    let tinylb = Tinylb::run(&text);
    for _ in 0..4 {
        assert_eq!(answered(ask(&tinylb, "POST", "/refused")), "body");
    }
    assert_eq!((refusing.requests(), other.requests()), (4, 4));
    let record = tinylb.wait_for_access("/refused");
    assert!(record.contains("\"attempts\":2"), "{record}");
    assert!(record.contains("\"refused_stream\""), "{record}");
    let retries = |reason| tinylb.metric("tinylb_retries_total", &[reason]);
    assert_eq!(retries("refused_stream"), 4.0);
    assert_eq!(retries("reason=\"connect\""), 0.0);
    // Five in a row.
    assert_eq!(answered(ask(&tinylb, "GET", "/once-more")), "");
    eventually("it is left alone", || (standing(&tinylb).0 == "ejected").then_some(()));
    assert_eq!(answered(ask(&tinylb, "POST", "/alone")), "body");
    assert_eq!(refusing.requests(), 5);
}

#[test]
fn who_refuses_always_is_not_asked_for_ever() {
    let refusing = Http2Backend::new(async |asked| asked.reset(Reason::REFUSED_STREAM));
    let tinylb = alone(&[refusing.url()], KEPT);
    for (nth, method) in ["GET", "POST", "GET", "POST"].iter().enumerate() {
        let response = ask(&tinylb, method, "/").join().unwrap();
        response.assert_fault(502, "connection_terminated");
        assert_eq!(refusing.requests(), 3 * (nth + 1), "as many as `attempts`");
    }
    assert!(standing(&tinylb).1 >= 4.0, "{:?}", standing(&tinylb));
}

#[test]
fn what_was_refused_is_sent_again_to_the_only_endpoint() {
    let backend = Http2Backend::held();
    let tinylb = alone(&[backend.url()], KEPT);
    for method in ["POST", "GET"] {
        let asked = ask(&tinylb, method, "/");
        for _ in 0..2 {
            backend.next().reset(Reason::REFUSED_STREAM);
        }
        backend.next().ok("third");
        assert_eq!(answered(asked), "third");
    }
    assert!(backend.connections() <= 4, "a retry takes another connection while one may be made");
}

#[test]
fn a_stream_that_is_reset_before_its_answer_is_sent_again_only_if_it_may_come_twice() {
    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::NO_ERROR, Reason::PROTOCOL_ERROR]
    {
        let resetting = Http2Backend::new(async move |asked| asked.reset(reason));
        let other = Http2Backend::answering("other");
        let text = ranked(&[resetting.url(), other.url()], "", KEPT);
        let tinylb = Tinylb::run(&text.replace("workers = 2", "workers = 1"));
        assert_eq!(answered(ask(&tinylb, "GET", "/twice")), "other");
        let response = ask(&tinylb, "POST", "/once").join().unwrap();
        response.assert_fault(502, "http_response_incomplete");
        assert_eq!((resetting.requests(), other.requests()), (2, 1), "{reason:?}");
        assert_eq!(resetting.connections(), 1);
        assert_eq!(standing(&tinylb).1, 2.0, "{reason:?}");
    }
}

#[test]
fn an_answer_that_is_reset_in_its_middle_is_cut() {
    let backend = Http2Backend::new(async |mut asked: Asked| {
        let mut stream = match asked.path() {
            "/length" => {
                let head = http::Response::builder().header("content-length", 10);
                asked.respond.send_response(head.body(()).unwrap(), false).unwrap()
            }
            _ => asked.begin(),
        };
        stream.send_data("half".into(), false).unwrap();
        // The data goes first.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        stream.send_reset(Reason::NO_ERROR);
    });
    let tinylb = alone(&[backend.url()], KEPT);
    for path in ["/length", "/chunked"] {
        let response = ask(&tinylb, "GET", path).join().unwrap();
        assert_eq!((response.status, response.complete), (200, false), "{path}");
        assert_eq!(response.text(), "half");
    }
    let mut old = tinylb.connect();
    old.send("GET /old HTTP/1.0\r\nHost: test\r\n\r\n");
    assert_eq!(old.response().text(), "half");
    assert_eq!(
        old.wire().end(),
        Some(crate::support::End::Reset),
        "nothing else says that it is cut"
    );
    assert_eq!(backend.connections(), 1);
}

#[test]
fn a_connection_that_is_lost_is_one_failure_and_costs_only_what_may_not_come_twice() {
    const STREAMS: usize = 12;
    let backend = Http2Backend::held();
    let tinylb = alone(&[backend.url()], &format!("retry = {{ budget = 1.0 }}\n{KEPT}"));
    let kept = ask(&tinylb, "GET", "/first");
    backend.next().ok("first");
    answered(kept);
    let asked = |method| (0..STREAMS).map(|_| ask(&tinylb, method, "/")).collect::<Vec<_>>();
    let (gets, posts) = (asked("GET"), asked("POST"));
    let lost = backend.next_of(2 * STREAMS);
    assert_eq!(backend.connections(), 1);
    backend.cut(0);
    for _ in 0..STREAMS {
        let again = backend.next();
        assert_eq!((again.head.method.as_str(), again.connection), ("GET", 1));
        again.ok("again");
    }
    gets.into_iter().for_each(|asked| assert_eq!(answered(asked), "again"));
    for asked in posts {
        asked.join().unwrap().assert_fault(502, "connection_terminated");
    }
    assert!(backend.is_quiet());
    drop(lost);
    assert_eq!(standing(&tinylb), ("up".into(), 1.0));
}

/// Stops every thread of the balancer.
fn stand_still(tinylb: &Tinylb) {
    tinylb.signal(Signal::STOP);
    eventually("it stands still", || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", tinylb.pid())).unwrap();
        let is_stopped = |thread: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('T')
        };
        threads.into_iter().all(is_stopped).then_some(())
    });
}

/// The request comes before the runtime knows of the end, which only the kernel does.
#[test]
fn nothing_is_sent_on_a_connection_that_has_just_ended() {
    let backend = Http2Backend::answering("there");
    let tinylb = alone(&[backend.url()], KEPT);
    let mut client = tinylb.connect();
    let request = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody";
    for connection in [0, 2, 4, 6, 8] {
        client.send(request);
        assert_eq!(client.response().status, 200);
        stand_still(&tinylb);
        client.send(request);
        backend.cut(connection);
        eventually("the connection is cut", || (backend.open() == 0).then_some(()));
        tinylb.signal(Signal::CONT);
        assert_eq!(client.response().status, 200);
        backend.cut(connection + 1);
        eventually("the connection is cut", || (backend.open() == 0).then_some(()));
    }
    assert_eq!(standing(&tinylb), ("up".into(), 0.0));
}

#[test]
fn a_connection_on_which_nothing_came_while_an_answer_was_late_is_not_used_again() {
    let backend = Http2Backend::held();
    let tinylb = alone(
        &[backend.url()],
        "timeouts = { response = \"2s\", idle = \"5m\", connect = \"20s\" }",
    );
    // What both sides say first is over then.
    let first = ask(&tinylb, "GET", "/first");
    backend.next().ok("first");
    assert_eq!(answered(first), "first");
    let late = ask(&tinylb, "GET", "/late");
    let never = backend.next();
    assert_eq!(late.join().unwrap().status, 504);
    let next = ask(&tinylb, "GET", "/next");
    backend.next().ok("next");
    assert_eq!(answered(next), "next");
    assert_eq!(backend.connections(), 2, "the first may hang");

    // An answer that is late while another one comes is nothing that the connection can help.
    let late = ask(&tinylb, "GET", "/late");
    let slow = backend.next();
    let other = ask(&tinylb, "GET", "/other");
    backend.next().ok("other");
    assert_eq!(answered(other), "other");
    assert_eq!(late.join().unwrap().status, 504);
    let next = ask(&tinylb, "GET", "/next");
    backend.next().ok("next");
    assert_eq!(answered(next), "next");
    assert_eq!(backend.connections(), 2);
    drop((never, slow));
}

#[test]
fn a_connection_on_which_nothing_came_until_its_client_left_is_not_used_again() {
    let backend = Http2Backend::held();
    let tinylb = alone(&[backend.url()], KEPT);
    let first = ask(&tinylb, "GET", "/first");
    backend.next().ok("first");
    assert_eq!(answered(first), "first");
    let mut client = tinylb.connect();
    client.send("GET /never HTTP/1.1\r\nHost: test\r\n\r\n");
    let never = backend.next();
    // Longer than the silence that says something.
    thread::sleep(std::time::Duration::from_millis(1100));
    client.reset();
    let in_flight = || tinylb.metric("tinylb_endpoint_requests_in_flight", &[]);
    eventually("the client's end is noticed", || (in_flight() == 0.0).then_some(()));
    let next = ask(&tinylb, "GET", "/next");
    backend.next().ok("next");
    assert_eq!(answered(next), "next");
    assert_eq!(backend.connections(), 2);
    drop(never);
}
