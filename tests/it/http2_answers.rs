//! What surrounds bodies in HTTP/2: answers before the answer, trailers, and clients that wait for a
//! word before they send.

use std::future::poll_fn;

use bytes::Bytes;
use h2::client::ResponseFuture;
use http::{HeaderMap, Request, Response};

use crate::support::streams::{Answer, Streams, run, soon};
use crate::support::{Backend, Gate, Tinylb, config, eventually, ok};

/// The next answer before the answer.
async fn informational(response: &mut ResponseFuture) -> Response<()> {
    let next = poll_fn(|cx| response.poll_informational(cx));
    soon("an informational answer comes", next).await.expect("one").unwrap()
}

#[test]
fn informational_answers_come_first() {
    let gate = Gate::new();
    let backend = Backend::new({
        let gate = gate.clone();
        move |mut conn| {
            while conn.request().is_some() {
                conn.send(
                    "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: close\r\n\r\n",
                );
                gate.pass();
                conn.send(
                    "HTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\n\r\nHTTP/1.1 102 x\r\n\r\n",
                );
                conn.send(ok("hello"));
            }
        }
    });
    let tinylb = Tinylb::before(&backend);
    run(async {
        let mut streams = Streams::connect(&tinylb).await;
        let request = Request::get("http://test/").body(()).unwrap();
        let (mut response, _) = streams.send(request, true).await;
        let hints = informational(&mut response).await;
        assert_eq!(
            (hints.status().as_u16(), &hints.headers()["link"]),
            (103, &"</a.css>".parse().unwrap())
        );
        assert!(!hints.headers().contains_key("connection"));
        gate.open();
        let hints = informational(&mut response).await;
        assert_eq!(
            (hints.status().as_u16(), &hints.headers()["link"]),
            (103, &"</b.css>".parse().unwrap())
        );
        assert_eq!(informational(&mut response).await.status(), 102);
        let answer = Answer::of(response).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    });
}

#[test]
fn a_client_that_waits_for_a_100() {
    let backend = Backend::new(|mut conn| {
        while let Some(head) = conn.head() {
            assert_eq!(head.get("expect"), Some("100-continue"));
            if head.first_line.contains("/refused") {
                conn.send("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n");
                return;
            }
            conn.send("HTTP/1.1 100 Continue\r\n\r\n");
            let Some(_) = conn.body(head) else { return };
            conn.send(ok("done"));
        }
    });
    let tinylb = Tinylb::before(&backend);
    run(async {
        let mut streams = Streams::connect(&tinylb).await;
        let request = |path: &str| {
            let request =
                Request::post(format!("http://test{path}")).header("expect", "100-continue");
            request.body(()).unwrap()
        };
        let (mut response, mut stream) = streams.send(request("/"), false).await;
        assert_eq!(informational(&mut response).await.status(), 100);
        stream.send_data(Bytes::from_static(b"body"), true).unwrap();
        let answer = Answer::of(response).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "done"));
        let (response, _stream) = streams.send(request("/refused"), false).await;
        assert_eq!(Answer::of(response).await.status, 417);
    });
    assert_eq!(backend.requests()[0].body, b"body");
}

#[test]
fn trailers_of_a_request() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    let trailers: HeaderMap = [("x-sum", "1"), ("grpc-x", "2")]
        .iter()
        .map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()))
        .collect();
    run(async {
        let mut streams = Streams::connect(&tinylb).await;
        for body in ["", "body"] {
            let request = Request::post("http://test/").header("te", "trailers").body(()).unwrap();
            let (response, mut stream) = streams.send(request, false).await;
            if !body.is_empty() {
                stream.send_data(Bytes::from(body), false).unwrap();
            }
            stream.send_trailers(trailers.clone()).unwrap();
            assert_eq!(Answer::of(response).await.status, 200);
        }
    });
    let requests = backend.requests();
    let bodies: Vec<_> = requests.iter().map(|request| request.body.as_slice()).collect();
    assert_eq!(bodies, [&b""[..], b"body"]);
    for request in requests {
        let expected = [("x-sum", "1"), ("grpc-x", "2")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!((request.chunked, request.trailers), (true, expected.to_vec()));
        assert_eq!(request.head.get("te"), Some("trailers"));
    }
}

/// A body with a length in HTTP/1.1 has no place for trailers, and is whole without them.
#[test]
fn trailers_of_a_request_with_a_length() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    run(async {
        let mut streams = Streams::connect(&tinylb).await;
        let request =
            Request::post("http://test/").header("content-length", "4").header("te", "trailers");
        let (response, mut stream) = streams.send(request.body(()).unwrap(), false).await;
        stream.send_data(Bytes::from_static(b"body"), false).unwrap();
        stream
            .send_trailers([("x-sum".parse().unwrap(), "1".parse().unwrap())].into_iter().collect())
            .unwrap();
        assert_eq!(Answer::of(response).await.status, 200);
        assert_eq!(streams.get("/next").await.status, 200);
    });
    assert_eq!(backend.requests()[0].body, b"body");
    assert_eq!(backend.requests()[1].target(), "/next");
}

