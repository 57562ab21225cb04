//! How an endpoint is picked: by a policy, and for clients that stay with theirs by a cookie.

use std::time::Duration;

/// How an endpoint is picked for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Uniformly at random, by weight, independent of all other requests.
    Random,
    /// In turn, smoothly by weight, one cursor for all workers.
    RoundRobin,
    /// The one with the fewest requests in flight for its weight.
    LeastRequests,
    /// The less loaded of two drawn at random (power of two choices).
    P2c,
    /// Of two drawn at random the one with the lower product of latency, which peaks at once and
    /// decays, and requests in flight.
    PeakEwma,
    /// The one with the lowest product of mean latency and requests in flight, of all.
    LeastTime,
    /// The same one for the same key, and few keys move when endpoints change.
    ConsistentHash,
}

impl Policy {
    /// Every policy, in the order in which they are listed to users.
    pub const ALL: [Self; 7] = [
        Self::P2c,
        Self::LeastRequests,
        Self::RoundRobin,
        Self::Random,
        Self::PeakEwma,
        Self::LeastTime,
        Self::ConsistentHash,
    ];

    /// Its name in configuration, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::RoundRobin => "round-robin",
            Self::LeastRequests => "least-requests",
            Self::P2c => "p2c",
            Self::PeakEwma => "peak-ewma",
            Self::LeastTime => "least-time",
            Self::ConsistentHash => "consistent-hash",
        }
    }
}

/// What `consistent-hash` goes by.
#[derive(Debug, Clone, PartialEq)]
pub struct Hash {
    /// What of a request is its key.
    pub on: HashKey,
    /// How far above the mean an endpoint's load may go before its keys go to the next one.
    pub bound: f64,
}

impl Default for Hash {
    fn default() -> Self {
        Self { on: HashKey::Client, bound: 1.5 }
    }
}

/// What of a request is its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    Client,
    /// The path, without its query.
    Path,
    /// The field of this name, in lower case.
    Header(String),
    /// The cookie of this name.
    Cookie(String),
    /// The parameter of this name in the query, as written.
    Query(String),
}

/// Sticky sessions by a cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sticky {
    /// The cookie's name.
    pub cookie: String,
    /// What the cookie's values are made with; drawn at start where `None`.
    pub secret: Option<String>,
    /// How long the client keeps it; until its session ends where `None`.
    pub max_age: Option<Duration>,
    /// Whether other sites' requests carry it.
    pub same_site: SameSite,
}

impl Sticky {
    /// With a cookie of this name and the defaults of everything else.
    pub fn new(cookie: impl Into<String>) -> Self {
        Self { cookie: cookie.into(), secret: None, max_age: None, same_site: SameSite::Lax }
    }
}

/// The cookie's `SameSite` attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the attribute's own values")]
pub enum SameSite {
    Lax,
    Strict,
    None,
}
