//! What happens when files change.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

use super::*;
use crate::config::ClientAuth;
use crate::net::tls::{EXPIRY_NOTICE, FileKey, Problem, TlsError};

/// What `server` presents to a client that believes anybody.
fn presented(server: &TlsServer) -> CertificateDer<'static> {
    let blind = ClientTls { insecure_skip_verify: true, ..ClientTls::default() };
    let shaken = shake_with(server, &Arc::new(of_client(&blind)), "a").unwrap();
    shaken.client.peer_certificates().unwrap()[0].clone()
}

/// Puts the files of `new` in the place of those of `old`, as whoever renews certificates does.
fn replace(old: &Certificate, new: &Certificate) {
    std::fs::rename(&new.cert, &old.cert).unwrap();
    std::fs::rename(&new.key, &old.key).unwrap();
}

#[test]
fn files_that_have_changed_are_read_once_they_stay_the_same() {
    let authority = Authority::new();
    let certificate = authority.give("a", &["a"]);
    let server = server(vec![certificate.clone()]);
    let first = presented(&server);
    assert_eq!(server.reload(), Ok(false));
    let terms = server.current();
    let new = authority.give("new", &["a"]);
    std::fs::rename(&new.cert, &certificate.cert).unwrap();
    assert_eq!(server.reload(), Ok(false), "the key is still on its way");
    std::fs::rename(&new.key, &certificate.key).unwrap();
    assert_eq!(server.reload(), Ok(false), "the key has only just come");
    assert_eq!(presented(&server), first);
    assert_eq!(server.reload(), Ok(true));
    assert_ne!(presented(&server), first);
    assert_eq!(server.reload(), Ok(false));
    // Handshakes that have begun end as they began.
    let blind = ClientTls { insecure_skip_verify: true, ..ClientTls::default() };
    let name = ServerName::try_from("a").unwrap();
    let late = shake(&terms, &Arc::new(of_client(&blind)), name).unwrap();
    assert_eq!(late.client.peer_certificates().unwrap()[0], first);
}

#[test]
fn a_link_that_leads_elsewhere_is_a_change() {
    let authority = Authority::new();
    let folder = &authority.folder;
    let [old, new] = ["old", "new"].map(|name| authority.give(name, &["a"]));
    let link = |to: &Certificate| {
        for (name, target) in [("a.pem", &to.cert), ("a.key", &to.key)] {
            symlink(target, folder.path("link")).unwrap();
            std::fs::rename(folder.path("link"), folder.path(name)).unwrap();
        }
    };
    link(&old);
    let certificate =
        Certificate { cert: folder.path("a.pem"), key: folder.path("a.key"), ocsp: None };
    let server = server(vec![certificate]);
    let first = presented(&server);
    link(&new);
    assert_eq!([server.reload(), server.reload()], [Ok(false), Ok(true)]);
    assert_ne!(presented(&server), first);
}

#[test]
fn a_broken_file_changes_nothing_and_is_told_once() {
    let authority = Authority::new();
    let certificate = authority.give("a", &["a"]);
    let server = server(vec![certificate.clone()]);
    let first = presented(&server);
    for broken in ["", "-----BEGIN CERTIFICATE-----\n"] {
        std::fs::write(&certificate.cert, broken).unwrap();
        assert_eq!(server.reload(), Ok(false));
        let TlsError(faults) = server.reload().unwrap_err();
        assert_eq!((faults.len(), faults[0].key), (1, FileKey::Cert));
        assert_eq!([server.reload(), server.reload()], [Ok(false), Ok(false)]);
        assert_eq!(presented(&server), first);
        assert!(server.prepare().is_err());
    }
    replace(&certificate, &authority.give("new", &["a"]));
    assert_eq!([server.reload(), server.reload()], [Ok(false), Ok(true)]);
    assert_ne!(presented(&server), first);
    std::fs::remove_file(&certificate.key).unwrap();
    assert_eq!(server.reload(), Ok(false));
    let TlsError(faults) = server.reload().unwrap_err();
    assert_eq!((faults.len(), faults[0].key), (1, FileKey::Key));
}

