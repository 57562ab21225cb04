//! Renders the workers' counter cells for Prometheus: summed here, when somebody asks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::view::View;
use crate::proxy::snapshot::Snapshot;
use crate::proxy::worker::Shared;
use crate::stats::{BUCKETS, Codes, Counter, RetryReason, UpstreamStats, WorkerStats};
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
    reload_succeeded: bool,
    reloaded_at: f64,
}

impl Collector for Sums {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.requests(&mut encoder)?;
        self.durations(&mut encoder)?;
        self.retries(&mut encoder)?;
        self.endpoints(&mut encoder)?;
        self.workers(&mut encoder)?;
        self.process(&mut encoder)
    }
}

impl Sums {
    fn requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = counter(encoder, "requests", "Requests answered")?;
        for (upstream, endpoint) in self.each_endpoint() {
            let cells = endpoint.state.stats.iter().map(|stats| &stats.codes);
            codes(&mut family, upstream, &endpoint.state.label, cells)?;
        }
        for upstream in &self.snapshot.upstreams {
            let cells = upstream.shared.stats.iter().map(|stats| &stats.codes);
            codes(&mut family, &upstream.config.name, "", cells)?;
        }
        codes(&mut family, "", "", self.shared.stats.iter().map(|stats| &stats.codes))
    }

    fn durations(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "From a request's head received to its response's last byte sent";
        let mut family = encoder.encode_descriptor(
            "request_duration_seconds",
            help,
            None,
            MetricType::Histogram,
        )?;
        for upstream in &self.snapshot.upstreams {
            let sum = |f: fn(&UpstreamStats, usize) -> u64, i| {
                upstream.shared.stats.iter().map(|stats| f(stats, i)).sum::<u64>()
            };
            let bucket = |stats: &UpstreamStats, i: usize| {
                stats.duration.buckets.get(i).map_or(0, Counter::get)
            };
            #[expect(clippy::cast_precision_loss, reason = "seconds need no more than 53 bits")]
            let bounds = BUCKETS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
            let buckets: Vec<_> =
                bounds.enumerate().map(|(i, bound)| (bound, sum(bucket, i))).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            #[expect(clippy::cast_precision_loss, reason = "seconds need no more than 53 bits")]
            let total = sum(|stats, _| stats.duration.sum.get(), 0) as f64 / 1e6;
            let labels = [("upstream", &*upstream.config.name)];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_histogram::<NoLabels>(total, count, &buckets, None)?;
        }
        Ok(())
    }

    fn retries(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = counter(encoder, "retries", "Requests tried once more, by reason")?;
        for upstream in &self.snapshot.upstreams {
            for reason in RetryReason::ALL {
                let count =
                    upstream.shared.stats.iter().filter_map(|s| s.retries.get(reason as usize));
                let labels = [("upstream", &*upstream.config.name), ("reason", reason.name())];
                one(&mut family, &labels, count.map(Counter::get).sum())?;
            }
        }
        Ok(())
    }

    fn endpoints(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.endpoint_gauge(encoder, "endpoint_up", "Whether requests may go there", |e| {
            u64::from(e.is_usable() && e.state.is_healthy())
        })?;
        let help = "Requests that it is working on";
        self.endpoint_gauge(encoder, "endpoint_requests_in_flight", help, |e| {
            u64::from(e.state.in_flight())
        })?;
        let help = "Connections made to it";
        self.endpoint_counter(encoder, "endpoint_connections", help, |e| {
            e.state.stats.iter().map(|stats| stats.connects.get()).sum()
        })?;
        let help = "Connections to it that could not be made";
        self.endpoint_counter(encoder, "endpoint_connect_failures", help, |e| {
            e.state.stats.iter().map(|stats| stats.connect_failures.get()).sum()
        })?;
        let help = "Requests sent on a connection that was kept";
        self.endpoint_counter(encoder, "endpoint_connection_reuses", help, |e| {
            e.state.stats.iter().map(|stats| stats.reuses.get()).sum()
        })
    }

    fn workers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "worker_connections",
            "Client connections open",
            None,
            MetricType::Gauge,
        )?;
        for (index, stats) in self.shared.stats.iter().enumerate() {
            let open = stats.connections.load(Relaxed) as u64;
            let index = index.to_string();
            let labels = [("worker", &*index)];
            family.encode_family(&labels)?.encode_gauge(&open)?;
        }
        type Cell = fn(&WorkerStats) -> &Counter;
        let counters: [(&str, &str, Cell); 7] = [
            ("connections_accepted", "Client connections accepted", |s| &s.accepted),
            ("connections_handed_over", "Of these, handed to another worker", |s| &s.handed_over),
            ("accept_pauses", "Times that accepting paused for want of descriptors", |s| {
                &s.accept_pauses
            }),
            ("access_log_dropped_lines", "Lines of the access log dropped", |s| &s.log_dropped),
            ("tunnels", "Connections switched to another protocol", |s| &s.tunnels),
            ("received_bytes", "Bytes of request bodies", |s| &s.received_bytes),
            ("sent_bytes", "Bytes of response bodies", |s| &s.sent_bytes),
        ];
        for (name, help, cell) in counters {
            let mut family = counter(encoder, name, help)?;
            for (index, stats) in self.shared.stats.iter().enumerate() {
                let labels = [("worker", &*index.to_string())];
                one(&mut family, &labels, cell(stats).get())?;
            }
        }
        Ok(())
    }

    fn process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let name = "config_last_reload_success";
        let help = "Whether the last reload found a valid configuration";
        encoder
            .encode_descriptor(name, help, None, MetricType::Gauge)?
            .encode_gauge(&u64::from(self.reload_succeeded))?;
        let name = "config_last_reload_timestamp_seconds";
        encoder
            .encode_descriptor(name, "When that was", None, MetricType::Gauge)?
            .encode_gauge(&self.reloaded_at)?;
        encoder
            .encode_descriptor("build", "What this is", None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }

    fn each_endpoint(&self) -> impl Iterator<Item = (&str, &Endpoint)> {
        self.snapshot
            .upstreams
            .iter()
            .flat_map(|u| u.endpoints.iter().map(|endpoint| (&*u.config.name, endpoint)))
    }

    fn endpoint_gauge(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        value: impl Fn(&Endpoint) -> u64,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (upstream, endpoint) in self.each_endpoint() {
            let labels = [("upstream", upstream), ("endpoint", &*endpoint.state.label)];
            family.encode_family(&labels)?.encode_gauge(&value(endpoint))?;
        }
        Ok(())
    }

    fn endpoint_counter(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        value: impl Fn(&Endpoint) -> u64,
    ) -> fmt::Result {
        let mut family = counter(encoder, name, help)?;
        for (upstream, endpoint) in self.each_endpoint() {
            let labels = [("upstream", upstream), ("endpoint", &*endpoint.state.label)];
            one(&mut family, &labels, value(endpoint))?;
        }
        Ok(())
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
