//! What can be wrong with certificates, keys and what else TLS is made of: each fault knows the key of
//! the configuration that it belongs to, and what to write or do instead.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use humantime::format_rfc3339_seconds;
use rustls::CertificateError;

/// A key in the tables of TLS, of a listener (`[listeners.tls]`) or an upstream (`tls`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKey {
    /// `cert`.
    Cert,
    /// `key`.
    Key,
    /// `ocsp`, of a listener.
    Ocsp,
    /// `client_ca`, of a listener.
    ClientCa,
    /// `ca`, of an upstream; also where it is not set and those of the system are meant.
    Ca,
    /// `server_name`, of an upstream.
    ServerName,
    /// `self_signed`, of a listener.
    SelfSigned,
}

impl FileKey {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cert => "cert",
            Self::Key => "key",
            Self::Ocsp => "ocsp",
            Self::ClientCa => "client_ca",
            Self::Ca => "ca",
            Self::ServerName => "server_name",
            Self::SelfSigned => "self_signed",
        }
    }
}

/// One fault, or one doubt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Whose it is.
    pub key: FileKey,
    /// Which of the certificates, from 0; 0 where there are not several.
    pub certificate: usize,
    /// The file, as it was written; `None` where it is none of a file.
    pub path: Option<PathBuf>,
    /// What is the matter.
    pub problem: Problem,
}

impl Fault {
    /// Of the file at `path`, which is in no list.
    pub(super) fn of(key: FileKey, path: &Path, problem: Problem) -> Self {
        Self { key, certificate: 0, path: Some(path.to_owned()), problem }
    }

    /// Of no file.
    pub(super) const fn without_file(key: FileKey, problem: Problem) -> Self {
        Self { key, certificate: 0, path: None, problem }
    }

    /// Of certificate number `index` of the list.
    pub(super) const fn of_certificate(mut self, index: usize) -> Self {
        self.certificate = index;
        self
    }

    /// What to write or do instead.
    pub fn help(&self) -> String {
        self.problem.help(self.key)
    }
}

/// `cert "cert.pem": there is no certificate in it; it holds a private key`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key.name())?;
        if let Some(path) = &self.path {
            write!(f, " {:?}", path.display().to_string())?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// Everything that is wrong; at least one fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct TlsError(pub Vec<Fault>);

impl From<Fault> for TlsError {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

/// Each fault with what to do instead.
fn lines(faults: &[Fault]) -> String {
    let lines: Vec<_> = faults.iter().map(|fault| format!("{fault}; {}", fault.help())).collect();
    lines.join("\n")
}

/// What is in a file, for whoever looks for something else in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    Empty,
    /// PEM, with what stands after each `BEGIN`, each once.
    Pem(Vec<String>),
    /// What DER begins with.
    Der,
    /// Anything else.
    Unknown,
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::Der => f.write_str("it seems to be DER"),
            Self::Unknown => f.write_str("it is neither PEM nor DER"),
            Self::Pem(labels) => write!(f, "it holds {}", labels.join(", ")),
        }
    }
}

/// What is the matter. Times are those of the certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The system's own words.
    #[error("the file cannot be read: {0}")]
    Unreadable(String),
    /// A directory, a pipe, a device.
    #[error("this is not a regular file")]
    NotAFile,
    /// Far larger than any set of certificates.
    #[error("the file is larger than {} MiB", super::files::MAX_FILE >> 20)]
    TooLarge,
    /// Damaged.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    /// None where one is needed.
    #[error("there is no certificate in it; {0}")]
    NoCertificate(Content),
    /// Its number in the file from 1, and why.
    #[error("certificate {0} in it cannot be used: {1}")]
    BadCertificate(usize, String),
    /// None where one is needed.
    #[error("there is no private key in it; {0}")]
    NoKey(Content),
    /// A passphrase would be needed.
    #[error("the private key is encrypted, and nobody is there to type its passphrase")]
    EncryptedKey,
    /// Of a kind that cannot be used, or damaged.
    #[error("the private key cannot be used: {0}")]
    BadKey(String),
    /// Another certificate's; the certificate's file, and the number from 1 of the one in it that the
    /// key does belong to.
    #[error("the private key does not belong to the certificate in {:?}", .0.display().to_string())]
    KeyMismatch(PathBuf, Option<usize>),
    /// Not what `openssl ocsp -respout` writes.
    #[error("this is no OCSP response in DER; {0}")]
    NoOcsp(Content),
    /// The responder's refusal (RFC 6960 4.2.1).
    #[error("the OCSP response is a refusal (status {0})")]
    OcspRefused(u8),
    /// Another certificate's.
    #[error("the OCSP response is not about the certificate in {:?}", .0.display().to_string())]
    OcspMismatch(PathBuf),
    /// A doubt: the responder does not vouch for it.
    #[error("the OCSP response says that the certificate is {0}")]
    OcspNotGood(&'static str),
    /// A doubt: it is not stapled any more.
    #[error("the OCSP response ended at {}", format_rfc3339_seconds(*.0))]
    OcspEnded(SystemTime),
    /// The system's own words, if any.
    #[error("the system has no certificate authorities{0}")]
    NoSystemAuthorities(String),
    /// Neither a name nor an address.
    #[error("{0:?} is neither a name nor an address")]
    BadServerName(String),
    /// Words of the library that makes it.
    #[error("no certificate can be made: {0}")]
    CannotMake(String),
    /// What the library refuses although everything seems right.
    #[error("this cannot be used: {0}")]
    Refused(String),
    /// A doubt.
    #[error("the certificate ended at {}", format_rfc3339_seconds(*.0))]
    Ended(SystemTime),
    /// A doubt.
    #[error("the certificate ends soon, at {}", format_rfc3339_seconds(*.0))]
    EndsSoon(SystemTime),
    /// A doubt.
    #[error("the certificate does not begin before {}", format_rfc3339_seconds(*.0))]
    NotYet(SystemTime),
}

