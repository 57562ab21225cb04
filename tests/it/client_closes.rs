//! Clients that close their side of the connection (FIN) while they wait: they count as gone, unless the listener
//! has `half_close`, or a response has begun.

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use crate::support::certificates::Authority;
use crate::support::http2::Frames;
use crate::support::tls_client::{over, tls_client};
use crate::support::{Backend, Client, End, Gate, Held, Tinylb, config, eventually, ok, ranked};

const LOGGING: &str = "workers = 2\nlog = { access = \"json\" }";

/// The configuration `file`, with a log of JSON.
fn logging(file: &str) -> Tinylb {
    Tinylb::run(&file.replace("workers = 2", LOGGING))
}

/// A client that has sent a GET.
fn asking(tinylb: &Tinylb, path: &str) -> Client {
    let mut client = tinylb.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client
}

#[test]
fn a_client_that_closes_while_it_waits_cancels_its_request() {
    let (held, other) = (Held::new("held"), Backend::named("other"));
    let tinylb = Tinylb::run(&ranked(&[held.url(), other.url()], "", ""));
    let mut client = asking(&tinylb, "/left");
    held.wait_for(1);
    client.half_close();
    client.wire().rest();
    assert_eq!(tinylb.told("/left")["status"], 499);
    tinylb.assert_tries("/left", 1, None);
    held.wait_for(0);
    assert_eq!(other.connections(), 0, "nothing is retried");
    assert_eq!(tinylb.metric("tinylb_endpoint_failures_total", &[]), 0.0, "nobody is blamed");
    assert_eq!(tinylb.metric("tinylb_endpoint_requests_in_flight", &[]), 0.0);
}

#[test]
fn a_client_that_closes_by_tls_cancels_its_request() {
    let authority = Authority::new("Test Authority");
    let keys = authority.server("server", &["a.test"]).keys();
    let held = Held::new("held");
    let tinylb = logging(&config(&[held.url()], &format!("tls = {{ {keys} }}"), ""));
    let client = tls_client(&authority, &[], None);
    // With TLS's own end before the FIN, and with the FIN alone.
    for (path, notifies) in [("/notified", true), ("/cut", false)] {
        let mut stream = over(&client, TcpStream::connect(tinylb.address()).unwrap());
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
        held.wait_for(1);
        if notifies {
            stream.conn.send_close_notify();
            stream.flush().unwrap();
        }
        stream.sock.shutdown(Shutdown::Write).unwrap();
        assert_eq!(tinylb.told(path)["status"], 499);
        held.wait_for(0);
    }
}

#[test]
fn a_client_of_http2_that_closes_its_connection_cancels_its_requests() {
    let held = Held::new("held");
    let tinylb = logging(&config(&[held.url()], "", ""));
    let mut client = Frames::connect(&tinylb);
    client.get(1, "/left");
    held.wait_for(1);
    client.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(tinylb.told("/left")["status"], 499);
    held.wait_for(0);
}

#[test]
fn a_client_that_closes_in_the_queue_leaves_it() {
    let held = Held::new("held");
    let upstream = "limits = { requests = 1 }\nqueue = { timeout = \"1h\" }";
    let tinylb = logging(&config(&[held.url()], "", upstream));
    let mut first = asking(&tinylb, "/first");
    held.wait_for(1);
    let length = || tinylb.metric("tinylb_upstream_queue_length", &[]);
    let client = asking(&tinylb, "/queued");
    eventually("it waits", || (length() == 1.0).then_some(()));
    client.half_close();
    eventually("it leaves", || (length() == 0.0).then_some(()));
    assert_eq!(tinylb.told("/queued")["status"], 499);
    held.open();
    assert_eq!(first.response().text(), "held");
    assert_eq!(held.backend().requests().len(), 1, "it was never sent");
}

/// The connection is not made before its TLS handshake is over.
#[test]
fn a_client_that_closes_while_a_connection_is_made_is_noticed() {
    let silent = Backend::new(|mut conn| {
        conn.drain();
    });
    let upstream = "tls = { insecure_skip_verify = true }\ntimeouts = { connect = \"1h\" }";
    let endpoint = format!("https://{}", silent.address());
    let tinylb = logging(&config(&[endpoint], "", upstream));
    let client = asking(&tinylb, "/dialling");
    eventually("a connection is made", || (silent.connections() == 1).then_some(()));
    client.half_close();
    assert_eq!(tinylb.told("/dialling")["status"], 499);
    silent.end_of(0);
}

#[test]
fn a_client_that_closes_while_two_endpoints_are_asked_is_noticed() {
    let (first, second) = (Held::new("first"), Held::new("second"));
    let urls = [first.url(), second.url()];
    let tinylb = Tinylb::run(&ranked(&urls, "hedge = \"50ms\"", ""));
    let client = asking(&tinylb, "/hedged");
    first.wait_for(1);
    second.wait_for(1);
    client.half_close();
    assert_eq!(tinylb.told("/hedged")["status"], 499);
    first.wait_for(0);
    second.wait_for(0);
}

