//! One client connection: it waits for requests, holding nothing while it does, and hands each to
//! an exchange.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{Client, Next};
use super::exchange;
use super::reply;
use super::worker::{Listener, Worker};
use crate::net::admission::Place;
use crate::net::listen::Accepted;

/// How long a client that is refused may take to read why: a round trip on most networks.
const REFUSAL: Duration = Duration::from_millis(500);

/// Serves one connection to its end, in a task of its own. The worker's count of connections
/// includes it already.
///
/// What is kept while a connection is idle is the `Client`, and a task that is small because the
/// rest comes in boxes: many thousands of them may be idle at once.
pub fn serve(worker: Rc<Worker>, listener: Rc<Listener>, accepted: Accepted, place: Place) {
    let Ok(mut client) = Client::new(worker, listener, accepted, place) else { return };
    tokio::task::spawn_local(async move {
        while client.request_begins().await {
            match Box::pin(exchange::serve(&mut client)).await {
                Next::Idle => continue,
                Next::Close if !client.has_unread() => {}
                Next::Close | Next::Linger => Box::pin(client.linger()).await,
                Next::Reset => client.stream.reset_on_close(),
            }
            return;
        }
    });
}

/// Answers a connection that is one too many of its client's, and closes it. What the client sends
/// meanwhile is not read as a request.
pub async fn refuse(worker: &Worker, accepted: Accepted) {
    let Ok(mut stream) = TcpStream::from_std(accepted.socket.into()) else { return };
    let mut answer = Vec::new();
    reply::too_many_connections(&mut answer, worker);
    let answered = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        // Closing with something unread would take the answer back.
        let mut unread = [0; 512];
        while stream.read(&mut unread).await? > 0 {}
        std::io::Result::Ok(())
    };
    // A client that is gone needs no answer.
    let _ = tokio::time::timeout(REFUSAL, answered).await;
}
