//! Handshakes between both sides, over bytes in memory, with certificates in folders of their own.

mod clients;
mod faults;
mod reloads;
mod servers;
mod staples;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Error, ServerConnection};

use super::Session;
use super::client::TlsClient;
use super::server::{Terms, TlsServer};
use crate::config::{Certificate, ClientTls, ServerTls};

/// A folder that is gone afterwards.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("tinylb-tls-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Somebody who gives certificates, which stand in a folder as `NAME.pem` and `NAME.key`; its own is
/// `ca.pem`.
pub(crate) struct Authority {
    pub(crate) folder: Folder,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let folder = Folder::new();
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate().unwrap();
        folder.write("ca.pem", params.self_signed(&key).unwrap().pem());
        Self { folder, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path("ca.pem")
    }

    /// Gives a certificate, called `file`, for `names`.
    pub(crate) fn give(&self, file: &str, names: &[&str]) -> Certificate {
        self.give_with(file, names, |_| {})
    }

    pub(crate) fn give_with(
        &self,
        file: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Certificate {
        let names: Vec<_> = names.iter().copied().map(str::to_owned).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let cert = self.folder.write(&format!("{file}.pem"), certificate.pem());
        let key = self.folder.write(&format!("{file}.key"), key.serialize_pem());
        Certificate { cert, key, ocsp: None }
    }

    /// Somebody who believes this authority.
    pub(crate) fn client(&self) -> ClientTls {
        ClientTls { ca: Some(self.ca()), ..ClientTls::default() }
    }
}

/// A listener with `certificates`, that speaks HTTP/2.
pub(crate) fn server(certificates: Vec<Certificate>) -> TlsServer {
    TlsServer::new(&ServerTls::new(certificates), true).unwrap()
}

/// What a client begins with.
pub(crate) fn of_client(tls: &ClientTls) -> ClientConfig {
    let client = Arc::new(TlsClient::new(tls).unwrap());
    ClientConfig::clone(&client.endpoint("unused").unwrap().config(true))
}

/// Both ends after a handshake.
pub(crate) struct Shaken {
    pub(crate) client: ClientConnection,
    pub(crate) session: Session,
}

/// Shakes hands, and tells who failed where somebody does.
pub(crate) fn shake(
    terms: &Terms,
    client: &Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<Shaken, (&'static str, Error)> {
    let mut server = ServerConnection::new(Arc::clone(&terms.config)).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    loop {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let from_client = bytes.len();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().map_err(|error| ("server", error))?;
        }
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(|error| ("client", error))?;
        }
        // Tickets come after the handshake, so that both being done with that is not yet the end.
        if from_client == 0 && bytes.is_empty() {
            assert!(!client.is_handshaking() && !server.is_handshaking());
            let session = Session::of(&server, terms);
            return Ok(Shaken { client, session });
        }
    }
}

/// [`shake`] with whoever is called `name`.
pub(crate) fn shake_with(
    server: &TlsServer,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Result<Shaken, (&'static str, Error)> {
    shake(&server.current(), client, ServerName::try_from(name.to_owned()).unwrap())
}

/// A value of DER: `parts` after each other, shorter than 64 KiB.
pub(crate) fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let mut value = vec![tag];
    match length {
        [0, low @ 0..=127] => value.push(low),
        [0, low] => value.extend([0x81, low]),
        [high, low] => value.extend([0x82, high, low]),
    }
    value.extend(content);
    value
}
