//! OCSP responses: which are stapled, and what is said of the others.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

use super::*;
use crate::net::tls::ocsp::{self, Response, Single};
use crate::net::tls::unverified::Unverified;
use crate::net::tls::{FileKey, Problem, TlsError, provider};

/// The serial number of all certificates here.
const SERIAL: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

const GOOD: u8 = 0x80;
const REVOKED: u8 = 0xa1;

const LATER: &str = "20991231235959Z";
const EARLIER: &str = "20200102030405Z";

/// What is said about one certificate.
fn single(serial: &[u8], status: u8, end: Option<&str>) -> Vec<u8> {
    let hash = der(0x30, &[&der(6, &[&[0x2b, 14, 3, 2, 26]]), &der(5, &[])]);
    let octets = der(4, &[&[7; 20]]);
    let id = der(0x30, &[&hash, &octets, &octets, &der(2, &[serial])]);
    let status = match status {
        REVOKED => der(status, &[&der(0x18, &[EARLIER.as_bytes()])]),
        status => der(status, &[]),
    };
    let end = end.map(|end| der(0xa0, &[&der(0x18, &[end.as_bytes()])])).unwrap_or_default();
    der(0x30, &[&id, &status, &der(0x18, &[EARLIER.as_bytes()]), &end])
}

/// A response that says it, unsigned: that is for clients to check.
fn response(version: &[u8], singles: &[u8]) -> Vec<u8> {
    let responder = der(0xa2, &[&der(4, &[&[9; 20]])]);
    let produced = der(0x18, &[EARLIER.as_bytes()]);
    let data = der(0x30, &[version, &responder, &produced, &der(0x30, &[singles])]);
    let basic = der(0x30, &[&data, &der(0x30, &[]), &der(3, &[&[0]])]);
    let kind = der(6, &[&[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1]]);
    let bytes = der(0x30, &[&kind, &der(4, &[&basic])]);
    der(0x30, &[&der(10, &[&[0]]), &der(0xa0, &[&bytes])])
}

fn about(singles: &[u8]) -> Vec<u8> {
    response(&[], singles)
}

#[test]
fn what_a_response_says_is_understood() {
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_934_245);
    let said = |not_good, end| Single { serial: SERIAL.to_vec(), not_good, end };
    let cases = [
        (single(&SERIAL, GOOD, Some(EARLIER)), said(None, Some(end))),
        (single(&SERIAL, GOOD, None), said(None, None)),
        (single(&SERIAL, REVOKED, None), said(Some("revoked"), None)),
        (single(&SERIAL, 0x82, None), said(Some("unknown"), None)),
    ];
    for (bytes, expected) in &cases {
        let expected = Some(Response::About(vec![expected.clone()]));
        assert_eq!(ocsp::parse(&about(bytes)), expected);
        assert_eq!(ocsp::parse(&response(&der(0xa0, &[&der(2, &[&[0]])]), bytes)), expected);
    }
    let both = [&*cases[0].0, &*cases[2].0].concat();
    let expected = vec![cases[0].1.clone(), cases[2].1.clone()];
    assert_eq!(ocsp::parse(&about(&both)), Some(Response::About(expected)));
    assert_eq!(ocsp::parse(&der(0x30, &[&der(10, &[&[6]])])), Some(Response::Refused(6)));
    let whole = about(&both);
    for cut in 0..whole.len() {
        assert_eq!(ocsp::parse(&whole[..cut]), None, "{cut}");
    }
    assert_eq!(ocsp::parse(&[&*whole, b"x"].concat()), None);
}

proptest::proptest! {
    #[test]
    fn no_bytes_are_too_odd(at in 0usize..150, byte: u8) {
        let mut bytes = about(&single(&SERIAL, GOOD, Some(LATER)));
        let length = bytes.len();
        bytes[at % length] = byte;
        let _ = ocsp::parse(&bytes);
    }
}

/// Believes anybody, and keeps what was stapled.
#[derive(Debug)]
struct Keeping(Unverified, Arc<Mutex<Vec<u8>>>);

