//! When a request is tried once more, and on which endpoint.
//!
//! Where nothing was sent, each other endpoint may have it. What was sent is sent again only if it
//! is the same to ask twice as once (RFC 9110 9.2.2), all of its body is still there, nothing of an
//! answer has gone to the client, and the upstream's budget has room for it.

use std::time::Duration;

use tokio::time::Instant;

use super::progress::Forward;
use crate::config::GrpcStatuses;
use crate::error::{Error, Kind};
use crate::http::body::Framing;
use crate::stats::RetryReason;
use crate::upstream::backoff::backoff;

/// The longest that a retry waits for room in the budget: when an endpoint dies, many requests need
/// one at once, and most of them are over in a moment.
const BUDGET_PATIENCE: Duration = Duration::from_secs(1);

/// The first wait, and the longest, before an endpoint is asked again that has just failed: long
/// enough for a process to be replaced.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(500));

/// The wait before the `round`th time (from 0) that everything is asked anew.
fn pause(round: u32) -> Duration {
    backoff(BACKOFF.0, BACKOFF.1, round, fastrand::f64())
}

/// A try that failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub error: Error,
    pub again: Again,
    /// Whether it counts against the endpoint, where it is its fault at all: that of a connection which many
    /// shared has been counted.
    pub is_to_blame: bool,
}

impl Failed {
    /// One that counts.
    pub(super) const fn new(error: Error, again: Again) -> Self {
        Self { error, again, is_to_blame: true }
    }
}

/// Whether a request may be tried once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Nothing was sent, so any other endpoint may have it.
    Elsewhere,
    /// The connection was a kept one that turned out closed; a new one may do.
    Anew,
    /// Something was sent, and may be sent again.
    Sent(RetryReason),
    /// It may not.
    Never,
}

