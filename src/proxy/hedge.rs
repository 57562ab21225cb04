//! Two endpoints for one request: where the first has not answered after the usual time, a second
//! is asked as well, and whoever answers first is listened to (Dean and Barroso, The Tail at Scale,
//! 2013).

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::connect::Line;
use super::progress::Forward;
use super::retry::{Again, Failed};
use crate::config::Hedge;
use crate::error::{Error, Kind};
use crate::http::body::Framing;
use crate::net::stream::{ReadHalf, Stream, read_fault};
use crate::stats::RetryReason;
use crate::upstream::Picked;

/// The soonest that a second endpoint is asked: where answers take less, it would be no faster.
const SOONEST: Duration = Duration::from_millis(1);

const CLOSED: Error =
    Error::new(Kind::ConnectionTerminated, "the endpoint closed the connection without a response");
const LATE: Error = Error::new(Kind::ResponseTimeout, "the response did not begin in time");

impl<'a> Forward<'a> {
    /// After what time a second endpoint is asked, if at all: only for the first try of a request
    /// that may be sent twice, and has no body that would have to be there twice.
    pub(super) fn hedge_after(&self) -> Option<Duration> {
        let hedge = self.route.hedge?;
        let is_first = self.progress.attempts.get() == 1;
        if !is_first || !self.may_repeat(true) || self.request.framing != Framing::Empty {
            return None;
        }
        // Two endpoints can't both switch the connection to another protocol.
        if self.request.upgrade.is_some() || self.request.expects_continue() {
            return None;
        }
        self.upstream.shared.hedging.earn();
        let after = match hedge {
            Hedge::After(after) => Some(after),
            Hedge::P95 => self.upstream.shared.p95(),
        };
        after.map(|after| after.max(SOONEST))
    }

    /// Sends `head` on `line`, and, if nothing has come back after `delay`, to another endpoint too.
    /// The one that answers first is `picked` afterwards, on `line`; the other is given up. Where
    /// there is nobody else to ask, the answer is still to come.
    ///
    /// # Errors
    /// Neither answered in time, or `client` has gone.
    pub(super) async fn race(
        &self,
        picked: &mut Picked<'a>,
        line: &mut Line,
        head: &mut Vec<u8>,
        delay: Duration,
        client: &ReadHalf<'_>,
    ) -> Result<(), Failed> {
        tokio::select! {
            biased;
            raced = self.race_on(picked, line, head, delay) => raced,
            () = self.departure().wait(client) => {
                Err(Failed::new(Error::CLIENT_CLOSED, Again::Never))
            }
        }
    }

    async fn race_on(
        &self,
        picked: &mut Picked<'a>,
        line: &mut Line,
        head: &mut Vec<u8>,
        delay: Duration,
    ) -> Result<(), Failed> {
        let asked = if line.is_kept { picked.since } else { Instant::now() };
        let end = asked + self.response_timeout();
        self.tries.asked_first.set(Some(asked));
        if let Err(error) = self.ask(line, head, asked).await {
            return Err(self.failed(error, &line.connection, line.is_kept, true));
        }
        tokio::select! {
            biased;
            first = answer(line) => {
                head.clear();
                return first.map_err(|error| self.failed(error, &line.connection, line.is_kept, true));
            }
            () = sleep_until(end.min(asked + delay)) => {}
            () = lost(|| picked.is_lost()) => {}
        }
        let second = self.second(picked, line, delay);
        let second = match timeout_at(end, second).await {
            Ok(second) => {
                second.map_err(|error| self.failed(error, &line.connection, line.is_kept, true))?
            }
            Err(_) => return Err(Failed::new(LATE, Again::Never)),
        };
        head.clear();
        match second {
            Some((other, other_line)) => {
                self.first_of((picked, line), (other, other_line), end).await
            }
            None => Ok(()),
        }
    }

