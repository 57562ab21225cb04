//! Whom the admin address answers, and how long others can hold that up.

use crate::support::{Backend, Client, Tinylb, config};

/// The status of a GET of `target` with these field lines.
fn status(tinylb: &Tinylb, target: &str, fields: &str) -> u16 {
    let mut client = Client::connect(tinylb.admin_address());
    client.send(format!("GET {target} HTTP/1.1\r\n{fields}\r\n"));
    client.response().status
}

/// A page of another site cannot read what the admin address says, whatever its name resolves to.
#[test]
fn names_of_others_are_refused() {
    let backend = Backend::named("fine");
    let text = config(&[backend.url()], "", "");
    let hosts = "listen = \"127.0.0.1:0\"\nhosts = [\"lb.example.com\"]";
    let tinylb = Tinylb::run(&text.replacen("listen = \"127.0.0.1:0\"", hosts, 1));
    for (host, expected) in [
        ("127.0.0.1:9900", 200),
        ("127.0.0.1", 200),
        ("10.1.2.3:9900", 200),
        ("[::1]:9900", 200),
        ("[fd00::1]", 200),
        ("localhost:9900", 200),
        ("LocalHost.", 200),
        ("tinylb.localhost:80", 200),
        ("tinylb:9900", 200),
        ("lb.example.com:9900", 200),
        ("LB.Example.com.", 200),
        ("evil.example:9900", 421),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("www.lb.example.com", 421),
        ("evil.example:127", 421),
        ("", 200),
        ("127.0.0.1@evil.example", 421),
    ] {
        for target in ["/", "/metrics", "/endpoints", "/nothing"] {
            let expected = if (target, expected) == ("/nothing", 200) { 404 } else { expected };
            let fields = format!("Host: {host}\r\n");
            assert_eq!(status(&tinylb, target, &fields), expected, "{target} of {host:?}");
        }
        // Probes may call it what they like: nothing can be learned from these.
        for target in ["/healthz", "/readyz"] {
            let fields = format!("Host: {host}\r\n");
            assert_eq!(status(&tinylb, target, &fields), 200, "{target} of {host:?}");
        }
    }
    let good = "Host: localhost\r\n";
    assert_eq!(status(&tinylb, "http://evil.example/metrics", good), 421, "the target counts too");
    assert_eq!(status(&tinylb, "http://localhost/metrics", "Host: evil.example\r\n"), 421);
    let two = "Host: localhost\r\nHost: evil.example\r\n";
    assert!(matches!(status(&tinylb, "/metrics", two), 400 | 421));
    let mut client = Client::connect(tinylb.admin_address());
    client.send("POST /drain?upstream=app&endpoint=x HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!(client.response_to("POST").status, 421);
    let mut client = Client::connect(tinylb.admin_address());
    client.send("GET /metrics HTTP/1.0\r\n\r\n");
    let answer = String::from_utf8(client.wire().rest()).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 "), "no browser, which always says a host: {answer}");
}

/// Clients that say nothing, or not enough, do not keep probes from being answered.
#[test]
fn slow_clients_hold_up_no_probe() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    let slow: Vec<_> = (0..200)
        .map(|number| {
            let mut client = Client::connect(tinylb.admin_address());
            if number % 2 == 0 {
                client.send("GET /metrics HTTP/1.1\r\nHost: loc");
            }
            client
        })
        .collect();
    for target in ["/healthz", "/readyz", "/metrics", "/endpoints"] {
        assert_eq!(tinylb.admin(target).status, 200, "{target}");
    }
    drop(slow);
}
