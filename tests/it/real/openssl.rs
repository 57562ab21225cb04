//! `openssl s_client`: what is agreed on in a handshake.

use std::net::SocketAddr;

use super::{curl, echo, secure};
use crate::support::certificates::{Authority, Pair};
use crate::support::program::{Ran, run};
use crate::support::{Tinylb, config};

/// One GET.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

/// Shakes hands with `address` and sends [`REQUEST`].
#[track_caller]
fn s_client(address: SocketAddr, arguments: &[&str]) -> Option<Ran> {
    let address = address.to_string();
    // Without -ign_eof it would end with its input, before the answer.
    let common = ["s_client", "-connect", &address, "-ign_eof"];
    run("openssl", &[&common, arguments].concat(), REQUEST)
}

/// The name in the certificate that is presented.
fn presented(ran: &Ran) -> String {
    let text = ran.text();
    let subject = text.lines().find_map(|line| line.strip_prefix("subject=CN = "));
    subject.unwrap_or_else(|| panic!("a subject: {text}{}", ran.stderr)).to_owned()
}

#[test]
fn versions_of_tls_are_those_that_the_listener_allows() {
    let backend = echo();
    let (_authority, both) = secure(&backend.url(), "");
    let (_authority, newest) = secure(&backend.url(), "min_version = \"1.3\"");
    // What is below 1.2 OpenSSL itself speaks at this level only.
    let low = ["-cipher", "DEFAULT@SECLEVEL=0"];
    let cases = [
        (&both, &["-tls1"][..], None),
        (&both, &["-tls1_1"], None),
        (&both, &["-tls1_2"], Some("TLSv1.2")),
        (&both, &["-tls1_3"], Some("TLSv1.3")),
        (&both, &[], Some("TLSv1.3")),
        (&newest, &["-tls1_2"], None),
        (&newest, &["-tls1_3"], Some("TLSv1.3")),
    ];
    for (tinylb, version, expected) in cases {
        let Some(ran) = s_client(tinylb.address(), &[version, &low].concat()) else { return };
        match expected {
            Some(name) => {
                let text = ran.ok().text();
                assert!(
                    text.contains(&format!("\nNew, {name}, Cipher is ")),
                    "{version:?}: {text}"
                );
                assert!(text.contains("HTTP/1.1 200 "), "{version:?}: {text}");
            }
            None => {
                assert!(ran.stderr.contains(" alert "), "{version:?}: {}", ran.stderr);
                ran.ended_with(1);
            }
        }
    }
    assert_eq!(backend.requests().len(), 4);
}

#[test]
fn each_name_gets_its_certificate() {
    let authority = Authority::new("Test Authority");
    let certificates = [
        authority.server("first", &["first.test", "also.test"]),
        authority.server("exact", &["exact.wild.test"]),
        authority.server("wild", &["*.wild.test"]),
    ];
    let certificates = certificates.map(|pair| format!("{{ {} }}", pair.keys())).join(", ");
    let backend = echo();
    let listener = format!("tls = {{ certificates = [{certificates}] }}");
    let tinylb = Tinylb::run(&config(&[backend.url()], &listener, ""));
    for (name, expected) in [
        ("first.test", "first.test"),
        ("also.test", "first.test"),
        ("exact.wild.test", "exact.wild.test"),
        ("EXACT.wild.test", "exact.wild.test"),
        ("other.wild.test", "*.wild.test"),
        // A wildcard is for one label.
        ("a.b.wild.test", "first.test"),
        ("wild.test", "first.test"),
        ("elsewhere.test", "first.test"),
    ] {
        let Some(ran) = s_client(tinylb.address(), &["-servername", name]) else { return };
        assert_eq!(presented(&ran.ok()), expected, "{name}");
    }
    assert_eq!(presented(&s_client(tinylb.address(), &["-noservername"]).unwrap()), "first.test");
}

#[test]
fn alpn_chooses_http_2_where_both_sides_have_it() {
    let backend = echo();
    let (authority, both) = secure(&backend.url(), "");
    let pair = authority.server("one", &["a.test"]);
    let listener = format!("http2 = false\ntls = {{ {} }}", pair.keys());
    let one = Tinylb::run(&config(&[backend.url()], &listener, ""));
    let cases = [
        (&both, "h2,http/1.1", "ALPN protocol: h2"),
        (&both, "http/1.1,h2", "ALPN protocol: h2"),
        (&both, "http/1.1", "ALPN protocol: http/1.1"),
        (&one, "h2,http/1.1", "ALPN protocol: http/1.1"),
    ];
    for (tinylb, offered, expected) in cases {
        let Some(ran) = s_client(tinylb.address(), &["-alpn", offered]) else { return };
        let text = ran.text();
        assert!(text.contains(expected), "{offered}: {text}");
    }
    // RFC 7301 3.2.
    for (tinylb, offered) in [(&both, "spdy/3"), (&one, "h2")] {
        let ran = s_client(tinylb.address(), &["-alpn", offered]).unwrap();
        assert!(ran.stderr.contains("no application protocol"), "{offered}: {}", ran.stderr);
    }
    assert_eq!(backend.requests().len(), 2);
}