#[test]
fn trailers_of_an_answer() {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Grpc-Status\r\n\r\n\
         4\r\nbody\r\n0\r\nGrpc-Status: 0\r\nX-A: 1\r\nX-A: 2\r\n\r\n",
    );
    let tinylb = Tinylb::before(&backend);
    run(async {
        let mut streams = Streams::connect(&tinylb).await;
        let request = Request::get("http://test/").header("te", "trailers").body(&b""[..]).unwrap();
        let answer = streams.exchange(request).await;
        assert_eq!((answer.text().as_str(), answer.reset), ("body", None));
        let trailers = answer.trailers.expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
        // Who does not ask for them need not take them (RFC 9110 6.5.1).
        let answer = streams.get("/").await;
        assert_eq!((answer.text().as_str(), answer.trailers, answer.reset), ("body", None, None));
    });
}

#[test]
fn trailers_alone() {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\ngrpc-status: 7\r\n\r\n",
    );
    let tinylb = Tinylb::before(&backend);
    run(async {
        let mut streams = Streams::connect(&tinylb).await;
        let request =
            Request::post("http://test/").header("te", "trailers").body(&b"x"[..]).unwrap();
        let answer = streams.exchange(request).await;
        assert_eq!(answer.trailers.expect("trailers")["grpc-status"], "7");
    });
}

/// What an answer is cut by, it never looks whole.
#[test]
fn answers_that_break_off() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\na : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nx\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf",
    ] {
        let gate = Gate::new();
        let backend = Backend::new({
            let gate = gate.clone();
            move |mut conn| {
                let (begin, rest) = answer.split_at(answer.find("half").unwrap() + 4);
                conn.request();
                conn.send(begin);
                gate.pass();
                conn.send(rest);
            }
        });
        let tinylb = Tinylb::before(&backend);
        run(async {
            let mut streams = Streams::connect(&tinylb).await;
            let request = Request::get("http://test/").header("te", "trailers");
            let (response, _) = streams.send(request.body(()).unwrap(), true).await;
            let head = soon("a head comes", response).await.unwrap();
            gate.open();
            let got = Answer::rest(head).await;
            assert!("half".starts_with(&got.text()), "{answer:?}");
            assert_eq!((got.status, got.trailers), (200, None), "{answer:?}");
            assert_eq!(got.reset, Some(h2::Reason::INTERNAL_ERROR), "{answer:?}");
            // The stream alone.
            let (response, _) = streams.send(Request::new(()), true).await;
            assert!(soon("the connection lives", response).await.is_ok());
        });
    }
}

/// What only the end of the connection ends has ended well by a FIN, and by nothing else.
#[test]
fn answers_without_an_end_of_their_own() {
    for version in ["1.0", "1.1"] {
        for resets in [false, true] {
            let gate = Gate::new();
            let backend = Backend::new({
                let gate = gate.clone();
                move |mut conn| {
                    conn.request().unwrap();
                    conn.send(format!("HTTP/{version} 200 OK\r\n\r\nhalf"));
                    gate.pass();
                    if resets {
                        conn.reset();
                    }
                }
            });
            let tinylb = Tinylb::before(&backend);
            run(async {
                let mut streams = Streams::connect(&tinylb).await;
                let request = Request::get("http://test/").body(()).unwrap();
                let (response, _) = streams.send(request, true).await;
                let head = soon("a head comes", response).await.unwrap();
                gate.open();
                let answer = Answer::rest(head).await;
                let reset = resets.then_some(h2::Reason::INTERNAL_ERROR);
                assert_eq!((answer.text().as_str(), answer.reset), ("half", reset), "{version}");
            });
        }
    }
}

#[test]
fn backends_that_answer_badly() {
    for (answer, status, error) in [
        ("", 502, "connection_terminated"),
        ("HTTP/1.1 200 OK\r\nContent-", 502, "http_response_incomplete"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nx", 502, "http_protocol_error"),
        ("HTTP/2.0 200 OK\r\n\r\n", 502, "http_protocol_error"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            502,
            "http_upgrade_failed",
        ),
    ] {
        let backend = Backend::closing_after(answer);
        let tinylb = Tinylb::before(&backend);
        let request = Request::post("http://test/").body(&b"x"[..]).unwrap();
        let got = run(async { Streams::connect(&tinylb).await.exchange(request).await });
        got.assert_fault(status, error);
    }
}

/// An answer may come before all of the request; nobody reads the rest then, and the client is told so
/// (RFC 9113 8.1).
#[test]
fn an_answer_before_the_end_of_the_request() {
    let backend = Backend::new(|mut conn| {
        conn.head();
        conn.send("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno");
        conn.drain();
    });
    let tinylb = Tinylb::run(&config(&[backend.url()], "", ""));
    run(async {
        let mut streams = Streams::connect(&tinylb).await;
        let request = Request::post("http://test/").body(()).unwrap();
        let (response, mut stream) = streams.send(request, false).await;
        stream.send_data(Bytes::from_static(b"some"), false).unwrap();
        let answer = Answer::of(response).await;
        assert_eq!((answer.status, answer.text().as_str(), answer.reset), (403, "no", None));
        let reset = soon("the stream ends", poll_fn(|cx| stream.poll_reset(cx))).await;
        assert_eq!(reset.unwrap(), h2::Reason::NO_ERROR);
    });
    backend.end_of(0);
    eventually("it is counted", || {
        (tinylb.metric("tinylb_requests_total", &["code=\"403\""]) == 1.0).then_some(())
    });
}