#[test]
fn nobody_gets_in_by_the_sessions_of_former_authorities() {
    let authority = Authority::new();
    let clients = Authority::new();
    let others = Authority::new();
    let alice = clients.give("alice", &["alice"]);
    let mut tls = ServerTls::new(vec![authority.give("a", &["a"])]);
    tls.client = Some(ClientAuth { ca: clients.ca(), required: true });
    let server = TlsServer::new(&tls, true).unwrap();
    let identity = Some((alice.cert, alice.key));
    let client = Arc::new(of_client(&ClientTls { identity, ..authority.client() }));
    assert!(!shake_with(&server, &client, "a").unwrap().session.resumed);
    server.commit(server.prepare().unwrap());
    assert!(shake_with(&server, &client, "a").unwrap().session.resumed);
    std::fs::copy(others.ca(), clients.ca()).unwrap();
    assert_eq!([server.reload(), server.reload()], [Ok(false), Ok(true)]);
    assert_eq!(shake_with(&server, &client, "a").err().unwrap().0, "server");
}

#[test]
fn authorities_of_endpoints_and_our_own_certificate_are_read_again() {
    let authority = Authority::new();
    let clients = Authority::new();
    let [alice, bob] = ["alice", "bob"].map(|name| {
        clients.give_with(name, &[], |params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
        })
    });
    let mut tls = ServerTls::new(vec![authority.give("a", &["a"])]);
    tls.client = Some(ClientAuth { ca: clients.ca(), required: true });
    let server = TlsServer::new(&tls, true).unwrap();
    let identity = Some((alice.cert.clone(), alice.key.clone()));
    let client = Arc::new(TlsClient::new(&ClientTls { identity, ..authority.client() }).unwrap());
    let endpoint = client.endpoint("a").unwrap();
    let subject = || {
        let shaken = shake(&server.current(), &endpoint.config(true), endpoint.name());
        shaken.map(|shaken| shaken.session.subject.unwrap().into_string())
    };
    assert_eq!(subject().unwrap(), "CN=alice");
    replace(&alice, &bob);
    assert_eq!([client.reload(), client.reload()], [Ok(false), Ok(true)]);
    assert_eq!(subject().unwrap(), "CN=bob");
    std::fs::write(&alice.key, "").unwrap();
    assert_eq!(client.reload(), Ok(false));
    let TlsError(faults) = client.reload().unwrap_err();
    assert_eq!((faults.len(), faults[0].key), (1, FileKey::Key));
    assert_eq!(client.reload(), Ok(false));
    assert_eq!(subject().unwrap(), "CN=bob");
    let bob = clients.give("bob", &["bob"]);
    replace(&alice, &bob);
    std::fs::copy(clients.ca(), authority.ca()).unwrap();
    assert_eq!([client.reload(), client.reload()], [Ok(false), Ok(true)]);
    assert_eq!(subject().err().unwrap().0, "client", "the endpoint is not believed any more");
}

#[test]
fn a_certificate_is_doubtful_before_it_begins_and_from_two_weeks_before_it_ends() {
    let authority = Authority::new();
    let year = |year| rcgen::date_time_ymd(year, 3, 1);
    let certificate = authority.give_with("a", &["a"], |params| {
        params.not_before = year(2030);
        params.not_after = year(2040);
    });
    let server = server(vec![certificate.clone()]);
    let [begin, end] = [year(2030), year(2040)].map(SystemTime::from);
    let second = Duration::from_secs(1);
    let cases = [
        (begin - second, Some(Problem::NotYet(begin))),
        (begin, None),
        (end - EXPIRY_NOTICE - second, None),
        (end - EXPIRY_NOTICE, Some(Problem::EndsSoon(end))),
        (end - second, Some(Problem::EndsSoon(end))),
        (end, Some(Problem::Ended(end))),
        (end + second, Some(Problem::Ended(end))),
    ];
    for (now, expected) in cases {
        let doubts = server.doubts(now);
        let problems: Vec<_> = doubts.iter().map(|doubt| doubt.problem.clone()).collect();
        assert_eq!(problems, expected.as_slice());
        assert!(doubts.iter().all(|doubt| doubt.path.as_ref() == Some(&certificate.cert)));
    }
    let [presented] = &server.presented()[..] else { panic!("one") };
    assert_eq!((presented.begin, presented.end), (begin, end));
}
