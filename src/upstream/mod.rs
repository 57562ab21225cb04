//! Where requests can go: upstreams, their endpoints, who is picked, and the connections kept.

pub mod backoff;
pub mod balance;
pub mod endpoint;
pub mod gradient;
pub mod latency;
pub mod pool;
pub mod quantile;
pub mod sticky;

use std::sync::Arc;

use tokio::time::Instant;

use crate::config;
use crate::stats::UpstreamStats;
use balance::Balancer;
use endpoint::Endpoint;

/// A named set of endpoints that can answer the same requests. Immutable; a change makes a new one.
#[derive(Debug)]
pub struct Upstream {
    /// What the operator asked for.
    pub config: config::Upstream,
    /// The endpoints, one for each address in use of each configured one.
    pub endpoints: Vec<Endpoint>,
    /// Its counters, one set a worker.
    pub stats: Arc<[UpstreamStats]>,
    balancer: Balancer,
}

/// Endpoints that a request has been tried on, by index.
pub type Tried = Vec<usize>;

impl Upstream {
    /// The upstream `config` over `endpoints`.
    pub fn new(
        config: config::Upstream,
        endpoints: Vec<Endpoint>,
        stats: Arc<[UpstreamStats]>,
    ) -> Self {
        let balancer = Balancer::new(&config, &endpoints, 0);
        Self { config, endpoints, stats, balancer }
    }

    /// Picks an endpoint that is not among `tried`: one that is not left alone after a failed
    /// connection, or where there is none, any that has an address.
    pub fn pick(&self, tried: &Tried) -> Option<(usize, &Endpoint)> {
        let fresh = |index: usize, endpoint: &Endpoint| {
            endpoint.is_usable() && (tried.is_empty() || !tried.contains(&index))
        };
        let now = Instant::now();
        let ready = |i: usize, e: &Endpoint| fresh(i, e) && !e.state.backoff.is_waiting();
        let index = self
            .balancer
            .pick(&self.endpoints, None, now, ready)
            .or_else(|| self.balancer.pick(&self.endpoints, None, now, fresh))?;
        self.endpoints.get(index).map(|endpoint| (index, endpoint))
    }
}
