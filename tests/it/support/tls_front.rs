//! TLS in front of a backend in cleartext, and what was agreed on in each handshake.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::certificates::Pair;
use super::{eventually, listen};

/// How a server speaks TLS.
#[derive(Debug, Clone)]
pub struct Terms {
    pub pair: Pair,
    pub alpn: &'static [&'static str],
    /// Whose certificates clients must have, as the path of a file.
    pub client_ca: Option<String>,
    pub version: Option<&'static SupportedProtocolVersion>,
    /// How long each handshake takes.
    pub delay: Duration,
}

impl Terms {
    /// Both versions of TLS, without ALPN.
    pub fn new(pair: &Pair) -> Self {
        Self {
            pair: pair.clone(),
            alpn: &[],
            client_ca: None,
            version: None,
            delay: Duration::ZERO,
        }
    }

    pub fn alpn(self, alpn: &'static [&'static str]) -> Self {
        Self { alpn, ..self }
    }

    fn config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = CertificateDer::pem_file_iter(&self.pair.cert).unwrap();
        let chain = chain.map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(&self.pair.key).unwrap();
        let versions: Vec<_> = self.version.map_or(rustls::ALL_VERSIONS.to_vec(), |one| vec![one]);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(&versions).unwrap();
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_file(path).unwrap()).unwrap();
                let roots = Arc::new(roots);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// What was agreed on in a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    pub server_name: Option<String>,
    pub alpn: Option<String>,
    pub version: ProtocolVersion,
    pub is_resumed: bool,
    /// The certificate that the client showed.
    pub client: Option<Vec<u8>>,
}

/// How connections are served, and what each holds that was accepted since.
type Behind = (Arc<ServerConfig>, Duration, SocketAddr, Arc<()>);

/// A listening server, whose connections end with it.
#[derive(Debug)]
pub struct TlsFront {
    address: SocketAddr,
    agreed: Arc<Mutex<Vec<Agreed>>>,
    behind: watch::Sender<Option<Behind>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl TlsFront {
    pub fn new(terms: &Terms, backend: SocketAddr) -> Self {
        let listener = listen();
        let address = listener.local_addr().unwrap();
        let (behind, now) =
            watch::channel(Some((terms.config(), terms.delay, backend, Arc::default())));
        let agreed = Arc::default();
        let thread = thread::spawn({
            let agreed = Arc::clone(&agreed);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(accept(listener, now, agreed));
            }
        });
        Self { address, agreed, behind, thread: Some(thread) }
    }

    /// As if it had been started anew: connections are cut, and have ended when this returns.
    pub fn restart(&self, terms: &Terms, backend: SocketAddr) {
        let behind = (terms.config(), terms.delay, backend, Arc::default());
        if let Some((.., held)) = self.behind.send_replace(Some(behind)) {
            eventually("the old connections have ended", || {
                (Arc::strong_count(&held) == 1).then_some(())
            });
        }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The same by a name instead of the address.
    pub fn url_by_name(&self, name: &str) -> String {
        format!("https://{name}:{}", self.address.port())
    }

    /// The handshakes that ended well.
    pub fn agreed(&self) -> Vec<Agreed> {
        self.agreed.lock().unwrap().clone()
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.behind.send_replace(None);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(
    listener: std::net::TcpListener,
    mut behind: watch::Receiver<Option<Behind>>,
    agreed: Arc<Mutex<Vec<Agreed>>>,
) {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = behind.changed() => match *behind.borrow_and_update() {
                Some(_) => continue,
                None => return,
            },
        };
        let (stream, _) = accepted.unwrap();
        let mut now = behind.clone();
        let Some((config, delay, backend, held)) = now.borrow_and_update().clone() else { return };
        let agreed = Arc::clone(&agreed);
        tokio::spawn(async move {
            let _held = held;
            tokio::time::sleep(delay).await;
            tokio::select! {
                () = serve(stream, config, backend, agreed) => {}
                _ = now.changed() => {}
            }
        });
    }
}

async fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    backend: SocketAddr,
    agreed: Arc<Mutex<Vec<Agreed>>>,
) {
    stream.set_nodelay(true).unwrap();
    let mut tls = match TlsAcceptor::from(config).accept(stream).into_fallible().await {
        Ok(tls) => tls,
        Err((_, mut refused)) => {
            // Closing with something unread would take back why.
            let _ = refused.shutdown().await;
            let _ = refused.read_to_end(&mut Vec::new()).await;
            return;
        }
    };
    let session = tls.get_ref().1;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    agreed.lock().unwrap().push(Agreed {
        server_name: session.server_name().map(str::to_owned),
        alpn: session.alpn_protocol().map(text),
        version: session.protocol_version().unwrap(),
        is_resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        client: session.peer_certificates().map(|chain| chain[0].to_vec()),
    });
    let Ok(mut plain) = TcpStream::connect(backend).await else { return };
    plain.set_nodelay(true).unwrap();
    if copy_bidirectional(&mut tls, &mut plain).await.is_ok() {
        let _ = tls.shutdown().await;
    }
}
