//! What a request is called, from us on.

use crate::http::head::FieldId;
use crate::http::hex::hex;
use crate::http::request::Request;

/// The id of a request: a trusted proxy's, or one made here.
pub(super) enum RequestId<'a> {
    Given(&'a [u8]),
    Made([u8; 32]),
}

impl<'a> RequestId<'a> {
    pub(super) fn of(request: &Request<'a>, is_trusted: bool) -> Self {
        let mut given = request.head.values(FieldId::XRequestId);
        match given.next() {
            Some(id) if is_trusted && !id.is_empty() => Self::Given(id),
            _ => Self::made(),
        }
    }

    /// 128 random bits in hexadecimal.
    fn made() -> Self {
        Self::Made(hex(fastrand::u128(..).to_ne_bytes()))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Given(id) => id,
            Self::Made(id) => id,
        }
    }
}
