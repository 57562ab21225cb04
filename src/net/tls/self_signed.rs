//! A certificate that is made at start, to try things out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

use super::certificate::Loaded;
use super::error::{Fault, FileKey, Problem};

/// What it is called where a certificate has a file.
const FILE: &str = "self-signed";

/// How long it is good for: longer than anybody tries things out, since it is made anew at the next
/// start, and not so long that it is worth to be trusted for good.
const LIFE: Duration = Duration::from_secs(90 * 86_400);

/// How far it begins in the past, for clients whose clocks are behind.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// Makes one for `localhost`, the loopback addresses and this machine's name, beginning at `now`.
pub(super) fn make(now: SystemTime) -> Result<Loaded, Fault> {
    let fault = |problem| Fault::without_file(FileKey::SelfSigned, problem);
    let (certificate, key) =
        generate(now).map_err(|error| fault(Problem::CannotMake(error.to_string())))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Loaded::of(vec![certificate.der().clone()], key, Path::new(FILE)).map_err(fault)
}

fn generate(now: SystemTime) -> Result<(rcgen::Certificate, KeyPair), rcgen::Error> {
    let mut names = vec!["localhost".to_owned()];
    let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    if is_name(&host) && host != "localhost" {
        names.push(host);
    }
    let mut params = CertificateParams::new(names)?;
    let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    params.subject_alt_names.extend(loopback.map(SanType::IpAddress));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "tinylb self-signed");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.is_ca = IsCa::ExplicitNoCa;
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + LIFE).into();
    // A serial number is made of the key, which is random.
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?, key))
}

/// Whether `host` can stand in a certificate.
fn is_name(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    !host.is_empty() && host.bytes().all(allowed) && host.parse::<IpAddr>().is_err()
}

/// The SHA-256 of `der` as browsers and `openssl x509 -fingerprint` show it: `AB:CD:…`.
pub(super) fn fingerprint(der: &[u8]) -> String {
    let bytes: Vec<_> = Sha256::digest(der).iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}
