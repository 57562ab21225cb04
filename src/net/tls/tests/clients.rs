//! Whom endpoints are taken for.

use std::sync::Arc;

use rustls::{CertificateError, Error, HandshakeKind, NamedGroup};

use super::*;
use crate::net::tls::client::TlsEndpoint;
use crate::net::tls::{FileKey, Problem, TlsError};

/// Connects to the endpoint at `host` as `tls` has it.
fn connect(server: &TlsServer, tls: &ClientTls, host: &str) -> Result<Shaken, Error> {
    let client = Arc::new(TlsClient::new(tls).unwrap());
    connect_to(server, &client.endpoint(host).unwrap())
}

fn connect_to(server: &TlsServer, endpoint: &TlsEndpoint) -> Result<Shaken, Error> {
    shake(&server.current(), &endpoint.config(true), endpoint.name()).map_err(|(_, error)| error)
}

#[test]
fn an_endpoint_has_a_certificate_for_its_name_from_somebody_who_is_believed() {
    let authority = Authority::new();
    let other = Authority::new();
    let server = server(vec![authority.give("a", &["app.internal", "127.0.0.1", "::1"])]);
    let ours = authority.client();
    let named = ClientTls { server_name: Some("app.internal".into()), ..authority.client() };
    let blind = ClientTls { insecure_skip_verify: true, ..ClientTls::default() };
    for (tls, host, asked) in [
        (&ours, "app.internal", Some("app.internal")),
        (&ours, "APP.internal", Some("app.internal")),
        (&ours, "127.0.0.1", None),
        (&ours, "::1", None),
        (&ours, "[::1]", None),
        (&named, "10.0.0.1", Some("app.internal")),
        (&named, "elsewhere", Some("app.internal")),
        (&blind, "elsewhere", Some("elsewhere")),
    ] {
        let shaken = connect(&server, tls, host).unwrap_or_else(|e| panic!("{host}: {e}"));
        assert_eq!(shaken.session.server_name.as_deref(), asked, "{host}");
    }
    let misnamed = ClientTls { server_name: Some("elsewhere".into()), ..authority.client() };
    for (tls, host) in [
        (&ours, "elsewhere"),
        (&ours, "127.0.0.2"),
        (&misnamed, "app.internal"),
        (&misnamed, "::1"),
    ] {
        let error = connect(&server, tls, host).err().unwrap();
        let Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }) = error
        else {
            panic!("{host}: {error}");
        };
    }
    let unknown = connect(&server, &other.client(), "app.internal").err().unwrap();
    assert!(matches!(unknown, Error::InvalidCertificate(_)), "{unknown}");
    let error = Arc::new(TlsClient::new(&ours).unwrap()).endpoint("a b").unwrap_err();
    let TlsError(faults) = error;
    assert_eq!(faults[0].key, FileKey::ServerName);
    assert_eq!(faults[0].problem, Problem::BadServerName("a b".into()));
}

#[test]
fn an_endpoint_that_has_ended_is_not_believed() {
    let authority = Authority::new();
    let ended = authority.give_with("a", &["a"], |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let server = server(vec![ended]);
    let error = connect(&server, &authority.client(), "a").err().unwrap();
    let Error::InvalidCertificate(CertificateError::ExpiredContext { .. }) = error else {
        panic!("{error}");
    };
}

#[test]
fn what_is_recorded_today_stays_secret() {
    let authority = Authority::new();
    let server = server(vec![authority.give("a", &["a"])]);
    let shaken = connect(&server, &authority.client(), "a").unwrap();
    assert_eq!(shaken.client.handshake_kind(), Some(HandshakeKind::Full), "and no retry");
    let group = shaken.client.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
}

#[test]
fn http2_is_offered_where_it_is_wanted() {
    let authority = Authority::new();
    let tls = ServerTls::new(vec![authority.give("a", &["a"])]);
    let client = Arc::new(TlsClient::new(&authority.client()).unwrap());
    let endpoint = client.endpoint("a").unwrap();
    for (offered, spoken, agreed) in
        [(true, true, true), (true, false, false), (false, true, false), (false, false, false)]
    {
        let server = TlsServer::new(&tls, spoken).unwrap();
        let shaken = shake(&server.current(), &endpoint.config(offered), endpoint.name()).unwrap();
        assert_eq!(shaken.session.is_http2, agreed);
        let protocol: &[u8] = if agreed { b"h2" } else { b"http/1.1" };
        assert_eq!(shaken.client.alpn_protocol(), Some(protocol));
    }
}

#[test]
fn each_endpoint_has_sessions_of_its_own() {
    let authority = Authority::new();
    let certificate = authority.give("a", &["a"]);
    let servers = [0, 1].map(|_| server(vec![certificate.clone()]));
    let tls = ClientTls { server_name: Some("a".into()), ..authority.client() };
    let client = Arc::new(TlsClient::new(&tls).unwrap());
    let endpoints = ["10.0.0.1", "10.0.0.2"].map(|host| client.endpoint(host).unwrap());
    for resumed in [false, true, true] {
        for (server, endpoint) in servers.iter().zip(&endpoints) {
            assert_eq!(connect_to(server, endpoint).unwrap().session.resumed, resumed);
        }
    }
    // Who is believed is asked anew after a reload.
    client.commit(client.prepare().unwrap());
    assert!(!connect_to(&servers[0], &endpoints[0]).unwrap().session.resumed);
    assert!(connect_to(&servers[0], &endpoints[0]).unwrap().session.resumed);
}

#[test]
fn the_system_has_authorities() {
    let authority = Authority::new();
    let server = server(vec![authority.give("a", &["a"])]);
    match TlsClient::new(&ClientTls::default()) {
        Ok(_) => {
            let error = connect(&server, &ClientTls::default(), "a").err().unwrap();
            let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
            assert_eq!(error, unknown);
        }
        // On a machine that has none.
        Err(TlsError(faults)) => {
            assert!(matches!(faults[0].problem, Problem::NoSystemAuthorities(_)), "{faults:?}");
        }
    }
}
