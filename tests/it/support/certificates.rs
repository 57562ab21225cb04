//! Certificates, in a folder that is gone afterwards.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

/// A folder of files, removed when dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static FOLDERS: AtomicUsize = AtomicUsize::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("folder-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// The path of the file `name`, as text for command lines and configurations.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        std::fs::write(self.0.join(name), content).unwrap();
        self.path(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A certificate and its key, as paths of files in PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Pair {
    /// Its keys as the configuration has them.
    pub fn keys(&self) -> String {
        format!("cert = {:?}, key = {:?}", self.cert, self.key)
    }
}

/// Somebody who gives certificates: `NAME.pem` and `NAME.key` in its folder; its own is `ca`.
#[derive(Debug)]
pub struct Authority {
    pub folder: Folder,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// One that is called `name`.
    pub fn new(name: &str) -> Self {
        let folder = Folder::new();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        folder.write("ca.pem", params.self_signed(&key).unwrap().pem());
        folder.write("ca.key", key.serialize_pem());
        Self { folder, issuer: Issuer::new(params, key) }
    }

    /// The path of its own certificate.
    pub fn ca(&self) -> String {
        self.folder.path("ca.pem")
    }

    /// For a server that has `names`, of which the first is its subject's as well.
    pub fn server(&self, file: &str, names: &[&str]) -> Pair {
        self.give(file, &of_server(names))
    }

    /// For a server, from one year's beginning to another's.
    pub fn server_between(&self, file: &str, names: &[&str], years: (i32, i32)) -> Pair {
        let mut params = of_server(names);
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        self.give(file, &params)
    }

    /// For a client that is called `name`.
    pub fn client(&self, file: &str, name: &str) -> Pair {
        self.give(file, &of_client(name))
    }

    /// For a client whose certificate has ended.
    pub fn expired_client(&self, file: &str, name: &str) -> Pair {
        let mut params = of_client(name);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        self.give(file, &params)
    }

    fn give(&self, file: &str, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair {
            cert: self.folder.write(&format!("{file}.pem"), certificate.pem()),
            key: self.folder.write(&format!("{file}.key"), key.serialize_pem()),
        }
    }
}

fn of_client(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Ours, Inc.");
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn of_server(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().copied().map(str::to_owned).collect();
    let mut params = CertificateParams::new(names.clone()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, names[0].clone());
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}