impl Forward<'_> {
    /// Whether the request may be sent once more, as far as itself is concerned. `was_sent` says
    /// whether anything of it was sent in vain.
    pub(super) fn may_repeat(&self, was_sent: bool) -> bool {
        (self.is_repeatable || !was_sent)
            && self.is_replayable()
            && self.attempts_used() < self.upstream.config.retry.attempts
            && self.deadline().is_none_or(|deadline| Instant::now() < deadline)
    }

    /// The number of requests sent, less those that are no attempts. At most `retry.attempts` of these are left
    /// out: a request that crashes every endpoint must not reach all of them.
    fn attempts_used(&self) -> u32 {
        let limit = self.upstream.config.retry.attempts;
        let free = self.tries.unanswered_reuses.get().min(limit);
        self.progress.attempts.get().saturating_sub(free)
    }

    /// Whether all of the request is still there, and nothing of an answer has been passed on.
    pub(super) fn is_replayable(&self) -> bool {
        !self.progress.begun.get() && self.tries.replay.borrow().is_whole
    }

    /// Whether the request may be sent more than once at all.
    pub(super) fn may_repeat_ever(&self) -> bool {
        self.is_repeatable && self.upstream.config.retry.attempts > 1
    }

    /// Whether the next try may be the one that finds out whether an endpoint is well again: it could
    /// be followed by another one, and takes no longer than the endpoint.
    pub(super) fn may_find_out(&self) -> bool {
        self.may_repeat_next() && self.request.framing == Framing::Empty
    }

    /// Whether the next try could be followed by another one.
    pub(super) fn may_repeat_next(&self) -> bool {
        self.is_repeatable
            && self.attempts_used() + 1 < self.upstream.config.retry.attempts
            && self.tries.replay.borrow().is_whole
    }

    /// Whether calls are repeated that their server failed with some status: whoever names it knows
    /// that they may come twice.
    pub(super) fn may_repeat_calls(&self) -> bool {
        let retry = &self.upstream.config.retry;
        self.is_grpc && retry.grpc_on != GrpcStatuses::default() && retry.attempts > 1
    }

    /// Whether a call that has failed can be given up for one on another endpoint, which takes a place
    /// in the budget.
    pub(super) fn can_leave_call(&self) -> bool {
        self.may_repeat(false) && self.has_another() && self.take_budget()
    }

    /// Whether the try that is under way can be given up for one on another endpoint. With
    /// `budget`, only if there is room in it now, which then belongs to this request.
    pub(super) fn can_leave(&self, budget: bool) -> bool {
        self.may_repeat(true) && self.has_another() && (!budget || self.take_budget())
    }

    /// Whether there is an endpoint that has not been tried and can be.
    fn has_another(&self) -> bool {
        let now = Instant::now();
        let tried = self.tries.tried.borrow();
        let current = self.progress.endpoint.get();
        let is_tried = |index| tried.contains(&index) || current == Some(index);
        self.upstream.has_another(is_tried, self.may_find_out(), now)
    }

    /// Until when there must be an answer; not known before the request has been sent.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let asked = self.tries.asked_first.get()?;
        Some(asked + self.response_timeout())
    }

    /// Takes a place in the budget, unless the request has one.
    fn take_budget(&self) -> bool {
        let mut retrying = self.tries.retrying.borrow_mut();
        if retrying.is_none() {
            let share = self.upstream.config.retry.budget;
            *retrying = self.upstream.shared.budget.take(self.upstream.active(), share);
        }
        retrying.is_some()
    }

    /// Waits for a place in the budget.
    async fn await_budget(&self) -> bool {
        let patience = Instant::now() + BUDGET_PATIENCE;
        let due = self.deadline().map_or(patience, |deadline| patience.min(deadline));
        let mut round = 0;
        while !self.take_budget() {
            let wait = pause(round);
            if Instant::now() + wait >= due {
                self.upstream_stats(|stats| stats.retries_over_budget.add(1));
                return false;
            }
            tokio::time::sleep(wait).await;
            round += 1;
        }
        true
    }

    /// Prepares another try after one on the endpoint `index` that `failed`.
    ///
    /// # Errors
    /// What the client is to be told, where there is no other try.
    pub(super) async fn try_again(&self, failed: &Failed, index: usize) -> Result<(), Error> {
        match failed.again {
            Again::Never | Again::Anew => return Err(failed.error),
            Again::Elsewhere => {
                self.tries.tried.borrow_mut().push(index);
                if self.started.elapsed() >= self.response_timeout() {
                    return Err(failed.error);
                }
                let has_other = self.upstream.has_untried(&self.tries.tried.borrow());
                if !has_other && !self.ask_all_anew(false).await {
                    return Err(failed.error);
                }
                self.count_retry(match failed.error.kind {
                    Kind::Unprocessed => RetryReason::RefusedStream,
                    _ => RetryReason::Connect,
                });
            }
            Again::Sent(reason) => {
                if !self.await_budget().await {
                    return Err(failed.error);
                }
                self.tries.tried.borrow_mut().push(index);
                let now = Instant::now();
                let is_tried = |index| self.tries.tried.borrow().contains(&index);
                let has_other = self.upstream.has_another(is_tried, self.may_find_out(), now);
                if !has_other && !self.ask_all_anew(true).await {
                    return Err(failed.error);
                }
                self.count_retry(reason);
            }
        }
        Ok(())
    }

    /// Where every endpoint has been tried, each may be tried again after a while; only for a
    /// request that has been sent, since one that nobody can be reached for fails at once. `was_sent` says
    /// whether the last one has looked at it.
    async fn ask_all_anew(&self, was_sent: bool) -> bool {
        let round = self.tries.rounds.get();
        if self.progress.attempts.get() == 0
            || !self.may_repeat(was_sent)
            || round + 1 >= self.upstream.config.retry.attempts
        {
            return false;
        }
        self.tries.rounds.set(round + 1);
        let wait = pause(round);
        if self.deadline().is_some_and(|deadline| Instant::now() + wait >= deadline) {
            return false;
        }
        tokio::time::sleep(wait).await;
        self.tries.tried.borrow_mut().clear();
        true
    }

    /// Counts one more try.
    pub(super) fn count_retry(&self, reason: RetryReason) {
        self.tries.reasons.set(self.tries.reasons.get().with(reason));
        self.upstream_stats(|stats| stats.count_retry(reason));
    }

    /// What a try that failed with `error` means, `was_sent` if anything was.
    pub(super) fn again(&self, error: Error, was_sent: bool) -> Again {
        if error.kind.is_before_sending() {
            // What was turned away unread has taken some of the body with it.
            return if self.is_replayable() { Again::Elsewhere } else { Again::Never };
        }
        let reason = match (self.tries.given_up.get(), error.kind) {
            (Some(reason), _) => reason,
            (None, Kind::ResponseTimeout) => RetryReason::Timeout,
            (None, Kind::ResponseIncomplete | Kind::StreamReset(_))
                if self.progress.status.get() != 0 =>
            {
                RetryReason::Incomplete
            }
            (
                None,
                Kind::ConnectionTerminated | Kind::ResponseIncomplete | Kind::StreamReset(_),
            ) => RetryReason::Reset,
            // It would most likely say the same again.
            (None, Kind::ResponseMalformed) if self.can_leave(false) => RetryReason::Malformed,
            _ => return Again::Never,
        };
        let was_sent = was_sent && reason != RetryReason::GrpcStatus;
        if self.may_repeat(was_sent) { Again::Sent(reason) } else { Again::Never }
    }
}