#[test]
fn sessions_are_taken_up_again() {
    let backend = echo();
    let (authority, tinylb) = secure(&backend.url(), "");
    let session = authority.folder.path("session");
    for version in ["-tls1_2", "-tls1_3"] {
        for (option, words) in [("-sess_out", "\nNew, "), ("-sess_in", "\nReused, ")] {
            let Some(ran) = s_client(tinylb.address(), &[version, option, &session]) else {
                return;
            };
            let text = ran.ok().text();
            assert!(text.contains(words) && text.contains("HTTP/1.1 200 "), "{version}: {text}");
        }
    }
    let count = |result: &str| {
        tinylb.metric("tinylb_tls_handshakes_total", &[&format!("result=\"{result}\"")])
    };
    assert_eq!((count("full"), count("resumed"), count("failed")), (2.0, 2.0, 0.0));
}

/// Has OpenSSL, for the authority, say that the certificate is good; the path of what it says.
fn ocsp_response(authority: &Authority, cert: &str) -> Option<String> {
    let folder = &authority.folder;
    let serial = run("openssl", &["x509", "-noout", "-serial", "-in", cert], b"")?.ok().text();
    let serial = serial.trim().strip_prefix("serial=").unwrap();
    let index =
        folder.write("index", format!("V\t491231235959Z\t\t{serial}\tunknown\t/CN=a.test\n"));
    let (ca, key, response) = (authority.ca(), folder.path("ca.key"), folder.path("ocsp.der"));
    let arguments = ["ocsp", "-index", &index, "-CA", &ca, "-rsigner", &ca, "-rkey", &key];
    let about = ["-issuer", &ca, "-cert", cert, "-ndays", "1", "-respout", &response];
    run("openssl", &[&arguments[..], &about].concat(), b"")?.ok();
    Some(response)
}

#[test]
fn an_ocsp_response_is_stapled_and_believed() {
    let backend = echo();
    let authority = Authority::new("Test Authority");
    let pair = authority.server("server", &["a.test"]);
    let Some(response) = ocsp_response(&authority, &pair.cert) else { return };
    // curl finds who has signed it in the chain.
    let chain = [&pair.cert, &authority.ca()].map(|file| std::fs::read_to_string(file).unwrap());
    let pair = Pair { cert: authority.folder.write("chain.pem", chain.concat()), ..pair };
    let listener = format!("tls = {{ {}, ocsp = {response:?} }}", pair.keys());
    let tinylb = Tinylb::run(&config(&[backend.url()], &listener, ""));
    let ca = authority.ca();
    for version in ["-tls1_2", "-tls1_3"] {
        let arguments = [version, "-status", "-CAfile", &ca];
        let text = s_client(tinylb.address(), &arguments).unwrap().ok().text();
        assert!(text.contains("OCSP Response Status: successful"), "{text}");
        assert!(text.contains("Cert Status: good"), "{text}");
    }
    let arguments = ["--cacert", &ca, "--cert-status", "-d", "hello", "https://a.test/"];
    let Some(ran) = curl(tinylb.address(), &arguments) else { return };
    assert_eq!(ran.ok().text(), "hello");
    let (authority, without) = secure(&backend.url(), "");
    let ca = authority.ca();
    let arguments = ["--cacert", &ca, "--cert-status", "https://a.test/"];
    // CURLE_SSL_INVALIDCERTSTATUS.
    curl(without.address(), &arguments).unwrap().ended_with(91);
}

#[test]
fn clients_are_asked_for_certificates_of_those_who_may_give_them() {
    let (backend, clients) = (echo(), Authority::new("Clients Only"));
    let (_authority, tinylb) = secure(&backend.url(), &format!("client_ca = {:?}", clients.ca()));
    for version in ["-tls1_2", "-tls1_3"] {
        let Some(ran) = s_client(tinylb.address(), &[version]) else { return };
        let text = ran.text();
        assert!(
            text.contains("Acceptable client certificate CA names\nCN = Clients Only"),
            "{text}"
        );
    }
    assert!(backend.requests().is_empty());
}
