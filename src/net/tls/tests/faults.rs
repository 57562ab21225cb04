//! What is said about files that cannot be used.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;
use crate::config::ClientAuth;
use crate::net::tls::{Fault, FileKey, TlsError};

/// Everything that can be wrong, with right things beside it: `a` and `b` with their keys, `ca.pem`.
fn wrong_things() -> Authority {
    let authority = Authority::new();
    let [a, _] = ["a", "b"].map(|name| authority.give(name, &[name]));
    let folder = &authority.folder;
    let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap();
    let (cert, key) = (read(&a.cert), read(&a.key));
    folder.write("empty", "\n");
    folder.write("text", "hello\n");
    folder.write("cert.der", CertificateDer::from_pem_file(&a.cert).unwrap());
    folder.write("key.der", PrivateKeyDer::from_pem_file(&a.key).unwrap().secret_der());
    folder.write("cut", &cert[..200]);
    folder.write("no-base64", cert.replace("MII", "M!I"));
    folder.write("no-x509", cert.replace("MII", "MIX"));
    folder.write("no-key", key.replace("MI", "MX"));
    folder.write("passphrase", pem("ENCRYPTED PRIVATE KEY", "MIIFLTBXBg=="));
    let header = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,0123\n\nMIIFLTBXBg==";
    folder.write("passphrase-rsa", pem("RSA PRIVATE KEY", header));
    folder.write("params", pem("EC PARAMETERS", "BggqhkjOPQMBBw=="));
    folder.write("order", [read(&authority.ca()), cert].concat());
    std::fs::create_dir(folder.path("folder")).unwrap();
    authority
}

fn pem(label: &str, content: &str) -> String {
    format!("-----BEGIN {label}-----\n{content}\n-----END {label}-----\n")
}

/// What is said of each fault, with the folder called `DIR`.
fn said(authority: &Authority, faults: &[Fault]) -> Vec<String> {
    let folder = authority.folder.path("");
    let said = |fault: &Fault| format!("{fault}; {}", fault.help());
    faults.iter().map(|f| said(f).replace(folder.to_str().unwrap(), "DIR/")).collect()
}

const NO_FILE: &str = "the file cannot be read: No such file or directory (os error 2); write the \
    path of a file that this process may read";
const NO_REGULAR: &str =
    "this is not a regular file; write the path of a file; it is read again when it changes";
const WANT_CERT: &str = "write the path of a file in PEM, with `-----BEGIN CERTIFICATE-----`";
const WANT_KEY: &str = "write the path of a file in PEM, with `-----BEGIN PRIVATE KEY-----`";
const DECRYPT: &str = "the private key is encrypted, and nobody is there to type its passphrase; \
    decrypt it: `openssl pkey -in FILE -out DECRYPTED`, and keep that from others' eyes";

