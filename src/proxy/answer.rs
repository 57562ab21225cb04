//! Where a request goes, and the answer to one that goes nowhere.

use std::borrow::Cow;
use std::time::Duration;

use super::affinity::came_by_tls;
use super::body::{Sink, Waits};
use super::client::{Facts, Next};
use super::progress::{ClientSide, Progress};
use super::reply::{self, Shape};
use super::send::TOO_LARGE;
use super::snapshot::{Route, Snapshot};
use super::worker::Worker;
use crate::error::{Error, Fault as Blame, Kind};
use crate::http::body::Framing;
use crate::http::head::Version;
use crate::http::path;
use crate::http::request::{Method, Request, Target};
use crate::upstream::Upstream;

/// Where a request goes.
pub(super) type Found<'s> = (&'s Route, &'s Upstream);

/// Why a request is answered here.
pub(super) enum Here {
    /// It failed.
    Failed(Error),
    /// It may go no further (OPTIONS with `Max-Forwards: 0`).
    Options,
    /// It is to come again by HTTPS, to this port.
    Redirect(u16),
}

impl From<Error> for Here {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// How many passes through here before make a request a loop. One or two passes are legitimate:
/// balancer, cache, balancer again.
const LOOP: usize = 3;

/// Where the request goes, unless it is to be answered here.
pub(super) fn find<'s>(
    facts: &Facts,
    snapshot: &'s Snapshot,
    request: &Request<'_>,
) -> Result<Found<'s>, Here> {
    let Facts { worker, listener, .. } = facts;
    // Behind a proxy that ends TLS it would go on for ever.
    if let Some(port) = listener.config.redirect_https
        && !came_by_tls(request, facts)
    {
        return Err(match request.authority {
            Some(_) => Here::Redirect(port),
            None => Error::bad_request("no Host, so nowhere to be sent to by HTTPS").into(),
        });
    }
    if facts.is_misdirected(request.host()) {
        let detail = "the connection's certificate is not for this host";
        return Err(Error::new(Kind::Misdirected, detail).into());
    }
    if request.passes_through(&worker.shared.pseudonym) >= LOOP {
        let detail = "the request has passed through here three times before";
        return Err(Error::new(Kind::LoopDetected, detail).into());
    }
    if let (Framing::Length(length), Some(limit)) = (request.framing, listener.config.max_body)
        && length > limit
    {
        return Err(TOO_LARGE.into());
    }
    if request.max_forwards == Some(0) {
        return Err(Here::Options);
    }
    let path = match request.target {
        Target::Path(path, _) => path::resolve(path)?,
        Target::Asterisk => Cow::Borrowed(&b"/"[..]),
    };
    let route = snapshot.route(request.host(), &path);
    let found = route.and_then(|route| Some((route, &**snapshot.upstreams.get(route.upstream)?)));
    found.ok_or(Error::new(Kind::NoRoute, "no route for this host and path").into())
}

/// An answer of ours to a request that was understood.
pub(super) struct Answer<'a> {
    pub worker: &'a Worker,
    pub request: &'a Request<'a>,
    pub id: &'a [u8],
    pub hsts: Option<Duration>,
    pub is_grpc: bool,
}

impl Answer<'_> {
    /// Sends the answer; returns what becomes of the connection, and the error for the log.
    pub(super) async fn send(
        &self,
        here: Here,
        progress: &Progress,
        client: &mut ClientSide<'_, '_>,
        output: &mut Vec<u8>,
        write: Duration,
    ) -> (Next, Option<Error>) {
        let error = match here {
            Here::Failed(error) => Some(error),
            Here::Options | Here::Redirect(_) => None,
        };
        let next = self.next(error, client.source.is_over());
        let shape = Shape {
            has_body: self.request.method != Method::Head,
            hsts: self.hsts,
            is_grpc: self.is_grpc,
            connection: match (next, self.request.version) {
                (Next::Idle, Version::Http11 | Version::Http2) => None,
                (Next::Idle, Version::Http10) => Some("keep-alive"),
                _ => Some("close"),
            },
        };
        output.clear();
        let (status, body) = match here {
            Here::Failed(error) => {
                let before = progress.upstream_status.borrow();
                let body = reply::error(output, self.worker, error, &before, Some(self.id), shape);
                (error.kind.status(), body)
            }
            Here::Options => (reply::options(output, self.worker, shape), 0),
            Here::Redirect(port) => {
                (reply::redirect(output, self.worker, self.request, port, self.id, shape), 0)
            }
        };
        progress.status.set(status);
        let begun = &progress.begun;
        let mut sink = Sink::new(client.writer, output, Framing::Empty, begun);
        let mut waits = Waits::to_write(client.deadline, write);
        let written = sink.finish(&mut waits).await;
        progress.bytes.1.set(if written.is_ok() { body } else { 0 });
        (if written.is_ok() { next } else { Next::Close }, error)
    }

    /// What becomes of the connection: it stays unless the request was at fault, its body is still
    /// on its way, or either side wants an end.
    fn next(&self, error: Option<Error>, body_is_over: bool) -> Next {
        let is_fault = error.is_some_and(|error| {
            error.kind.fault() == Blame::Client
                && !matches!(error.kind, Kind::NoRoute | Kind::LoopDetected)
        });
        if is_fault || !body_is_over || self.worker.draining.get().is_some() {
            Next::CloseGracefully
        } else if self.request.is_persistent() {
            Next::Idle
        } else {
            Next::Close
        }
    }
}
