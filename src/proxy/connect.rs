//! A connection to the endpoint that was picked: a kept one of this worker's, or a new one, within the
//! limits of connections.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::progress::{ClientSide, Forward};
use super::retry::Failed;
use crate::error::{Error, Kind};
use crate::http::buffer::Buffer;
use crate::net::dial::{Address, Dialled, dial_any};
use crate::net::stream::Stream;
use crate::net::tls::client;
use crate::upstream::Picked;
use crate::upstream::endpoint::{Endpoint, Place, Protocol};
use crate::upstream::http2::{Begun, MAX_CONNECTIONS, Need, Turn};
use crate::upstream::pool::{Connected, Hold};

/// How often is looked for an idle connection of another worker to be closed, where nobody tells.
const LOOK_EVERY: Duration = Duration::from_millis(50);

const NO_PLACE: Error = Error::new(Kind::Overloaded, "no place for another connection in time");
const NO_STREAM: Error = Error::new(Kind::Overloaded, "no free stream to the endpoint in time");
// Whoever has the turn may wait for a place of ours; if it is the endpoint that is slow, that one says so.
const NO_TURN: Error = Error::new(Kind::Overloaded, "no connection was made in time");
const TLS_LATE: Error =
    Error::new(Kind::ConnectionTimeout, "the TLS handshake did not end in time");
const HTTP2_LATE: Error = Error::new(Kind::ConnectionTimeout, "HTTP/2 did not begin in time");
// Nobody's fault that could be held against the endpoint: any client can ask for it.
const NO_UPGRADE: Error = Error::new(
    Kind::NotImplemented,
    "the endpoint speaks only HTTP/2, and is asked to by HTTP/1.1",
);

/// A connection, and how far the exchange on it is.
#[derive(Debug)]
pub(super) struct Line {
    pub connection: Connected,
    /// Whether it has been used before.
    pub is_kept: bool,
    /// For how long it had not been used.
    pub idle_for: Duration,
    /// When the endpoint was asked on it, if it was.
    pub asked: Option<Instant>,
    /// What it has answered so far.
    pub buffer: Buffer,
}

impl Line {
    pub(super) fn new(connection: Connected, is_kept: bool) -> Self {
        let (idle_for, buffer) = Default::default();
        Self { connection, is_kept, idle_for, asked: None, buffer }
    }
}

impl<'a> Forward<'a> {
    /// A connection that is most likely a new one.
    pub(super) async fn dial(
        &self,
        picked: &Picked<'a>,
        client: &ClientSide<'_, '_>,
    ) -> Result<Line, Failed> {
        let connecting = self.connect(picked.endpoint);
        // Dialling is rare; in a box it takes no room in every other exchange.
        let line = Box::pin(self.while_client_waits(client, connecting)).await;
        line.map_err(|error| Failed::new(error, self.again(error, false)))
    }

    /// A kept connection to the endpoint, or a new stream on one, at the time `now`.
    pub(super) fn kept(&self, endpoint: &Endpoint, now: Instant) -> Option<Line> {
        self.kept_for(endpoint, now, false)
    }

    /// The same; whoever has the turn to connect gets a stream before others do.
    fn kept_for(&self, endpoint: &Endpoint, now: Instant, has_turn: bool) -> Option<Line> {
        // Who a connection was introduced for is the only one that it can be for.
        if self.upstream.config.proxy_protocol.is_some() {
            return None;
        }
        // What may not be sent twice must not be sent into a connection that has just been closed.
        let must_be_sure = !self.may_repeat_ever();
        let is_retry = self.progress.attempts.get() > 0;
        let need = Need { is_sure: must_be_sure, has_turn, is_retry };
        let stream = match self.may_share(endpoint) {
            true => self.worker.http2.borrow_mut().take(endpoint, now, need),
            false => None,
        };
        let kept =
            stream.or_else(|| self.worker.pool.borrow_mut().take(endpoint, now, must_be_sure));
        let (connection, idle_for) = kept?;
        self.endpoint_stats(endpoint, |stats| stats.reuses.add(1));
        Some(Line { idle_for, ..Line::new(connection, true) })
    }