#[test]
fn a_pair_that_cannot_be_used() {
    let authority = wrong_things();
    let cert = |file: &str, what: &str| format!("cert \"DIR/{file}\": {what}");
    let key = |file: &str, what: &str| format!("key \"DIR/{file}\": {what}");
    let anew = "write the file anew";
    let cases = [
        ("nothing", "nothing", vec![cert("nothing", NO_FILE), key("nothing", NO_FILE)]),
        ("folder", "folder", vec![cert("folder", NO_REGULAR), key("folder", NO_REGULAR)]),
        (
            "a.key",
            "a.pem",
            vec![
                cert(
                    "a.key",
                    "there is no certificate in it; it holds PRIVATE KEY; write the private key's \
                     path at `key`, and here that of the certificate",
                ),
                key(
                    "a.pem",
                    "there is no private key in it; it holds CERTIFICATE; write the certificate's \
                     path at `cert`, and here that of its private key",
                ),
            ],
        ),
        (
            "cert.der",
            "key.der",
            vec![
                cert(
                    "cert.der",
                    "there is no certificate in it; it seems to be DER; make PEM of it: `openssl \
                     x509 -inform der -in FILE -out FILE.pem`",
                ),
                key(
                    "key.der",
                    "there is no private key in it; it seems to be DER; make PEM of it: `openssl \
                     pkey -inform der -in FILE -out FILE.pem`",
                ),
            ],
        ),
        (
            "empty",
            "text",
            vec![
                cert("empty", &format!("there is no certificate in it; it is empty; {WANT_CERT}")),
                key(
                    "text",
                    &format!(
                        "there is no private key in it; it is neither PEM nor DER; {WANT_KEY}"
                    ),
                ),
            ],
        ),
        (
            "cut",
            "params",
            vec![
                cert(
                    "cut",
                    &format!("the file is damaged: it has a BEGIN without its END; {anew}"),
                ),
                key(
                    "params",
                    &format!("there is no private key in it; it holds EC PARAMETERS; {WANT_KEY}"),
                ),
            ],
        ),
        (
            "no-base64",
            "passphrase",
            vec![
                cert(
                    "no-base64",
                    &format!(
                        "the file is damaged: what stands between BEGIN and END is not base64; {anew}"
                    ),
                ),
                key("passphrase", DECRYPT),
            ],
        ),
        (
            "no-x509",
            "a.key",
            vec![cert(
                "no-x509",
                "certificate 1 in it cannot be used: it is not X.509; write the file anew, with an \
                 X.509 v3 certificate",
            )],
        ),
        ("a.pem", "passphrase-rsa", vec![key("passphrase-rsa", DECRYPT)]),
        (
            "a.pem",
            "no-key",
            vec![key(
                "no-key",
                "the private key cannot be used: failed to parse private key as RSA, ECDSA, or \
                 EdDSA; make one of RSA (2048 to 8192 bits), ECDSA or Ed25519",
            )],
        ),
        (
            "a.pem",
            "b.key",
            vec![key(
                "b.key",
                "the private key does not belong to the certificate in \"DIR/a.pem\"; write the \
                 paths of a certificate and a private key that were made together",
            )],
        ),
        (
            "order",
            "a.key",
            vec![key(
                "a.key",
                "the private key does not belong to the certificate in \"DIR/order\"; it belongs to \
                 certificate 2 in that file: put that one first, the authorities after it",
            )],
        ),
    ];
    let path = |name: &str| authority.folder.path(name);
    for (cert, key, expected) in cases {
        let pair = Certificate { cert: path(cert), key: path(key), ocsp: None };
        let right = Certificate { cert: path("b.pem"), key: path("b.key"), ocsp: None };
        let tls = ServerTls::new(vec![right, pair.clone()]);
        let TlsError(faults) = TlsServer::new(&tls, true).unwrap_err();
        assert_eq!(said(&authority, &faults), expected, "{cert} {key}");
        // Where a caret is put.
        for fault in &faults {
            let own = if fault.key == FileKey::Cert { &pair.cert } else { &pair.key };
            assert_eq!((fault.certificate, fault.path.as_ref()), (1, Some(own)));
        }
        let identity = Some((pair.cert, pair.key));
        let tls = ClientTls { identity, ..authority.client() };
        let TlsError(faults) = TlsClient::new(&tls).unwrap_err();
        assert_eq!(said(&authority, &faults), expected, "{cert} {key}");
    }
}

#[test]
fn an_ocsp_response_that_cannot_be_used() {
    let authority = wrong_things();
    let anew = "ask for one anew, with `openssl ocsp -respout FILE`, or leave `ocsp` out";
    let no = "this is no OCSP response in DER;";
    for (file, expected) in [
        ("nothing", NO_FILE.to_owned()),
        ("empty", format!("{no} it is empty; {anew}")),
        ("cert.der", format!("{no} it seems to be DER; {anew}")),
        (
            "a.pem",
            format!(
                "{no} it holds CERTIFICATE; write the path of a response in DER, as `openssl ocsp \
                 -respout FILE` makes it"
            ),
        ),
    ] {
        let path = |name: &str| authority.folder.path(name);
        let ocsp = Some(path(file));
        let certificate = Certificate { cert: path("a.pem"), key: path("a.key"), ocsp };
        let TlsError(faults) =
            TlsServer::new(&ServerTls::new(vec![certificate]), true).unwrap_err();
        assert_eq!(said(&authority, &faults), [format!("ocsp \"DIR/{file}\": {expected}")]);
        assert_eq!((faults[0].key, faults[0].certificate), (FileKey::Ocsp, 0));
    }
}

#[test]
fn authorities_that_cannot_be_used() {
    let authority = wrong_things();
    let right = authority.give("right", &["right"]);
    for (file, expected) in [
        ("nothing", NO_FILE.to_owned()),
        ("empty", format!("there is no certificate in it; it is empty; {WANT_CERT}")),
        ("a.key", format!("there is no certificate in it; it holds PRIVATE KEY; {WANT_CERT}")),
        (
            "no-x509",
            "certificate 1 in it cannot be used: it is not X.509; write the file anew, with an X.509 \
             v3 certificate"
                .to_owned(),
        ),
    ] {
        let ca = authority.folder.path(file);
        let mut tls = ServerTls::new(vec![right.clone()]);
        tls.client = Some(ClientAuth { ca: ca.clone(), required: true });
        let TlsError(faults) = TlsServer::new(&tls, true).unwrap_err();
        assert_eq!(said(&authority, &faults), [format!("client_ca \"DIR/{file}\": {expected}")]);
        let error = TlsClient::new(&ClientTls { ca: Some(ca), ..ClientTls::default() }).unwrap_err();
        assert_eq!(said(&authority, &error.0), [format!("ca \"DIR/{file}\": {expected}")]);
        // As it is where there is no place in a file to show it at.
        assert_eq!(error.to_string(), format!("{}; {}", error.0[0], error.0[0].help()));
    }
}
