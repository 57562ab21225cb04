//! What comes before the first request of a connection: TLS.

use std::rc::Rc;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::client::{Client, Facts};
use super::reply::{self, Shape};
use super::worker::DRAIN_IDLE_GRACE;
use crate::error::Error;
use crate::net::deadline::Deadline;
use crate::net::stream::Stream;
use crate::net::tls::Session;
use crate::net::tls::server::TlsServer;

/// The first byte of a TLS connection: a handshake record (RFC 8446 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Agrees with a client, whose connection was accepted at `since`, on TLS; `None` where that fails, and
/// the client has been told as far as it understands.
pub(super) async fn tls(mut facts: Facts, stream: Stream, since: Instant) -> Option<Box<Client>> {
    let server = Arc::clone(facts.listener.tls.as_ref()?);
    let end = since + facts.listener.config.timeouts.handshake;
    let mut deadline = Deadline::new(&facts.worker.clock);
    // A drain waits no longer for it than for a request that may be on its way.
    let due = || match facts.worker.draining.get() {
        Some(draining) => Some(end.min(since.max(draining) + DRAIN_IDLE_GRACE)),
        None => Some(end),
    };
    let agreed = deadline.due(due, agree(&facts, &server, stream)).await;
    let stats = facts.worker.stats();
    let failed = |why: &str| {
        stats.tls_failed.add(1);
        tracing::debug!(client = %facts.peer, "no TLS: {why}");
        None
    };
    let (stream, session) = match agreed {
        Ok(Ok(agreed)) => agreed,
        Ok(Err(error)) => return failed(&error.to_string()),
        Err(_) => return failed("the handshake did not end in time"),
    };
    let counter = if session.resumed { &stats.tls_resumed } else { &stats.tls_full };
    counter.add(1);
    facts.tls = Some(session);
    Some(Client::new(Rc::new(facts), stream))
}

async fn agree(
    facts: &Facts,
    server: &TlsServer,
    mut stream: Stream,
) -> std::io::Result<(Stream, Session)> {
    let first = stream.peek().await?;
    if first != Some(TLS_HANDSHAKE) {
        if first.is_some() {
            tell_plain(facts, &mut stream).await?;
        }
        return Err(std::io::Error::other("the client did not begin with it"));
    }
    let terms = server.current();
    let stream = TlsAcceptor::from(Arc::clone(&terms.config)).accept(stream).await?;
    let session = Session::of(stream.get_ref().1, &terms);
    Ok((Stream::tls(stream), session))
}

/// Tells a client that speaks plain HTTP what is wrong, and reads what it still sends, so that it gets to
/// read that.
async fn tell_plain(facts: &Facts, stream: &mut Stream) -> std::io::Result<()> {
    let mut answer = Vec::new();
    let error = Error::bad_request("plain HTTP on a port with TLS");
    reply::error(&mut answer, &facts.worker, error, b"", None, Shape::closing(None));
    stream.write_all(&answer).await?;
    stream.drain().await
}
