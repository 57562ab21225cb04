//! The typed configuration: what the operator asked for, already checked.
//!
//! Nothing here knows about TOML, files or flags; a [`Config`] is made by the [reader](super) from
//! a file, or by the command line from its arguments, and is never invalid once it exists.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
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
    /// Connections open at once from one client address, over all workers; one more is refused
    /// with 429. Trusted proxies are exempt. No limit where `None`.
    pub max_connections_per_client: Option<u32>,
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
            max_connections_per_client: None,
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
    /// Whether every request may be sent twice, whatever its method.
    pub idempotent: bool,
    /// When a second endpoint is asked beside one that has not answered yet; never where `None`.
    pub hedge: Option<Hedge>,
}

impl Route {
    /// The route for every request, to `upstream`, with the defaults of everything else.
    pub fn any(upstream: usize) -> Self {
        Self { host: None, path: "/".to_owned(), upstream, idempotent: false, hedge: None }
    }
}

/// When a second endpoint is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hedge {
    /// After the time within which 95 of 100 answers of the upstream begin.
    P95,
    /// After a fixed time.
    After(Duration),
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
    /// What `consistent-hash` goes by.
    pub hash: Hash,
    /// Whose clients stay with one endpoint; nobody's where `None`.
    pub sticky: Option<Sticky>,
    /// The Host field that endpoints get.
    pub host: HostMode,
    /// Whether a `Forwarded` field (RFC 7239) is sent beside the `X-Forwarded-*` ones.
    pub forwarded: bool,
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

/// When an endpoint that fails in traffic is left alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Ejection {
    /// Failures in a row that eject; never where 0.
    pub failures: u32,
    /// How far its rate of failures must be above that of the others, 0 to 1; never where 0.
    pub rate: f64,
    /// Answers that are failures too.
    pub status: Statuses,
    /// How long the first time; each time soon after another doubles it.
    pub time: Duration,
    /// The longest.
    pub max_time: Duration,
    /// The share of the upstream's endpoints that may be unavailable before no further one is
    /// ejected.
    pub max_share: f64,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            failures: 5,
            rate: 0.3,
            status: Statuses::default(),
            time: Duration::from_secs(10),
            max_time: Duration::from_secs(300),
            max_share: 0.5,
        }
    }
}

/// What is sent again once it was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// How often a request is sent at most.
    pub attempts: u32,
    /// Answers that are not passed on if another endpoint can be asked.
    pub on: Statuses,
    /// How long one try may take to the head of its answer while another endpoint can be asked;
    /// as long as all of them where `None`.
    pub timeout: Option<Duration>,
    /// Retries at once, as a share of the active requests.
    pub budget: f64,
    /// How much of a request's body is kept to be sent again, in bytes.
    pub buffer: usize,
    /// How large an answer is held until it is whole, in bytes; none where 0.
    pub hold: usize,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            on: Statuses::default(),
            timeout: None,
            budget: 0.2,
            buffer: 64 * 1024,
            hold: 0,
        }
    }
}

/// How much is asked at once; no limits where `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests in flight to all endpoints.
    pub requests: Option<u32>,
    /// Connections to all endpoints.
    pub connections: Option<u32>,
    /// Requests in flight to each endpoint that has no limit of its own.
    pub endpoint_requests: Option<u32>,
    /// Connections to each endpoint that has no limit of its own.
    pub endpoint_connections: Option<u32>,
    /// Whether each endpoint's limit of requests follows its latency.
    pub adaptive: bool,
}

/// Where requests wait while a limit is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// How many; one more is refused with 503.
    pub size: usize,
    /// How long; then 503.
    pub timeout: Duration,
    /// Who goes first.
    pub order: QueueOrder,
}

impl Default for Queue {
    fn default() -> Self {
        Self { size: 1024, timeout: Duration::from_secs(1), order: QueueOrder::Adaptive }
    }
}

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueOrder {
    /// The oldest, but under pressure the newest, whose client is still there.
    Adaptive,
    /// The oldest.
    Fifo,
}

/// How endpoints that are new or came back are eased in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// How long until one has its whole share.
    pub time: Duration,
    /// 1 is a straight line; larger ones begin faster, smaller ones slower.
    pub curve: f64,
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
