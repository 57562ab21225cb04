//! One place that requests can go to.

use std::fmt;
use std::net::IpAddr;

/// One place that requests can go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub url: EndpointUrl,
    /// Its share of the requests against the others'; 0 to [`MAX_WEIGHT`], 0 is none.
    pub weight: u32,
    /// Used only when all endpoints of smaller numbers are gone or full.
    pub priority: u8,
    /// Whether nothing new is sent there; sticky sessions go on.
    pub drain: bool,
    /// Requests in flight at once; the upstream's limit for each where `None`.
    pub max_requests: Option<u32>,
    /// Connections at once; the upstream's limit for each where `None`.
    pub max_connections: Option<u32>,
}

impl Endpoint {
    /// The endpoint at `url` with the defaults of everything else.
    pub const fn new(url: EndpointUrl) -> Self {
        Self {
            url,
            weight: 1,
            priority: 0,
            drain: false,
            max_requests: None,
            max_connections: None,
        }
    }
}

/// The priority of a backup: after all others.
pub const BACKUP: u8 = u8::MAX;

/// The largest weight. Larger ratios than 1 : 256 are better said with fewer endpoints, and the
/// bound keeps round-robin's precomputed schedule small.
pub const MAX_WEIGHT: u32 = 256;

/// Where an endpoint is: `http://host:port/base`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointUrl {
    /// Name or address, lower case, without brackets.
    pub host: EndpointHost,
    /// The port.
    pub port: u16,
    /// The base path that request paths are joined to: empty, or begins with `/`. As written.
    pub base_path: String,
}

impl EndpointUrl {
    /// `host:port`, or `host` alone on port 80, as a Host field has it.
    pub fn authority(&self) -> String {
        match self.port {
            80 => self.host.to_string(),
            port => format!("{}:{port}", self.host),
        }
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}{}", self.host, self.port, self.base_path)
    }
}

/// The host of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointHost {
    /// An address, never resolved.
    Ip(IpAddr),
    /// A name, resolved at start and then on a timer.
    Name(String),
}

impl fmt::Display for EndpointHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}
