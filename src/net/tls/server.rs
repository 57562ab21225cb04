//! TLS with clients: what a listener offers them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::pki_types::TrustAnchor;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

use super::certificate::{Loaded, Presented};
use super::error::{Fault, FileKey, Problem, TlsError};
use super::resolver::Certificates;
use super::tickets::tickets;
use super::watch::Watch;
use super::{alpn, files, provider, self_signed};
use crate::config::{ClientAuth, ServerTls, TlsVersion};

/// How a listener speaks TLS; one for all workers.
#[derive(Debug)]
pub struct TlsServer {
    config: ServerTls,
    http2: bool,
    /// What was made at start, in place of any file.
    made: Option<Arc<Loaded>>,
    watch: Mutex<Watch>,
    terms: RwLock<Arc<Terms>>,
}

/// What one handshake is made on. Connections keep theirs when a reload makes others.
#[derive(Debug)]
pub struct Terms {
    /// For `tokio_rustls::TlsAcceptor`.
    pub config: Arc<ServerConfig>,
    pub(super) certificates: Arc<Certificates>,
    loaded: Vec<Arc<Loaded>>,
    /// When the first OCSP response ends that is stapled.
    staple_end: Option<SystemTime>,
    tickets: Arc<dyn ProducesTickets>,
    /// The authorities of clients.
    authorities: Option<Vec<TrustAnchor<'static>>>,
}

/// What the files of a [`TlsServer`] say, read and not in force yet.
#[derive(Debug)]
pub struct PreparedServer {
    watch: Watch,
    terms: Arc<Terms>,
}

impl TlsServer {
    /// Reads what `config` names. With `http2` it is offered by ALPN.
    ///
    /// # Errors
    /// Everything that is wrong with the files.
    pub fn new(config: &ServerTls, http2: bool) -> Result<Self, TlsError> {
        let now = SystemTime::now();
        let watch = Watch::new(files_of(config));
        let made = config.self_signed.then(|| self_signed::make(now)).transpose()?.map(Arc::new);
        let terms = build(config, http2, made.as_ref(), None, now)?;
        Ok(Self {
            config: config.clone(),
            http2,
            made,
            watch: Mutex::new(watch),
            terms: RwLock::new(Arc::new(terms)),
        })
    }

    /// What the next handshake is to be made on. Cheap: a lock for as long as it takes to count.
    pub fn current(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again if they have changed, and are the same as the last time that this was
    /// asked: once a second is often enough. Drops OCSP responses that have ended. Blocks as reading
    /// files does. Returns whether anything is different now.
    ///
    /// # Errors
    /// What is wrong with the files, once for each change; what was in force stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let (before, now) = (self.current(), SystemTime::now());
        let is_due = self.watch.lock().unwrap_or_else(PoisonError::into_inner).is_due();
        let built = if is_due {
            self.build(&before, now)?
        } else if before.staple_end.is_some_and(|end| end <= now) {
            before.without_staples_ended_by(now)
        } else {
            return Ok(false);
        };
        let mut terms = self.terms.write().unwrap_or_else(PoisonError::into_inner);
        // What was put in force meanwhile was read later.
        if Arc::ptr_eq(&terms, &before) {
            *terms = Arc::new(built);
        }
        Ok(true)
    }

    /// Reads the files again, whether they seem to have changed or not, and puts nothing in force yet.
    /// Blocks as reading files does.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn prepare(&self) -> Result<PreparedServer, TlsError> {
        let watch = Watch::new(files_of(&self.config));
        let terms = Arc::new(self.build(&self.current(), SystemTime::now())?);
        Ok(PreparedServer { watch, terms })
    }

    /// Puts in force what was prepared. Never blocks.
    pub fn commit(&self, PreparedServer { watch, terms }: PreparedServer) {
        *self.terms.write().unwrap_or_else(PoisonError::into_inner) = terms;
        // Where the files are being looked at, they are read once more, which does no harm.
        if let Ok(mut before) = self.watch.try_lock() {
            *before = watch;
        }
    }

    fn build(&self, before: &Terms, now: SystemTime) -> Result<Terms, TlsError> {
        build(&self.config, self.http2, self.made.as_ref(), Some(before), now)
    }

    /// The certificates that clients are presented.
    pub fn presented(&self) -> Vec<Presented> {
        self.current().loaded.iter().map(|loaded| loaded.presented.clone()).collect()
    }

    /// What is allowed but hardly meant at `now`: certificates that have ended or are about to, and
    /// OCSP responses that do not help.
    pub fn doubts(&self, now: SystemTime) -> Vec<Fault> {
        let loaded = &self.current().loaded;
        let doubts = |loaded: &Arc<Loaded>| [loaded.presented.doubt(now), loaded.staple_doubt(now)];
        loaded.iter().flat_map(doubts).flatten().collect()
    }

    /// The SHA-256 of the certificate that was made at start, as browsers show it: `AB:CD:…`.
    pub fn fingerprint(&self) -> Option<String> {
        let certificate = self.made.as_ref()?.certified.cert.first()?;
        Some(self_signed::fingerprint(certificate))
    }
}