impl ServerCertVerifier for Keeping {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.1.lock().unwrap() = ocsp_response.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// What a client of `server` gets stapled.
fn stapled(server: &TlsServer) -> Vec<u8> {
    let kept = Arc::default();
    let verifier = Keeping(Unverified(provider()), Arc::clone(&kept));
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    shake_with(server, &Arc::new(client), "a").unwrap();
    kept.lock().unwrap().clone()
}

/// A certificate with [`SERIAL`], and `response` to be stapled to it.
fn certificate(authority: &Authority, response: &[u8]) -> Certificate {
    let given = authority.give_with("a", &["a"], |params| {
        params.serial_number = Some(SERIAL.to_vec().into());
    });
    let ocsp = Some(authority.folder.write("a.ocsp", response));
    Certificate { ocsp, ..given }
}

#[test]
fn what_has_not_ended_is_stapled() {
    let authority = Authority::new();
    let now = SystemTime::now();
    let ended = SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_934_245);
    let other = single(&[1], REVOKED, Some(EARLIER));
    let cases = [
        (single(&SERIAL, GOOD, Some(LATER)), true, None),
        ([other, single(&SERIAL, GOOD, None)].concat(), true, None),
        (single(&SERIAL, REVOKED, Some(LATER)), true, Some(Problem::OcspNotGood("revoked"))),
        (single(&SERIAL, GOOD, Some(EARLIER)), false, Some(Problem::OcspEnded(ended))),
    ];
    for (said, is_stapled, doubt) in cases {
        let response = about(&said);
        let server = server(vec![certificate(&authority, &response)]);
        assert_eq!(stapled(&server), if is_stapled { response } else { Vec::new() });
        let doubts: Vec<_> = server.doubts(now).into_iter().map(|d| (d.key, d.problem)).collect();
        assert_eq!(doubts, doubt.map(|doubt| (FileKey::Ocsp, doubt)).as_slice());
    }
}

#[test]
fn what_cannot_be_stapled_is_refused() {
    let authority = Authority::new();
    let cert = authority.folder.path("a.pem");
    let other = about(&single(&[1], GOOD, None));
    for (response, problem) in [
        (other, Problem::OcspMismatch(cert)),
        (der(0x30, &[&der(10, &[&[6]])]), Problem::OcspRefused(6)),
    ] {
        let tls = ServerTls::new(vec![certificate(&authority, &response)]);
        let TlsError(faults) = TlsServer::new(&tls, true).unwrap_err();
        assert_eq!(faults.len(), 1);
        assert_eq!((faults[0].key, &faults[0].problem), (FileKey::Ocsp, &problem));
        assert_eq!(faults[0].path, Some(authority.folder.path("a.ocsp")));
    }
}

#[test]
fn a_staple_that_ends_is_not_stapled_any_more() {
    let authority = Authority::new();
    // Soon, but not before it was stapled once, as 20200102030405Z has it.
    let end = SystemTime::now() + Duration::from_secs(4);
    let digits = humantime::format_rfc3339_seconds(end).to_string();
    let end = format!("{}Z", digits.replace(|c: char| !c.is_ascii_digit(), ""));
    let response = about(&single(&SERIAL, GOOD, Some(&end)));
    let server = server(vec![certificate(&authority, &response)]);
    assert_eq!(stapled(&server), response);
    // Not even where the files could not be read again.
    std::fs::write(authority.folder.path("a.key"), "").unwrap();
    assert_eq!(server.reload(), Ok(false));
    assert!(server.reload().is_err());
    let deadline = Instant::now() + Duration::from_secs(30);
    while server.reload() == Ok(false) {
        assert!(Instant::now() < deadline, "it has ended long ago");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(stapled(&server).is_empty());
    assert!(matches!(server.doubts(SystemTime::now())[0].problem, Problem::OcspEnded(_)));
    assert_eq!(server.reload(), Ok(false), "there is nothing more to drop");
}