    /// Whether the request can go by HTTP/2. What asks for another protocol goes by HTTP/1.1 where it can
    /// choose: few servers take it by HTTP/2.
    fn may_share(&self, endpoint: &Endpoint) -> bool {
        match endpoint.protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Tls { http2, .. } => http2 && self.request.upgrade.is_none(),
        }
    }

    /// A new connection to the endpoint; or a stream on one that another request has made meanwhile,
    /// since as many as wait can share it.
    pub(super) async fn connect(&self, endpoint: &Endpoint) -> Result<Line, Error> {
        let turn = match self.may_share(endpoint) {
            true => self.worker.http2.borrow_mut().turn(endpoint),
            false => None,
        };
        match turn {
            Some(turn) => self.connect_in_turn(endpoint, &turn).await,
            None => self.connect_alone(endpoint).await,
        }
    }

    /// What this request gets when it has the `turn`: a stream of what others have made, a connection, or,
    /// where there may be no further one, the first stream that ends.
    async fn connect_in_turn(&self, endpoint: &Endpoint, turn: &Turn) -> Result<Line, Error> {
        let due = Instant::now() + self.upstream.config.timeouts.connect;
        let connections = || self.worker.http2.borrow().connections(endpoint);
        let Ok(its_turn) = timeout_at(due, turn.come()).await else {
            return Err(if connections() > 0 { NO_STREAM } else { NO_TURN });
        };
        if self.worker.http2.borrow_mut().turn(endpoint).is_none() {
            // Each needs its own, as has turned out.
            drop(its_turn);
            return self.connect_alone(endpoint).await;
        }
        loop {
            if let Some(line) = self.kept_for(endpoint, Instant::now(), true) {
                return Ok(line);
            }
            match connections() {
                0 => return self.connect_alone(endpoint).await,
                MAX_CONNECTIONS.. => {}
                _ => {
                    if let Some(place) = self.place(endpoint) {
                        return self.open(endpoint, place).await;
                    }
                }
            }
            if Instant::now() >= due {
                return Err(NO_STREAM);
            }
            turn.stream_ends(LOOK_EVERY).await;
        }
    }

    /// A place for one more connection to the endpoint, if there is one.
    fn place(&self, endpoint: &Endpoint) -> Option<Place> {
        Place::take(endpoint, &self.upstream.shared, self.upstream.max_connections())
    }

    /// A new connection to one of the endpoint's addresses; or a kept one that has come back while
    /// there was no place for another.
    async fn connect_alone(&self, endpoint: &Endpoint) -> Result<Line, Error> {
        let place = async {
            loop {
                let freed = self.upstream.shared.place_freed.notified();
                if let Some(place) = self.place(endpoint) {
                    return Ok(place);
                }
                if let Some(kept) = self.kept(endpoint, Instant::now()) {
                    return Err(kept);
                }
                self.upstream.want_place(endpoint);
                self.worker.shared.nudge();
                let _ = timeout(LOOK_EVERY, freed).await;
            }
        };
        // It is our own limits that are waited for here, which is no fault of the endpoint.
        match timeout(self.upstream.config.timeouts.connect, place).await {
            Ok(Ok(place)) => self.open(endpoint, place).await,
            Ok(Err(kept)) => Ok(kept),
            Err(_) => Err(NO_PLACE),
        }
    }

    /// Opens a connection to one of the endpoint's addresses.
    async fn open(&self, endpoint: &Endpoint, place: Place) -> Result<Line, Error> {
        let limit = self.upstream.config.timeouts.connect;
        let _permit = timeout(limit, endpoint.state.dials.acquire()).await.map_err(|_| NO_PLACE)?;
        let opened = match dial_any(endpoint.dial_order(), limit).await {
            Ok(Dialled { index, address, stream }) => {
                endpoint.answered(index);
                self.agree(endpoint, stream, (address, place)).await
            }
            Err(failures) => {
                let no_address = Error::new(Kind::Unavailable, "the endpoint has no address");
                Err(failures.last().map_or(no_address, Error::connecting))
            }
        };
        self.endpoint_stats(endpoint, |stats| match opened {
            Ok(_) => stats.connects.add(1),
            Err(_) => stats.connect_failures.add(1),
        });
        match opened {
            Ok(_) => endpoint.state.reached(Instant::now()),
            Err(_) => {
                let failures = &self.progress.connect_failures;
                failures.set(failures.get() + 1);
            }
        }
        opened
    }

    /// Agrees with the endpoint on what is spoken on a new connection.
    async fn agree(
        &self,
        endpoint: &Endpoint,
        mut stream: Stream,
        place: (Address, Place),
    ) -> Result<Line, Error> {
        let due = Instant::now() + self.upstream.config.timeouts.connect;
        self.introduce(&mut stream).await?;
        let (stream, is_http2) = match &endpoint.protocol {
            Protocol::Http1 => (stream, false),
            Protocol::Http2 => (stream, true),
            Protocol::Tls { tls, .. } => {
                let offers_http2 = self.may_share(endpoint);
                let agreed = timeout_at(due, client::agree(tls, offers_http2, stream)).await;
                let agreed = agreed.map_err(|_| TLS_LATE)?;
                let (stream, is_http2) = agreed.map_err(|error| {
                    match endpoint.protocol.may_be_http2() && !offers_http2 {
                        true if client::is_without_protocol(&error) => NO_UPGRADE,
                        _ => client::handshake_fault(&error),
                    }
                })?;
                if offers_http2 {
                    self.worker.http2.borrow_mut().speaks(endpoint, is_http2);
                }
                (stream, is_http2)
            }
        };
        let connection = if is_http2 {
            let begun = timeout_at(due, Begun::on(stream)).await;
            let begun = begun.map_err(|_| HTTP2_LATE)??;
            let idle = self.upstream.config.timeouts.idle;
            let first = self.worker.http2.borrow_mut().share(endpoint, begun, place, idle);
            first.ok_or(NO_STREAM)?
        } else {
            let (address, place) = place;
            let protocol = endpoint.protocol.clone();
            Connected { stream, address, hold: Hold::Place { place, protocol } }
        };
        Ok(Line::new(connection, false))
    }
}
