//! Requests that are answered, or given up, before all of their body went to the backend: what is
//! left of the body is never taken for a request, and never for another body.

use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::support::{Backend, Client, Tinylb, config, ok};

/// A balancer that sends `/up` to one backend, which has this time for a body, and everything else to
/// another.
fn beside(stuck: &Backend, healthy: &Backend, body: &str) -> Tinylb {
    Tinylb::run(&format!(
        "workers = 2\n\
         [admin]\n\
         listen = \"127.0.0.1:0\"\n\
         [[listeners]]\n\
         address = \"127.0.0.1:0\"\n\
         [[routes]]\n\
         path = \"/up\"\n\
         upstream = \"stuck\"\n\
         [[routes]]\n\
         path = \"/\"\n\
         upstream = \"healthy\"\n\
         [upstreams.stuck]\n\
         endpoints = [{:?}]\n\
         timeouts = {{ body = {body:?}, response = \"5s\" }}\n\
         [upstreams.healthy]\n\
         endpoints = [{:?}]\n",
        stuck.url(),
        healthy.url()
    ))
}

/// The end of a body that would be a request if it were not a body's.
fn tail(length: usize) -> String {
    let head =
        "GET /smuggled HTTP/1.1\r\nHost: victim\r\n\r\nGET /again HTTP/1.1\r\nHost: v\r\nX: ";
    format!("{head}{}\r\n\r\n", "y".repeat(length))
}

/// Sends a body of `first` bytes, in pieces, and then `last` in one.
fn upload(client: &mut Client, request_line: &str, first: usize, last: &str) {
    let length = first + last.len();
    let head = format!("{request_line} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    let mut going = client.try_send(head).is_ok();
    for begin in (0..first).step_by(14_000) {
        going = going && client.try_send("a".repeat(14_000.min(first - begin))).is_ok();
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_millis(100));
    let _ = going && client.try_send(last).is_ok();
}

/// Uploads of many sizes to `/up`, so that the last piece of some stays with the balancer; gives
/// each one's status and whether its connection was closed. One that was not must carry on with
/// the next request.
fn ends_of_uploads(stuck: &Backend, body: &str) -> Vec<(u16, bool)> {
    let healthy = Backend::new(|mut conn| {
        while let Some(request) = conn.request() {
            conn.send(ok(request.target()));
        }
    });
    let tinylb = beside(stuck, &healthy, body);
    let tinylb = &tinylb;
    let upload_one = move |first: usize, last: usize| {
        let mut client = tinylb.connect();
        upload(&mut client, "POST /up", first, &tail(last));
        let response = client.try_response_to("POST")?;
        let last = response.head.lists("connection", "close");
        if last {
            client.assert_closed();
        } else {
            assert_eq!(client.get("/after").text(), "/after", "{first}: {:?}", response.head.raw);
        }
        Some((response.status, last))
    };
    let sizes = [0, 14_000, 28_000, 42_000, 60_000, 80_000, 120_000];
    let ends: Vec<_> = thread::scope(|scope| {
        let uploads: Vec<_> = sizes
            .into_iter()
            .flat_map(|first| [9_000, 13_000, 30_000].map(|last| (first, last)))
            .map(|(first, last)| scope.spawn(move || upload_one(first, last)))
            .collect();
        uploads.into_iter().filter_map(|upload| upload.join().unwrap()).collect()
    });
    println!("{ends:?}");
    for request in healthy.requests() {
        assert_eq!(request.target(), "/after", "no body is a request");
    }
    assert_eq!(healthy.requests().len(), ends.iter().filter(|(_, last)| !last).count());
    ends
}

#[test]
fn what_a_backend_did_not_read_is_never_a_request() {
    let (done, over) = mpsc::channel::<()>();
    let over = Mutex::new(over);
    let stuck = Backend::narrow(move |conn| {
        let _ = over.lock().unwrap().recv();
        drop(conn);
    });
    let ends = ends_of_uploads(&stuck, "300ms");
    drop(done);
    assert!(ends.iter().all(|(status, _)| *status == 504), "{ends:?}");
    assert!(ends.contains(&(504, true)), "some bodies were stuck: {ends:?}");
}

#[test]
fn what_a_backend_did_not_read_before_it_answered_is_never_a_request() {
    for (answer, status) in [("BROKEN\r\n\r\n".to_owned(), 502), (ok("early"), 200)] {
        let stuck = Backend::narrow(move |mut conn| {
            thread::sleep(Duration::from_millis(250));
            conn.send(&answer);
            thread::sleep(Duration::from_secs(6));
        });
        // Much longer than the backend takes to answer.
        let ends = ends_of_uploads(&stuck, "5s");
        assert!(ends.contains(&(status, true)), "some bodies were stuck: {ends:?}");
    }
}

/// A second attempt has the same body, or there is none.
#[test]
fn a_body_of_which_a_part_was_passed_on_is_never_another_body() {
    for (first, last) in
        [(0, 2_000), (0, 30_000), (14_000, 9_000), (28_000, 20_000), (60_000, 9_000)]
    {
        let (reset, resets) = mpsc::channel::<()>();
        let resets = Mutex::new(resets);
        let backend = Backend::narrow(move |mut conn| {
            if conn.index == 0 {
                conn.request().unwrap();
                conn.send(ok("/first"));
                let _ = resets.lock().unwrap().recv();
                conn.wire.reset();
                return;
            }
            while let Some(request) = conn.request() {
                conn.send(ok(request.target()));
            }
        });
        let tinylb = Tinylb::start(&[backend.url()], &["--workers", "1"]);
        let mut client = tinylb.connect();
        assert_eq!(client.get("/first").text(), "/first");
        let last = tail(last);
        upload(&mut client, "PUT /put", first, &last);
        thread::sleep(Duration::from_millis(200));
        reset.send(()).unwrap();
        let response = client.response_to("PUT");
        let case = format!("{first} and {}: {:?}", last.len(), response.head.raw);
        match response.status {
            200 => assert_eq!(response.text(), "/put", "{case}"),
            status => assert_eq!(status, 502, "{case}"),
        }
        if response.head.lists("connection", "close") {
            client.assert_closed();
        } else {
            assert_eq!(client.get("/after").text(), "/after", "{case}");
        }
        let body = format!("{}{last}", "a".repeat(first));
        for request in backend.requests() {
            match request.target() {
                "/put" => assert!(request.body == body.as_bytes(), "{case}: not the body"),
                other => assert!(["/first", "/after"].contains(&other), "{case}: {other}"),
            }
        }
    }
}

#[test]
fn an_answer_before_the_body_is_whole_says_that_it_is_the_last() {
    let backend = Backend::new(|mut conn| {
        if conn.head().is_some() {
            conn.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
            conn.drain();
        }
    });
    let tinylb = Tinylb::before(&backend);
    for begun in
        ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"]
    {
        let mut client = tinylb.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{begun}"));
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (401, "no"));
        assert!(response.head.lists("connection", "close"), "{:?}", response.head.raw);
        client.assert_closed();
    }
}

/// A client that waits to be told to go on owes nothing: it is the backend that is silent.
#[test]
fn a_backend_that_never_says_to_continue_is_a_504() {
    let backend = Backend::new(|mut conn| {
        conn.head();
        conn.drain();
    });
    let tinylb = Tinylb::run(&config(
        &[backend.url()],
        "timeouts = { body = \"200ms\" }",
        "timeouts = { response = \"300ms\" }",
    ));
    let mut client = tinylb.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    client.response().assert_fault(504, "http_response_timeout");
}
