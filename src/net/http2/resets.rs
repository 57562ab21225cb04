//! Streams that an endpoint resets, and what that means for the request.

use std::io;

use h2::Reason;

use crate::error::{Error, Kind};

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
