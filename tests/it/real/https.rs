//! How curl is brought to HTTPS, and kept from asking the wrong certificate.

use super::{curl, echo, secure};
use crate::support::certificates::Authority;
use crate::support::program::run;
use crate::support::{Tinylb, config};

#[test]
fn who_comes_by_plain_http_arrives_by_tls() {
    let backend = echo();
    let (authority, secure) = secure(&backend.url(), "hsts = \"365d\"");
    let port = secure.address().port();
    let redirect = format!("redirect_https = {port}");
    let plain = Tinylb::run(&config(&[backend.url()], &redirect, ""));
    let url = format!("http://a.test:{}/x?y", plain.address().port());
    let ca = authority.ca();
    for version in ["--http1.1", "--http2"] {
        let hsts = authority.folder.path(version);
        // Where both ports are.
        let resolve = ["--connect-to", "a.test::127.0.0.1:", "--noproxy", "*", version];
        let form = "[%{http_code} %{http_version} %{num_redirects} %{url_effective}]";
        let follow = ["-sSL", "-d", "hello", "-w", form, "--cacert", &ca, "--hsts", &hsts, &url];
        let Some(ran) = run("curl", &[&resolve[..], &follow].concat(), b"") else { return };
        let version = if version == "--http2" { "2" } else { "1.1" };
        let expected = format!("hello[200 {version} 1 https://a.test:{port}/x?y]");
        assert_eq!(ran.ok().text(), expected);
        let told = std::fs::read_to_string(&hsts).unwrap();
        assert!(told.contains("\na.test \""), "{told}");
    }
    let requests = backend.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|request| request.head.get("x-forwarded-proto") == Some("https")));
}

#[test]
fn a_connection_for_one_name_is_not_for_another() {
    let (backend, clients) = (echo(), Authority::new("Clients"));
    let alice = clients.client("alice", "alice");
    let (authority, tinylb) = secure(&backend.url(), &format!("client_ca = {:?}", clients.ca()));
    let ca = authority.ca();
    for version in ["--http1.1", "--http2"] {
        for (host, status) in [("a.test", "200"), ("b.test:81", "200"), ("c.test", "421")] {
            let host = format!("Host: {host}");
            let client = ["--cacert", &ca, "--cert", &alice.cert, "--key", &alice.key];
            let ask =
                [version, "-o", "/dev/null", "-w", "%{http_code}", "-H", &host, "https://a.test/"];
            let Some(ran) = curl(tinylb.address(), &[&client[..], &ask].concat()) else { return };
            assert_eq!(ran.ok().text(), status, "{version} {host}");
        }
    }
    assert_eq!(backend.requests().len(), 4);
}
