//! The harness tells the truth: a client and a backend without a balancer between them.

use crate::support::{Backend, Client, End, Framing, ok};

#[test]
fn every_framing_is_read_to_its_end_and_no_further() {
    let backend = Backend::new(|mut conn| {
        while let Some(request) = conn.request() {
            match request.target() {
                "/chunks" => conn.send(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                     2;x\r\nch\r\n4\r\nunks\r\n0\r\nX: y\r\n\r\n",
                ),
                "/none" => conn.send("HTTP/1.1 204 No Content\r\n\r\n"),
                "/close" => {
                    conn.send("HTTP/1.1 200 OK\r\n\r\nclose");
                    return;
                }
                _ => conn.send(ok("length")),
            };
        }
    });
    let mut client = Client::connect(backend.address());
    client
        .send("GET /length HTTP/1.1\r\n\r\nGET /chunks HTTP/1.1\r\n\r\nGET /none HTTP/1.1\r\n\r\n");
    let response = client.response();
    assert_eq!((response.framing, response.text().as_str()), (Framing::Length, "length"));
    let response = client.response();
    assert_eq!((response.framing, response.text().as_str()), (Framing::Chunked, "chunks"));
    assert_eq!(response.trailers, [("X".to_owned(), "y".to_owned())]);
    assert_eq!(client.response().framing, Framing::None);
    client.assert_open();
    let response = client.get("/close");
    assert_eq!((response.framing, response.text().as_str()), (Framing::Close, "close"));
    client.assert_closed();
    assert_eq!((backend.connections(), backend.requests().len()), (1, 5));
}

#[test]
fn what_is_cut_is_seen_as_cut() {
    let backend = Backend::closing_after("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    let response = Client::connect(backend.address()).get("/");
    assert_eq!((response.complete, response.text().as_str()), (false, "half"));
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n";
    let backend = Backend::closing_after(chunks);
    let response = Client::connect(backend.address()).get("/");
    assert_eq!((response.complete, response.text().as_str()), (false, "half"));
}

#[test]
fn fin_and_reset_are_told_apart_and_unfinished_requests_do_not_count() {
    let backend = Backend::named("x");
    let mut client = Client::connect(backend.address());
    client.send("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf");
    client.half_close();
    assert_eq!(backend.end_of(0), End::Fin);
    Client::connect(backend.address()).reset();
    assert_eq!(backend.end_of(1), End::Reset);
    assert_eq!(backend.requests().len(), 0);
    assert!(backend.received().ends_with(b"half"));
}
