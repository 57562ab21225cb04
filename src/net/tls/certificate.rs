//! One certificate with its key: read from files, checked, and ready to be presented.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::time::ASN1Time;

use super::error::{Content, Fault, FileKey, NOT_X509, Problem, words};
use super::names::Names;
use super::ocsp::{self, Response, Single};
use super::{files, provider};
use crate::config::Certificate;

/// How long before its end a certificate is worth a warning: time enough to notice what should have
/// renewed it, which is usually due when a third of its life is left.
pub const EXPIRY_NOTICE: Duration = Duration::from_secs(14 * 86_400);

/// A certificate that is presented to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// Its file, as it was written; `self-signed` where it was made at start.
    pub file: PathBuf,
    /// Which of the certificates it is, from 0.
    pub index: usize,
    /// When it begins.
    pub begin: SystemTime,
    /// When it ends.
    pub end: SystemTime,
}

impl Presented {
    /// What is doubtful about it at `now`: it has ended, is about to, or has not begun.
    pub fn doubt(&self, now: SystemTime) -> Option<Fault> {
        let problem = match now {
            _ if now >= self.end => Problem::Ended(self.end),
            _ if now < self.begin => Problem::NotYet(self.begin),
            _ if self.end.duration_since(now).is_ok_and(|left| left <= EXPIRY_NOTICE) => {
                Problem::EndsSoon(self.end)
            }
            _ => return None,
        };
        Some(Fault::of(FileKey::Cert, &self.file, problem).of_certificate(self.index))
    }
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    /// As rustls wants it.
    pub certified: Arc<CertifiedKey>,
    /// What it is valid for.
    pub names: Names,
    /// What is told of it.
    pub presented: Presented,
    /// The OCSP response for it, which is stapled until it ends.
    staple: Option<Staple>,
}

/// An OCSP response for a certificate.
#[derive(Debug, Clone)]
struct Staple {
    path: PathBuf,
    says: Single,
}

impl Loaded {
    /// Reads what `certificate`, number `index` of its list, names.
    ///
    /// # Errors
    /// Everything that is wrong with its files.
    pub(super) fn read(
        certificate: &Certificate,
        index: usize,
        now: SystemTime,
    ) -> Result<Self, Vec<Fault>> {
        let number = |fault: Fault| fault.of_certificate(index);
        let mut loaded = Self::pair(&certificate.cert, &certificate.key)
            .map_err(|faults| faults.into_iter().map(number).collect::<Vec<_>>())?;
        loaded.presented.index = index;
        if let Some(path) = &certificate.ocsp {
            let fault = |problem| number(Fault::of(FileKey::Ocsp, path, problem));
            loaded.staple(path).map_err(|problem| vec![fault(problem)])?;
            loaded.drop_ended_staple(now);
        }
        Ok(loaded)
    }

    /// Reads a chain from `cert` and the key of its first certificate from `key`.
    pub(super) fn pair(cert: &Path, key: &Path) -> Result<Self, Vec<Fault>> {
        let of_cert = |problem| Fault::of(FileKey::Cert, cert, problem);
        let of_key = |problem| Fault::of(FileKey::Key, key, problem);
        let chain = files::read(cert).and_then(|bytes| files::certificates(&bytes));
        let private = files::read(key).and_then(|bytes| files::private_key(&bytes));
        let (chain, private) = match (chain.map_err(of_cert), private.map_err(of_key)) {
            (Ok(chain), Ok(private)) => (chain, private),
            (chain, private) => {
                return Err([chain.err(), private.err()].into_iter().flatten().collect());
            }
        };
        Self::of(chain, private, cert).map_err(|problem| match problem {
            Problem::BadKey(_) | Problem::KeyMismatch(..) => vec![of_key(problem)],
            problem => vec![of_cert(problem)],
        })
    }

    /// Of `chain`, at least one certificate, and `key`; `file` is what it is called.
    pub(super) fn of(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        file: &Path,
    ) -> Result<Self, Problem> {
        let first = chain.first().ok_or(Problem::NoCertificate(Content::Empty))?;
        let (_, parsed) = X509Certificate::from_der(first)
            .map_err(|_| Problem::BadCertificate(1, NOT_X509.to_owned()))?;
        let names = Names::of(&parsed);
        let validity = parsed.validity();
        let (begin, end) = (system_time(validity.not_before), system_time(validity.not_after));
        let certified = certified(chain, key, &provider(), file)?;
        let presented = Presented { file: file.to_owned(), index: 0, begin, end };
        let certified = Arc::new(certified);
        Ok(Self { certified, names, presented, staple: None })
    }

    /// Staples the OCSP response at `path`, if it is about this certificate.
    fn staple(&mut self, path: &Path) -> Result<(), Problem> {
        let bytes = files::read(path)?;
        let about = match ocsp::parse(&bytes) {
            Some(Response::About(about)) => about,
            Some(Response::Refused(status)) => return Err(Problem::OcspRefused(status)),
            None => return Err(Problem::NoOcsp(files::content(&bytes))),
        };
        let own = self.certified.cert.first();
        let own = own.and_then(|first| X509Certificate::from_der(first).ok());
        let serial = own.as_ref().map(|(_, own)| own.raw_serial());
        let says = about.into_iter().find(|single| Some(&*single.serial) == serial);
        let says = says.ok_or_else(|| Problem::OcspMismatch(self.presented.file.clone()))?;
        self.staple = Some(Staple { path: path.to_owned(), says });
        Arc::make_mut(&mut self.certified).ocsp = Some(bytes);
        Ok(())
    }

    /// When the OCSP response ends that is stapled, if it says so.
    pub(super) fn staple_end(&self) -> Option<SystemTime> {
        self.certified.ocsp.as_ref().and_then(|_| self.staple.as_ref()?.says.end)
    }

    /// Staples an OCSP response no more that has ended: a client that is told of the past may refuse,
    /// where it would not without being told.
    pub(super) fn drop_ended_staple(&mut self, now: SystemTime) {
        if self.staple_end().is_some_and(|end| end <= now) {
            Arc::make_mut(&mut self.certified).ocsp = None;
        }
    }

    /// What is doubtful about the OCSP response at `now`.
    pub(super) fn staple_doubt(&self, now: SystemTime) -> Option<Fault> {
        let Staple { path, says } = self.staple.as_ref()?;
        let problem = match says.end {
            Some(end) if end <= now => Problem::OcspEnded(end),
            _ => Problem::OcspNotGood(says.not_good?),
        };
        let fault = Fault::of(FileKey::Ocsp, path, problem);
        Some(fault.of_certificate(self.presented.index))
    }
}

/// `chain` with its `key`, which must be that of the first.
fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
    file: &Path,
) -> Result<CertifiedKey, Problem> {
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(|error| Problem::BadKey(words(&error)))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // Not every kind of key tells.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(Error::InconsistentKeys(_)) => {
            let owner = certified.cert.iter().position(|other| {
                let alone = CertifiedKey::new(vec![other.clone()], Arc::clone(&certified.key));
                alone.keys_match().is_ok()
            });
            Err(Problem::KeyMismatch(file.to_owned(), owner.map(|index| index + 1)))
        }
        Err(error) => Err(Problem::BadCertificate(1, words(&error))),
    }
}

/// A time of a certificate.
pub(super) fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    let time = if seconds < 0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) };
    time.unwrap_or(epoch)
}