impl Terms {
    /// The same, but for OCSP responses that have ended.
    fn without_staples_ended_by(&self, now: SystemTime) -> Self {
        let without = |loaded: &Arc<Loaded>| {
            let mut loaded = Loaded::clone(loaded);
            loaded.drop_ended_staple(now);
            Arc::new(loaded)
        };
        let loaded: Vec<_> = self.loaded.iter().map(without).collect();
        let certificates = Arc::new(Certificates::new(&loaded));
        let mut config = ServerConfig::clone(&self.config);
        config.cert_resolver = Arc::clone(&certificates) as _;
        Self {
            config: Arc::new(config),
            certificates,
            staple_end: first_staple_end(&loaded),
            loaded,
            tickets: Arc::clone(&self.tickets),
            authorities: self.authorities.clone(),
        }
    }
}

/// When the first OCSP response ends that is stapled.
fn first_staple_end(loaded: &[Arc<Loaded>]) -> Option<SystemTime> {
    loaded.iter().filter_map(|loaded| loaded.staple_end()).min()
}

/// Every file that `config` names.
fn files_of(config: &ServerTls) -> Vec<PathBuf> {
    let of_pair = |c: &crate::config::Certificate| {
        [Some(c.cert.clone()), Some(c.key.clone()), c.ocsp.clone()]
    };
    let ca = config.client.iter().map(|client| client.ca.clone());
    config.certificates.iter().flat_map(of_pair).flatten().chain(ca).collect()
}

/// Reads everything that `config` names, and makes terms of it.
fn build(
    config: &ServerTls,
    http2: bool,
    made: Option<&Arc<Loaded>>,
    before: Option<&Terms>,
    now: SystemTime,
) -> Result<Terms, TlsError> {
    let mut faults = Vec::new();
    let mut loaded: Vec<Arc<Loaded>> = made.cloned().into_iter().collect();
    for (index, certificate) in config.certificates.iter().enumerate() {
        match Loaded::read(certificate, index, now) {
            Ok(one) => loaded.push(Arc::new(one)),
            Err(found) => faults.extend(found),
        }
    }
    let authorities = config.client.as_ref().map(|c| files::authorities(FileKey::ClientCa, &c.ca));
    let authorities = match authorities.transpose() {
        Ok(authorities) if faults.is_empty() => authorities,
        outcome => {
            faults.extend(outcome.err());
            return Err(TlsError(faults));
        }
    };
    let roots = authorities.as_ref().map(|authorities| authorities.roots.clone());
    // Sessions go on, unless somebody else says now who clients are.
    let kept = before.filter(|before| before.authorities == roots).map(|b| Arc::clone(&b.tickets));
    let tickets = kept.map_or_else(|| tickets(roots.is_some()), Ok).map_err(refused)?;
    let certificates = Arc::new(Certificates::new(&loaded));
    let verifier = authorities.zip(config.client.as_ref());
    let verifier = verifier.map(|(roots, client)| client_verifier(roots, client)).transpose()?;
    let server = server_config(config, http2, verifier, &certificates, &tickets)?;
    Ok(Terms {
        config: Arc::new(server),
        certificates,
        staple_end: first_staple_end(&loaded),
        loaded,
        tickets,
        authorities: roots,
    })
}

/// Checks that clients come from `roots`.
fn client_verifier(
    roots: RootCertStore,
    client: &ClientAuth,
) -> Result<Arc<dyn ClientCertVerifier>, Fault> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = if client.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| {
        Fault::of(FileKey::ClientCa, &client.ca, Problem::Refused(error.to_string()))
    })
}

fn server_config(
    config: &ServerTls,
    http2: bool,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    certificates: &Arc<Certificates>,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, Fault> {
    let versions = match config.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12][..],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(refused)?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(Arc::clone(certificates) as _);
    server.alpn_protocols = alpn(http2);
    server.ticketer = Arc::clone(tickets);
    // Sessions are kept by clients, or not at all: what they would cost here has no bound that fits.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(server)
}

/// What the library refuses although the files are right.
fn refused(error: rustls::Error) -> Fault {
    Fault::without_file(FileKey::Cert, Problem::Refused(error.to_string()))
}
