//! Exchanges of HTTP/2 that do not go well: tried again, given up by the client, too large, too slow.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::Request;

use crate::support::http2::{Fate, Frames, request};
use crate::support::streams::{Answer, Streams, capacity, run, soon};
use crate::support::{Backend, Gate, Tinylb, config, eventually, ok, ranked};

fn put(body: &[u8]) -> Request<&[u8]> {
    Request::put("http://test/put").body(body).unwrap()
}

#[test]
fn a_request_is_sent_again_with_its_body() {
    for length in [0, 1, 20_000, 65_536] {
        let body: Vec<u8> = (0..length).map(|i| (i * 31 + i / 251) as u8).collect();
        let (failing, other) = (Backend::resetting(), Backend::named("other"));
        let tinylb = Tinylb::run(&ranked(&[failing.url(), other.url()], "", ""));
        let answer = run(async { Streams::connect(&tinylb).await.exchange(put(&body)).await });
        assert_eq!((answer.status, answer.text().as_str()), (200, "other"));
        assert!(failing.request().body == body && other.request().body == body, "{length}");
        tinylb.assert_tries("/put", 2, Some("reset"));
        assert_eq!(tinylb.told("/put")["bytes_in"], length, "each byte is counted once");
    }
}

#[test]
fn what_may_not_be_sent_twice_is_not() {
    let (failing, other) = (Backend::resetting(), Backend::named("other"));
    let tinylb = Tinylb::run(&ranked(&[failing.url(), other.url()], "", ""));
    let post = Request::post("http://test/post").body(&b"x"[..]).unwrap();
    let answer = run(async { Streams::connect(&tinylb).await.exchange(post).await });
    answer.assert_fault(502, "connection_terminated");
    assert_eq!(other.requests().len(), 0);
}

#[test]
fn a_status_that_is_asked_for_again() {
    let full = Backend::answering("HTTP/1.1 503 x\r\nContent-Length: 4\r\n\r\nfull");
    let other = Backend::named("other");
    let text = ranked(&[full.url(), other.url()], "", "retry = { on = [503] }");
    let tinylb = Tinylb::run(&text);
    let answer = run(async { Streams::connect(&tinylb).await.get("/again").await });
    assert_eq!((answer.status, answer.text().as_str()), (200, "other"));
    tinylb.assert_tries("/again", 2, Some("status"));
}

#[test]
fn a_second_endpoint_is_asked_where_the_first_is_slow() {
    let (slow, fast) = (Backend::silent(), Backend::named("fast"));
    let tinylb = Tinylb::run(&ranked(&[slow.url(), fast.url()], "hedge = \"50ms\"", ""));
    let answer = run(async { Streams::connect(&tinylb).await.get("/hedged").await });
    assert_eq!((answer.status, answer.text().as_str()), (200, "fast"));
    slow.end_of(0);
    tinylb.assert_tries("/hedged", 2, Some("hedge"));
}

/// However far the exchange is when the client gives it up: the backend's connection is let go.
#[test]
fn what_a_client_gives_up() {
    let post = request("POST", "/gone");
    let upload = |client: &mut Frames| {
        client.head(1, &post, false);
        client.data(1, b"some", false);
    };
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
    for (what, answer, begin) in [
        (
            "waiting for an answer",
            "",
            (&|client: &mut Frames| client.get(1, "/gone")) as &dyn Fn(&mut _),
        ),
        ("in mid-answer", begun, &|client: &mut Frames| client.get(1, "/gone")),
        ("in mid-request", "", &upload),
        ("in the middle of both", begun, &upload),
    ] {
        for by_connection in [false, true] {
            let backend = Backend::new(move |mut conn| {
                conn.head();
                conn.send(answer);
                conn.drain();
            });
            let text =
                format!("log = {{ access = \"json\" }}\n{}", config(&[backend.url()], "", ""));
            let tinylb = Tinylb::run(&text);
            let mut client = Frames::connect(&tinylb);
            begin(&mut client);
            if answer.is_empty() {
                eventually("the request arrives", || {
                    (!backend.received().is_empty()).then_some(())
                });
            } else {
                assert_eq!(client.fate(1), Fate::Answered(200));
            }
            if by_connection {
                drop(client);
            } else {
                client.reset(1);
                assert!(client.is_answering(), "{what}: the connection lives");
            }
            backend.end_of(0);
            let line = tinylb.told("/gone");
            assert_eq!(line["status"], 499, "{what}: {line}");
        }
    }
}

/// The same where the backend takes no more of an upload, so that nothing can be written to it.
#[test]
fn an_upload_that_is_stuck_and_given_up() {
    let gate = Gate::new();
    let backend = Backend::narrow({
        let gate = gate.clone();
        move |mut conn| {
            conn.head();
            gate.pass();
            conn.drain();
        }
    });
    let tinylb = Tinylb::run(&format!(
        "log = {{ access = \"json\" }}\n{}",
        config(&[backend.url()], "", "")
    ));
    run(async {
        let mut streams = Streams::connect(&tinylb).await;
        let request = Request::post("http://test/stuck").body(()).unwrap();
        let (_response, mut stream) = streams.send(request, false).await;
        loop {
            let more = capacity(&mut stream, 1 << 20);
            let Ok(room) = tokio::time::timeout(Duration::from_millis(500), more).await else {
                break;
            };
            stream.send_data(Bytes::from(vec![0; room]), false).unwrap();
        }
        stream.send_reset(Reason::CANCEL);
        let told = tokio::task::spawn_blocking(move || tinylb.told("/stuck"));
        assert_eq!(told.await.unwrap()["status"], 499);
    });
    gate.open();
    backend.end_of(0);
}