    /// Waits until one of two endpoints answers, or fails, so that the other is left to be waited
    /// for; until `end` at most, or as long as a try may take if there is a third to ask.
    async fn first_of(
        &self,
        (picked, line): (&mut Picked<'a>, &mut Line),
        (mut other, mut other_line): (Picked<'a>, Line),
        end: Instant,
    ) -> Result<(), Failed> {
        let due = self.upstream.config.retry.timeout.map(|limit| Instant::now() + limit);
        let early = {
            let mut first = pin!(async {
                tokio::select! {
                    biased;
                    first = answer(line) => (true, first),
                    second = answer(&mut other_line) => (false, second),
                }
            });
            let early = tokio::select! {
                biased;
                first = &mut first => Some(first),
                () = sleep_until(due.unwrap_or(end).min(end)) => None,
                () = lost(|| picked.is_lost() && other.is_lost()) => {
                    self.tries.given_up.set(Some(RetryReason::EndpointDown));
                    None
                }
            };
            match early {
                Some(first) => Some(first),
                None if self.can_leave_both(other.index) => None,
                None => {
                    self.tries.given_up.set(None);
                    timeout_at(end, first).await.ok()
                }
            }
        };
        let Some((is_first, answer)) = early else {
            // Whoever made this try judges the other one.
            self.judge(&other, &Failed::new(LATE, Again::Never));
            self.tries.tried.borrow_mut().push(other.index);
            return Err(self.failed(LATE, &line.connection, false, true));
        };
        if is_first != answer.is_ok() {
            std::mem::swap(picked, &mut other);
            std::mem::swap(line, &mut other_line);
            self.progress.endpoint.set(Some(picked.index));
            self.upstream_stats(|stats| stats.hedges_won.add(1));
            self.upstream.shared.hedging.won();
        }
        match answer {
            // The second had less time, which says nothing of it.
            Ok(()) if is_first => {}
            Ok(()) => {
                let now = Instant::now();
                let took = now.saturating_duration_since(other_line.asked.unwrap_or(now));
                let worker = self.worker.index;
                self.upstream.observe_unanswered(other.endpoint, worker, now, took);
            }
            Err(error) => {
                // A connection that was kept had most likely been closed at the same moment.
                if !other_line.is_kept {
                    self.judge(&other, &Failed::new(error, Again::Never));
                }
                self.tries.tried.borrow_mut().push(other.index);
            }
        }
        Ok(())
    }

    /// Whether both tries that are under way, the second of them on the endpoint `other`, can be
    /// given up for one on a third.
    fn can_leave_both(&self, other: usize) -> bool {
        self.tries.tried.borrow_mut().push(other);
        let can_leave = self.can_leave(true);
        self.tries.tried.borrow_mut().retain(|index| *index != other);
        can_leave
    }

    /// Asks a second endpoint, while the first may still answer; `None` where the first has done so
    /// before the second was asked, or there is nobody to ask.
    async fn second(
        &self,
        first: &Picked<'a>,
        first_line: &mut Line,
        delay: Duration,
    ) -> Result<Option<(Picked<'a>, Line)>, Error> {
        let hedging = &self.upstream.shared.hedging;
        if !hedging.may_ask() || !self.can_leave(true) {
            return Ok(None);
        }
        self.tries.tried.borrow_mut().push(first.index);
        let picked = self.pick_now(Instant::now(), false).ok();
        self.tries.tried.borrow_mut().retain(|index| *index != first.index);
        let Some(picked) = picked else { return Ok(None) };
        let asking = async {
            let mut line = match self.kept(picked.endpoint, picked.since) {
                Some(line) => line,
                None => self.connect(picked.endpoint).await?,
            };
            let mut head = Vec::new();
            self.render(picked.endpoint, &mut head);
            self.ask(&mut line, &head, Instant::now()).await?;
            Ok::<_, Error>(line)
        };
        tokio::select! {
            biased;
            first = answer(first_line) => first.map(|()| None),
            line = asking => match line {
                Ok(line) => {
                    self.progress.attempts.set(self.progress.attempts.get() + 1);
                    self.count_retry(RetryReason::Hedge);
                    hedging.asked();
                    tracing::debug!(endpoint = %picked.endpoint.state.label, ?delay, "asked as well");
                    Ok(Some((picked, line)))
                }
                Err(error) => {
                    self.judge(&picked, &Failed::new(error, Again::Never));
                    Ok(None)
                }
            },
        }
    }

    /// Sends `head` on `line`.
    async fn ask(&self, line: &mut Line, head: &[u8], asked: Instant) -> Result<(), Error> {
        let stream = &mut line.connection.stream;
        let writing = async {
            if let Stream::Http2(stream) = stream {
                return stream.send_head(head, true).await.map(|_| ());
            }
            stream.write_all(head).await?;
            stream.flush().await
        };
        match timeout(self.upstream.config.timeouts.body, writing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(read_fault(&error).unwrap_or(CLOSED)),
            Err(_) => {
                return Err(Error::new(Kind::ResponseTimeout, "the endpoint stopped reading"));
            }
        }
        line.asked = Some(asked);
        line.buffer = self.worker.buffers.small();
        Ok(())
    }
}

/// Waits until `is_lost`. Whoever loses an endpoint wakes all that wait.
async fn lost(is_lost: impl Fn() -> bool) {
    poll_fn(|_| if is_lost() { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Waits until the endpoint at the other end of `line` begins to answer.
async fn answer(line: &mut Line) -> Result<(), Error> {
    let Line { connection, buffer, .. } = line;
    match connection.stream.read(buffer.spare()).await {
        Ok(n) if n > 0 => {
            buffer.fill(n);
            Ok(())
        }
        Ok(_) => Err(CLOSED),
        Err(error) => Err(read_fault(&error).unwrap_or(CLOSED)),
    }
}
