//! What has been tried for one request, and what is kept of it for another try.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::time::Instant;

use crate::stats::{RetryReason, RetryReasons};
use crate::upstream::budget::Retrying;
use crate::upstream::pool::Keep;

/// What has been tried for one request.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// The endpoints that it has been tried on, by index, since all were last asked anew.
    pub tried: RefCell<Vec<usize>>,
    /// How often all were asked anew.
    pub rounds: Cell<u32>,
    /// How often the try that is under way was begun anew, since its connection was stale.
    pub renewals: Cell<u32>,
    /// Requests sent on a reused connection that ended without a response. Sending such a request again is no
    /// further attempt (RFC 9112 9.3.1).
    pub unanswered_reuses: Cell<u32>,
    /// Why there was more than one try.
    pub reasons: Cell<RetryReasons>,
    /// The start of the body.
    pub replay: RefCell<Replay>,
    /// The place in the budget.
    pub retrying: RefCell<Option<Retrying>>,
    /// When the first whole request had been sent; the time for an answer counts from there.
    pub asked_first: Cell<Option<Instant>>,
    /// Why the try that is under way was given up, if it was.
    pub given_up: Cell<Option<RetryReason>>,
    /// Whether the try that is under way is the last, so that it is waited for.
    pub is_last: Cell<bool>,
    /// Until when the try that is under way is waited for, since it could not be given up.
    pub stays_until: Cell<Option<Instant>>,
    /// How the connection of a try that was given up may be kept.
    pub keep: Cell<Option<Keep>>,
}

impl Tries {
    /// There will be no further try: gives the place in the budget back.
    pub(super) fn settle(&self) {
        if self.retrying.borrow().is_some() {
            self.retrying.replace(None);
        }
    }
}

/// The start of a request's body, kept to be sent again.
#[derive(Debug)]
pub(super) struct Replay {
    /// Whether what is read now is kept.
    pub is_on: bool,
    /// Whether everything that was read has been kept.
    pub is_whole: bool,
    /// What was kept; shared with whoever is sending it again.
    pub kept: Option<Rc<Vec<u8>>>,
}

impl Default for Replay {
    fn default() -> Self {
        Self { is_on: false, is_whole: true, kept: None }
    }
}

impl Replay {
    /// Keeps `payload`, unless that would be more than `limit` in all.
    pub(super) fn keep(&mut self, payload: &[u8], limit: usize) {
        if !self.is_whole || payload.is_empty() {
            return;
        }
        let length = self.kept.as_ref().map_or(0, |kept| kept.len());
        if self.is_on && length + payload.len() <= limit {
            Rc::make_mut(self.kept.get_or_insert_default()).extend_from_slice(payload);
        } else {
            self.spoil();
        }
    }

    /// Something was read that is not kept.
    pub(super) fn spoil(&mut self) {
        self.is_whole = false;
        self.kept = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_kept_whole_or_not_at_all() {
        let mut replay = Replay { is_on: true, ..Replay::default() };
        replay.keep(b"1234", 8);
        replay.keep(b"5678", 8);
        let kept = |replay: &Replay| replay.kept.as_ref().map(|kept| kept.to_vec());
        assert_eq!((replay.is_whole, kept(&replay)), (true, Some(b"12345678".to_vec())));
        replay.keep(b"", 8);
        assert!(replay.is_whole);
        replay.keep(b"9", 8);
        assert!(!replay.is_whole && replay.kept.is_none());
        replay.keep(b"0", 8);
        assert!(replay.kept.is_none(), "what is behind a gap is worth nothing");
        let mut off = Replay::default();
        off.keep(b"1", 8);
        off.is_on = true;
        off.keep(b"2", 8);
        assert!(!off.is_whole && off.kept.is_none());
    }
}
