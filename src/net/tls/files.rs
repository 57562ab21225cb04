//! Reading certificates and keys from PEM, and telling what is there instead.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::{Content, Fault, FileKey, Problem, words};

/// The largest file that is read, in bytes: many times all authorities that there are.
pub(super) const MAX_FILE: usize = 16 << 20;

/// What stands before the label of a PEM section.
const BEGIN: &str = "-----BEGIN ";

/// The first byte of anything in DER that is read here: a sequence.
const DER_SEQUENCE: u8 = 0x30;

/// All of the file at `path`.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    let unreadable = |error: std::io::Error| Problem::Unreadable(error.to_string());
    // Asked before it is opened: opening a pipe waits until somebody writes.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Problem::NotAFile);
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > MAX_FILE {
        return Err(Problem::TooLarge);
    }
    Ok(bytes)
}

/// The certificates in `bytes`, at least one.
pub(super) fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(damaged)?;
    match found.is_empty() {
        true => Err(Problem::NoCertificate(content(bytes))),
        false => Ok(found),
    }
}

/// The first private key in `bytes`.
pub(super) fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Problem> {
    match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) if !is_encrypted(bytes) => Ok(key),
        // One in the old way is damaged, for whoever does not know that way.
        _ if is_encrypted(bytes) => Err(Problem::EncryptedKey),
        Err(pem::Error::NoItemsFound) => Err(Problem::NoKey(content(bytes))),
        Err(error) => Err(damaged(error)),
        Ok(_) => Err(Problem::EncryptedKey),
    }
}

/// The authorities in the file at `path`.
pub(super) fn authorities(key: FileKey, path: &Path) -> Result<RootCertStore, Fault> {
    let fault = |problem| Fault::of(key, path, problem);
    let found = read(path).and_then(|bytes| certificates(&bytes)).map_err(fault)?;
    let mut roots = RootCertStore::empty();
    for (index, authority) in found.into_iter().enumerate() {
        roots
            .add(authority)
            .map_err(|error| fault(Problem::BadCertificate(index + 1, words(&error))))?;
    }
    Ok(roots)
}

/// What is in `bytes`.
pub(super) fn content(bytes: &[u8]) -> Content {
    let text = String::from_utf8_lossy(bytes);
    let mut labels: Vec<String> = Vec::new();
    for line in text.lines() {
        let Some(label) = line.trim().strip_prefix(BEGIN) else { continue };
        let label = label.trim_end_matches('-');
        // As much as helps, of whatever there is.
        let label: String =
            label.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(40).collect();
        if !labels.contains(&label) && labels.len() < 4 {
            labels.push(label);
        }
    }
    match bytes.first() {
        _ if !labels.is_empty() => Content::Pem(labels),
        None => Content::Empty,
        Some(&DER_SEQUENCE) => Content::Der,
        Some(_) if text.trim().is_empty() => Content::Empty,
        Some(_) => Content::Unknown,
    }
}

/// Whether a private key in it needs a passphrase: in PKCS #8, or as OpenSSL did it before that.
fn is_encrypted(bytes: &[u8]) -> bool {
    let has = |what: &[u8]| memchr::memmem::find(bytes, what).is_some();
    has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED")
}

fn damaged(error: pem::Error) -> Problem {
    let why = match error {
        pem::Error::MissingSectionEnd { .. } => "it has a BEGIN without its END".into(),
        pem::Error::IllegalSectionStart { .. } => "it has a BEGIN that is cut off".into(),
        pem::Error::Base64Decode(_) => "what stands between BEGIN and END is not base64".into(),
        other => format!("{other:?}"),
    };
    Problem::Damaged(why)
}
