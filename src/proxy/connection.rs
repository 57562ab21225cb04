//! One client connection: it waits for requests, holding nothing while it does, and hands each to
//! an exchange.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::client::{Client, Facts, Next};
use super::worker::{Listener, Worker};
use super::{exchange, handshake, http2, reply};
use crate::net::admission::Place;
use crate::net::listen::Accepted;

/// How long a client that is refused may take to read why: a round trip on most networks.
const REFUSAL: Duration = Duration::from_millis(500);

/// Serves one connection to its end, in a task of its own. The worker's count of connections
/// includes it already.
///
/// What is kept while a connection is idle is the `Client`, and a task that is small because the
/// rest comes in boxes: many thousands of them may be idle at once.
pub fn serve(worker: Rc<Worker>, listener: Rc<Listener>, mut accepted: Accepted, place: Place) {
    let (client, since) = (accepted.client(), accepted.since);
    let facts = Facts::new(worker, listener, client, accepted.origin.take(), place);
    let Ok(stream) = accepted.into_stream(facts.listener.is_unix()) else { return };
    let begun = match facts.listener.tls {
        Some(_) => Err(Box::pin(handshake::tls(facts, stream, since))),
        None => Ok(Client::new(Rc::new(facts), stream)),
    };
    tokio::task::spawn_local(async move {
        let mut client = match begun {
            Ok(client) => client,
            Err(handshake) => match handshake.await {
                Some(client) => client,
                None => return,
            },
        };
        if client.facts.is_http2() {
            return Box::pin(http2::serve(client)).await;
        }
        while client.request_begins().await {
            match Box::pin(exchange::serve(&mut client)).await {
                Next::Idle => continue,
                Next::Close if !client.stream.has_unread() => Box::pin(client.close()).await,
                Next::Close | Next::CloseGracefully => Box::pin(client.close_gracefully()).await,
                Next::Reset => client.stream.reset_on_close(),
                Next::Http2 => Box::pin(http2::serve(client)).await,
            }
            return;
        }
        Box::pin(client.close_idle()).await;
    });
}

/// Answers a connection that is one too many of its client's, and closes it. What the client sends
/// meanwhile is not read as a request.
pub async fn refuse(worker: &Worker, accepted: Accepted) {
    let Ok(mut stream) = accepted.into_stream(false) else { return };
    let mut answer = Vec::new();
    reply::too_many_connections(&mut answer, worker);
    let answered = async {
        stream.write_all(&answer).await?;
        stream.drain().await
    };
    // A client that is gone needs no answer.
    let _ = tokio::time::timeout(REFUSAL, answered).await;
}
