//! Clients that prove who they are, and those that only claim it; by curl and OpenSSL.

use super::{curl, echo, secure};
use crate::support::Backend;
use crate::support::certificates::{Authority, Pair};
use crate::support::program;

/// What an endpoint was told about who the last client is.
fn subject(backend: &Backend) -> Option<String> {
    let request = backend.requests().pop().unwrap();
    assert!(!request.head.has("x_client_subject"), "{:?}", request.head.raw);
    request.head.get("x-client-subject").map(str::to_owned)
}

/// Claims to be somebody, in each way of writing it.
const FORGED: [&str; 4] =
    ["-H", "X-Client-Subject: CN=mallory", "-H", "x_client_subject: CN=mallory"];

#[test]
fn endpoints_are_told_whose_certificate_it_was_and_nothing_else() {
    let (backend, clients) = (echo(), Authority::new("Clients"));
    let alice = clients.client("alice", "alice+bob");
    let (authority, tinylb) = secure(&backend.url(), &format!("client_ca = {:?}", clients.ca()));
    let (ca, url) = (authority.ca(), "https://a.test/");
    for tls in ["1.2", "1.3"] {
        for option in ["--http1.1", "--http2"] {
            let arguments = ["--cacert", &ca, "--cert", &alice.cert, "--key", &alice.key];
            let how = ["--tls-max", tls, option, url, url];
            let arguments = [&arguments[..], &FORGED, &how].concat();
            let Some(ran) = curl(tinylb.address(), &arguments) else { return };
            ran.ok();
            assert_eq!(subject(&backend).as_deref(), Some("CN=alice\\+bob,O=Ours\\, Inc."));
        }
    }
    assert_eq!(backend.requests().len(), 8);
}

#[test]
fn who_cannot_prove_it_is_not_served() {
    let (backend, clients) = (echo(), Authority::new("Clients"));
    let others = Authority::new("Clients");
    let stranger = others.client("mallory", "alice");
    let expired = clients.expired_client("expired", "alice");
    let server = clients.server("no-client", &["a.test"]);
    let (authority, tinylb) = secure(&backend.url(), &format!("client_ca = {:?}", clients.ca()));
    let ca = authority.ca();
    for tls in ["1.2", "1.3"] {
        for pair in [None, Some(&stranger), Some(&expired), Some(&server)] {
            let mut arguments = vec!["--cacert", &ca, "--tls-max", tls, "https://a.test/"];
            if let Some(pair) = pair {
                arguments.extend(["--cert", &pair.cert, "--key", &pair.key]);
            }
            let Some(ran) = curl(tinylb.address(), &arguments) else { return };
            assert_ne!(ran.code, Some(0), "{tls} {pair:?}");
        }
    }
    assert!(backend.requests().is_empty());
    let failed = tinylb.metric("tinylb_tls_handshakes_total", &["result=\"failed\""]);
    assert_eq!(failed, 8.0);
}

#[test]
fn where_a_certificate_is_optional_one_without_is_nobody() {
    let (backend, clients) = (echo(), Authority::new("Clients"));
    let alice = clients.client("alice", "alice");
    let stranger = Authority::new("Others").client("mallory", "alice");
    let keys = format!("client_ca = {:?}, client_auth = \"optional\"", clients.ca());
    let (authority, tinylb) = secure(&backend.url(), &keys);
    let ca = authority.ca();
    let arguments = [&["--cacert", &ca, "https://a.test/"][..], &FORGED].concat();
    let Some(ran) = curl(tinylb.address(), &arguments) else { return };
    ran.ok();
    assert_eq!(subject(&backend), None);
    let with = |pair: &Pair| {
        let cert = ["--cert", &pair.cert, "--key", &pair.key];
        curl(tinylb.address(), &[&arguments[..], &cert].concat()).unwrap()
    };
    with(&alice).ok();
    assert_eq!(subject(&backend).as_deref(), Some("CN=alice,O=Ours\\, Inc."));
    assert_ne!(with(&stranger).code, Some(0));
    assert_eq!(backend.requests().len(), 2);
}

#[test]
fn sessions_that_are_taken_up_again_are_the_same_clients() {
    let (backend, clients) = (echo(), Authority::new("Clients"));
    let alice = clients.client("alice", "alice");
    let (authority, tinylb) = secure(&backend.url(), &format!("client_ca = {:?}", clients.ca()));
    let (address, ca) = (tinylb.address().to_string(), authority.ca());
    for version in ["-tls1_2", "-tls1_3"] {
        let session = authority.folder.path("session");
        let common = ["s_client", "-connect", &address, version, "-ign_eof", "-CAfile"];
        let common = [&common[..], &[&ca, "-servername", "a.test"]].concat();
        let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
        let first = ["-cert", &alice.cert, "-key", &alice.key, "-sess_out", &session];
        let Some(ran) = program::run("openssl", &[&common[..], &first].concat(), request) else {
            return;
        };
        assert!(ran.ok().text().contains("\nNew, "));
        // Without the certificate, which the session stands for.
        let ran =
            program::run("openssl", &[&common[..], &["-sess_in", &session]].concat(), request);
        let text = ran.unwrap().ok().text();
        assert!(text.contains("\nReused, ") && text.contains("HTTP/1.1 200 "), "{text}");
        assert_eq!(subject(&backend).as_deref(), Some("CN=alice,O=Ours\\, Inc."));
    }
    assert_eq!(backend.requests().len(), 4);
}
