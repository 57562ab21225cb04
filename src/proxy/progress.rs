//! What an exchange works with: the request on its way, the client's side, and how far it is.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::time::Instant;

use super::affinity::Affinity;
use super::body::Source;
use super::client::{Departure, Facts};
use super::snapshot::Route;
use super::tries::Tries;
use super::worker::{Listener, Worker};
use crate::http::request::Request;
use crate::net::deadline::Deadline;
use crate::net::stream::WriteHalf;
use crate::stats::{EndpointStats, UpstreamStats};
use crate::upstream::Upstream;
use crate::upstream::endpoint::Endpoint;

/// A request on its way.
pub(super) struct Forward<'a> {
    pub worker: &'a Worker,
    pub listener: &'a Listener,
    pub client: &'a Facts,
    pub request: &'a Request<'a>,
    pub request_id: &'a [u8],
    pub route: &'a Route,
    pub upstream: &'a Upstream,
    pub progress: &'a Progress,
    pub tries: &'a Tries,
    /// Whether it is a call of gRPC.
    pub is_grpc: bool,
    /// How long whoever calls waits, if it says so.
    pub call_timeout: Option<Duration>,
    /// Whether asking twice is the same as asking once.
    pub is_repeatable: bool,
    pub affinity: Affinity,
    pub started: Instant,
    /// What the client sent behind a head without a body, which a tunnel begins with.
    pub early: &'a [u8],
}

/// The client's side of the exchange.
pub(super) struct ClientSide<'a, 'b> {
    /// The body, and the connection that it comes from.
    pub source: Source<'a, 'b>,
    /// Where the response goes.
    pub writer: &'b mut WriteHalf<'a>,
    /// The timer of the connection.
    pub deadline: &'b mut Deadline,
}

impl Forward<'_> {
    /// When the client counts as gone.
    pub(super) const fn departure(&self) -> Departure<'_> {
        Departure { half_close: self.listener.config.half_close, begun: &self.progress.begun }
    }

    /// Counts something of the upstream.
    pub(super) fn upstream_stats(&self, count: impl FnOnce(&UpstreamStats)) {
        if let Some(stats) = self.upstream.shared.stats.get(self.worker.index) {
            count(stats);
        }
    }

    /// Counts something of an endpoint.
    pub(super) fn endpoint_stats(&self, endpoint: &Endpoint, count: impl FnOnce(&EndpointStats)) {
        if let Some(stats) = endpoint.state.stats.get(self.worker.index) {
            count(stats);
        }
    }
}

/// What is known of an exchange as it goes on. Both directions write here at once, so it is cells.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The endpoint that was asked last, by index in its upstream.
    pub endpoint: Cell<Option<usize>>,
    /// How often the request was sent.
    pub attempts: Cell<u32>,
    /// Connections that could not be made for it.
    pub connect_failures: Cell<u32>,
    /// How far the sending of the request is.
    pub sending: Cell<Sending>,
    /// Whether the client waits for a 100 before it sends the body, which the endpoint owes then.
    pub awaits_continue: Cell<bool>,
    /// How long the endpoint took to answer.
    pub upstream_duration: Cell<Option<Duration>>,
    /// The final status; 0 while none is decided.
    pub status: Cell<u16>,
    /// Whether the upstream has changed while the request waited for room, so that it has to begin
    /// anew with what is in force now.
    pub is_outdated: Cell<bool>,
    /// Whether any of the final response has been written.
    pub begun: Cell<bool>,
    /// When the response ended, if it did.
    pub ended: Cell<Option<Instant>>,
    /// Whether the client knows the end of the response only by the connection's.
    pub ends_by_close: Cell<bool>,
    /// Payload from the client, and to it.
    pub bytes: (Cell<u64>, Cell<u64>),
    /// The `Proxy-Status` of a response that was refused.
    pub upstream_status: RefCell<Vec<u8>>,
}

/// How far the sending of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sending {
    /// The endpoint owes nothing yet.
    #[default]
    Underway,
    /// All of it has been sent.
    Whole,
    /// The endpoint takes no more of it; it may have answered all the same.
    Stopped,
}
