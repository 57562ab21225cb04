//! Checks read answers as strictly as requests do: what traffic would refuse is not well.

use serde_json::Value;

use crate::support::http2::HEADERS;
use crate::support::{Backend, FramesBackend, Tinylb, config, eventually};

const OFTEN: &str =
    "health = { path = \"/check\", interval = \"20ms\", timeout = \"1s\", rise = 1, fall = 1 }";

/// Waits until the only endpoint is down or up, and gives what is said of it.
#[track_caller]
fn verdict(tinylb: &Tinylb) -> (String, String) {
    eventually("the check says something", || {
        let said: Value = serde_json::from_str(&tinylb.admin("/endpoints").text()).unwrap();
        let endpoint = &said["upstreams"][0]["endpoints"][0];
        let word = |key: &str| endpoint[key].as_str().unwrap_or_default().to_owned();
        (word("state") != "unknown").then(|| (word("state"), word("why")))
    })
}

#[test]
fn answers_that_traffic_would_refuse_are_not_well() {
    for (answer, why) in [
        ("HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "the answer is malformed: bare LF"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\nX: y\r\n\r\nok",
            "the answer is malformed: bare LF",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "the answer is malformed: Content-Length with Transfer-Encoding",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
            "the answer is malformed: differing Content-Lengths",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
            "the answer is malformed: malformed Content-Length",
        ),
        (
            "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
            "the answer is malformed: ",
        ),
        ("HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\nok", "the answer is malformed: "),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "the answer is malformed: ",
        ),
        (
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "the answer is malformed: Transfer-Encoding in HTTP/1.0",
        ),
    ] {
        let backend = Backend::answering(answer);
        let tinylb = Tinylb::run(&config(&[backend.url()], "", OFTEN));
        let (state, said) = verdict(&tinylb);
        assert!(state == "down" && said.starts_with(why), "{answer:?}: {state} {said}");
    }
}

#[test]
fn what_traffic_takes_is_well() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\n\r\nok",
        "HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
    ] {
        let backend = Backend::answering(answer);
        let tinylb = Tinylb::run(&config(&[backend.url()], "", OFTEN));
        assert_eq!(verdict(&tinylb).0, "up", "{answer:?}");
    }
}

/// Where a body is looked at, its framing is as strict too.
#[test]
fn a_body_is_read_as_strictly() {
    let looking = OFTEN.replace("rise", "body = \"ok\", rise");
    for (chunks, state) in [
        ("2\r\nok\r\n0\r\n\r\n", "up"),
        ("2\nok\r\n0\r\n\r\n", "down"),
        ("2\r\nok\n0\r\n\r\n", "down"),
        ("0x2\r\nok\r\n0\r\n\r\n", "down"),
    ] {
        let backend = Backend::answering(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        ));
        let tinylb = Tinylb::run(&config(&[backend.url()], "", &looking));
        let (found, why) = verdict(&tinylb);
        assert_eq!(found, state, "{chunks:?}: {why}");
    }
}

#[test]
fn answers_in_http_2_that_traffic_would_refuse_are_not_well() {
    for (fields, state) in [
        (&[(":status", &b"200"[..])][..], "up"),
        (&[(":status", b"200"), ("a", b" b")], "down"),
        (&[(":status", b"200"), ("te", b"gzip")], "down"),
        (&[(":status", b"200"), ("content-length", b"x")], "down"),
        (&[(":status", b"200"), ("content-length", b"1"), ("content-length", b"2")], "down"),
    ] {
        let fields: &'static _ = fields.to_vec().leak();
        let backend = FramesBackend::new(&[], move |mut server, _| {
            while let Some(asked) = server.find(|frame| frame.kind == HEADERS) {
                server.head(asked.stream, fields, true);
            }
        });
        let tinylb = Tinylb::run(&config(&[backend.url()], "", OFTEN));
        let (found, why) = verdict(&tinylb);
        assert_eq!(found, state, "{fields:?}: {why}");
        assert!(state == "up" || why.contains("malformed") || why.contains("HTTP/2"), "{why}");
    }
}

/// A body that traffic would refuse or cut fails the check, and one that goes on does not.
#[test]
fn bodies_are_read_as_traffic_reads_them() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (answer, expected) in [
        (format!("{chunked}zz\r\n"), "down"),
        (format!("{chunked}2\nok\n0\n\n"), "down"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok".to_owned(), "down"),
        (format!("{chunked}2\r\nok\r\n0\r\n\r\n"), "up"),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end".to_owned(), "up"),
    ] {
        let backend = Backend::closing_after(&answer);
        let tinylb = Tinylb::run(&config(&[backend.url()], "", OFTEN));
        assert_eq!(verdict(&tinylb).0, expected, "{answer:?}");
    }
    let endless = Backend::new(move |mut conn| {
        conn.request();
        conn.send(format!("{chunked}5\r\nevent\r\n"));
        conn.drain();
    });
    let tinylb = Tinylb::run(&config(&[endless.url()], "", OFTEN));
    assert_eq!(verdict(&tinylb).0, "up");
}
