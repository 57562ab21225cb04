//! The connection of one check: made as those of requests are, but for this alone.

use std::io;
use std::time::Duration;

use humantime::format_duration;
use tokio::time::{Instant, timeout_at};

use super::{Failure, Fault, in_words};
use crate::config::ProxyVersion;
use crate::error::{Error, Kind};
use crate::http::proxy_protocol::{Client, Header};
use crate::net::dial::{Address, dial_any};
use crate::net::origin::write_header;
use crate::net::stream::Stream;
use crate::net::tls::client;
use crate::upstream::endpoint::Protocol;

/// Connects to one of `addresses` that can be connected to, until `due`, which is after `timeout`.
pub(super) async fn dial(
    addresses: &[Address],
    timeout: Duration,
    due: Instant,
) -> Result<Stream, Failure> {
    let (mut unwell, mut not_made) = (None, None);
    let left = due.saturating_duration_since(Instant::now());
    let addresses = addresses.iter().cloned().enumerate();
    let failures = match timeout_at(due, dial_any(addresses, left)).await {
        Ok(Ok(dialled)) => return Ok(dialled.stream),
        Ok(Err(failures)) => failures,
        Err(_) => vec![io::ErrorKind::TimedOut.into()],
    };
    for error in failures {
        // The first failure counts, of the address that is in use. Without IPv6 its addresses
        // look as if this process were short of something, so those count last.
        match Error::connecting(&error) {
            Error { kind: Kind::Internal, detail } => {
                not_made.get_or_insert(Failure::NotMade(detail.to_owned()))
            }
            Error { kind: Kind::ConnectionTimeout, .. } => {
                let timeout = format_duration(timeout);
                unwell.get_or_insert(Failure::Unwell(format!("no connection within {timeout}")))
            }
            _ => unwell.get_or_insert(Failure::Unwell(in_words(&error))),
        };
    }
    let no_address = || Failure::Unwell("the name has no address".to_owned());
    Err(unwell.or(not_made).unwrap_or_else(no_address))
}

/// Says on `stream` that we speak for ourselves, to an endpoint that expects a PROXY header.
///
/// # Errors
/// What the stream says.
pub(in crate::health) async fn introduce(
    stream: &mut Stream,
    version: ProxyVersion,
) -> io::Result<()> {
    let header = match version {
        ProxyVersion::V1 => own_addresses(stream),
        ProxyVersion::V2 => Header::Local,
    };
    write_header(stream, version, &header).await
}

/// Version 1 has no word for whoever speaks for itself, and not everybody takes its "unknown".
fn own_addresses(stream: &Stream) -> Header<'static> {
    let addresses = match stream {
        Stream::Tcp(stream) => stream.local_addr().ok().zip(stream.peer_addr().ok()),
        _ => None,
    };
    let client = |(source, destination)| Header::Client(Client::new(source, destination));
    addresses.map_or(Header::Unknown, client)
}

/// Agrees with the endpoint on what is spoken on `stream`, and says whether that is HTTP/2.
pub(super) async fn agree(
    protocol: &Protocol,
    stream: Stream,
    due: Instant,
) -> Result<(Stream, bool), Fault> {
    let (tls, http2) = match protocol {
        Protocol::Http1 => return Ok((stream, false)),
        Protocol::Http2 => return Ok((stream, true)),
        Protocol::Tls { tls, http2 } => (tls, *http2),
    };
    let agreed = timeout_at(due, client::agree(tls, http2, stream)).await;
    let agreed = agreed.map_err(|_| Fault::Late("the TLS handshake did not end"))?;
    agreed.map_err(|error| {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        Fault::Found(match cause {
            Some(cause) => format!("no TLS: {cause}"),
            None => format!("no TLS: {}", in_words(&error)),
        })
    })
}

#[cfg(test)]
mod tests;