#[test]
fn a_client_that_closes_before_a_second_endpoint_is_asked_has_none_asked() {
    let (first, second) = (Held::new("first"), Backend::named("second"));
    let urls = [first.url(), second.url()];
    let tinylb = Tinylb::run(&ranked(&urls, "hedge = \"5s\"", ""));
    let client = asking(&tinylb, "/hedged");
    first.wait_for(1);
    client.half_close();
    tinylb.assert_tries("/hedged", 1, None);
    assert_eq!(tinylb.told("/hedged")["status"], 499);
    assert_eq!(second.connections(), 0);
}

/// The FIN lies behind a body that the endpoint does not take.
#[test]
fn a_client_that_closes_in_a_stuck_upload_is_noticed() {
    let gate = Gate::new();
    let backend = Backend::narrow({
        let gate = gate.clone();
        move |mut conn| {
            conn.head();
            gate.pass();
            conn.drain();
        }
    });
    let upstream = "timeouts = { body = \"1h\", response = \"1h\" }";
    let tinylb = logging(&config(&[backend.url()], "", upstream));
    let mut client = tinylb.connect();
    // More than the endpoint takes, and no more than the balancer's kernel does, so that the FIN arrives.
    client.send("POST /stuck HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n");
    client.send(vec![0; 60_000]);
    client.half_close();
    assert_eq!(tinylb.told("/stuck")["status"], 499);
    gate.open();
}

/// A client that closes once its response has begun has all that it wanted to say said.
#[test]
fn a_client_that_closes_behind_the_begin_of_its_response_gets_all_of_it() {
    let gate = Gate::new();
    let backend = Backend::new({
        let gate = gate.clone();
        move |mut conn| {
            if conn.index > 0 {
                return conn.answer_all(ok("beside"));
            }
            conn.request();
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
            gate.pass();
            conn.send("whole");
        }
    });
    let tinylb = Tinylb::start(&[backend.url()], &["--workers", "1"]);
    let mut client = asking(&tinylb, "/");
    client.wire().head().expect("the response begins");
    client.half_close();
    // The same worker serves this request behind the FIN.
    assert_eq!(tinylb.get("/beside").text(), "beside");
    gate.open();
    assert_eq!(client.wire().take(5), b"whole");
}

#[test]
fn a_client_that_half_closes_is_answered_where_the_listener_allows_it() {
    let held = Held::new("still answered");
    let tinylb = Tinylb::run(&config(&[held.url()], "half_close = true", ""));
    for body in ["", "Content-Length: 4\r\n"] {
        let mut client = tinylb.connect();
        let body_bytes = if body.is_empty() { "" } else { "body" };
        client.send(format!("POST /{} HTTP/1.1\r\nHost: a\r\n{body}\r\n{body_bytes}", body.len()));
        client.half_close();
        held.wait_for(1);
        held.answer(&format!("/{}", body.len()));
        assert_eq!(client.response().text(), "still answered");
        client.assert_closed();
    }
}

/// Requests that lay in the socket when the FIN came are whole requests too.
#[test]
fn a_client_that_half_closes_after_pipelining_gets_every_response_where_it_may() {
    let backend = Backend::new(|mut conn| {
        while let Some(request) = conn.request() {
            conn.send(ok(request.target()));
        }
    });
    let tinylb = Tinylb::run(&config(&[backend.url()], "half_close = true", ""));
    let mut client = tinylb.connect();
    client.send(
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\n",
    );
    client.half_close();
    assert_eq!(client.response().text(), "/1");
    assert_eq!(client.response().text(), "/2");
    if let Some(response) = client.try_response_to("GET") {
        assert_eq!(response.status, 400, "the third is not whole");
    }
    client.assert_closed();
    assert_eq!(backend.requests().len(), 2);
}

/// Only the request that waits is given up: the response before it had begun, and is delivered.
#[test]
fn a_client_that_closes_behind_a_pipelined_request_gets_the_response_before_it() {
    const SIZE: usize = 2_000_000;
    let backend = Backend::new(|mut conn| {
        while let Some(request) = conn.request() {
            match request.target() {
                "/large" => assert!(conn.send(ok(&"x".repeat(SIZE)))),
                _ => {
                    conn.drain();
                    return;
                }
            }
        }
    });
    let tinylb = logging(&config(&[backend.url()], "", ""));
    let mut client = Client::connect_narrow(tinylb.address(), 64 * 1024);
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\nGET /waits HTTP/1.1\r\nHost: a\r\n\r\n");
    client.wire().head().expect("the first response begins");
    client.half_close();
    assert_eq!(client.wire().take(SIZE).len(), SIZE);
    assert_eq!(client.wire().rest(), b"");
    assert_eq!(client.wire().end(), Some(End::Fin));
    assert_eq!(tinylb.told("/waits")["status"], 499);
}
