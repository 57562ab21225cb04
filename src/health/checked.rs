//! What is known of one endpoint from its checks, and what a result changes in that.

use std::time::Duration;

use tokio::time::Instant;

use super::check::{Failure, Verdict};
use super::streak::Streak;

/// An endpoint came up or went down, or it is known for the first time which it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The endpoint's number.
    pub id: u64,
    /// Whether it is up now.
    pub is_up: bool,
    /// Whether nothing was known of it before.
    pub is_first: bool,
    /// What the check that decided it found, in a few words.
    pub why: String,
    /// How long that check took.
    pub took: Duration,
}

/// What is known of one endpoint.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// Whether it is up; `None` before the first result.
    pub is_up: Option<bool>,
    /// When it came up or went down; `None` before the first result.
    pub since: Option<Instant>,
    /// The last check; `None` before the first one, and while there is no address to be checked.
    pub last: Option<Last>,
    /// Checks that passed.
    pub passed: u64,
    /// Checks that failed.
    pub failed: u64,
    /// Checks that could not be made, for want of something that this process needs. They decide
    /// nothing.
    pub not_made: u64,
    streak: Streak,
}

/// One check that was made.
#[derive(Debug, Clone)]
pub struct Last {
    /// When it was over.
    pub at: Instant,
    /// How long it took, without the wait for its turn.
    pub took: Duration,
    /// What came of it.
    pub verdict: Verdict,
}

impl Checked {
    /// One more check was made.
    pub(super) fn note(&mut self, id: u64, last: Last, rise: u32, fall: u32) -> Option<Change> {
        let why = match &last.verdict {
            Ok(()) => "the check passed".to_owned(),
            Err(why) => why.to_string(),
        };
        let (at, took) = (last.at, last.took);
        let verdict = match &last.verdict {
            Ok(()) => Some(true),
            Err(Failure::Unwell(_)) => Some(false),
            Err(Failure::NotMade(_)) => None,
        };
        self.last = Some(last);
        let count = match verdict {
            Some(true) => &mut self.passed,
            Some(false) => &mut self.failed,
            None => &mut self.not_made,
        };
        *count += 1;
        let is_up = self.streak.count(verdict?, rise, fall);
        self.is(is_up, at).map(|is_first| Change { id, is_up, is_first, why, took })
    }

    /// Its name resolves to nothing: it is down, and the first check of an address that it gets
    /// decides alone.
    pub(super) fn has_no_address(&mut self, id: u64) -> Option<Change> {
        self.streak = Streak::default();
        self.last = None;
        let is_first = self.is(false, Instant::now())?;
        let why = "the name has no address".to_owned();
        Some(Change { id, is_up: false, is_first, why, took: Duration::ZERO })
    }

    /// Notes whether it is up; where that is news, says whether it is the first.
    fn is(&mut self, is_up: bool, at: Instant) -> Option<bool> {
        let before = self.is_up.replace(is_up);
        (before != Some(is_up)).then(|| {
            self.since = Some(at);
            before.is_none()
        })
    }
}
