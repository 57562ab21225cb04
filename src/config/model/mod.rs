//! The typed configuration: what the operator asked for, already checked.
//!
//! Nothing here knows about TOML, files or flags; a [`Config`] is made by the [reader](super) from
//! a file, or by the command line from its arguments, and is never invalid once it exists.

mod endpoint;
mod health;
mod listener;
mod policy;
mod resilience;
mod route;
mod tls;
mod upstream;

use std::net::SocketAddr;
use std::time::Duration;

pub use endpoint::*;
pub use health::*;
pub use listener::*;
pub use policy::*;
pub use resilience::*;
pub use route::*;
pub use tls::*;
pub use upstream::*;

/// Everything the operator asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Worker threads; one per available core where it is `None`.
    pub workers: Option<usize>,
    /// Where the admin address listens; nowhere where it is `None`.
    pub admin: Option<SocketAddr>,
    /// Further host names, in lower case, accepted in `Host` by the admin address.
    pub admin_hosts: Vec<String>,
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