impl Problem {
    /// What to write or do instead, where it is said of `key`.
    fn help(&self, key: FileKey) -> String {
        match self {
            Self::Unreadable(_) => "write the path of a file that this process may read".into(),
            Self::NotAFile => "write the path of a file; it is read again when it changes".into(),
            Self::TooLarge | Self::Damaged(_) => "write the file anew".into(),
            Self::NoCertificate(Content::Pem(labels))
                if key == FileKey::Cert && labels.iter().any(|l| l.ends_with("PRIVATE KEY")) =>
            {
                "write the private key's path at `key`, and here that of the certificate".into()
            }
            Self::NoCertificate(content) => pem_wanted("CERTIFICATE", "x509", content),
            Self::BadCertificate(..) => "write the file anew, with an X.509 v3 certificate".into(),
            Self::NoKey(Content::Pem(labels)) if labels.iter().any(|l| l == "CERTIFICATE") => {
                "write the certificate's path at `cert`, and here that of its private key".into()
            }
            Self::NoKey(content) => pem_wanted("PRIVATE KEY", "pkey", content),
            Self::EncryptedKey => {
                "decrypt it: `openssl pkey -in FILE -out DECRYPTED`, and keep that from others' eyes"
                    .into()
            }
            Self::BadKey(_) => "make one of RSA (2048 to 8192 bits), ECDSA or Ed25519".into(),
            Self::KeyMismatch(_, Some(number)) => format!(
                "it belongs to certificate {number} in that file: put that one first, the \
                 authorities after it"
            ),
            Self::KeyMismatch(_, None) => {
                "write the paths of a certificate and a private key that were made together".into()
            }
            Self::NoOcsp(Content::Pem(_)) => {
                "write the path of a response in DER, as `openssl ocsp -respout FILE` makes it".into()
            }
            Self::NoOcsp(_) | Self::OcspRefused(_) => {
                "ask for one anew, with `openssl ocsp -respout FILE`, or leave `ocsp` out".into()
            }
            Self::OcspMismatch(_) => "ask for the response about that certificate".into(),
            Self::OcspNotGood(_) => "ask for a new certificate".into(),
            Self::OcspEnded(_) => "ask for a new one; this one is not stapled any more".into(),
            Self::NoSystemAuthorities(_) => {
                "install them (`ca-certificates`), or write `ca = \"FILE\"` in the upstream's `tls`"
                    .into()
            }
            Self::BadServerName(_) => "write the name in the endpoint's certificate".into(),
            Self::CannotMake(_) => "write `cert` and `key` instead".into(),
            Self::Refused(_) => "write the files anew".into(),
            Self::Ended(_) => "put a new one in its place; it is read without a restart".into(),
            Self::EndsSoon(_) => {
                "put a new one in its place before; it is read without a restart".into()
            }
            Self::NotYet(_) => "look at the clock of this machine".into(),
        }
    }
}

/// What the library says, without what it says around it.
pub(super) fn words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::General(why) => why.clone(),
        rustls::Error::InvalidCertificate(CertificateError::BadEncoding) => NOT_X509.to_owned(),
        rustls::Error::InvalidCertificate(why) => why.to_string(),
        other => other.to_string(),
    }
}

/// What is said of a certificate that cannot be parsed; where the parser stopped helps nobody.
pub(super) const NOT_X509: &str = "it is not X.509";

/// How to come by PEM with `label`, where there is `content`.
fn pem_wanted(label: &str, command: &str, content: &Content) -> String {
    match content {
        Content::Der => {
            format!("make PEM of it: `openssl {command} -inform der -in FILE -out FILE.pem`")
        }
        _ => format!("write the path of a file in PEM, with `-----BEGIN {label}-----`"),
    }
}
