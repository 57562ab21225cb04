//! HTTP/2 and TLS to endpoints.

use crate::support::{Backend, Tinylb, config, ok};

#[test]
fn endpoints_are_spoken_to_as_their_urls_say() {
    let backend = Backend::answering(ok("hello"));
    let listeners = "tls = { self_signed = true }\n[[listeners]]\naddress = \"127.0.0.1:0\"";
    let inner = Tinylb::run(&config(&[backend.url()], listeners, ""));
    let [tls, clear] = inner.addresses()[..] else { panic!("two listeners") };
    for (url, upstream) in [
        (format!("https://{tls}"), "tls = { insecure_skip_verify = true }"),
        (format!("https://{tls}"), "tls = { insecure_skip_verify = true }\nhttp2 = false"),
        (format!("h2c://{clear}"), ""),
        (format!("http://{clear}"), ""),
    ] {
        let outer = Tinylb::run(&config(std::slice::from_ref(&url), "", upstream));
        for _ in 0..2 {
            let response = outer.connect().get("/");
            assert_eq!((response.status, response.text().as_str()), (200, "hello"), "{url}");
        }
        let via = backend.requests().pop().unwrap().head.all("via").join(", ");
        let is_http2 = !upstream.contains("false") && !url.starts_with("http:");
        assert_eq!(via.contains(", 2.0 "), is_http2, "{url} {upstream}: {via}");
    }
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_a_502() {
    let backend = Backend::answering(ok("hello"));
    let inner = Tinylb::run(&config(&[backend.url()], "tls = { self_signed = true }", ""));
    let outer = Tinylb::start(&[format!("https://{}", inner.address())], &[]);
    outer.connect().get("/").assert_fault(502, "tls_certificate_error");
    assert_eq!(backend.connections(), 0);
}
