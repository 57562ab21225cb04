//! TLS with endpoints: who is believed to be one, and who we are to it.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, CertificateError, ClientConfig, InvalidMessage, RootCertStore};
use tokio_rustls::TlsConnector;

use super::certificate::{Loaded, Presented};
use super::error::{Fault, FileKey, Problem, TlsError};
use super::unverified::Unverified;
use super::watch::Watch;
use super::{ALPN_HTTP2, alpn, files, provider};
use crate::config::ClientTls;
use crate::error::{Error, Kind};
use crate::net::stream::Stream;

/// Sessions that are kept for one endpoint: as many as rustls keeps tickets of one name.
const SESSIONS: usize = 8;

/// How upstreams with `https://` endpoints speak to them, by the upstreams' names.
pub type Clients = HashMap<String, Arc<TlsClient>>;

/// How the endpoints of an upstream are spoken to by TLS.
#[derive(Debug)]
pub struct TlsClient {
    config: ClientTls,
    watch: Mutex<Watch>,
    terms: RwLock<Arc<Terms>>,
}

/// What connections are made on until a reload makes others.
#[derive(Debug)]
struct Terms {
    /// Without sessions, which are each endpoint's own.
    config: ClientConfig,
    identity: Option<Presented>,
}

/// What the files of a [`TlsClient`] say, read and not in force yet.
#[derive(Debug)]
pub struct PreparedClient {
    watch: Watch,
    terms: Arc<Terms>,
}

/// Every file that `config` names.
fn files_of(config: &ClientTls) -> Vec<PathBuf> {
    let identity = config.identity.iter().flat_map(|(cert, key)| [cert.clone(), key.clone()]);
    config.ca.iter().cloned().chain(identity).collect()
}

impl TlsClient {
    /// Reads what `config` names.
    ///
    /// # Errors
    /// Everything that is wrong with the files, or that the system has no authorities.
    pub fn new(config: &ClientTls) -> Result<Self, TlsError> {
        let watch = Watch::new(files_of(config));
        let terms = RwLock::new(Arc::new(build(config)?));
        Ok(Self { config: config.clone(), watch: Mutex::new(watch), terms })
    }

    /// What it was made from.
    pub const fn config(&self) -> &ClientTls {
        &self.config
    }

    /// What is needed to connect to the endpoint at `host`: a name, or an address, in brackets
    /// or not.
    ///
    /// # Errors
    /// Neither that nor `server_name`, where it is set, can be in a certificate.
    pub fn endpoint(self: &Arc<Self>, host: &str) -> Result<TlsEndpoint, TlsError> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let name = self.config.server_name.as_deref().unwrap_or(bare.unwrap_or(host));
        let bad = |_| Problem::BadServerName(name.to_owned());
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| Fault::without_file(FileKey::ServerName, bad(error)))?;
        let sessions = Resumption::in_memory_sessions(SESSIONS);
        let made = Made::of(self.terms(), &sessions);
        Ok(TlsEndpoint { client: Arc::clone(self), name, sessions, made: RwLock::new(made) })
    }

    /// Reads the files again if they have changed, and are the same as the last time that this was
    /// asked: once a second is often enough. Blocks as reading files does. Returns whether they were
    /// read.
    ///
    /// # Errors
    /// What is wrong with them, once for each change; what was in force stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let before = self.terms();
        if !self.watch.lock().unwrap_or_else(PoisonError::into_inner).is_due() {
            return Ok(false);
        }
        let built = Arc::new(build(&self.config)?);
        let mut terms = self.terms.write().unwrap_or_else(PoisonError::into_inner);
        // What was put in force meanwhile was read later.
        if Arc::ptr_eq(&terms, &before) {
            *terms = built;
        }
        Ok(true)
    }

    /// Reads the files again, whether they seem to have changed or not, and puts nothing in force yet.
    /// Blocks as reading files does.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn prepare(&self) -> Result<PreparedClient, TlsError> {
        let watch = Watch::new(files_of(&self.config));
        Ok(PreparedClient { watch, terms: Arc::new(build(&self.config)?) })
    }

    /// Puts in force what was prepared. Never blocks.
    pub fn commit(&self, PreparedClient { watch, terms }: PreparedClient) {
        *self.terms.write().unwrap_or_else(PoisonError::into_inner) = terms;
        // Where the files are being looked at, they are read once more, which does no harm.
        if let Ok(mut before) = self.watch.try_lock() {
            *before = watch;
        }
    }

    fn terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Our own certificate, if we have one.
    pub fn presented(&self) -> Option<Presented> {
        self.terms().identity.clone()
    }

    /// What is allowed but hardly meant at `now`: a certificate that has ended or is about to.
    pub fn doubts(&self, now: SystemTime) -> Vec<Fault> {
        self.presented().and_then(|presented| presented.doubt(now)).into_iter().collect()
    }
}

