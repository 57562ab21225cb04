//! Where a request belongs: the key that `consistent-hash` goes by, and the endpoint of its session.

use std::net::IpAddr;

use super::progress::Forward;
use crate::http::request::Request;
use crate::upstream::Upstream;

/// Where a request belongs, if anywhere.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Affinity {
    /// What `consistent-hash` goes by.
    pub key: Option<u64>,
    /// The endpoint of its session, by index.
    pub session: Option<usize>,
}

impl Affinity {
    /// Of `request`, which came from `client`.
    pub(super) fn of(_upstream: &Upstream, _request: &Request<'_>, _client: IpAddr) -> Self {
        Self::default()
    }

    /// The cookie that tells a client where its session is, if it has to be told: the request went
    /// to the endpoint `index`.
    pub(super) fn cookie(&self, _forward: &Forward<'_>, _index: usize) -> Option<Vec<u8>> {
        None
    }
}
