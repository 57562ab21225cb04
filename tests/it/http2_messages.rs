//! Small messages, many of them, as gRPC streams have them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::Builder;
use http::Request;

use crate::support::streams::{Streams, run, send_all, soon};
use crate::support::{Backend, Conn, Tinylb};

/// One message, with the five bytes before it that gRPC has.
const MESSAGE: &[u8] = b"\0\0\0\0\x05hello";

/// Sends back whatever comes, as it comes: chunks are chunks in both directions.
fn echoing(mut conn: Conn) {
    while conn.head().is_some() {
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut last = b"\r\n".to_vec();
        while !last.ends_with(b"\r\n0\r\n\r\n") {
            // What came together with the head belongs to the body.
            let piece = conn.wire.some();
            if piece.is_empty() || !conn.send(&piece) {
                return;
            }
            last.extend(piece);
            last.drain(..last.len().saturating_sub(7));
        }
    }
}

/// Sends `count` messages, each in a frame of its own, and takes as many back meanwhile. Returns how
/// long that took, and how long at most none came back.
async fn talk(tinylb: &Tinylb, count: usize) -> (Duration, Duration) {
    let mut builder = Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 24);
    builder.data_frame_budget(usize::MAX);
    let mut streams = Streams::with(tinylb, &builder).await;
    let request = Request::post("http://test/talk").header("te", "trailers").body(()).unwrap();
    let began = Instant::now();
    let (response, mut stream) = streams.send(request, false).await;
    let sending = tokio::spawn(async move {
        for _ in 0..count {
            send_all(&mut stream, Bytes::from_static(MESSAGE), false).await;
        }
        stream.send_data(Bytes::new(), true).unwrap();
    });
    let mut body = soon("a head comes", response).await.unwrap().into_body();
    let (mut received, mut last, mut silence) = (0, began, Duration::ZERO);
    while let Some(data) = soon("more comes", body.data()).await {
        let data = data.unwrap();
        silence = silence.max(last.elapsed());
        last = Instant::now();
        for (at, byte) in data.iter().enumerate() {
            assert_eq!(*byte, MESSAGE[(received + at) % MESSAGE.len()]);
        }
        received += data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    sending.await.unwrap();
    assert_eq!(received, count * MESSAGE.len());
    let took = began.elapsed();
    println!("{count} messages took {took:?}, at most {silence:?} without one");
    (took, silence)
}

/// The library counts what is small against those who send it, and must not take this for an attack.
#[test]
fn a_million_messages_both_ways_on_one_stream() {
    let backend = Backend::new(echoing);
    let tinylb = Tinylb::before(&backend);
    let (took, silence) = run(talk(&tinylb, 1_000_000));
    // What is sent never stops, and must not keep what comes back from coming.
    assert!(silence < took / 3, "{silence:?} of {took:?} without a message");
    assert_eq!(tinylb.metric("tinylb_http2_connections_cut_off_total", &[]), 0.0);
}

/// The same between two balancers, where both sides are HTTP/2.
#[test]
fn many_messages_through_two_balancers() {
    let backend = Backend::new(echoing);
    let inner = Tinylb::before(&backend);
    let outer = Tinylb::start(&[format!("h2c://{}", inner.address())], &[]);
    run(talk(&outer, 100_000));
    assert_eq!(inner.metric("tinylb_http2_connections_cut_off_total", &[]), 0.0);
}

/// Each message waits for the answer to the one before it: none may lie anywhere.
#[test]
fn messages_one_by_one() {
    const COUNT: usize = 2000;
    let backend = Backend::new(echoing);
    let tinylb = Tinylb::before(&backend);
    run(async {
        let mut streams = Streams::connect(&tinylb).await;
        let request = Request::post("http://test/talk").body(()).unwrap();
        let (response, mut stream) = streams.send(request, false).await;
        let mut body = soon("a head comes", response).await.unwrap().into_body();
        let mut took = Vec::new();
        for _ in 0..COUNT {
            let began = Instant::now();
            stream.send_data(Bytes::from_static(MESSAGE), false).unwrap();
            let mut received = Vec::new();
            while received.len() < MESSAGE.len() {
                let data = soon("the message comes", body.data()).await.unwrap().unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                received.extend_from_slice(&data);
            }
            assert_eq!(received, MESSAGE);
            took.push(began.elapsed());
        }
        took.sort_unstable();
        let each = took[COUNT / 4];
        println!("{each:?} for a message");
        // Less than what waits for an acknowledgement or a tick would take. A busy machine makes some
        // longer; such a wait makes all of them longer.
        assert!(each < Duration::from_millis(20), "{each:?} for a message");
    });
}