/// How one endpoint is spoken to; what is shared by all workers that do.
#[derive(Debug)]
pub struct TlsEndpoint {
    client: Arc<TlsClient>,
    name: ServerName<'static>,
    /// Those of this endpoint alone: another one with the same name could not take them up.
    sessions: Resumption,
    made: RwLock<Made>,
}

/// The configurations that terms give for one endpoint.
#[derive(Debug, Clone)]
struct Made {
    terms: Arc<Terms>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl Made {
    fn of(terms: Arc<Terms>, sessions: &Resumption) -> Self {
        let offering = |http2| {
            let mut config = terms.config.clone();
            config.resumption = sessions.clone();
            config.alpn_protocols = alpn(http2);
            Arc::new(config)
        };
        let (http1, http2) = (offering(false), offering(true));
        Self { terms, http1, http2 }
    }
}

impl TlsEndpoint {
    /// Whether it is one of `client`'s, and so still right where that is in force.
    pub fn is_of(&self, client: &Arc<TlsClient>) -> bool {
        Arc::ptr_eq(&self.client, client)
    }

    /// The name that the endpoint's certificate must have, for `tokio_rustls::TlsConnector`.
    pub fn name(&self) -> ServerName<'static> {
        self.name.clone()
    }

    /// What the next connection is to be made on; with `http2` that is offered beside HTTP/1.1.
    /// Cheap: two locks for as long as it takes to count.
    pub fn config(&self, http2: bool) -> Arc<ClientConfig> {
        let terms = self.client.terms();
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner).clone();
        let made = match Arc::ptr_eq(&made.terms, &terms) {
            true => made,
            false => {
                let made = Made::of(terms, &self.sessions);
                *self.made.write().unwrap_or_else(PoisonError::into_inner) = made.clone();
                made
            }
        };
        if http2 { made.http2 } else { made.http1 }
    }
}

/// Reads everything that `config` names, and makes terms of it.
fn build(config: &ClientTls) -> Result<Terms, TlsError> {
    let identity = config.identity.as_ref().map(|(cert, key)| Loaded::pair(cert, key));
    let (verifier, identity) = match (verifier(config), identity.transpose()) {
        (Ok(verifier), Ok(identity)) => (verifier, identity),
        (verifier, identity) => {
            let faults = identity.err().into_iter().flatten();
            return Err(TlsError(verifier.err().into_iter().chain(faults).collect()));
        }
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| refused(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let presented = identity.as_ref().map(|identity| identity.presented.clone());
    let config = match identity {
        Some(identity) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified)))
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Terms { config, identity: presented })
}

