//! What listeners offer.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, Error};

use super::*;
use crate::config::{ClientAuth, TlsVersion};

/// The only certificate in the file of `certificate`.
fn der(certificate: &Certificate) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(&certificate.cert).unwrap()
}

/// A client that believes anybody, and so sees what is presented.
fn believer() -> Arc<ClientConfig> {
    Arc::new(of_client(&ClientTls { insecure_skip_verify: true, ..ClientTls::default() }))
}

/// A client of `versions` alone.
fn speaking(versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    ClientConfig::builder_with_provider(crate::net::tls::provider())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(crate::net::tls::unverified::Unverified(
            crate::net::tls::provider(),
        )))
        .with_no_client_auth()
}

#[test]
fn the_certificate_is_chosen_by_the_name_that_is_asked_for() {
    let authority = Authority::new();
    let first = authority.give("first", &["first.example"]);
    let exact = authority.give("exact", &["a.Example.com", "b.example.com"]);
    let wild = authority.give("wild", &["*.example.com", "example.com"]);
    let common = authority.give_with("common", &[], |params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "common.example");
    });
    let all = [&first, &exact, &wild, &common];
    let server = server(all.map(Clone::clone).to_vec());
    let cases = [
        ("first.example", &first),
        ("a.example.com", &exact),
        ("B.EXAMPLE.com", &exact),
        ("c.example.com", &wild),
        ("example.com", &wild),
        ("c.a.example.com", &first),
        ("common.example", &common),
        ("elsewhere", &first),
        // Without SNI.
        ("127.0.0.1", &first),
    ];
    for (name, expected) in cases {
        let shaken =
            shake_with(&server, &believer(), name).unwrap_or_else(|e| panic!("{name} {e:?}"));
        let presented = shaken.client.peer_certificates().unwrap();
        let file = all.iter().find(|c| der(c) == presented[0]).unwrap().cert.display();
        assert_eq!(presented, [der(expected)], "{name} got {file}");
        let asked = (name != "127.0.0.1").then(|| name.to_ascii_lowercase());
        assert_eq!(shaken.session.server_name.as_deref(), asked.as_deref());
    }
}

#[test]
fn versions_below_the_lowest_are_refused() {
    let authority = Authority::new();
    let certificate = authority.give("a", &["a"]);
    let mut tls = ServerTls::new(vec![certificate]);
    for lowest in [TlsVersion::Tls12, TlsVersion::Tls13] {
        tls.min_version = lowest;
        let server = TlsServer::new(&tls, true).unwrap();
        let old = shake_with(&server, &Arc::new(speaking(&[&rustls::version::TLS12])), "a");
        match lowest {
            TlsVersion::Tls12 => assert_eq!(old.unwrap().session.version, TlsVersion::Tls12),
            TlsVersion::Tls13 => assert_eq!(old.err().unwrap().0, "server"),
        }
        let new = shake_with(&server, &Arc::new(speaking(&[&rustls::version::TLS13])), "a");
        assert_eq!(new.unwrap().session.version, TlsVersion::Tls13);
        let any = shake_with(&server, &believer(), "a").unwrap();
        assert_eq!(any.session.version, TlsVersion::Tls13);
    }
}

#[test]
fn the_protocol_is_agreed_on_by_alpn() {
    let authority = Authority::new();
    let tls = ServerTls::new(vec![authority.give("a", &["a"])]);
    let cases: [(bool, &[&str], Option<&str>); 8] = [
        (true, &["h2", "http/1.1"], Some("h2")),
        (true, &["http/1.1", "h2"], Some("h2")),
        (true, &["http/1.1"], Some("http/1.1")),
        (true, &[], None),
        (false, &["h2", "http/1.1"], Some("http/1.1")),
        (false, &[], None),
        (false, &["h2"], Some("refused")),
        (true, &["http/1.0", "acme-tls/1"], Some("refused")),
    ];
    for (http2, offered, expected) in cases {
        let server = TlsServer::new(&tls, http2).unwrap();
        let mut client = ClientConfig::clone(&believer());
        client.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        match shake_with(&server, &Arc::new(client), "a") {
            Ok(shaken) => {
                assert_eq!(shaken.client.alpn_protocol(), expected.map(str::as_bytes));
                assert_eq!(shaken.session.is_http2, expected == Some("h2"));
            }
            Err((who, error)) => {
                assert_eq!((expected, who), (Some("refused"), "server"));
                assert_eq!(error, Error::NoApplicationProtocol);
            }
        }
    }
}

