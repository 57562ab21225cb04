//! TLS, all of it but moving bytes: which certificate for whom, who is believed, and what was agreed
//! on. Files are read here, at start and again when they change.

mod certificate;
pub mod client;
mod error;
mod files;
mod names;
mod ocsp;
mod resolver;
mod self_signed;
pub mod server;
mod session;
mod subject;
#[cfg(test)]
pub(crate) mod tests;
mod tickets;
mod unverified;
mod watch;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

pub use certificate::{EXPIRY_NOTICE, Presented};
pub use error::{Content, Fault, FileKey, Problem, TlsError};
pub use session::Session;
pub use subject::{MAX_SUBJECT, common_name};

/// HTTP/2 in ALPN (RFC 9113 3.1).
pub const ALPN_HTTP2: &[u8] = b"h2";

/// HTTP/1.1 in ALPN (RFC 7301 6).
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// The cryptography: named wherever it is needed, since no default of the process is set. Keys are agreed on
/// by X25519MLKEM768 with whoever can, so that what is recorded today stays secret when X25519 is broken;
/// that costs 17 µs of a handshake's 84.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// What is offered by ALPN, the best first.
fn alpn(http2: bool) -> Vec<Vec<u8>> {
    let http2 = http2.then(|| ALPN_HTTP2.to_vec());
    http2.into_iter().chain([ALPN_HTTP1.to_vec()]).collect()
}
