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
use super::ocsp::{self, Response};
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
#[derive(Debug)]
pub(super) struct Loaded {
    /// As rustls wants it.
    pub certified: Arc<CertifiedKey>,
    /// What it is valid for.
    pub names: Names,
    /// What is told of it.
    pub presented: Presented,
    /// When the OCSP response that is stapled to it ends.
    pub staple_end: Option<SystemTime>,
    /// What is doubtful about its OCSP response.
    pub doubt: Option<Fault>,
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
            loaded.staple(path, now).map_err(|problem| vec![fault(problem)])?;
            loaded.doubt = loaded.doubt.map(number);
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
        Ok(Self { certified, names, presented, staple_end: None, doubt: None })
    }

    /// Staples the OCSP response at `path`, if it is about this certificate and has not ended: a
    /// client that is told of the past may refuse, where it would not without being told.
    fn staple(&mut self, path: &Path, now: SystemTime) -> Result<(), Problem> {
        let bytes = files::read(path)?;
        let about = match ocsp::parse(&bytes) {
            Some(Response::About(about)) => about,
            Some(Response::Refused(status)) => return Err(Problem::OcspRefused(status)),
            None => return Err(Problem::NoOcsp(files::content(&bytes))),
        };
        let own = self.certified.cert.first();
        let own = own.and_then(|first| X509Certificate::from_der(first).ok());
        let serial = own.as_ref().map(|(_, own)| own.raw_serial());
        let single = about.into_iter().find(|single| Some(&*single.serial) == serial);
        let single = single.ok_or_else(|| Problem::OcspMismatch(self.presented.file.clone()))?;
        let doubt = |problem| Some(Fault::of(FileKey::Ocsp, path, problem));
        if let Some(end) = single.end.filter(|end| *end <= now) {
            self.doubt = doubt(Problem::OcspEnded(end));
            return Ok(());
        }
        self.doubt = single.not_good.and_then(|status| doubt(Problem::OcspNotGood(status)));
        self.staple_end = single.end;
        let mut stapled = CertifiedKey::clone(&self.certified);
        stapled.ocsp = Some(bytes);
        self.certified = Arc::new(stapled);
        Ok(())
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
