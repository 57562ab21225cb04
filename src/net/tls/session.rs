//! What a client and a listener have agreed on.

use std::sync::Arc;

use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};

use super::ALPN_HTTP2;
use super::resolver::Choice;
use super::server::Terms;
use super::subject::subject;
use crate::config::TlsVersion;

/// What a client and a listener have agreed on.
#[derive(Debug, Clone)]
pub struct Session {
    /// Whether HTTP/2 is spoken; HTTP/1.1 where not.
    pub is_http2: bool,
    /// The name that the client asked for (SNI), in lower case.
    pub server_name: Option<Box<str>>,
    /// The version that is spoken.
    pub version: TlsVersion,
    /// Whether an earlier session was taken up again.
    pub resumed: bool,
    /// Whether the client has a certificate, which was verified: in this handshake, or in the one that
    /// began the session.
    pub has_certificate: bool,
    /// The subject of the client's certificate, which was verified, as RFC 4514 writes it: visible
    /// ASCII and spaces, [`MAX_SUBJECT`](super::MAX_SUBJECT) bytes at most. `None` where it has no
    /// certificate, none with a subject, or one that is longer.
    pub subject: Option<Box<str>>,
    /// The certificates that one was presented of.
    presented: Arc<Choice>,
}

impl Session {
    /// That of `connection`, whose handshake is over and was made on `terms`.
    pub fn of(connection: &ServerConnection, terms: &Terms) -> Self {
        let client = connection.peer_certificates().and_then(<[_]>::first);
        let server_name = connection.server_name();
        Self {
            is_http2: connection.alpn_protocol() == Some(ALPN_HTTP2),
            server_name: server_name.map(Into::into),
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
                _ => TlsVersion::Tls12,
            },
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            has_certificate: client.is_some(),
            subject: client.and_then(|der| subject(der)),
            presented: Arc::clone(terms.certificates.select(server_name)),
        }
    }

    /// Whether the certificate that was presented is valid for `host`, as it stands in a Host field or
    /// `:authority` without its port. Where it is not, the request came by a connection that was not
    /// meant for it (421, RFC 9110 7.4).
    pub fn covers(&self, host: &[u8]) -> bool {
        // Where it may have been one of several, all of them.
        self.presented.iter().all(|loaded| loaded.names.covers(host))
    }
}
