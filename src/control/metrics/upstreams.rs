//! What is told of upstreams.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{NoLabels, Sums, codes, counter, one};
use crate::stats::{BUCKETS, Counter, RetryReason, UpstreamStats};
use crate::upstream::Upstream;

impl Sums {
    pub(super) fn upstreams(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.requests(encoder)?;
        self.durations(encoder)?;
        self.retries(encoder)?;
        type Cell = fn(&UpstreamStats) -> &Counter;
        let counters: [(&str, &str, Cell); 6] = [
            ("retries_over_budget", "Retries not made, for want of budget", |s| {
                &s.retries_over_budget
            }),
            ("hedges_won", "Hedges whose second endpoint was first, or alone", |s| &s.hedges_won),
            ("panic_requests", "Requests sent though no endpoint was healthy", |s| &s.panics),
            ("queued_requests", "Requests that waited for room", |s| &s.queued),
            ("queue_full_requests", "Requests refused because the queue was full", |s| {
                &s.queue_full
            }),
            ("queue_timeout_requests", "Requests refused after waiting in the queue", |s| {
                &s.queue_timeouts
            }),
        ];
        for (name, help, cell) in counters {
            let mut family = counter(encoder, name, help)?;
            for upstream in &self.snapshot.upstreams {
                let sum = upstream.shared.stats.iter().map(|stats| cell(stats).get()).sum();
                one(&mut family, &[("upstream", &*upstream.config.name)], sum)?;
            }
        }
        let help = "Whether requests go to all endpoints because too few are healthy";
        self.upstream_gauge(encoder, "upstream_panic", help, |upstream| {
            u64::from(upstream.shared.is_panicking())
        })?;
        self.upstream_gauge(encoder, "upstream_queue_length", "Requests that wait", |upstream| {
            upstream.shared.queue.len() as u64
        })?;
        let help = "Requests that are being sent again";
        self.upstream_gauge(encoder, "upstream_retries_running", help, |upstream| {
            u64::from(upstream.shared.budget.running())
        })
    }

    fn upstream_gauge(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        value: impl Fn(&Upstream) -> u64,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for upstream in &self.snapshot.upstreams {
            let labels = [("upstream", &*upstream.config.name)];
            family.encode_family(&labels)?.encode_gauge(&value(upstream))?;
        }
        Ok(())
    }

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
}
