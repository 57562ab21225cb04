//! Where requests can go: everything that is said about one set of endpoints.

use std::time::Duration;

use super::{
    ClientTls, Ejection, Endpoint, Hash, Health, Limits, Policy, ProxyVersion, Queue, Retry,
    SlowStart, Sticky,
};

/// A named set of endpoints that can answer the same requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Its name in routes, logs and metrics.
    pub name: String,
    /// How an endpoint is picked.
    pub policy: Policy,
    /// What `consistent-hash` goes by.
    pub hash: Hash,
    /// Whose clients stay with one endpoint; nobody's where `None`.
    pub sticky: Option<Sticky>,
    /// The Host field that endpoints get.
    pub host: HostMode,
    /// Whether a `Forwarded` field (RFC 7239) is sent beside the `X-Forwarded-*` ones.
    pub forwarded: bool,
    /// Whether `Via` is added to requests and responses (RFC 9110 7.6.3).
    pub via: bool,
    /// How endpoints with `https://` are spoken to.
    pub tls: ClientTls,
    /// Whether endpoints with `https://` are offered HTTP/2 by ALPN.
    pub http2: bool,
    /// The PROXY protocol header that each connection to an endpoint begins with; none where `None`.
    pub proxy_protocol: Option<ProxyVersion>,
    /// How long endpoints may take.
    pub timeouts: EndpointTimeouts,
    /// How often names of endpoints are resolved again.
    pub resolve: Duration,
    /// How endpoints are asked whether they are well; not at all where `None`.
    pub health: Option<Health>,
    /// When endpoints that fail in traffic are left alone; never where `None`.
    pub ejection: Option<Ejection>,
    /// Below this share of healthy endpoints, 0 to 1, traffic goes to all of them; with 0 where
    /// none is left. Where `None` never, and requests get a 503.
    pub panic: Option<f64>,
    /// What is sent again.
    pub retry: Retry,
    /// How much is asked at once.
    pub limits: Limits,
    /// Where requests wait while a limit is reached.
    pub queue: Queue,
    /// How endpoints that are new or came back are eased in; not at all where `None`.
    pub slow_start: Option<SlowStart>,
    /// The endpoints, at least one, not all of weight 0.
    pub endpoints: Vec<Endpoint>,
}

impl Upstream {
    /// An upstream called `name` with the defaults of everything else.
    pub fn new(name: impl Into<String>, endpoints: Vec<Endpoint>) -> Self {
        Self {
            name: name.into(),
            policy: Policy::P2c,
            hash: Hash::default(),
            sticky: None,
            host: HostMode::Pass,
            forwarded: false,
            via: true,
            tls: ClientTls::default(),
            http2: true,
            proxy_protocol: None,
            timeouts: EndpointTimeouts::default(),
            resolve: DEFAULT_RESOLVE,
            health: None,
            ejection: Some(Ejection::default()),
            panic: Some(0.0),
            retry: Retry::default(),
            limits: Limits::default(),
            queue: Queue::default(),
            slow_start: None,
            endpoints,
        }
    }
}

/// How often names are resolved again: as short as the TTLs of the usual service discovery, and
/// nothing for a resolver on the same host.
pub const DEFAULT_RESOLVE: Duration = Duration::from_secs(10);

/// The Host field that endpoints get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostMode {
    /// The client's.
    Pass,
    /// The endpoint's own authority.
    Endpoint,
}

/// How long an endpoint may take. Each counts only while the endpoint owes us something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointTimeouts {
    /// For one connection to be made.
    pub connect: Duration,
    /// From the whole request sent to the whole head of the response, over all tries; then 504.
    pub response: Duration,
    /// Between two steps of progress of a body that is owed, in either direction.
    pub body: Duration,
    /// How long an idle connection is kept for the next request.
    pub idle: Duration,
}

impl Default for EndpointTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            response: Duration::from_secs(60),
            body: Duration::from_secs(60),
            // Common servers close after 5 s; closing first avoids the race of a request that
            // crosses their FIN.
            idle: Duration::from_secs(4),
        }
    }
}
