//! Connections in HTTP/2 to endpoints: a few for each, whose streams the requests of one worker share.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::FixedState;
use h2::client::{Builder, Connection, SendRequest};
use http::uri::Scheme;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::endpoint::{Endpoint, Place, Protocol};
use super::pool::Connected;
use crate::net::dial::Address;
use crate::net::http2::{
    CONNECTION_WINDOW, Http2Stream, MAX_HEADER_LIST, SEND_BUFFER, SMALL_DATA_BUDGET, STREAM_WINDOW,
};
use crate::net::stream::Stream;

/// Connections that one worker has to one endpoint; another is made only where all streams of those
/// there are in use.
const MAX_CONNECTIONS: usize = 4;

/// Streams that are begun on a connection before its endpoint says how many it takes: as many as RFC
/// 9113 (6.5.2) recommends at least.
const FIRST_STREAMS: usize = 100;

/// The connections of one worker, by endpoint.
#[derive(Debug, Default)]
pub struct Http2Pool {
    endpoints: HashMap<u64, Known, FixedState>,
}

/// What is known of one endpoint.
#[derive(Debug)]
struct Known {
    shared: Vec<Shared>,
    /// Whether it spoke HTTP/2 the last time that it could choose.
    speaks: bool,
    /// Has one request connect for all that need it.
    gate: Rc<Semaphore>,
}

/// A connection that requests share.
#[derive(Debug)]
struct Shared {
    sender: SendRequest<Bytes>,
    scheme: Scheme,
    address: Address,
    place: Rc<Place>,
    /// For how long it is kept without streams.
    idle: Duration,
    /// Since when it has none.
    idle_since: Cell<Option<Instant>>,
}

impl Shared {
    /// Whether new streams can be begun on it: neither side has ended it.
    fn is_open(&self) -> bool {
        let ready = self.sender.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
        !matches!(ready, Poll::Ready(Err(_)))
    }

    /// Streams in use: each holds the place of its connection.
    fn streams(&self) -> usize {
        Rc::strong_count(&self.place) - 1
    }

    fn has_room(&self) -> bool {
        self.streams() < self.sender.current_max_send_streams()
    }

    /// Whether it has had no streams for its time at `now`, or for any where another connection needs
    /// its place.
    fn is_useless(&self, now: Instant) -> bool {
        if self.streams() > 0 {
            self.idle_since.set(None);
            return false;
        }
        let since = self.idle_since.get().unwrap_or(now);
        self.idle_since.set(Some(since));
        since + self.idle <= now || self.place.is_wanted()
    }

    fn stream(&self, now: Instant) -> (Connected, Duration) {
        let idle_for = self.idle_since.take().map_or(Duration::ZERO, |since| now - since);
        let stream = Http2Stream::to_endpoint(self.sender.clone(), self.scheme.clone());
        let stream = Stream::Http2(Box::new(stream));
        let (address, place) = (self.address.clone(), Rc::clone(&self.place));
        (Connected { stream, address, place }, idle_for)
    }
}

impl Http2Pool {
    /// A new stream on the least used connection to `endpoint`, and how long that had none, unless a
    /// connection has to be made.
    pub fn take(&mut self, endpoint: &Endpoint, now: Instant) -> Option<(Connected, Duration)> {
        let known = self.endpoints.get_mut(&endpoint.state.id)?;
        known
            .shared
            .retain(|shared| endpoint.addresses.contains(&shared.address) && shared.is_open());
        let least = known.shared.iter().min_by_key(|shared| shared.streams())?;
        let is_full = known.shared.len() >= MAX_CONNECTIONS;
        (least.has_room() || is_full).then(|| least.stream(now))
    }

    /// Has one request at a time connect to `endpoint`; `None` where it spoke HTTP/1.1 the last time
    /// that it could choose, so that each needs a connection of its own.
    pub fn gate(&mut self, endpoint: &Endpoint) -> Option<Rc<Semaphore>> {
        let known = self.known(endpoint);
        known.speaks.then(|| Rc::clone(&known.gate))
    }

    /// Takes note of what `endpoint` has chosen.
    pub fn speaks(&mut self, endpoint: &Endpoint, http2: bool) {
        self.known(endpoint).speaks = http2;
    }

    fn known(&mut self, endpoint: &Endpoint) -> &mut Known {
        self.endpoints.entry(endpoint.state.id).or_insert_with(|| Known {
            shared: Vec::new(),
            speaks: true,
            gate: Rc::new(Semaphore::new(1)),
        })
    }

    /// Shares a new connection to `endpoint`, for at most `idle` without streams, and returns the first
    /// stream on it.
    pub fn share(
        &mut self,
        endpoint: &Endpoint,
        sender: SendRequest<Bytes>,
        (address, place): (Address, Place),
        idle: Duration,
    ) -> Connected {
        let scheme = match endpoint.protocol {
            Protocol::Tls { .. } => Scheme::HTTPS,
            Protocol::Http1 | Protocol::Http2 => Scheme::HTTP,
        };
        let shared = Shared {
            sender,
            scheme,
            address,
            place: Rc::new(place),
            idle,
            idle_since: Cell::new(None),
        };
        let (stream, _) = shared.stream(Instant::now());
        self.known(endpoint).shared.push(shared);
        stream
    }

    /// Ends connections that are of no use any more; streams that are under way go on.
    pub fn sweep(&mut self, now: Instant) {
        for known in self.endpoints.values_mut() {
            known.shared.retain(|shared| !shared.is_useless(now) && shared.is_open());
        }
    }

    /// Ends every connection to endpoints that `keep` does not know.
    pub fn keep_only(&mut self, keep: impl Fn(u64) -> bool) {
        self.endpoints.retain(|endpoint, _| keep(*endpoint));
    }
}

/// Begins HTTP/2 on `stream`. Somebody has to drive the connection.
///
/// # Errors
/// What the stream says.
pub async fn begin(
    stream: Stream,
) -> Result<(SendRequest<Bytes>, Connection<Stream, Bytes>), h2::Error> {
    Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(SMALL_DATA_BUDGET)
        .max_header_list_size(MAX_HEADER_LIST)
        .initial_max_send_streams(FIRST_STREAMS)
        .enable_push(false)
        .handshake(stream)
        .await
}
