//! How TLS is spoken: to clients, and to endpoints.

use std::path::PathBuf;
use std::time::Duration;

/// How a listener speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// At least one, unless it is made at start; the first is for names that none of them has.
    pub certificates: Vec<Certificate>,
    /// Whether a certificate for `localhost` is made at start, to try things out, instead of any.
    pub self_signed: bool,
    /// The lowest version that clients may speak.
    pub min_version: TlsVersion,
    /// How clients prove who they are; they need not where `None`.
    pub client: Option<ClientAuth>,
    /// For how long browsers are told to come by HTTPS only (`Strict-Transport-Security`); they are not
    /// where `None`.
    pub hsts: Option<Duration>,
}

impl ServerTls {
    /// With these certificates, and the defaults of everything else.
    pub const fn new(certificates: Vec<Certificate>) -> Self {
        Self {
            certificates,
            self_signed: false,
            min_version: TlsVersion::Tls12,
            client: None,
            hsts: None,
        }
    }
}

/// A certificate for the names in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, the server's own first, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// An OCSP response to staple, in DER.
    pub ocsp: Option<PathBuf>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// How clients prove who they are (mutual TLS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// The authorities that their certificates must come from, in PEM.
    pub ca: PathBuf,
    /// Whether they must have one; where not, they may, and a wrong one is refused all the same.
    pub required: bool,
}

/// How endpoints with `https://` are spoken to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// The authorities that their certificates must come from, in PEM; those of the system where
    /// `None`.
    pub ca: Option<PathBuf>,
    /// The name that they must have, and that is asked for (SNI); the endpoint's own host where `None`.
    pub server_name: Option<String>,
    /// Our own certificate and its key, in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether whoever answers is taken for the endpoint.
    pub insecure_skip_verify: bool,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary, with TLVs.
    V2,
}
