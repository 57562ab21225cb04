//! The typed configuration: what the operator asked for, already checked.
//!
//! Nothing here knows about TOML, files or flags; a [`Config`] is made by the [reader](super) from
//! a file, or by the command line from its arguments, and is never invalid once it exists.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

/// Everything the operator asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Worker threads; one per available core where it is `None`.
    pub workers: Option<usize>,
    /// Where the admin address listens; nowhere where it is `None`.
    pub admin: Option<SocketAddr>,
    /// What is logged.
    pub log: Log,
    /// How the process ends.
    pub drain: Drain,
    /// Where clients connect; at least one.
    pub listeners: Vec<Listener>,
    /// Which requests go to which upstream, in the order of the file.
    pub routes: Vec<Route>,
    /// Where requests can go, in the order of the file.
    pub upstreams: Vec<Upstream>,
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// The access log's format, on standard output.
    pub access: AccessLog,
    /// The least severe message that is written to standard error.
    pub level: LogLevel,
}

impl Default for Log {
    fn default() -> Self {
        Self { access: AccessLog::Off, level: LogLevel::Info }
    }
}

/// The format of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    /// No access log.
    Off,
    /// One `key=value` line a request.
    Text,
    /// One JSON object a line, a line a request.
    Json,
}

/// Severity of the process's own messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what needs an operator.
    Error,
    /// What may need one.
    Warn,
    /// Changes of state.
    Info,
    /// Each decision.
    Debug,
}

/// How the process ends (TERM, INT, QUIT).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// How long requests in flight may take to finish once listening has stopped.
    pub timeout: Duration,
    /// How long to go on accepting after `/readyz` has begun to fail, so that whoever sends the
    /// traffic here notices first.
    pub delay: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), delay: Duration::ZERO }
    }
}

/// One address that clients connect to.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Where it listens.
    pub address: ListenAddress,
    /// Peers whose `X-Forwarded-*`, `Forwarded` and `X-Request-Id` fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Connections open at once, over all workers; more wait in the kernel's accept queue. As many
    /// as there can be descriptors for where `None`.
    pub max_connections: Option<usize>,
    /// The largest request body in bytes; larger ones are refused with 413. No limit where `None`.
    pub max_body: Option<u64>,
    /// How long clients may take.
    pub timeouts: ClientTimeouts,
}

impl Listener {
    /// A listener at `address` with the defaults of everything else.
    pub fn new(address: ListenAddress) -> Self {
        Self {
            address,
            trusted_proxies: Vec::new(),
            max_connections: None,
            max_body: None,
            timeouts: ClientTimeouts::default(),
        }
    }
}

/// `host:port` to listen on; without a host it is every address of IPv4 and IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenAddress {
    /// The local address; `None` is every one, of both families.
    pub ip: Option<IpAddr>,
    /// The port; 0 lets the kernel choose.
    pub port: u16,
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => SocketAddr::new(ip, self.port).fmt(f),
            None => write!(f, ":{}", self.port),
        }
    }
}

/// How long a client may take. Each counts only while the client owes us bytes, or reads of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// From the first byte of a request's head to its last; then 408.
    pub head: Duration,
    /// Between requests; then the connection closes silently.
    pub idle: Duration,
    /// Between two steps of progress of a body, in either direction.
    pub body: Duration,
    /// Without a byte in either direction in a tunnel (101).
    pub tunnel: Duration,
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body: Duration::from_secs(60),
            tunnel: Duration::from_secs(3600),
        }
    }
}

/// Which requests go to which upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The hosts it is for; any where `None`.
    pub host: Option<HostPattern>,
    /// The path prefix, on segment borders; `/` is any. Always begins with `/`.
    pub path: String,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(f, "{host}{}", self.path),
            None => f.write_str(&self.path),
        }
    }
}

/// A host name to match; in lower case, without a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Exactly this host.
    Exact(String),
    /// Any host that ends in this suffix, which begins with a dot: `*.example.com` is `.example.com`.
    Suffix(String),
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// A named set of endpoints that can answer the same requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Its name in routes, logs and metrics.
    pub name: String,
    /// How an endpoint is picked.
    pub policy: Policy,
    /// The Host field that endpoints get.
    pub host: HostMode,
    /// Whether a `Forwarded` field (RFC 7239) is sent beside the `X-Forwarded-*` ones.
    pub forwarded: bool,
    /// How long endpoints may take.
    pub timeouts: EndpointTimeouts,
    /// How often names of endpoints are resolved again.
    pub resolve: Duration,
    /// The endpoints, at least one, not all of weight 0.
    pub endpoints: Vec<Endpoint>,
}

impl Upstream {
    /// An upstream called `name` with the defaults of everything else.
    pub fn new(name: impl Into<String>, endpoints: Vec<Endpoint>) -> Self {
        Self {
            name: name.into(),
            policy: Policy::P2c,
            host: HostMode::Pass,
            forwarded: false,
            timeouts: EndpointTimeouts::default(),
            resolve: DEFAULT_RESOLVE,
            endpoints,
        }
    }
}

/// How often names are resolved again: as short as the TTLs of the usual service discovery, and
/// nothing for a resolver on the same host.
pub const DEFAULT_RESOLVE: Duration = Duration::from_secs(10);

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
}

impl Policy {
    /// Every policy, in the order in which they are listed to users.
    pub const ALL: [Self; 4] = [Self::P2c, Self::LeastRequests, Self::RoundRobin, Self::Random];

    /// Its name in configuration, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::RoundRobin => "round-robin",
            Self::LeastRequests => "least-requests",
            Self::P2c => "p2c",
        }
    }
}

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
    /// From the whole request sent to the whole head of the response; then 504.
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

/// One place that requests can go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub url: EndpointUrl,
    /// Its share of the requests against the others'; 0 to [`MAX_WEIGHT`], 0 is none.
    pub weight: u32,
}

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
