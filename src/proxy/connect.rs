//! A connection to the endpoint that was picked: a kept one of this worker's, or a new one, within the
//! limits of connections.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use h2::Ping;
use tokio::time::{Instant, timeout};

use super::progress::Forward;
use super::retry::Failed;
use crate::error::{Error, Kind};
use crate::http::buffer::Buffer;
use crate::net::dial::{Address, Dialled, dial_any};
use crate::net::stream::Stream;
use crate::net::tls::client;
use crate::upstream::Picked;
use crate::upstream::endpoint::{Endpoint, Place, Protocol};
use crate::upstream::http2;
use crate::upstream::pool::Connected;

/// How often is looked for an idle connection of another worker to be closed, where nobody tells.
const LOOK_EVERY: Duration = Duration::from_millis(50);

const NO_PLACE: Error = Error::new(Kind::Overloaded, "no place for another connection in time");

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
    pub(super) async fn dial(&self, picked: &Picked<'a>) -> Result<Line, Failed> {
        // Dialling is rare; in a box it takes no room in every other exchange.
        let line = Box::pin(self.connect(picked.endpoint)).await;
        line.map_err(|error| Failed { error, again: self.again(error, false) })
    }

    /// A kept connection to the endpoint, or a new stream on one, at the time `now`.
    pub(super) fn kept(&self, endpoint: &Endpoint, now: Instant) -> Option<Line> {
        // Who a connection was introduced for is the only one that it can be for.
        if self.upstream.config.proxy_protocol.is_some() {
            return None;
        }
        if self.may_share(endpoint) {
            let stream = self.worker.http2.borrow_mut().take(endpoint, now);
            if let Some((connection, idle_for)) = stream {
                self.endpoint_stats(endpoint, |stats| stats.reuses.add(1));
                return Some(Line { idle_for, ..Line::new(connection, true) });
            }
        }
        // What may not be sent twice must not be sent into a connection that has just been closed.
        let must_be_sure = !self.may_repeat_ever();
        let kept = self.worker.pool.borrow_mut().take(endpoint, now, must_be_sure);
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
        let gate = match self.may_share(endpoint) {
            true => self.worker.http2.borrow_mut().gate(endpoint),
            false => None,
        };
        let Some(gate) = gate else { return self.connect_alone(endpoint).await };
        let limit = self.upstream.config.timeouts.connect;
        let passed = timeout(limit, gate.acquire()).await;
        if passed.is_err() {
            let detail = "no connection was made in time";
            return Err(Error::new(Kind::ConnectionTimeout, detail));
        }
        match self.kept(endpoint, Instant::now()) {
            Some(line) => Ok(line),
            None => self.connect_alone(endpoint).await,
        }
    }

    /// A new connection to one of the endpoint's addresses; or a kept one that has come back while
    /// there was no place for another.
    async fn connect_alone(&self, endpoint: &Endpoint) -> Result<Line, Error> {
        let limit = self.upstream.config.timeouts.connect;
        let place = async {
            loop {
                let freed = self.upstream.shared.place_freed.notified();
                let limit = self.upstream.max_connections();
                if let Some(place) = Place::take(endpoint, &self.upstream.shared, limit) {
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
        let place = match timeout(limit, place).await {
            Ok(Ok(place)) => place,
            Ok(Err(kept)) => return Ok(kept),
            Err(_) => return Err(NO_PLACE),
        };
        let _permit = timeout(limit, endpoint.state.dials.acquire()).await.map_err(|_| NO_PLACE)?;
        let failures = match dial_any(endpoint.dial_order(), limit).await {
            Ok(Dialled { index, address, stream }) => {
                endpoint.answered(index);
                self.endpoint_stats(endpoint, |stats| stats.connects.add(1));
                endpoint.state.reached(Instant::now());
                return self.agree(endpoint, stream, (address, place)).await;
            }
            Err(failures) => failures,
        };
        self.endpoint_stats(endpoint, |stats| stats.connect_failures.add(1));
        let no_address = Error::new(Kind::Unavailable, "the endpoint has no address");
        Err(failures.last().map_or(no_address, Error::connecting))
    }

    /// Agrees with the endpoint on what is spoken on a new connection.
    async fn agree(
        &self,
        endpoint: &Endpoint,
        mut stream: Stream,
        place: (Address, Place),
    ) -> Result<Line, Error> {
        let limit = self.upstream.config.timeouts.connect;
        self.introduce(&mut stream).await?;
        let (stream, is_http2) = match &endpoint.protocol {
            Protocol::Http1 => (stream, false),
            Protocol::Http2 => (stream, true),
            Protocol::Tls { tls, .. } => {
                let offers_http2 = self.may_share(endpoint);
                let agreed = timeout(limit, client::agree(tls, offers_http2, stream)).await;
                let (stream, is_http2) = match agreed {
                    Ok(agreed) => agreed.map_err(|error| tls_fault(&error))?,
                    Err(_) => return Err(TLS_LATE),
                };
                if offers_http2 {
                    self.worker.http2.borrow_mut().speaks(endpoint, is_http2);
                }
                (stream, is_http2)
            }
        };
        if !is_http2 {
            let (address, place) = (place.0, Rc::new(place.1));
            return Ok(Line::new(Connected { stream, address, place }, false));
        }
        let begun = timeout(limit, http2::begin(stream)).await;
        let Ok(Ok((sender, mut connection))) = begun else { return Err(NO_HTTP2) };
        let pings = connection.ping_pong();
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to an endpoint has ended");
            }
        });
        if let (Some(mut pings), true) = (pings, self.request.upgrade.is_some()) {
            // What it answers comes behind its settings, which say whether it takes this at all.
            let _ = timeout(limit, pings.ping(Ping::opaque())).await;
        }
        let idle = self.upstream.config.timeouts.idle;
        let mut pool = self.worker.http2.borrow_mut();
        Ok(Line::new(pool.share(endpoint, sender, place, idle), false))
    }
}

const TLS_LATE: Error =
    Error::new(Kind::ConnectionTimeout, "the TLS handshake did not end in time");
const NO_HTTP2: Error = Error::new(Kind::ConnectionRefused, "the endpoint does not begin HTTP/2");

/// What a failed TLS handshake means.
fn tls_fault(error: &io::Error) -> Error {
    let cause = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(_)) => {
            Error::new(Kind::TlsCertificate, "the endpoint's certificate is not to be trusted")
        }
        Some(rustls::Error::AlertReceived(_)) => {
            Error::new(Kind::TlsFailed, "the endpoint refused the TLS handshake")
        }
        _ => Error::new(Kind::TlsFailed, "no TLS with the endpoint"),
    }
}
