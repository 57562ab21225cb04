//! The one forwarding path: pick an endpoint, connect, send and receive at once, and try again
//! where that is safe.

use std::cell::Cell;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::task::coop::has_budget_remaining;
use tokio::time::Instant;

use super::client::Next;
use super::connect::Line;
use super::progress::{ClientSide, Forward, Sending};
use super::receive::{Passage, Received};
use super::retry::{Again, Failed};
use super::tunnel::{self, Connection, Ends};
use super::worker::Drafts;
use crate::error::{Error, Fault as Blame, Kind};
use crate::http::buffer::Buffer;
use crate::http::rewrite::Persistence;
use crate::http::websocket::is_websocket;
use crate::net::deadline::Elapsed;
use crate::net::send_queue::SendQueue;
use crate::stats::RetryReason;
use crate::upstream::pool::Connected;
use crate::upstream::{How, NoPick, Picked, Wanted};

impl<'a> Forward<'a> {
    /// Forwards the request, and its response.
    ///
    /// # Errors
    /// What the client is to be told, or, where a response has begun, why it is cut.
    pub(super) async fn run(
        &self,
        client: &mut ClientSide<'_, '_>,
        drafts: &mut Drafts,
    ) -> Result<Next, Error> {
        let mut failure = None;
        loop {
            let is_retry = failure.is_some();
            let mut picked = match self.pick(is_retry) {
                Ok(picked) => picked,
                // Waiting is rare; in a box it takes no room in every other exchange.
                Err(NoPick::Full) => Box::pin(self.wait_for_room(client)).await?,
                Err(no_pick) => return Err(failure.unwrap_or_else(|| unavailable(no_pick))),
            };
            let index = picked.index;
            self.progress.endpoint.set(Some(index));
            tracing::debug!(
                endpoint = %picked.endpoint.state.label,
                policy = self.upstream.config.policy.name(),
                how = ?picked.how,
                in_flight = picked.endpoint.state.in_flight(),
                tried = self.tries.tried.borrow().len(),
                "picked"
            );
            let failed = match self.on_endpoint(&mut picked, client, drafts).await {
                Ok(next) => return Ok(next),
                Err(failed) => failed,
            };
            let index = picked.index;
            self.judge(&picked, &failed);
            drop(picked);
            Box::pin(self.while_client_waits(client, self.try_again(&failed, index))).await?;
            failure = Some(failed.error);
        }
    }

