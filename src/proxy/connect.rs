//! A connection to the endpoint that was picked: a kept one of this worker's, or a new one, within the
//! limits of connections.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::progress::Forward;
use super::retry::Failed;
use crate::error::{Error, Kind};
use crate::http::buffer::Buffer;
use crate::net::dial::{Dialled, dial_any};
use crate::upstream::Picked;
use crate::upstream::endpoint::{Endpoint, Place};
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

    /// A kept connection to the endpoint, at the time `now`.
    pub(super) fn kept(&self, endpoint: &Endpoint, now: Instant) -> Option<Line> {
        // What may not be sent twice must not be sent into a connection that has just been closed.
        let must_be_sure = !self.may_repeat_ever();
        let kept = self.worker.pool.borrow_mut().take(endpoint, now, must_be_sure);
        let (connection, idle_for) = kept?;
        self.endpoint_stats(endpoint, |stats| stats.reuses.add(1));
        Some(Line { idle_for, ..Line::new(connection, true) })
    }

    /// A new connection to one of the endpoint's addresses; or a kept one that has come back while
    /// there was no place for another.
    pub(super) async fn connect(&self, endpoint: &Endpoint) -> Result<Line, Error> {
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
                return Ok(Line::new(Connected { stream, address, place }, false));
            }
            Err(failures) => failures,
        };
        self.endpoint_stats(endpoint, |stats| stats.connect_failures.add(1));
        let no_address = Error::new(Kind::Unavailable, "the endpoint has no address");
        Err(failures.last().map_or(no_address, Error::connecting))
    }
}
