//! How long an answer is waited for, and when another endpoint is asked instead.

use std::time::Duration;

use tokio::time::Instant;

use super::progress::{Forward, Sending};
use crate::error::{Error, Kind};
use crate::stats::RetryReason;

/// How soon is looked again whether a try that ought to be given up can be.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Until when a response is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// Then it is too late.
    pub end: Instant,
    /// From then on another endpoint is asked instead, if one can be.
    pub leave: Option<Instant>,
}

impl Forward<'_> {
    /// How long a response is waited for: for as long as whoever calls by gRPC does, if that is longer. One
    /// that has less time ends its call itself, which says nothing of the endpoint.
    pub(super) fn response_timeout(&self) -> Duration {
        let response = self.upstream.config.timeouts.response;
        self.call_timeout.map_or(response, |call| call.max(response))
    }

    /// Until when the response is waited for, to a request that was sent at `since`.
    pub(super) fn times(&self, since: Instant) -> Times {
        let response = self.response_timeout();
        if self.progress.sending.get() == Sending::Underway {
            // It is only a 100 that is owed, which says nothing of when the response is; nor is
            // one that sends none at fault, and the client will go on without it.
            return Times { end: since + response, leave: None };
        }
        let first = self.tries.asked_first.get().unwrap_or(since);
        self.tries.asked_first.set(Some(first));
        let leave = self.upstream.config.retry.timeout.map(|timeout| since + timeout);
        Times { end: first + response, leave }
    }

    /// When something is to be done about a response that does not come; at once for one of an
    /// endpoint that is `lost`.
    pub(super) fn due(&self, times: Times, lost: Option<Instant>) -> Instant {
        let leave = lost.or(times.leave).filter(|_| !self.tries.is_last.get());
        let leave = leave.map(|at| self.tries.stays_until.get().map_or(at, |until| at.max(until)));
        leave.map_or(times.end, |at| at.min(times.end))
    }

    /// What is owed is late, or will not come: gives the try up, or waits on where there is no
    /// other and still time.
    ///
    /// # Errors
    /// The try is given up.
    pub(super) fn give_up(&self, is_over: bool, is_lost: bool) -> Result<(), Error> {
        if is_over {
            return Err(Error::new(Kind::ResponseTimeout, "the response did not begin in time"));
        }
        // Who waits for an endpoint that is gone loses nothing by waiting for room in the budget.
        if self.can_leave(!is_lost) {
            let (reason, detail) = match is_lost {
                true => (RetryReason::EndpointDown, "the endpoint went down before it answered"),
                false => (RetryReason::Timeout, "the response did not begin in time"),
            };
            self.tries.given_up.set(Some(reason));
            return Err(Error::new(Kind::ResponseTimeout, detail));
        }
        // An endpoint may come back, and so may room in the budget.
        self.tries.is_last.set(!self.may_repeat(true));
        self.tries.stays_until.set(Some(Instant::now() + LOOK_AGAIN));
        Ok(())
    }
}
