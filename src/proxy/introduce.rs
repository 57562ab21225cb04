//! Telling an endpoint on a new connection whose it is, by the PROXY protocol.

use std::borrow::Cow;
use std::io;

use tokio::time::timeout;

use super::client::Facts;
use super::progress::Forward;
use crate::config::TlsVersion;
use crate::error::Error;
use crate::http::proxy_protocol::{Client, Header, Tls};
use crate::net::origin::write_header;
use crate::net::stream::Stream;
use crate::net::tls::common_name;

impl Forward<'_> {
    /// Begins a connection that was made for this request with a header that names its client, where the
    /// upstream wants one. It is the first there is, before TLS.
    ///
    /// # Errors
    /// An endpoint that does not take it.
    pub(super) async fn introduce(&self, stream: &mut Stream) -> Result<(), Error> {
        let Some(version) = self.upstream.config.proxy_protocol else { return Ok(()) };
        let name = self.client.tls.as_ref().and_then(|tls| common_name(tls.subject.as_deref()?));
        let header = header(self.client, name.as_ref());
        let writing = write_header(stream, version, &header);
        let written = timeout(self.upstream.config.timeouts.connect, writing).await;
        let late = |_| Err(io::ErrorKind::TimedOut.into());
        written.unwrap_or_else(late).map_err(|error| Error::connecting(&error))
    }
}

/// What there is to say of `client`, whose certificate has this common name.
///
/// The protocol in ALPN is not said: it would be that of this connection (section 2.2.1 of the
/// specification), which is HTTP/1.1 whatever the client speaks.
fn header<'a>(client: &'a Facts, name: Option<&'a Cow<'_, [u8]>>) -> Header<'a> {
    let Some(origin) = client.origin.get() else { return Header::Unknown };
    let mut said = Client::new(origin.source, origin.destination);
    if let Some(session) = &client.tls {
        said.authority = session.server_name.as_deref().map(str::as_bytes);
        said.tls = Some(Tls {
            is_used: true,
            has_certificate: session.has_certificate && !session.resumed,
            had_certificate: session.has_certificate,
            // There would be no session with one that is not.
            is_verified: session.has_certificate,
            version: Some(match session.version {
                TlsVersion::Tls12 => b"TLSv1.2",
                TlsVersion::Tls13 => b"TLSv1.3",
            }),
            common_name: name.map(|name| &**name),
            cipher: None,
        });
    } else if origin.was_tls {
        said.tls = Some(Tls { is_used: true, ..Tls::default() });
    }
    Header::Client(said)
}