    /// Picks an endpoint; for a retry another one than those that it has been tried on.
    fn pick(&self, is_retry: bool) -> Result<Picked<'a>, NoPick> {
        // Those that wait are first.
        if !is_retry && self.upstream.is_limited() && !self.upstream.shared.queue.is_empty() {
            return Err(NoPick::Full);
        }
        self.pick_now(if is_retry { Instant::now() } else { self.started }, true)
    }

    /// Picks an endpoint, whoever waits.
    pub(super) fn pick_now(&self, now: Instant, may_panic: bool) -> Result<Picked<'a>, NoPick> {
        let picked = self.upstream.pick(&Wanted {
            tried: &self.tries.tried.borrow(),
            key: self.affinity.key,
            session: self.affinity.session,
            is_repeatable: self.may_find_out(),
            may_panic,
            now,
        })?;
        if picked.how == How::Panic {
            self.upstream_stats(|stats| stats.panics.add(1));
        }
        Ok(picked)
    }

    /// Waits in the queue for an endpoint that has room.
    async fn wait_for_room(&self, client: &mut ClientSide<'_, '_>) -> Result<Picked<'a>, Error> {
        let (queue, config) = (&self.upstream.shared.queue, &self.upstream.config.queue);
        // Any will do.
        self.tries.tried.borrow_mut().clear();
        let now = Instant::now();
        let Some(mut ticket) = queue.join(config, now) else {
            self.upstream_stats(|stats| stats.queue_full.add(1));
            let detail = "every endpoint is at its limit, and so is the queue";
            return Err(Error::new(Kind::Overloaded, detail));
        };
        self.upstream_stats(|stats| stats.queued.add(1));
        let due = now + config.timeout;
        // A place that was freed before this one lined up woke nobody.
        self.upstream.wake_waiting(now);
        let ClientSide { source, deadline, .. } = client;
        loop {
            let woken = async {
                tokio::select! {
                    biased;
                    () = ticket.woken() => Ok(()),
                    () = self.departure().wait(source.io) => Err(Error::CLIENT_CLOSED),
                }
            };
            // What has waited and was sent nowhere need not keep to limits that are gone.
            let is_over = || self.progress.attempts.get() == 0 && !self.is_in_force();
            match deadline.due(|| Some(if is_over() { now } else { due }), woken).await {
                Ok(woken) => woken?,
                Err(Elapsed) if is_over() => {
                    self.progress.is_outdated.set(true);
                    return Err(unavailable(NoPick::Full));
                }
                Err(Elapsed) => {
                    self.upstream_stats(|stats| stats.queue_timeouts.add(1));
                    let detail =
                        "every endpoint was at its limit for as long as a request may wait";
                    return Err(Error::new(Kind::Overloaded, detail));
                }
            }
            match self.pick_now(Instant::now(), true) {
                Ok(picked) => {
                    ticket.leave();
                    return Ok(picked);
                }
                Err(NoPick::Full) => ticket.rejoin(),
                Err(no_pick) => return Err(unavailable(no_pick)),
            }
        }
    }

    /// Waits for `step`, as long as the client waits as well.
    ///
    /// # Errors
    /// The errors of `step`, and a client that has gone.
    pub(super) async fn while_client_waits<T>(
        &self,
        client: &ClientSide<'_, '_>,
        step: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            done = step => done,
            () = self.departure().wait(client.source.io) => Err(Error::CLIENT_CLOSED),
        }
    }

    /// Whether the request's upstream is still as it was when the request began.
    fn is_in_force(&self) -> bool {
        let snapshot = self.worker.snapshot();
        snapshot.upstreams.iter().any(|upstream| std::ptr::eq(&raw const **upstream, self.upstream))
    }

    /// Sends the request to the endpoint: on a kept connection, or on a new one if there is none or
    /// it turns out closed. What is `picked` is another afterwards if that answered first.
    async fn on_endpoint(
        &self,
        picked: &mut Picked<'a>,
        client: &mut ClientSide<'_, '_>,
        drafts: &mut Drafts,
    ) -> Result<Next, Failed> {
        let mut line = match self.kept(picked.endpoint, picked.since) {
            Some(line) => line,
            None => self.dial(picked, client).await?,
        };
        self.tries.renewals.set(0);
        loop {
            let idle_for = line.idle_for;
            let stale = match self.attempt(picked, line, client, drafts).await {
                Err(failed) if failed.again == Again::Anew => failed,
                result => return result,
            };
            let reason = match stale.error.kind {
                Kind::ResponseMalformed => RetryReason::Malformed,
                _ => RetryReason::StaleConnection,
            };
            let failed = Failed { again: Again::Sent(reason), ..stale };
            // A connection that was in use a moment ago has not gone stale: the endpoint has failed.
            let is_stale =
                failed.error.kind != Kind::ConnectionTerminated || idle_for >= SOONEST_STALE;
            if !is_stale && self.judge(picked, &failed) {
                return Err(failed);
            }
            self.tries.renewals.set(self.tries.renewals.get() + 1);
            self.count_retry(reason);
            line = self.dial(picked, client).await?;
        }
    }

    /// Lets a failed try count against its endpoint, where it is the endpoint's fault. Returns
    /// whether the endpoint is left alone from now on because of this.
    pub(super) fn judge(&self, picked: &Picked<'_>, failed: &Failed) -> bool {
        let is_lost = match failed.error.kind {
            kind if kind.is_unreachable() => picked.unreachable(Instant::now(), kind),
            kind if kind.fault() != Blame::Endpoint || !failed.is_to_blame => false,
            // It is known to be down already.
            _ if self.tries.given_up.get() == Some(RetryReason::EndpointDown) => false,
            kind => {
                let now = Instant::now();
                let took = now.saturating_duration_since(picked.since);
                self.upstream.observe_failure(picked.endpoint, self.worker.index, now, took);
                picked.failed(now, kind.name())
            }
        };
        if is_lost {
            self.worker.shared.endpoint_lost();
        }
        is_lost
    }

    /// Sends the request on `line` and passes its response on, both at once: an endpoint may answer
    /// before it has read everything.
    async fn attempt(
        &self,
        picked: &mut Picked<'a>,
        mut line: Line,
        client: &mut ClientSide<'_, '_>,
        drafts: &mut Drafts,
    ) -> Result<Next, Failed> {
        let progress = self.progress;
        self.begin_try(&line, client);
        let Drafts { to_endpoint: request, to_client, fields } = drafts;
        self.render(picked.endpoint, request);
        if let Some(delay) = self.hedge_after() {
            Box::pin(self.race(picked, &mut line, request, delay, client.source.io)).await?;
        }
        let written = Cell::new(line.asked.is_some());
        // A kept connection gets the request as soon as it is there; a new one took its time.
        let now = || if line.is_kept { picked.since } else { Instant::now() };
        let asked = line.asked.unwrap_or_else(now);
        let Line { mut connection, is_kept, buffer, .. } = line;
        let (mut from_endpoint, mut to_endpoint) = connection.stream.split();
        let received = {
            let ClientSide { source, writer, deadline } = client;
            let mut sending = pin!(self.send(source, &mut to_endpoint, request, &written));
            let mut receiving = pin!(self.receive(
                Passage {
                    picked,
                    from_endpoint: &mut from_endpoint,
                    writer,
                    output: to_client,
                    deadline,
                    asked
                },
                buffer,
                fields
            ));
            let (mut is_sending, mut receives_first) = (true, false);
            let both = std::future::poll_fn(|cx| {
                // A body that never pauses uses up what the runtime lets a task do at once, and the
                // response would wait for its end.
                let was_first = std::mem::take(&mut receives_first);
                if was_first && let Poll::Ready(received) = receiving.as_mut().poll(cx) {
                    return Poll::Ready(received);
                }
                if is_sending && let Poll::Ready(stopped) = sending.as_mut().poll(cx) {
                    is_sending = false;
                    if let Err(error) = stopped {
                        return Poll::Ready(Err(error));
                    }
                }
                receives_first = !was_first && !has_budget_remaining();
                receiving.as_mut().poll(cx)
            });
            both.await
        };
        let received = match received {
            Ok(received) => received,
            Err(error) => {
                if client.source.had_trailers {
                    self.tries.replay.borrow_mut().spoil();
                }
                let failed = self.failed(error, &connection, is_kept, written.get());
                let is_whole = progress.sending.get() == Sending::Whole;
                if let (Some(keep), true) = (self.tries.keep.take(), is_whole) {
                    let mut pool = self.worker.pool.borrow_mut();
                    pool.put(picked.endpoint, connection, Instant::now(), keep);
                }
                return Err(failed);
            }
        };
        let (persistence, keep) = match received {
            Received::Whole { persistence, keep } => (persistence, keep),
            Received::Switched(ahead) => {
                picked.endpoint.state.succeeded();
                (*request, *to_client, *fields) = Default::default();
                self.tunnel(client, (&mut from_endpoint, &mut to_endpoint), ahead).await;
                // Closing with unread input would reset the connection and lose data that the client has not
                // read.
                return Ok(Next::CloseGracefully);
            }
        };
        let ended = Instant::now();
        progress.ended.set(Some(ended));
        let is_whole = progress.sending.get() == Sending::Whole;
        let keep = keep.filter(|_| is_whole && !self.leaves_body_unread(&connection));
        if let Some(keep) = keep {
            let mut pool = self.worker.pool.borrow_mut();
            pool.put(picked.endpoint, connection, ended, keep);
        } else if self.upstream.config.proxy_protocol.is_some() {
            // Whoever ends a connection first keeps its port for a minute, and there is one for each
            // request: what is over for both sides can be reset just as well.
            connection.stream.reset_on_close();
        }
        Ok(match persistence {
            // The client may not know that we will read no more.
            _ if !is_whole => Next::CloseGracefully,
            Persistence::Closes if self.request.is_persistent() => Next::CloseGracefully,
            // It may be on its way for a while, and whatever the client sends meanwhile, a stray
            // line end is enough, would reset it.
            Persistence::Closes if progress.bytes.1.get() > SOON_READ => Next::CloseGracefully,
            Persistence::Closes => Next::Close,
            Persistence::Stays | Persistence::StaysByWord => Next::Idle,
        })
    }

    /// What is known of the exchange as a try begins.
    fn begin_try(&self, line: &Line, client: &ClientSide<'_, '_>) {
        let (progress, source) = (self.progress, &client.source);
        progress.attempts.set(progress.attempts.get() + 1);
        progress.sending.set(Sending::Underway);
        let has_begun = !source.buffer.is_empty() || progress.bytes.0.get() > 0;
        progress
            .awaits_continue
            .set(self.request.expects_continue() && !has_begun && !source.is_over());
        progress.status.set(0);
        progress.bytes.1.set(0);
        self.tries.given_up.set(None);
        self.tries.is_last.set(false);
        self.tries.stays_until.set(None);
        // A request that may not be sent twice is kept until it is known to have been sent at all; by TLS and
        // in HTTP/2 an endpoint can say that it has not looked at it.
        self.tries.replay.borrow_mut().is_on = line.is_kept
            || line.connection.stream.can_be_refused()
            || self.may_repeat_ever()
            || self.may_repeat_calls();
    }

    /// What a try on `connection` that ended with `error` means.
    pub(super) fn failed(
        &self,
        error: Error,
        connection: &Connected,
        is_kept: bool,
        was_written: bool,
    ) -> Failed {
        // What is said of the handshake later than right behind it is no reason to think that nothing
        // was done.
        let error = match error.kind {
            Kind::TlsFailed if is_kept => Error::new(Kind::ConnectionTerminated, error.detail),
            _ => error,
        };
        if error.kind == Kind::ResponseTimeout {
            connection.was_late();
        }
        // A reused connection that ends without a response was most likely closed by the endpoint at the same
        // moment (RFC 9112 9.3.1). A malformed response on one is most likely the rest of an earlier response.
        let is_unanswered_reuse = match error.kind {
            Kind::ConnectionTerminated | Kind::ResponseMalformed => is_kept && connection.is_over(),
            Kind::Unprocessed => connection.is_over(),
            _ => false,
        };
        if is_unanswered_reuse && self.upstream.config.retry.attempts > 1 {
            self.tries.unanswered_reuses.set(self.tries.unanswered_reuses.get() + 1);
        }
        let is_stale = match error.kind {
            Kind::ConnectionTerminated => !was_written || self.may_repeat(true),
            Kind::ResponseMalformed => self.may_repeat(true),
            Kind::Unprocessed => true,
            _ => false,
        };
        // Those that are left may have gone stale with it, but not for ever.
        let may_renew = is_kept && self.tries.renewals.get() < MAX_RENEWALS;
        let again = match may_renew && is_stale && connection.is_over() && self.is_replayable() {
            true => Again::Anew,
            false => self.again(error, was_written),
        };
        Failed { error, again, is_to_blame: connection.is_to_blame() }
    }

    /// Whether some of a large request body still lies with our kernel though the response has ended: the
    /// endpoint may close the connection without reading the rest.
    fn leaves_body_unread(&self, connection: &Connected) -> bool {
        if self.progress.bytes.0.get() < LARGE_BODY {
            return false;
        }
        let queue = connection.stream.with_socket(SendQueue::of).flatten();
        queue.and_then(|queue| queue.length()).is_some_and(|length| length > 0)
    }

    /// Moves bytes both ways after a 101, `ahead` of which came behind it.
    async fn tunnel(
        &self,
        client: &mut ClientSide<'_, '_>,
        endpoint: Connection<'_, '_>,
        ahead: Buffer,
    ) {
        let ClientSide { source, writer, deadline } = client;
        let is_websocket = self.request.upgrade.is_some_and(is_websocket);
        let ends = Ends { client: (&mut *source.io, &mut **writer), endpoint, is_websocket };
        // Usually nothing, and a quiet tunnel should hold no buffer for that.
        let early_answer = ahead.filled().to_vec();
        self.worker.buffers.put(ahead);
        let idle = self.listener.config.timeouts.tunnel;
        let (up, down) =
            tunnel::run(self.worker, ends, (self.early, &early_answer), deadline, idle).await;
        self.progress.bytes.0.set(up);
        self.progress.bytes.1.set(down);
    }
}

/// How often a request is sent on another connection to the same endpoint, since the one before was stale:
/// as often as there are such in HTTP/2.
const MAX_RENEWALS: u32 = 4;

/// The size of a body in bytes from which on some of it may lie unread in our kernel: the smallest window that
/// Linux offers at first. Asking the kernel costs six system calls.
const LARGE_BODY: u64 = 64 * 1024;

/// How long a connection has to have been idle at least for its endpoint to have closed it for that:
/// servers wait for some seconds.
const SOONEST_STALE: Duration = Duration::from_secs(1);

/// The largest response that the client has as good as read once it is written: it is in the
/// first flight of packets.
const SOON_READ: u64 = 8 * 1024;

fn unavailable(no_pick: NoPick) -> Error {
    let detail = match no_pick {
        NoPick::Full => "every endpoint is at its limit",
        NoPick::Unknown => "no endpoint has been checked yet",
        NoPick::None => "no endpoint is healthy",
        NoPick::NoAddress => "no endpoint has an address",
    };
    Error::new(Kind::Unavailable, detail)
}
