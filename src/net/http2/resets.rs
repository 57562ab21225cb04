//! Streams that an endpoint resets: what that means for the request, and for the connection.

use std::cell::Cell;
use std::io;

use h2::Reason;

use crate::error::{Error, Kind};

/// Streams in a row that an endpoint may reset without a head before its connection takes no new
/// ones. Three in a row are no coincidence.
const MAX_IN_A_ROW: u32 = 3;

/// What an endpoint has done with the streams of one connection.
#[derive(Debug, Default)]
pub struct Resets {
    /// Streams that it has reset without a head since the last head.
    in_a_row: Cell<u32>,
    /// Whether it has said that there are too many (ENHANCE_YOUR_CALM).
    is_told_to_calm: Cell<bool>,
}

impl Resets {
    /// Whether the endpoint is likely to reset the next stream on this connection too.
    pub fn are_likely(&self) -> bool {
        self.is_told_to_calm.get() || self.in_a_row.get() >= MAX_IN_A_ROW
    }

    /// Whether the endpoint has reset the last stream without a head.
    pub fn was_last(&self) -> bool {
        self.in_a_row.get() > 0
    }

    /// Notes how a stream has begun: with a head, or with an error instead.
    pub(super) fn note_head(&self, error: Option<&h2::Error>) {
        match error.map(reason) {
            None => self.in_a_row.set(0),
            Some(Some(reason)) => {
                self.in_a_row.set(self.in_a_row.get().saturating_add(1));
                self.note(reason);
            }
            // Not the endpoint's doing, or not that stream's alone.
            Some(None) => {}
        }
    }

    /// Notes that a stream has failed behind its head.
    pub(super) fn note_body(&self, error: &h2::Error) {
        reason(error).into_iter().for_each(|reason| self.note(reason));
    }

    fn note(&self, reason: Reason) {
        if reason == Reason::ENHANCE_YOUR_CALM {
            self.is_told_to_calm.set(true);
        }
    }
}

/// The error code by which the peer has reset a stream, if that is what has happened.
fn reason(error: &h2::Error) -> Option<Reason> {
    error.reason().filter(|_| error.is_remote() && error.is_reset())
}

/// Returns the error code by which the peer has reset a stream, if `error` comes from that.
pub fn reset_by_peer(error: &io::Error) -> Option<u32> {
    error.get_ref()?.downcast_ref::<h2::Error>().and_then(reason).map(u32::from)
}

/// What it means that no answer could be read from a stream to an endpoint; `None` where all that is known
/// is that the connection has ended.
pub fn read_fault(error: &io::Error) -> Option<Error> {
    if error.kind() == io::ErrorKind::NotConnected {
        return Some(UNPROCESSED);
    }
    let cause = error.get_ref()?;
    if let Some(fault) = cause.downcast_ref::<Error>() {
        return Some(*fault);
    }
    let cause = cause.downcast_ref::<h2::Error>()?;
    match (cause.is_remote(), cause.is_reset(), cause.reason()) {
        // It has not looked at it, and says so (RFC 9113 8.7).
        (true, true, Some(Reason::REFUSED_STREAM)) => Some(UNPROCESSED),
        (true, false, Some(_)) if cause.is_go_away() => Some(UNPROCESSED),
        (true, true, Some(reason)) => Some(Error::stream_reset(reason.into())),
        (false, true, _) => Some(Error::bad_response("malformed HTTP/2")),
        (false, false, Some(_)) if cause.is_go_away() => Some(UNLAWFUL),
        _ => None,
    }
}

const UNPROCESSED: Error =
    Error::new(Kind::Unprocessed, "the endpoint turned the request away unread");
const UNLAWFUL: Error =
    Error::new(Kind::ConnectionTerminated, "the endpoint broke the rules of HTTP/2");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_resets_say_nothing_of_the_endpoint() {
        let resets = Resets::default();
        for _ in 0..10 {
            // Without a frame of the peer's it is the library's own.
            resets.note_head(Some(&Reason::ENHANCE_YOUR_CALM.into()));
        }
        assert!(!resets.are_likely());
        resets.in_a_row.set(MAX_IN_A_ROW);
        assert!(resets.are_likely());
        resets.note_head(None);
        assert!(!resets.are_likely());
    }
}
