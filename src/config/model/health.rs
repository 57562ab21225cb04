//! How endpoints are asked whether they are well.

use std::ops::RangeInclusive;
use std::time::Duration;

/// How an endpoint is asked whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is asked.
    pub check: Check,
    /// From one check to the next.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Checks in a row that pass until an endpoint that was down is up.
    pub rise: u32,
    /// Checks in a row that fail until it is down.
    pub fall: u32,
    /// The port that is asked; the endpoint's own where `None`.
    pub port: Option<u16>,
}

impl Health {
    /// This check with the defaults of everything else.
    pub const fn new(check: Check) -> Self {
        Self {
            check,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            port: None,
        }
    }
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Whether a connection can be made.
    Tcp,
    /// Whether a request is answered as it should be.
    Http(HttpCheck),
    /// Whether `grpc.health.v1.Health/Check` says that this service is serving; the server as a whole
    /// where it is empty.
    Grpc(String),
}

/// A request, and the answer that it should get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// The method.
    pub method: String,
    /// The path, with its query.
    pub path: String,
    /// The Host field; the endpoint's own authority where `None`.
    pub host: Option<String>,
    /// Further fields.
    pub headers: Vec<(String, String)>,
    /// Statuses that are well.
    pub status: Statuses,
    /// What the body must have in it; anything where `None`.
    pub body: Option<BodyMatch>,
}

impl Default for HttpCheck {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            host: None,
            headers: Vec::new(),
            status: Statuses(vec![200..=399]),
            body: None,
        }
    }
}

/// What a body must have in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyMatch {
    /// This text.
    Contains(String),
    /// A match of this regular expression, which is valid.
    Matches(String),
}

/// A set of statuses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statuses(pub Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Whether `status` is one of them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

/// A set of gRPC status codes, 0 to 16, a bit for each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GrpcStatuses(pub u32);

impl GrpcStatuses {
    /// Whether `code` is one of them.
    pub const fn contains(self, code: u32) -> bool {
        code < u32::BITS && self.0 >> code & 1 == 1
    }
}
