//! The client's half of an exchange: the request's head, rendered for the endpoint, and its body.

use std::cell::Cell;
use std::rc::Rc;

use tokio::time::Instant;

use super::body::{Broken, Fault, Sink, Source, Waits, relay};
use super::progress::{Forward, Sending};
use crate::config::HostMode;
use crate::error::{Error, Kind};
use crate::http::rewrite::{self, Hop};
use crate::net::deadline::Deadline;
use crate::net::stream::WriteHalf;
use crate::upstream::endpoint::Endpoint;

/// A body over the limit.
pub(super) const TOO_LARGE: Error =
    Error::new(Kind::ContentTooLarge, "the body is over this listener's limit");

impl Forward<'_> {
    /// Renders the request's head for `endpoint`.
    pub(super) fn render(&self, endpoint: &Endpoint, output: &mut Vec<u8>) {
        let host = match (self.upstream.config.host, self.request.authority) {
            (HostMode::Pass, Some(authority)) => authority,
            _ => endpoint.authority.as_bytes(),
        };
        let hop = Hop {
            base_path: endpoint.base_path.as_bytes(),
            host,
            client: self.client.peer,
            is_trusted: self.client.is_trusted,
            is_tls: self.client.came_by_tls(),
            subject: self.client.tls.as_ref().and_then(|tls| tls.subject.as_deref()),
            pseudonym: self.pseudonym(),
            request_id: self.request_id,
            forwarded: self.upstream.config.forwarded,
            closes: self.upstream.config.proxy_protocol.is_some(),
        };
        output.clear();
        rewrite::request(output, self.request, &hop);
    }

    /// The name of this instance in `Via`, where the upstream has one.
    pub(super) fn pseudonym(&self) -> Option<&str> {
        self.upstream.config.via.then_some(&self.worker.shared.pseudonym)
    }

    /// Sends head and body, then watches whether the client is still there. Nothing is left to be
    /// sent where `output` is empty and there is no body.
    ///
    /// Ends well only where the endpoint takes no more, which is not the end of the exchange.
    ///
    /// # Errors
    /// The client's faults, and an endpoint that stopped reading.
    pub(super) async fn send(
        &self,
        source: &mut Source<'_, '_>,
        to_endpoint: &mut WriteHalf<'_>,
        output: &mut Vec<u8>,
        written: &Cell<bool>,
    ) -> Result<(), Error> {
        let Self { progress, request, .. } = self;
        let mut sink = Sink::new(to_endpoint, output, request.framing, written);
        let mut waits = Waits {
            deadline: &mut Deadline::new(&self.worker.clock),
            read: Some(self.listener.config.timeouts.body),
            // Who streams messages sends them when there are any.
            may_pause: self.is_grpc,
            departure: Some(self.departure()),
            write: self.upstream.config.timeouts.body,
        };
        match self.send_body(source, &mut sink, &mut waits).await {
            Ok(()) => progress.sending.set(Sending::Whole),
            Err(Broken::Source(fault)) => return Err(client_fault(fault)),
            Err(Broken::Sink(Fault::TimedOut)) => {
                return Err(Error::new(Kind::ResponseTimeout, "the endpoint stopped reading"));
            }
            Err(Broken::Sink(_)) => {
                progress.sending.set(Sending::Stopped);
                return Ok(());
            }
        }
        if source.had_trailers {
            // They are not kept.
            self.tries.replay.borrow_mut().spoil();
        }
        self.departure().wait(source.io).await;
        Err(Error::CLIENT_CLOSED)
    }

    async fn send_body(
        &self,
        source: &mut Source<'_, '_>,
        sink: &mut Sink<'_, '_>,
        waits: &mut Waits<'_>,
    ) -> Result<(), Broken> {
        let replay = &self.tries.replay;
        let kept = replay.borrow().kept.as_ref().map(Rc::clone);
        if let Some(kept) = kept {
            sink.data(&kept, waits).await.map_err(Broken::Sink)?;
        }
        if self.progress.awaits_continue.get() {
            // Until the 100 is passed on, it is the endpoint that we wait for.
            sink.flush(waits).await.map_err(Broken::Sink)?;
            let limit = self.listener.config.timeouts.body;
            let mut due = None;
            let owed = || {
                let is_owed = !self.progress.awaits_continue.get();
                is_owed.then(|| *due.get_or_insert_with(|| Instant::now() + limit))
            };
            let body = waits.deadline.due(owed, source.io.readable()).await;
            body.map_err(|_| Broken::Source(Fault::TimedOut))?
                .map_err(|_| Broken::Source(Fault::Closed))?;
            self.progress.awaits_continue.set(false);
        }
        let received = &self.progress.bytes.0;
        let buffer = self.upstream.config.retry.buffer;
        let passing = |payload: &[u8]| {
            received.set(received.get() + payload.len() as u64);
            replay.borrow_mut().keep(payload, buffer);
            match self.listener.config.max_body {
                Some(limit) if received.get() > limit => Err(TOO_LARGE),
                _ => Ok(()),
            }
        };
        // `TE` is about responses: the trailers of a request go on in any case (RFC 9110 6.5, 10.1.4).
        relay(self.worker, source, sink, waits, true, passing).await
    }
}

fn client_fault(fault: Fault) -> Error {
    match fault {
        Fault::Closed | Fault::Reset(_) => Error::CLIENT_CLOSED,
        Fault::TimedOut => Error::new(Kind::RequestTimeout, "the body did not go on in time"),
        Fault::Refused(error) => error,
    }
}
