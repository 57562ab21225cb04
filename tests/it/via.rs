//! `Via` (RFC 9110 7.6.3): the version received, loops, and upstreams that get none.

use std::sync::{Arc, OnceLock};

use crate::support::streams::{Streams, run};
use crate::support::{Backend, Client, Http2Backend, Tinylb, config, ok};

/// The one element of `Via` that a response through `tinylb` has.
#[track_caller]
fn version_of_response(tinylb: &Tinylb) -> String {
    let response = tinylb.get("/");
    assert_eq!(response.status, 200);
    let via = response.head.list("via");
    let [via] = &via[..] else { panic!("one element: {via:?}") };
    via.split(' ').next().unwrap().to_owned()
}

#[test]
fn the_via_of_a_response_names_the_version_that_the_endpoint_spoke() {
    let http1 = Backend::named("fine");
    let http10 = Backend::closing_after("HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfine");
    let http2 = Http2Backend::answering("fine");
    for (url, version) in [(http1.url(), "1.1"), (http10.url(), "1.0"), (http2.url(), "2.0")] {
        let tinylb = Tinylb::start(std::slice::from_ref(&url), &[]);
        assert_eq!(version_of_response(&tinylb), version, "{url}");
        let over_http2 = run(async { Streams::connect(&tinylb).await.get("/").await });
        let via = over_http2.get("via").unwrap_or_default();
        assert!(via.starts_with(&format!("{version} ")), "{url}: {via}");
    }
}

/// A proxy that sends what it gets back to the balancer, for another route.
fn around(balancer: &Arc<OnceLock<std::net::SocketAddr>>, path: &'static str) -> Backend {
    let balancer = Arc::clone(balancer);
    Backend::new(move |mut conn| {
        while let Some(request) = conn.request() {
            let mut client = Client::connect(*balancer.get().unwrap());
            let head = request.head.raw.replacen(request.target(), path, 1);
            client.send(head);
            let response = client.response();
            conn.send(match response.status {
                200 => ok(&response.text()),
                status => format!(
                    "HTTP/1.1 {status} x\r\nContent-Length: 0\r\nProxy-Status: {}\r\n\r\n",
                    response.proxy_status()
                ),
            });
        }
    })
}

/// Balancer, cache, balancer again for another route: that is no loop, twice over.
#[test]
fn a_request_may_come_back_for_another_route() {
    let itself = Arc::new(OnceLock::new());
    let (once, twice) = (around(&itself, "/two"), around(&itself, "/three"));
    let app = Backend::named("app");
    let tinylb = Tinylb::run(&format!(
        "workers = 2\nadmin = {{ listen = \"off\" }}\n[[listeners]]\naddress = \"127.0.0.1:0\"\n\
         [[routes]]\npath = \"/two\"\nupstream = \"twice\"\n\
         [[routes]]\npath = \"/three\"\nupstream = \"app\"\n\
         [[routes]]\nupstream = \"once\"\n\
         [upstreams.once]\nendpoints = [{:?}]\n[upstreams.twice]\nendpoints = [{:?}]\n\
         [upstreams.app]\nendpoints = [{:?}]\n",
        once.url(),
        twice.url(),
        app.url()
    ));
    itself.set(tinylb.address()).unwrap();
    let response = tinylb.get("/one");
    assert_eq!((response.status, response.text().as_str()), (200, "app"));
    assert_eq!(app.request().head.list("via").len(), 3);
}

#[test]
fn a_request_that_comes_back_a_third_time_is_in_a_loop() {
    let itself = Arc::new(OnceLock::new());
    let backend = around(&itself, "/");
    let tinylb = Tinylb::before(&backend);
    itself.set(tinylb.address()).unwrap();
    let response = tinylb.get("/");
    assert_eq!(response.status, 502, "{:?}", response.head.raw);
    assert!(response.proxy_status().contains("error=proxy_loop_detected"), "{response:?}");
    assert_eq!(backend.requests().len(), 3, "it goes round three times");
}

#[test]
fn an_upstream_may_go_without_via() {
    let (http1, http2) = (Backend::named("fine"), Http2Backend::held());
    let tinylb = Tinylb::run(&config(&[http1.url()], "", "via = false"));
    let response = tinylb.exchange("GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 before\r\n\r\n");
    assert_eq!(
        (response.status, response.head.has("via")),
        (200, false),
        "{:?}",
        response.head.raw
    );
    assert_eq!(http1.request().head.all("via"), ["1.1 before"], "that of others goes on");
    let tinylb = Tinylb::run(&config(&[http2.url()], "", "via = false"));
    let mut client = tinylb.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let asked = http2.next();
    assert!(!asked.head.headers.contains_key("via"), "{:?}", asked.head.headers);
    asked.ok("fine");
    assert!(!client.response().head.has("via"));
}
