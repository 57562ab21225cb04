//! HTTPS for everybody: redirects to it, and browsers that are told to come by it only.

use crate::support::{Backend, Client, Tinylb, config, ok};

#[test]
fn every_request_is_sent_to_the_same_place_by_https() {
    let backend = Backend::answering(ok(""));
    for (port, shown) in [("true", ""), ("8443", ":8443")] {
        let listener = format!("redirect_https = {port}");
        let tinylb = Tinylb::run(&config(&[backend.url()], &listener, ""));
        let mut client = tinylb.connect();
        for (method, target, path) in [
            ("GET", "/a/b?c=d", "/a/b?c=d"),
            ("POST", "/", "/"),
            ("HEAD", "http://a.example:81", "/"),
            ("GET", "http://a.example?q", "/?q"),
        ] {
            client.send(format!(
                "{method} {target} HTTP/1.1\r\nHost: a.example:8080\r\nContent-Length: 0\r\n\r\n"
            ));
            let response = client.response_to(method);
            assert_eq!(response.status, 308);
            let location = format!("https://a.example{shown}{path}");
            assert_eq!(response.head.get("location"), Some(location.as_str()), "{method} {target}");
        }
        client.send("GET / HTTP/1.0\r\n\r\n");
        assert_eq!(client.response().status, 400, "nobody knows where to send it");
    }
    assert_eq!(backend.connections(), 0);
}

#[test]
fn what_came_by_https_to_a_proxy_before_us_is_served() {
    let backend = Backend::answering(ok("hello"));
    let get = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n";
    for (trusted, status) in [("[\"127.0.0.1\"]", 200), ("[]", 308)] {
        let listener = format!("redirect_https = true\ntrusted_proxies = {trusted}");
        let tinylb = Tinylb::run(&config(&[backend.url()], &listener, ""));
        let mut client = tinylb.connect();
        client.send(get);
        assert_eq!(client.response().status, status, "trusted: {trusted}");
    }
}

#[test]
fn browsers_are_told_to_stay_with_https_by_every_answer_that_comes_by_it() {
    let backend = Backend::answering(ok("hello"));
    let listeners = "tls = { self_signed = true, hsts = \"365d\" }\n\
                     [[listeners]]\naddress = \"127.0.0.1:0\"";
    let inner = Tinylb::run(&config(&[backend.url()], listeners, ""));
    let [tls, clear] = inner.addresses()[..] else { panic!("two listeners") };
    let upstream = "tls = { insecure_skip_verify = true }";
    let outer = Tinylb::run(&config(&[format!("https://{tls}")], "", upstream));
    let told = Some("max-age=31536000");
    let response = outer.get("/");
    assert_eq!(response.status, 200);
    assert_eq!(response.head.get("strict-transport-security"), told);
    let mut client = outer.connect();
    client.send("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 1\r\n\r\n");
    let response = client.response();
    assert!(response.head.has("allow"), "one of the inner's own answers");
    assert_eq!(response.head.get("strict-transport-security"), told);
    let response = Client::connect(clear).get("/");
    assert_eq!(response.head.get("strict-transport-security"), None);
}
