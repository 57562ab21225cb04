//! How long a connection lives: what is next to be done about it, and when.

use std::time::Duration;

use tokio::time::Instant;

/// How long a client with open streams may be silent before it is asked whether it is still there.
const PING_AFTER: Duration = Duration::from_secs(30);

/// How long it may take to answer.
const PING_PATIENCE: Duration = Duration::from_secs(10);

/// How long a client may take to read why its connection ends, and how long what it sent before it read
/// that may be under way.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);

/// What is known of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    /// Streams that are open.
    pub open: usize,
    /// When the last one ended, or the connection began.
    pub idle_since: Instant,
    /// When something last came.
    pub last_read: Instant,
    /// When the client was last asked whether it is there.
    pub asked: Option<Instant>,
    /// When it was told that no new streams are welcome.
    pub told: Option<Instant>,
    /// Since when the worker is draining.
    pub draining: Option<Instant>,
    /// How long the connection may be without streams.
    pub idle: Duration,
    /// Since when the client takes nothing of what is to be written, if something is.
    pub blocked: Option<Instant>,
    /// How long it may do so.
    pub body: Duration,
}

/// What is to be done if nothing happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The client is told that no new streams are welcome (RFC 9113 6.8).
    Tell,
    /// It is asked whether it is still there.
    Ask,
    /// The connection ends, with whatever is open on it.
    End,
}

impl Life {
    /// What is next, and when.
    pub(super) fn next(&self) -> (Instant, Step) {
        let is_idle = self.open == 0;
        match (self.told, self.draining) {
            // Streams may be on their way that began before the client knew.
            (Some(told), _) if is_idle => match self.blocked {
                // What has ended may still wait to be written.
                Some(since) => (since + self.body, Step::End),
                None => (told.max(self.idle_since) + GOODBYE, Step::End),
            },
            (None, Some(since)) => (since, Step::Tell),
            (None, None) if is_idle => (self.idle_since + self.idle, Step::Tell),
            _ => match self.asked.filter(|asked| self.last_read < *asked) {
                // The question waits behind what is to be written; that some of it was is a sign of life.
                Some(asked) => {
                    let since = self.blocked.map_or(asked, |blocked| blocked.max(asked));
                    (since + PING_PATIENCE, Step::End)
                }
                None => (self.last_read + PING_AFTER, Step::Ask),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(75);
    const BODY: Duration = Duration::from_secs(60);

    /// A connection, seconds after it began.
    struct Case {
        life: Life,
        start: Instant,
    }

    impl Case {
        fn new() -> Self {
            let start = Instant::now();
            let life = Life {
                open: 0,
                idle_since: start,
                last_read: start,
                asked: None,
                told: None,
                draining: None,
                idle: IDLE,
                blocked: None,
                body: BODY,
            };
            Self { life, start }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        #[track_caller]
        fn assert_next(&self, seconds: u64, step: Step) {
            assert_eq!(self.life.next(), (self.at(seconds), step));
        }
    }

    #[test]
    fn a_client_that_asks_for_nothing_is_told_and_given_up() {
        let mut case = Case::new();
        case.assert_next(75, Step::Tell);
        // What it sends without opening a stream keeps nothing open.
        case.life.last_read = case.at(60);
        case.assert_next(75, Step::Tell);
        case.life.idle_since = case.at(20);
        case.assert_next(95, Step::Tell);
        case.life.told = Some(case.at(95));
        case.assert_next(96, Step::End);
    }

    #[test]
    fn a_silent_client_is_asked_and_given_up() {
        let mut case = Case::new();
        case.life.open = 1;
        case.assert_next(30, Step::Ask);
        case.life.last_read = case.at(29);
        case.assert_next(59, Step::Ask);
        case.life.asked = Some(case.at(59));
        case.assert_next(69, Step::End);
        // Whatever comes is an answer.
        case.life.last_read = case.at(68);
        case.assert_next(98, Step::Ask);
        case.life.asked = Some(case.at(98));
        case.assert_next(108, Step::End);
        // Where the last stream ends meanwhile, there is nothing to be asked.
        case.life.open = 0;
        case.life.idle_since = case.at(100);
        case.assert_next(175, Step::Tell);
    }

    #[test]
    fn a_drain_is_told_at_once_and_waits_for_streams() {
        let mut case = Case::new();
        case.life.open = 2;
        case.life.draining = Some(case.at(10));
        case.assert_next(10, Step::Tell);
        case.life.told = Some(case.at(10));
        case.assert_next(30, Step::Ask);
        case.life.asked = Some(case.at(30));
        case.assert_next(40, Step::End);
        case.life.last_read = case.at(31);
        case.life.open = 0;
        case.life.idle_since = case.at(50);
        case.assert_next(51, Step::End);
    }

    #[test]
    fn a_client_that_reads_slowly_is_waited_for() {
        let mut case = Case::new();
        case.life.open = 1;
        case.life.asked = Some(case.at(30));
        case.assert_next(40, Step::End);
        case.life.blocked = Some(case.at(35));
        case.assert_next(45, Step::End);
        case.life.open = 0;
        case.life.told = Some(case.at(36));
        case.assert_next(95, Step::End);
        case.life.blocked = Some(case.at(80));
        case.assert_next(140, Step::End);
        case.life.blocked = None;
        case.assert_next(37, Step::End);
    }

    #[test]
    fn a_stream_that_began_before_the_client_knew_is_served() {
        let mut case = Case::new();
        case.life.told = Some(case.at(75));
        case.life.open = 1;
        case.life.last_read = case.at(75);
        case.assert_next(105, Step::Ask);
        case.life.open = 0;
        case.life.idle_since = case.at(80);
        case.assert_next(81, Step::End);
    }
}
