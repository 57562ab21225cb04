//! HTTP/2 heads to the text of HTTP/1.1 and back (RFC 9113 8, RFC 8441).
//!
//! What comes by HTTP/2 is written as an HTTP/1.1 head, which then goes through the same strict
//! parser as any other, so that there is one way to understand a message and one way to forward
//! it. What is rendered for the other side is text again, and becomes a map of fields here.
//!
//! | from | to | |
//! | --- | --- | --- |
//! | a client's request | text | [`request_head`], then [`parse_request`] |
//! | text for an endpoint | its request | [`endpoint_request`] |
//! | an endpoint's response | text | [`response_text`], then [`parse_response`] |
//! | text for a client | its response | [`response_head`] |
//! | trailers, either way | text, fields | [`trailers_text`], [`trailers_map`] |
//!
//! The library underneath has refused much before: names that are not in lower case, pseudo-fields
//! that are unknown, repeated or out of place, fields that belong to a connection. It lets pass what
//! `tests/` shows, and some of what it refuses is refused here again, so that what may reach an
//! endpoint does not hang on its version. Against floods of frames there is the [`meter`].

mod fields;
pub mod meter;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub use fields::{trailers_map, trailers_text};
pub use request::{Switch, endpoint_request, parse_request, request_head};
pub use response::{parse_response, response_head, response_text};

use crate::error::Error;

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is malformed in the sense of RFC 9113 8.1.1, and its stream ends with `PROTOCOL_ERROR`.
    /// Says what is wrong with it, for the log.
    Malformed(&'static str),
    /// It is well-formed, but gets no more than an answer.
    Answer(Error),
}

impl Refusal {
    /// The error that the log shows, and that an answer to a malformed request would.
    pub const fn error(self) -> Error {
        match self {
            Self::Malformed(detail) => Error::bad_request(detail),
            Self::Answer(error) => error,
        }
    }
}