#[test]
fn a_session_is_taken_up_again_on_any_worker() {
    let authority = Authority::new();
    let server = server(vec![authority.give("a", &["a", "b"])]);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = Arc::new(speaking(&[version]));
        assert!(!shake_with(&server, &client, "a").unwrap().session.resumed);
        assert!(shake_with(&server, &client, "a").unwrap().session.resumed);
        assert!(!shake_with(&server, &client, "b").unwrap().session.resumed, "another name");
        server.commit(server.prepare().unwrap());
        assert!(shake_with(&server, &client, "a").unwrap().session.resumed, "after a reload");
    }
}

#[test]
fn clients_prove_who_they_are() {
    let authority = Authority::new();
    let clients = Authority::new();
    let others = Authority::new();
    let mut tls = ServerTls::new(vec![authority.give("a", &["a"])]);
    let named = |params: &mut CertificateParams| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Ours, Inc.");
        params.distinguished_name.push(DnType::CommonName, "alice");
    };
    let known = clients.give_with("alice", &[], named);
    let unknown = others.give_with("mallory", &[], named);
    let with = |identity: Option<&Certificate>| {
        let identity = identity.map(|c| (c.cert.clone(), c.key.clone()));
        Arc::new(of_client(&ClientTls { identity, ..authority.client() }))
    };
    for required in [true, false] {
        tls.client = Some(ClientAuth { ca: clients.ca(), required });
        let server = TlsServer::new(&tls, true).unwrap();
        let alice = with(Some(&known));
        for resumed in [false, true] {
            let session = shake_with(&server, &alice, "a").unwrap().session;
            assert_eq!(session.subject.as_deref(), Some("CN=alice,O=Ours\\, Inc."));
            assert_eq!(session.resumed, resumed);
        }
        let (who, _) = shake_with(&server, &with(Some(&unknown)), "a").err().unwrap();
        assert_eq!(who, "server");
        let nobody = shake_with(&server, &with(None), "a");
        match required {
            true => assert_eq!(nobody.err().unwrap().0, "server"),
            false => assert_eq!(nobody.unwrap().session.subject, None),
        }
    }
    tls.client = None;
    let server = TlsServer::new(&tls, true).unwrap();
    assert_eq!(shake_with(&server, &with(Some(&known)), "a").unwrap().session.subject, None);
}

#[test]
fn a_connection_is_good_for_the_names_of_what_was_presented() {
    let authority = Authority::new();
    let first = authority.give("first", &["first.example", "127.0.0.1", "::1"]);
    let wild = authority.give("wild", &["*.example.com"]);
    let server = server(vec![first, wild]);
    let session = |name| shake_with(&server, &believer(), name).unwrap().session;
    let default = session("elsewhere");
    let wild = session("a.example.com");
    let cases: [(&[u8], bool, bool); 12] = [
        (b"first.example", true, false),
        (b"FIRST.example.", true, false),
        (b"127.0.0.1", true, false),
        (b"[::1]", true, false),
        (b"::1", true, false),
        (b"127.0.0.2", false, false),
        (b"elsewhere", false, false),
        (b"b.example.com", false, true),
        (b"example.com", false, false),
        (b".example.com", false, false),
        (b"a.b.example.com", false, false),
        (b"\xff.example.com", false, false),
    ];
    for (host, by_default, by_wildcard) in cases {
        let host_text = String::from_utf8_lossy(host);
        assert_eq!(default.covers(host), by_default, "{host_text}");
        assert_eq!(wild.covers(host), by_wildcard, "{host_text}");
    }
}

#[test]
fn a_certificate_is_made_at_start_and_kept() {
    let mut tls = ServerTls::new(Vec::new());
    tls.self_signed = true;
    let server = TlsServer::new(&tls, true).unwrap();
    let fingerprint = server.fingerprint().unwrap();
    assert_eq!((fingerprint.len(), fingerprint.matches(':').count()), (95, 31));
    let presented = || {
        let shaken = shake_with(&server, &believer(), "localhost").unwrap();
        shaken.client.peer_certificates().unwrap()[0].clone()
    };
    let made = presented();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.clone()).unwrap();
    let client = ClientConfig::builder_with_provider(crate::net::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Arc::new(client);
    let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    for name in ["localhost", "127.0.0.1", "::1", &host] {
        shake_with(&server, &client, name).unwrap_or_else(|e| panic!("{name}: {e:?}"));
    }
    assert!(shake_with(&server, &client, "elsewhere").is_err());
    server.commit(server.prepare().unwrap());
    assert_eq!(presented(), made);
    assert_eq!(server.doubts(std::time::SystemTime::now()), []);
    assert_ne!(TlsServer::new(&tls, true).unwrap().fingerprint().unwrap(), fingerprint);
}
