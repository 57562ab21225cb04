//! What the PROXY protocol says to endpoints of clients that came by TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::certificates::{Authority, Pair};
use crate::support::introduced::{Introduced, words_of};
use crate::support::{PATIENCE, Tinylb};

/// A client by TLS with this name that asks for `a.test`, whose sessions are all taken up again where
/// that can be.
fn tls_client(authority: &Authority, name: Option<&str>) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(authority.ca()).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder =
        builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    Arc::new(match name {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let Pair { cert, key } = authority.client("client", name);
            let chain = vec![CertificateDer::from_pem_file(cert).unwrap()];
            let key = PrivateKeyDer::from_pem_file(key).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    })
}

/// Sends a request by TLS, and returns what the header of its connection to the endpoint has to begin with.
fn ask_by_tls(tinylb: &Tinylb, client: &Arc<rustls::ClientConfig>) -> String {
    let name = "a.test".try_into().unwrap();
    let connection = rustls::ClientConnection::new(Arc::clone(client), name).unwrap();
    let socket = TcpStream::connect(tinylb.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let addresses = (socket.local_addr().unwrap(), socket.peer_addr().unwrap());
    let mut stream = rustls::StreamOwned::new(connection, socket);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    words_of(addresses.0, addresses.1, "v2")
}

#[test]
fn of_tls_version_2_says_what_there_is_to_say() {
    let authority = Authority::new("Test Authority");
    let pair = authority.server("server", &["a.test"]);
    let (ca, keys) = (authority.ca(), pair.keys());
    let listener = format!("tls = {{ {keys}, client_ca = {ca:?}, client_auth = \"optional\" }}");
    let shown = "\\x00\\x00\\x00\\x00!\\x00\\x07TLSv1.3\\\"\\x00\\x0cLu\\xc4\\x8di\\xc4\\x87, B+C";
    let none = "\\x01\\x00\\x00\\x00\\x01!\\x00\\x07TLSv1.3".to_owned();
    for (name, first, again) in [
        (None, none.clone(), none),
        // In the second connection the session is the same, so the certificate is not shown again.
        (Some("Lučić, B+C"), format!("\\x07{shown}"), format!("\\x05{shown}")),
    ] {
        let introduced = Introduced::new();
        let tinylb = introduced.balanced("v2", &listener, "");
        let client = tls_client(&authority, name);
        for tls in [first, again] {
            let addresses = ask_by_tls(&tinylb, &client);
            let header = introduced.headers().pop().unwrap();
            assert_eq!(header, format!("{addresses} 02=a.test 20={tls}"));
        }
        // Version 1 has no room for it.
        let introduced = Introduced::new();
        let tinylb = introduced.balanced("v1", &listener, "");
        ask_by_tls(&tinylb, &client);
        assert!(introduced.headers()[0].starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "));
    }
}