#[test]
fn bodies_that_are_too_large() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::run(&config(&[backend.url()], "max_body = \"1000B\"", ""));
    run(async {
        let mut streams = Streams::connect(&tinylb).await;
        let answer = streams.exchange(put(&[b'x'; 1000])).await;
        assert_eq!(answer.status, 200);
        // By its length.
        let request =
            Request::put("http://test/").header("content-length", "1001").body(()).unwrap();
        let (response, _stream) = streams.send(request, false).await;
        Answer::of(response).await.assert_fault(413, "http_request_error");
        assert_eq!(backend.requests().len(), 1);
        // By what comes.
        let request = Request::put("http://test/").body(()).unwrap();
        let (response, mut stream) = streams.send(request, false).await;
        stream.send_data(vec![b'x'; 600].into(), false).unwrap();
        stream.send_data(vec![b'x'; 600].into(), false).unwrap();
        Answer::of(response).await.assert_fault(413, "http_request_error");
        let reset = soon("the stream ends", poll_fn(|cx| stream.poll_reset(cx))).await;
        assert_eq!(reset.unwrap(), Reason::NO_ERROR);
        assert_eq!(streams.get("/").await.status, 200);
    });
    assert_eq!(backend.requests().len(), 2);
}

/// The body that stops is told of; others on its connection go on.
#[test]
fn bodies_that_do_not_go_on() {
    let backend = Backend::new(|mut conn| {
        while let Some(request) = conn.request() {
            if request.target() == "/slow" {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
                conn.drain();
                return;
            }
            conn.send(ok("fine"));
        }
    });
    let text = config(
        &[backend.url()],
        "timeouts = { body = \"300ms\" }",
        "timeouts = { body = \"300ms\" }",
    );
    let tinylb = Tinylb::run(&text);
    run(async {
        let mut streams = Streams::connect(&tinylb).await;
        let request = Request::post("http://test/").body(()).unwrap();
        let (response, mut stream) = streams.send(request, false).await;
        stream.send_data(Bytes::from_static(b"some"), false).unwrap();
        Answer::of(response).await.assert_fault(408, "http_request_error");
        let answer = streams.get("/slow").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "half"));
        assert_eq!(answer.reset, Some(Reason::INTERNAL_ERROR));
        assert_eq!(streams.get("/").await.status, 200);
    });
}

/// A client that does not take its answer is given up, and others on its connection are not.
#[test]
fn answers_that_are_not_taken() {
    let backend = Backend::new(|mut conn| {
        while let Some(request) = conn.request() {
            conn.send(ok(&"x".repeat(if request.target() == "/large" { 1 << 20 } else { 10 })));
        }
    });
    let text = config(&[backend.url()], "timeouts = { body = \"300ms\" }", "");
    let tinylb = Tinylb::run(&format!("log = {{ access = \"json\" }}\n{text}"));
    let mut client = Frames::connect(&tinylb);
    client.open_windows(0, 1 << 20);
    client.get(1, "/large");
    let reset = client.find(|frame| frame.is(crate::support::http2::RST_STREAM, 1)).unwrap();
    assert_eq!(reset.code(), crate::support::http2::INTERNAL_ERROR);
    assert_eq!(tinylb.told("/large")["status"], 499);
    client.assert_serves(3);
}

#[test]
fn a_backend_that_never_answers() {
    let backend = Backend::silent();
    let tinylb = Tinylb::run(&config(&[backend.url()], "", "timeouts = { response = \"200ms\" }"));
    let answer = run(async { Streams::connect(&tinylb).await.get("/").await });
    answer.assert_fault(504, "http_response_timeout");
    backend.end_of(0);
}

/// Requests that wait for room are let in as they are in HTTP/1.1, and those that are given up meanwhile
/// make no use of it.
#[test]
fn streams_that_wait_for_room() {
    let gate = Gate::new();
    let backend = Backend::new({
        let gate = gate.clone();
        move |mut conn| {
            while conn.request().is_some() {
                gate.pass();
                conn.send(ok("done"));
            }
        }
    });
    let text = config(&[backend.url()], "", "limits = { requests = 1 }");
    let tinylb = Tinylb::run(&text);
    let mut client = Frames::connect(&tinylb);
    client.get(1, "/first");
    backend.wait_for_requests(1);
    client.get(3, "/given-up");
    client.get(5, "/third");
    client.reset(3);
    assert!(client.is_answering());
    gate.open();
    assert_eq!(client.fate(1), Fate::Answered(200));
    assert_eq!(client.fate(5), Fate::Answered(200));
    let targets: Vec<_> = backend.requests().iter().map(|r| r.target().to_owned()).collect();
    assert_eq!(targets, ["/first", "/third"]);
}
