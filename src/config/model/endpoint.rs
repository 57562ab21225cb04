//! One place that requests can go to.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

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

/// Where an endpoint is, and what it speaks: `http://host:port/base`, or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointUrl {
    /// What it speaks.
    pub scheme: Scheme,
    /// Name or address, lower case, without brackets; a path with [`Scheme::Unix`] and no other.
    pub host: EndpointHost,
    /// The port; 0 with [`Scheme::Unix`].
    pub port: u16,
    /// The base path that request paths are joined to: empty, or begins with `/`. As written.
    pub base_path: String,
}

impl EndpointUrl {
    /// `http://host:port`.
    pub const fn http(host: EndpointHost, port: u16) -> Self {
        Self { scheme: Scheme::Http, host, port, base_path: String::new() }
    }

    /// `host:port`, or `host` alone on the scheme's own port, as a Host field has it. A Unix socket is
    /// `localhost`, since its path is no host (RFC 9110 4.2.1).
    pub fn authority(&self) -> String {
        match &self.host {
            EndpointHost::Unix(_) => "localhost".to_owned(),
            host if self.scheme.default_port() == Some(self.port) => host.to_string(),
            host => format!("{host}:{}", self.port),
        }
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            EndpointHost::Unix(path) => write!(f, "unix:{}", path.display()),
            host => {
                write!(f, "{}://{host}:{}{}", self.scheme.name(), self.port, self.base_path)
            }
        }
    }
}

/// What an endpoint speaks, and how it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP/1.1 over TCP.
    Http,
    /// HTTP/1.1 or HTTP/2, whichever is agreed on by ALPN, over TLS.
    Https,
    /// HTTP/2 over TCP, known beforehand (RFC 9113 3.3).
    H2c,
    /// HTTP/1.1 over a Unix socket.
    Unix,
}

impl Scheme {
    /// Every scheme, in the order in which they are listed to users.
    pub const ALL: [Self; 4] = [Self::Http, Self::Https, Self::H2c, Self::Unix];

    /// Its name in URLs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
            Self::Unix => "unix",
        }
    }

    /// The port of a URL that names none; `None` where there are no ports.
    pub const fn default_port(self) -> Option<u16> {
        match self {
            Self::Http | Self::H2c => Some(80),
            Self::Https => Some(443),
            Self::Unix => None,
        }
    }
}

/// The host of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointHost {
    /// A Unix socket, by its absolute path.
    Unix(PathBuf),
    /// An address, never resolved.
    Ip(IpAddr),
    /// A name, resolved at start and then on a timer.
    Name(String),
}

impl EndpointHost {
    /// The name or address that the endpoint's certificate has: an IPv6 one without brackets.
    pub fn certified(&self) -> String {
        match self {
            Self::Ip(ip) => ip.to_string(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for EndpointHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}
