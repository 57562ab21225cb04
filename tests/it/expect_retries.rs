//! Requests that wait for a 100 before they send their body, where tries have their times.

use std::time::Duration;

use crate::support::{Backend, Tinylb, config, ok};

const HEAD: &str =
    "PUT /up HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";

/// The time for the answer begins once all of the request has been sent, however long that takes.
#[test]
fn a_slow_upload_behind_a_100_has_the_whole_time_for_its_answer() {
    let backend = Backend::new(|mut conn| {
        while let Some(head) = conn.head() {
            conn.send("HTTP/1.1 100 Continue\r\n\r\n");
            if conn.body(head).is_none() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
            conn.send(ok("done"));
        }
    });
    let upstream = "timeouts = { response = \"2s\" }";
    let tinylb = Tinylb::run(&config(&[backend.url()], "", upstream));
    let mut client = tinylb.connect();
    client.send(HEAD);
    assert_eq!(client.response().status, 100);
    for byte in ["b", "o", "d", "y"] {
        std::thread::sleep(Duration::from_millis(600));
        client.send(byte);
    }
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (200, "done"));
}

/// An endpoint that sends no 100 is not at fault: the client sends its body in the end.
#[test]
fn an_endpoint_without_a_100_is_not_left_and_not_blamed() {
    let backends = ["one", "two"].map(Backend::named);
    let urls = [backends[0].url(), backends[1].url()];
    let tinylb = Tinylb::run(&config(&urls, "", "retry = { timeout = \"1s\" }"));
    for _ in 0..3 {
        let mut client = tinylb.connect();
        client.send(HEAD);
        std::thread::sleep(Duration::from_millis(1200));
        client.send("body");
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(backends[0].requests().len() + backends[1].requests().len(), 3);
    assert_eq!(tinylb.metric("tinylb_endpoint_failures_total", &[]), 0.0);
    assert_eq!(tinylb.metric("tinylb_retries_total", &[]), 0.0);
}
