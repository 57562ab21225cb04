//! Certificates of listeners: read again when they change, and told of.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::tls_client::trusting;
use crate::support::{Backend, Signal, Tinylb, config, eventually};

/// A folder with a certificate, `a.pem`, and its key.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let name = format!("certificates-{}-{test}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Puts a new certificate in place, and gives what a client needs to believe it alone.
    fn renew(&self, year: i32) -> Arc<ClientConfig> {
        let mut params = CertificateParams::new(vec!["a".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        for (name, text) in [("a.pem", certificate.pem()), ("a.key", key.serialize_pem())] {
            std::fs::write(self.0.join("new"), text).unwrap();
            std::fs::rename(self.0.join("new"), self.0.join(name)).unwrap();
        }
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        Arc::new(trusting(roots).with_no_client_auth())
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// A configuration whose listener has the certificate.
    fn config(&self, backend: &Backend) -> String {
        let (cert, key) = (self.path("a.pem"), self.path("a.key"));
        config(&[backend.url()], &format!("tls = {{ cert = {cert:?}, key = {key:?} }}"), "")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A connection whose handshake is over, if the balancer has what `client` believes.
fn connect(
    tinylb: &Tinylb,
    client: &Arc<ClientConfig>,
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from("a").unwrap();
    let mut connection = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut stream = TcpStream::connect(tinylb.address())?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(connection, stream))
}

/// Asks once on `connection`, and gives what was answered up to the end of the body, `expected`.
fn ask(connection: &mut StreamOwned<ClientConnection, TcpStream>, expected: &str) {
    use std::io::{Read, Write};
    connection.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(expected.as_bytes()) {
        let mut bytes = [0; 1024];
        let length = connection.read(&mut bytes).unwrap();
        assert_ne!(length, 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&bytes[..length]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
}

fn reloads(tinylb: &Tinylb, result: &str) -> f64 {
    tinylb.metric("tinylb_certificate_reloads_total", &[&format!("result=\"{result}\"")])
}

#[test]
fn a_new_certificate_is_presented_without_a_restart() {
    let folder = Folder::new("new");
    let backend = Backend::named("hello");
    let old = folder.renew(2050);
    let tinylb = Tinylb::run(&folder.config(&backend));
    let mut kept = connect(&tinylb, &old).unwrap();
    ask(&mut kept, "hello");
    let new = folder.renew(2051);
    let mut fresh = eventually("the new certificate is presented", || connect(&tinylb, &new).ok());
    ask(&mut fresh, "hello");
    ask(&mut kept, "hello");
    tinylb.wait_for_log("certificates of listener 127.0.0.1:0 read again");
    let file = format!("certificate=\"{}\"", folder.path("a.pem"));
    let labels = ["listener=\"127.0.0.1:0\"", "upstream=\"\"", &file];
    let end = || tinylb.metric("tinylb_certificate_expiry_timestamp_seconds", &labels);
    eventually("the metrics tell", || (end() == 2_556_144_000.0).then_some(()));
    assert_eq!((reloads(&tinylb, "success"), reloads(&tinylb, "failure")), (1.0, 0.0));
}

#[test]
fn one_that_cannot_be_used_changes_nothing() {
    let folder = Folder::new("broken");
    let backend = Backend::named("hello");
    let old = folder.renew(2050);
    let tinylb = Tinylb::run(&folder.config(&backend));
    std::fs::write(folder.path("a.key"), "").unwrap();
    tinylb.wait_for_log("certificates of listener 127.0.0.1:0 stay as they were");
    tinylb.wait_for_log("there is no private key in it; it is empty");
    ask(&mut connect(&tinylb, &old).unwrap(), "hello");
    eventually("it is counted", || (reloads(&tinylb, "failure") == 1.0).then_some(()));
    // A reload that cannot use everything changes nothing.
    tinylb.signal(Signal::HUP);
    tinylb.wait_for_log("not reloaded, nothing has changed");
    assert_eq!(reloads(&tinylb, "failure"), 2.0);
    ask(&mut connect(&tinylb, &old).unwrap(), "hello");
    let new = folder.renew(2051);
    eventually("the new certificate is presented", || connect(&tinylb, &new).ok());
}

#[test]
fn hup_reads_at_once_and_one_that_ends_is_warned_of() {
    let folder = Folder::new("hup");
    let backend = Backend::named("hello");
    folder.renew(2050);
    let tinylb = Tinylb::run(&folder.config(&backend));
    folder.renew(2020);
    tinylb.signal(Signal::HUP);
    let warned = tinylb.wait_for_log("the certificate ended at 2020-01-01T00:00:00Z");
    assert!(warned.contains("listener 127.0.0.1:0: cert"), "{warned}");
    tinylb.wait_for_log("reloaded");
}

#[test]
fn a_reload_that_names_missing_authorities_changes_nothing() {
    let (old, new) = (Backend::named("old"), Backend::named("new"));
    let tinylb = Tinylb::run(&config(&[old.url()], "", ""));
    let with_ca = |ca: &str| {
        let endpoints = [new.url(), "https://127.0.0.1:1".to_owned()];
        config(&endpoints, "", &format!("tls = {{ ca = {ca:?} }}"))
    };
    tinylb.rewrite(&with_ca("/nowhere/ca.pem"));
    tinylb.signal(Signal::HUP);
    tinylb.wait_for_log("not reloaded, nothing has changed");
    tinylb.wait_for_log("ca \"/nowhere/ca.pem\": the file cannot be read");
    assert_eq!(tinylb.get("/").text(), "old");
    assert_eq!(tinylb.metric("tinylb_config_last_reload_success", &[]), 0.0);
}
