//! What an OCSP response says (RFC 6960 4.2.1), as far as it must be known to staple it. Its signature
//! is for clients to check.

use std::time::SystemTime;

use x509_parser::asn1_rs::{Any, FromDer, Tag};
use x509_parser::time::ASN1Time;

use super::certificate::system_time;

/// A response about one certificate or several.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Response {
    /// It does not answer: `responseStatus`.
    Refused(u8),
    /// What it says.
    About(Vec<Single>),
}

/// What is said about one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Single {
    /// The certificate's serial number, as the bytes of its INTEGER.
    pub serial: Vec<u8>,
    /// Why it is not good, if it is not.
    pub not_good: Option<&'static str>,
    /// Until when that holds: `nextUpdate`.
    pub end: Option<SystemTime>,
}

/// Reads `bytes`; `None` where they are no such response.
pub(super) fn parse(bytes: &[u8]) -> Option<Response> {
    let (rest, response) = Any::from_der(bytes).ok()?;
    let mut response = Parts::of(&response, Tag::Sequence)?;
    let status = response.next(Tag::Enumerated)?.data;
    let &[status] = status else { return None };
    if !rest.is_empty() {
        return None;
    }
    if status != 0 {
        return Some(Response::Refused(status));
    }
    // responseBytes [0] EXPLICIT SEQUENCE { responseType, response OCTET STRING }
    let mut bytes = Parts(response.next(Tag(0))?.data).parts(Tag::Sequence)?;
    bytes.next(Tag::Oid)?;
    let basic = bytes.next(Tag::OctetString)?.data;
    // BasicOCSPResponse ::= SEQUENCE { tbsResponseData SEQUENCE, … }
    let mut data = Parts(basic).parts(Tag::Sequence)?.parts(Tag::Sequence)?;
    // version [0] DEFAULT v1, responderID [1] or [2], producedAt
    while data.any()?.tag() != Tag::GeneralizedTime {}
    let mut responses = data.parts(Tag::Sequence)?;
    let mut about = Vec::new();
    while !responses.0.is_empty() {
        about.push(single(responses.parts(Tag::Sequence)?)?);
    }
    Some(Response::About(about))
}

/// SingleResponse ::= SEQUENCE { certID, certStatus, thisUpdate, nextUpdate [0] OPTIONAL, … }
fn single(mut single: Parts<'_>) -> Option<Single> {
    // CertID ::= SEQUENCE { hashAlgorithm, issuerNameHash, issuerKeyHash, serialNumber }
    let mut id = single.parts(Tag::Sequence)?;
    id.next(Tag::Sequence)?;
    id.next(Tag::OctetString)?;
    id.next(Tag::OctetString)?;
    let serial = id.next(Tag::Integer)?.data.to_vec();
    let not_good = match single.any()?.tag() {
        Tag(0) => None,
        Tag(1) => Some("revoked"),
        _ => Some("unknown"),
    };
    single.next(Tag::GeneralizedTime)?;
    let next = single.any().filter(|next| next.tag() == Tag(0));
    let end = next.and_then(|next| ASN1Time::from_der(next.data).ok());
    Some(Single { serial, not_good, end: end.map(|(_, end)| system_time(end)) })
}

/// Values of DER that follow each other.
struct Parts<'b>(&'b [u8]);

impl<'b> Parts<'b> {
    fn of(any: &Any<'b>, tag: Tag) -> Option<Self> {
        (any.tag() == tag).then_some(Self(any.data))
    }

    /// The next one.
    fn any(&mut self) -> Option<Any<'b>> {
        let (rest, any) = Any::from_der(self.0).ok()?;
        self.0 = rest;
        Some(any)
    }

    /// The next one, if it has `tag`.
    fn next(&mut self, tag: Tag) -> Option<Any<'b>> {
        self.any().filter(|any| any.tag() == tag)
    }

    /// What is in the next one, if it has `tag`.
    fn parts(&mut self, tag: Tag) -> Option<Self> {
        self.next(tag).map(|any| Self(any.data))
    }
}
