//! Renders the workers' counter cells for Prometheus: summed here, when somebody asks.

mod certificates;
mod endpoints;
mod upstreams;
mod workers;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::checkup::Tallies;
use super::upkeep::Told;
use super::view::View;
use crate::proxy::snapshot::Snapshot;
use crate::proxy::worker::Shared;
use crate::stats::Codes;
use crate::upstream::endpoint::Endpoint;

/// The text format of OpenMetrics, which Prometheus reads.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is counted, as text.
pub(super) fn render(view: &View) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("tinylb");
    let reloaded_at = view.reloaded_at.duration_since(SystemTime::UNIX_EPOCH);
    registry.register_collector(Box::new(Sums {
        snapshot: Arc::clone(&view.snapshot),
        shared: Arc::clone(&view.shared),
        checks: view.checks.clone(),
        certificates: view.certificates.clone(),
        reload_succeeded: view.reload_succeeded,
        reloaded_at: reloaded_at.map_or(0.0, |d| d.as_secs_f64()),
    }));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Sums {
    snapshot: Arc<Snapshot>,
    shared: Arc<Shared>,
    checks: Tallies,
    certificates: Told,
    reload_succeeded: bool,
    reloaded_at: f64,
}

impl Collector for Sums {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.upstreams(&mut encoder)?;
        self.endpoints(&mut encoder)?;
        self.workers(&mut encoder)?;
        self.certificates(&mut encoder)?;
        self.process(&mut encoder)
    }
}

impl Sums {
    fn each_endpoint(&self) -> impl Iterator<Item = (&str, &Endpoint)> {
        self.snapshot
            .upstreams
            .iter()
            .flat_map(|u| u.endpoints.iter().map(|endpoint| (&*u.config.name, endpoint)))
    }
}

fn counter<'s>(
    encoder: &'s mut DescriptorEncoder<'_>,
    name: &'s str,
    help: &str,
) -> Result<MetricEncoder<'s>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Counter)
}

/// Exemplars have labels of their own, and we have no exemplars.
type NoLabels = [(&'static str, &'static str); 0];

fn one(family: &mut MetricEncoder<'_>, labels: &[(&str, &str)], count: u64) -> fmt::Result {
    family.encode_family(&labels)?.encode_counter::<NoLabels, _, u64>(&count, None)
}

/// One counter for each status that was seen, over all workers.
fn codes<'c>(
    family: &mut MetricEncoder<'_>,
    upstream: &str,
    endpoint: &str,
    cells: impl Iterator<Item = &'c Codes>,
) -> fmt::Result {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for (code, count) in cells.flat_map(Codes::each) {
        *sums.entry(code).or_default() += count;
    }
    for (code, count) in sums {
        one(family, &[("upstream", upstream), ("endpoint", endpoint), ("code", &code)], count)?;
    }
    Ok(())
}
