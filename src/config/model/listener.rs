//! Where clients connect, and how long they may take.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::ServerTls;

/// One address that clients connect to.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Where it listens.
    pub address: ListenAddress,
    /// How it speaks TLS; it does not where `None`.
    pub tls: Option<ServerTls>,
    /// Whether clients may speak HTTP/2: by ALPN under TLS, and in cleartext by prior knowledge.
    pub http2: bool,
    /// The port of the HTTPS listener that every request is sent to (308); they are served here where
    /// `None`.
    pub redirect_https: Option<u16>,
    /// Peers that begin each connection with a PROXY protocol header, which says who the client is.
    pub proxy_protocol: Vec<IpNet>,
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
    /// Whether a request continues after the client closes its side (FIN) before the response begins.
    /// Default: false, the request is cancelled.
    pub half_close: bool,
    /// How long clients may take.
    pub timeouts: ClientTimeouts,
}

impl Listener {
    /// A listener at `address` with the defaults of everything else.
    pub fn new(address: ListenAddress) -> Self {
        Self {
            address,
            tls: None,
            http2: true,
            redirect_https: None,
            proxy_protocol: Vec::new(),
            trusted_proxies: Vec::new(),
            max_connections: None,
            max_connections_per_client: None,
            max_body: None,
            half_close: false,
            timeouts: ClientTimeouts::default(),
        }
    }
}

/// Where to listen: `host:port`, `:port` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// A TCP port.
    Ip {
        /// The local address; `None` is every one, of IPv4 and IPv6.
        ip: Option<IpAddr>,
        /// The port; 0 lets the kernel choose.
        port: u16,
    },
    /// A Unix socket, by its absolute path.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip { ip: Some(ip), port } => SocketAddr::new(*ip, *port).fmt(f),
            Self::Ip { ip: None, port } => write!(f, ":{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How long a client may take. Each counts only while the client owes us bytes, or reads of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// From the start of a connection to the end of its PROXY protocol header and TLS handshake.
    pub handshake: Duration,
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
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body: Duration::from_secs(60),
            tunnel: Duration::from_secs(3600),
        }
    }
}
