//! One client connection: it waits for requests, holding nothing while it does, and hands each to
//! an exchange.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::client::{Client, Next};
use super::exchange;
use super::worker::{Listener, Worker};
use crate::net::listen::Accepted;

/// Serves one connection to its end, in a task of its own. The worker's count of connections
/// includes it already.
///
/// What is kept while a connection is idle is the `Client`, and a task that is small because the
/// rest comes in boxes: many thousands of them may be idle at once.
pub fn serve(
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    accepted: Accepted,
    permit: OwnedSemaphorePermit,
) {
    let Ok(mut client) = Client::new(worker, listener, accepted, permit) else { return };
    tokio::task::spawn_local(async move {
        while client.request_begins().await {
            match Box::pin(exchange::serve(&mut client)).await {
                Next::Idle => continue,
                Next::Close if !client.has_unread() => {}
                Next::Close | Next::Linger => Box::pin(client.linger()).await,
                Next::Reset => {
                    let socket = socket2::SockRef::from(&client.stream);
                    let _ = socket.set_linger(Some(Duration::ZERO));
                }
            }
            return;
        }
    });
}