/// Who is believed to be the endpoint.
fn verifier(config: &ClientTls) -> Result<Arc<dyn ServerCertVerifier>, Fault> {
    if config.insecure_skip_verify {
        return Ok(Arc::new(Unverified(provider())));
    }
    let roots = match &config.ca {
        Some(path) => Arc::new(files::authorities(FileKey::Ca, path)?),
        None => system_authorities()?,
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
    verifier.map(|verifier| verifier as _).map_err(|error| refused(&error))
}

/// The authorities of the system, read once: it may take a while, and hundreds of kilobytes.
fn system_authorities() -> Result<Arc<RootCertStore>, Fault> {
    static FOUND: LazyLock<Result<Arc<RootCertStore>, String>> = LazyLock::new(|| {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // Some are always odd, and none of the others the worse for it.
        roots.add_parsable_certificates(found.certs);
        match found.errors.first() {
            _ if !roots.is_empty() => Ok(Arc::new(roots)),
            Some(error) => Err(format!(" ({error})")),
            None => Err(String::new()),
        }
    });
    let none =
        |why: &String| Fault::without_file(FileKey::Ca, Problem::NoSystemAuthorities(why.clone()));
    FOUND.as_ref().map(Arc::clone).map_err(none)
}

/// What the library refuses although the files are right.
fn refused(error: &dyn ToString) -> Fault {
    Fault::without_file(FileKey::Ca, Problem::Refused(error.to_string()))
}

/// Makes the TLS handshake with an endpoint on `stream`, and says whether HTTP/2 was agreed on.
///
/// # Errors
/// What rustls or the stream says.
pub async fn agree(
    endpoint: &TlsEndpoint,
    http2: bool,
    stream: Stream,
) -> io::Result<(Stream, bool)> {
    let connector = TlsConnector::from(endpoint.config(http2));
    let stream = connector.connect(endpoint.name(), stream).await?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_HTTP2);
    Ok((Stream::tls(stream), is_http2))
}

/// What a failed handshake with an endpoint means.
pub fn handshake_fault(error: &io::Error) -> Error {
    let detail = match cause(error) {
        Some(rustls::Error::InvalidCertificate(fault)) => {
            return Error::new(Kind::TlsCertificate, distrust(fault));
        }
        Some(rustls::Error::AlertReceived(alert)) if asks_for_ours(*alert) => NOT_OURS,
        Some(rustls::Error::AlertReceived(_)) => "the endpoint refused the TLS handshake",
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "the endpoint does not speak TLS"
        }
        Some(rustls::Error::PeerIncompatible(_)) => "the endpoint speaks no TLS that we do",
        Some(_) => "the endpoint's TLS is wrong",
        None => "the connection ended in the TLS handshake",
    };
    Error::new(Kind::TlsFailed, detail)
}

/// What it means that nothing could be read from an endpoint, if that belongs to the handshake: in TLS 1.3
/// an endpoint refuses our certificate when the handshake is over for us (RFC 8446 4.4.2.4). Nothing that
/// was sent has been looked at then.
pub fn refusal(error: &io::Error) -> Option<Error> {
    match cause(error)? {
        rustls::Error::AlertReceived(alert) if asks_for_ours(*alert) => {
            Some(Error::new(Kind::TlsFailed, NOT_OURS))
        }
        _ => None,
    }
}

/// Whether a failed handshake failed because nothing was offered that the endpoint speaks in it.
pub fn is_without_protocol(error: &io::Error) -> bool {
    let alert = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    cause(error) == Some(&alert)
}

const NOT_OURS: &str = "the endpoint wants another certificate of ours";

fn cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Whether `alert` says that our certificate, or its absence, is the matter (RFC 8446 6.2).
const fn asks_for_ours(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
    )
}

/// Why an endpoint's certificate is not to be trusted.
fn distrust(fault: &CertificateError) -> &'static str {
    use CertificateError as Fault;
    match fault {
        Fault::Expired | Fault::ExpiredContext { .. } => "the endpoint's certificate has ended",
        Fault::NotValidYet | Fault::NotValidYetContext { .. } => {
            "the endpoint's certificate has not begun"
        }
        // What `openssl req -x509` makes if it is not told otherwise.
        Fault::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "the endpoint's certificate is that of an authority (CA:TRUE)"
        }
        Fault::NotValidForName | Fault::NotValidForNameContext { .. } => {
            "the endpoint's certificate is for another name"
        }
        Fault::UnknownIssuer => "the endpoint's certificate is from nobody who is trusted",
        _ => "the endpoint's certificate is not to be trusted",
    }
}
