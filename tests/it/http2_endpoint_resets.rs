//! What the codes of RST_STREAM mean that endpoints send.

use h2::Reason;
use http::Request;

use crate::support::streams::{Answer, Streams, run};
use crate::support::{Asked, Http2Backend, Tinylb, ranked};

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
