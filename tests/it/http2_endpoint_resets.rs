//! What the codes of RST_STREAM mean that endpoints send, and connections on which they send nothing else.

use bytes::Bytes;
use h2::Reason;
use http::Request;

use crate::support::http2::{
    ENHANCE_YOUR_CALM, Frames, HEADERS, INTERNAL_ERROR, RST_STREAM, frame,
};
use crate::support::streams::{Answer, Streams, run};
use crate::support::{Asked, FramesBackend, Http2Backend, Tinylb, ranked};

/// One worker, and a log.
fn alone(url: String, upstream: &str) -> Tinylb {
    let text = ranked(&[url], "", upstream);
    Tinylb::run(&text.replace("workers = 2", "workers = 1"))
}

/// The status of a call, wherever it stands.
fn status(answer: &Answer) -> Option<&str> {
    let trailers = answer.trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
    trailers.or_else(|| answer.head.get("grpc-status")).map(|status| status.to_str().unwrap())
}

/// As PROTOCOL-HTTP2.md of the gRPC project has them.
#[test]
fn a_call_that_its_endpoint_resets_has_the_status_of_the_code() {
    const STATUSES: [(Reason, &str); 12] = [
        (Reason::NO_ERROR, "13"),
        (Reason::PROTOCOL_ERROR, "13"),
        (Reason::INTERNAL_ERROR, "13"),
        (Reason::FLOW_CONTROL_ERROR, "13"),
        (Reason::FRAME_SIZE_ERROR, "13"),
        (Reason::REFUSED_STREAM, "14"),
        (Reason::CANCEL, "1"),
        (Reason::COMPRESSION_ERROR, "13"),
        (Reason::CONNECT_ERROR, "13"),
        (Reason::ENHANCE_YOUR_CALM, "8"),
        (Reason::INADEQUATE_SECURITY, "7"),
        (Reason::HTTP_1_1_REQUIRED, "13"),
    ];
    let backend = Http2Backend::new(async |mut asked: Asked| {
        let (when, code) = asked.path()[1..].split_once('/').unwrap();
        let reason = Reason::from(code.parse::<u32>().unwrap());
        if when == "late" {
            let mut stream = asked.begin();
            stream.send_data("\0\0\0\0\x01x".into(), false).unwrap();
            // The data goes first.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            stream.send_reset(reason);
        } else {
            asked.reset(reason);
        }
    });
    let tinylb = alone(backend.url(), "ejection = { failures = 1000 }");
    run(async {
        let mut streams = Streams::connect(&tinylb).await;
        for (reason, expected) in STATUSES {
            for when in ["early", "late"] {
                // Whoever has begun to answer has not refused.
                if (when, reason) == ("late", Reason::REFUSED_STREAM) {
                    continue;
                }
                let request = Request::post(format!("http://a/{when}/{}", u32::from(reason)))
                    .header("content-type", "application/grpc")
                    .header("te", "trailers");
                let body: &[u8] = b"\0\0\0\0\0";
                let answer = streams.exchange(request.body(body).unwrap()).await;
                assert_eq!(status(&answer), Some(expected), "{when} {reason:?}: {answer:?}");
            }
        }
    });
}

/// Resets streams with `code` while `resets` says so of the connection's and the stream's number, and answers
/// all others.
fn resetting(code: u32, resets: fn(usize, usize) -> bool) -> FramesBackend {
    FramesBackend::new(&[], move |mut frames: Frames, connection| {
        for number in 0.. {
            let Some(head) = frames.find(|frame| frame.kind == HEADERS) else { return };
            if resets(connection, number) {
                frames.send(frame(RST_STREAM, 0, head.stream, &code.to_be_bytes()));
            } else {
                frames.ok(head.stream, connection.to_string().as_bytes());
            }
        }
    })
}

#[test]
fn a_connection_that_is_told_to_calm_down_takes_no_new_streams() {
    let backend = resetting(ENHANCE_YOUR_CALM, |connection, _| connection == 0);
    let tinylb = alone(backend.url(), "");
    assert_eq!(tinylb.get("/first").text(), "1");
    tinylb.assert_tries("/first", 2, Some("reset"));
    let post = "POST /second HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(tinylb.exchange(post).text(), "1");
    assert_eq!(backend.connections(), 2);
}

#[test]
fn a_connection_that_resets_three_streams_in_a_row_takes_no_new_ones() {
    let backend = resetting(INTERNAL_ERROR, |connection, _| connection == 0);
    let tinylb = alone(backend.url(), "retry = { attempts = 2 }\nejection = { failures = 1000 }");
    // A retry goes to another connection, and what comes anew to the first one.
    for path in ["/1", "/2", "/3"] {
        assert_eq!(tinylb.get(path).text(), "1");
        tinylb.assert_tries(path, 2, Some("reset"));
    }
    assert_eq!(tinylb.get("/4").text(), "1");
    tinylb.assert_tries("/4", 1, None);
    assert_eq!(backend.connections(), 2);
}

#[test]
fn one_that_answers_between_is_kept() {
    let backend =
        resetting(INTERNAL_ERROR, |connection, number| connection == 0 && number % 2 == 0);
    let tinylb = alone(backend.url(), "ejection = { failures = 1000 }");
    for _ in 0..4 {
        assert_eq!(tinylb.get("/").text(), "1");
        assert_eq!(tinylb.get("/").text(), "0");
    }
    assert_eq!(backend.connections(), 2);
}

/// RFC 9113 8.7: what was refused may be sent again, whatever it is.
#[test]
fn a_stream_that_was_refused_is_sent_again_on_a_new_connection() {
    let refusing = || resetting(Reason::REFUSED_STREAM.into(), |connection, _| connection == 0);
    let backend = refusing();
    let tinylb = alone(backend.url(), "retry = { attempts = 2 }");
    assert_eq!(tinylb.get("/get").text(), "1");
    tinylb.assert_tries("/get", 2, Some("refused_stream"));
    let post = "POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(tinylb.exchange(post).text(), "1");
    tinylb.assert_tries("/post", 2, Some("refused_stream"));
    assert_eq!(backend.connections(), 2);
    // With two endpoints in that state each is asked, and then the first on a new connection.
    let backends = [refusing(), refusing()];
    let urls = backends.each_ref().map(FramesBackend::url);
    let tinylb = Tinylb::run(&ranked(&urls, "", "").replace("workers = 2", "workers = 1"));
    assert_eq!(tinylb.get("/both").text(), "1");
    tinylb.assert_tries("/both", 3, Some("refused_stream"));
}

/// Streams that are under way have nothing to do with it.
#[test]
fn what_is_under_way_on_such_a_connection_goes_on() {
    let backend = Http2Backend::held();
    let tinylb = alone(backend.url(), "ejection = { failures = 1000 }");
    let mut clients = [tinylb.connect(), tinylb.connect()];
    clients[0].send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut asked = backend.next();
    let mut body = asked.begin();
    clients[1].send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    backend.next().reset(Reason::ENHANCE_YOUR_CALM);
    let again = backend.next();
    assert_eq!((asked.connection, again.connection), (0, 1));
    again.ok("second");
    assert_eq!(clients[1].response().text(), "second");
    body.send_data(Bytes::from_static(b"first"), true).unwrap();
    assert_eq!(clients[0].response().text(), "first");
}
