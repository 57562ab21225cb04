//! 426 (Upgrade Required): the answer must name the protocols (RFC 9110 15.5.22), so its `Upgrade` goes on.

use http::Request;

use crate::support::streams::{Streams, run};
use crate::support::{Backend, Tinylb};

const ANSWER: &str = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket, echo/1\r\n\
    Connection: upgrade, X-Gone\r\nX-Gone: 1\r\nContent-Length: 9\r\n\r\nsomething";

#[test]
fn the_upgrade_of_a_426_reaches_clients_of_http_1_1() {
    let backend = Backend::answering(ANSWER);
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!((response.status, response.text().as_str()), (426, "something"));
        assert_eq!(response.head.get("upgrade"), Some("websocket, echo/1"));
        assert_eq!(response.head.list("connection"), ["upgrade"], "{:?}", response.head.raw);
        assert!(!response.head.has("x-gone"), "{:?}", response.head.raw);
    }
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let response = client.response();
    assert_eq!(response.head.get("upgrade"), Some("websocket, echo/1"));
    let mut options = response.head.list("connection");
    options.sort();
    assert_eq!(options, ["close", "upgrade"], "{:?}", response.head.raw);
    client.assert_closed();
}

/// One field line of several is as good as one line.
#[test]
fn each_upgrade_line_of_a_426_goes_on() {
    let answer = ANSWER.replace(", echo/1\r\n", "\r\nUpgrade: echo/1\r\n");
    let backend = Backend::answering(answer);
    let response = Tinylb::before(&backend).get("/");
    assert_eq!(response.head.list("upgrade"), ["websocket", "echo/1"]);
    assert_eq!(response.head.list("connection"), ["upgrade"]);
}

/// HTTP/1.0 and HTTP/2 have no upgrade, and without a protocol there is nothing to name.
#[test]
fn no_upgrade_goes_where_there_is_none() {
    let backend = Backend::answering(ANSWER);
    let tinylb = Tinylb::before(&backend);
    let response = tinylb.exchange("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!((response.status, response.head.has("upgrade")), (426, false));
    assert_eq!(response.head.list("connection"), ["keep-alive"]);
    run(async {
        let mut streams = Streams::connect(&tinylb).await;
        let request = Request::get("http://test/").body(&b""[..]).unwrap();
        let answer = streams.exchange(request).await;
        assert_eq!((answer.status, answer.text().as_str()), (426, "something"));
        assert_eq!((answer.get("upgrade"), answer.get("connection")), (None, None));
    });
    let without = Backend::answering("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n");
    let response = Tinylb::before(&without).get("/");
    assert!(!response.head.has("upgrade") && !response.head.has("connection"));
    let other = Backend::answering(ANSWER.replace("426 Upgrade Required", "200 OK"));
    let response = Tinylb::before(&other).get("/");
    assert!(!response.head.has("upgrade") && !response.head.has("connection"));
}
