//! What the PROXY protocol says to endpoints of clients that came by TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use crate::support::certificates::Authority;
use crate::support::introduced::{Introduced, words_of};
use crate::support::tls_client::{over, tls_client};
use crate::support::{PATIENCE, Tinylb};

/// Sends a request by TLS, and returns what the header of its connection to the endpoint has to begin with.
fn ask_by_tls(tinylb: &Tinylb, client: &Arc<rustls::ClientConfig>) -> String {
    let socket = TcpStream::connect(tinylb.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let addresses = (socket.local_addr().unwrap(), socket.peer_addr().unwrap());
    let mut stream = over(client, socket);
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
        let identity = name.map(|name| authority.client("client", name));
        // One configuration, so that the second connection resumes the session of the first.
        let client = tls_client(&authority, &[], identity.as_ref());
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
