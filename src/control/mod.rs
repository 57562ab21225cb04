//! The control thread: signals, reload, names, and what operators ask over the admin address.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::Config;

/// A balancer whose sockets are bound, and that serves once it is [run](Balancer::run).
#[derive(Debug)]
pub struct Balancer {
    config: Config,
    reload_from: Option<PathBuf>,
}

/// How a run of the balancer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every request in flight was answered.
    Drained,
    /// The drain's deadline, or a second signal, cut connections off.
    Cut,
}

impl Balancer {
    /// Binds every address in `config`. `reload_from` is the file that HUP re-reads.
    ///
    /// # Errors
    /// An address that cannot be bound; the message names it, the key and the option.
    pub fn bind(config: Config, reload_from: Option<PathBuf>) -> anyhow::Result<Self> {
        Ok(Self { config, reload_from })
    }

    /// The addresses listened on, in the order of the configuration, real ports in place of 0.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    /// The admin address, if there is one, the real port in place of 0.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        None
    }

    /// Serves until TERM, INT or QUIT, then drains. Blocks; makes its own threads.
    ///
    /// # Errors
    /// What keeps the workers from starting.
    pub fn run(self) -> anyhow::Result<Ended> {
        let _ = (self.config, self.reload_from);
        Ok(Ended::Drained)
    }
}
