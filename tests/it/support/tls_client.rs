//! TLS clients of the balancer.

use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, ConfigBuilder, RootCertStore, StreamOwned};

use super::certificates::{Authority, Pair};

/// A TLS connection of a client.
pub type TlsConnection = StreamOwned<ClientConnection, TcpStream>;

/// Begins the configuration of a client that trusts `roots`.
pub fn trusting(roots: RootCertStore) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots)
}

/// A client that trusts `authority`, offers `alpn`, and has the certificate of `identity`, if any.
pub fn tls_client(
    authority: &Authority,
    alpn: &[&str],
    identity: Option<&Pair>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.ca()).unwrap()).unwrap();
    let mut config = match identity {
        None => trusting(roots).with_no_client_auth(),
        Some(Pair { cert, key }) => {
            let chain = vec![CertificateDer::from_pem_file(cert).unwrap()];
            let key = PrivateKeyDer::from_pem_file(key).unwrap();
            trusting(roots).with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// TLS with the server `a.test` on `socket`. The handshake is made with the first read or write.
pub fn over(client: &Arc<ClientConfig>, socket: TcpStream) -> TlsConnection {
    let name = "a.test".try_into().unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(client), name).unwrap(), socket)
}
