//! Clients of HTTP/2 that are just below or just above what is a flood.

use crate::support::http2::{
    CANCEL, DATA, END_HEADERS, END_STREAM, Fate, Frames, HEADERS, PING, RST_STREAM, WINDOW_UPDATE,
    frame, literals, request,
};
use crate::support::{Backend, Tinylb, eventually, ok};

/// More than any client gets away with.
const MANY: u32 = 5000;

/// Requests that are sent together before they are given up.
const AT_ONCE: u32 = 20;

fn cut_off(tinylb: &Tinylb) -> f64 {
    tinylb.metric("tinylb_http2_connections_cut_off_total", &[])
}

/// CVE-2023-44487, but slowly enough that each request has begun when it is given up.
#[test]
fn requests_that_are_given_up_as_soon_as_they_have_begun() {
    let backend = Backend::silent();
    let tinylb = Tinylb::before(&backend);
    let mut client = Frames::connect(&tinylb);
    let (mut count, fields) = (0, literals(&request("GET", "/")));
    while count < MANY {
        // Several at a time, or a busy machine makes the client slow enough to be none.
        let streams = (count..count + AT_ONCE).map(|number| 2 * number + 1);
        let head = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields);
        if !client.try_send(streams.clone().flat_map(head).collect::<Vec<_>>())
            || !client.is_answering()
        {
            break;
        }
        let reset = |stream| frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
        client.try_send(streams.flat_map(reset).collect::<Vec<_>>());
        count += AT_ONCE;
    }
    assert!((400..MANY).contains(&count), "cut off after {count}");
    eventually("it is counted", || (cut_off(&tinylb) == 1.0).then_some(()));
}

/// One that gives up what has been answered, or reads it to its end, may go on for as long as it likes.
#[test]
fn requests_that_are_given_up_once_they_are_answered() {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\nx", 1 << 20);
    let backend = Backend::answering(answer);
    let tinylb = Tinylb::before(&backend);
    let mut client = Frames::connect(&tinylb);
    for number in 0..MANY / 2 {
        let stream = 2 * number + 1;
        client.get(stream, "/");
        assert_eq!(client.fate(stream), Fate::Answered(200), "{number}");
        client.reset(stream);
        client.open_windows(0, 1);
    }
    assert_eq!(cut_off(&tinylb), 0.0);
}

/// A client that gives back both windows for each frame that it gets, and asks for the time as well.
#[test]
fn a_long_download_with_many_updates_is_none() {
    let size = 32 << 20;
    let backend = Backend::answering(ok(&"x".repeat(size)));
    let tinylb = Tinylb::before(&backend);
    let mut client = Frames::connect(&tinylb);
    client.get(1, "/");
    let mut got = 0;
    while got < size {
        let Some(next) = client.next() else { break };
        if next.kind == DATA && !next.payload.is_empty() {
            got += next.payload.len();
            let update = u32::try_from(next.payload.len()).unwrap().to_be_bytes();
            let mut answer = frame(WINDOW_UPDATE, 0, 0, &update);
            answer.extend(frame(WINDOW_UPDATE, 0, 1, &update));
            answer.extend(frame(PING, 0, 0, &[0; 8]));
            client.send(&answer);
        }
    }
    assert_eq!(got, size);
    assert_eq!(cut_off(&tinylb), 0.0);
}
