//! Which requests go where.

use std::fmt;
use std::time::Duration;

/// Which requests go to which upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The hosts it is for; any where `None`.
    pub host: Option<HostPattern>,
    /// The path prefix, on segment borders; `/` is any. Always begins with `/`.
    pub path: String,
    /// Index into [`Config::upstreams`](super::Config::upstreams).
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
