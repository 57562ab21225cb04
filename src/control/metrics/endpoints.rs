//! What is told of endpoints.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use tokio::time::Instant;

use super::{Sums, counter, one};
use crate::stats::{Counter, EndpointStats};
use crate::upstream::condition::Condition;
use crate::upstream::endpoint::Endpoint;

impl Sums {
    pub(super) fn endpoints(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.endpoint_gauge(encoder, "endpoint_up", "Whether requests may go there", |e| {
            u64::from(e.is_usable() && e.state.is_healthy())
        })?;
        self.endpoint_states(encoder)?;
        let help = "Requests that it is working on";
        self.endpoint_gauge(encoder, "endpoint_requests_in_flight", help, |e| {
            u64::from(e.state.in_flight())
        })?;
        let help = "Connections to it, idle ones included";
        self.endpoint_gauge(encoder, "endpoint_connections_open", help, |e| {
            u64::from(e.state.connections())
        })?;
        let help = "How many requests it may work on at once, where that is limited";
        let mut family =
            encoder.encode_descriptor("endpoint_requests_limit", help, None, MetricType::Gauge)?;
        for (upstream, endpoint) in self.each_endpoint().filter(|(_, e)| e.limit() != u32::MAX) {
            let labels = [("upstream", upstream), ("endpoint", &*endpoint.state.label)];
            family.encode_family(&labels)?.encode_gauge(&u64::from(endpoint.limit()))?;
        }
        type Cell = fn(&EndpointStats) -> &Counter;
        let counters: [(&str, &str, Cell); 6] = [
            ("endpoint_connections", "Connections made to it", |s| &s.connects),
            ("endpoint_connect_failures", "Connections to it that could not be made", |s| {
                &s.connect_failures
            }),
            ("endpoint_connection_reuses", "Requests sent on a connection that was kept", |s| {
                &s.reuses
            }),
            (
                "endpoint_stray_responses",
                "Connections closed because the endpoint sent bytes that belong to no response",
                |s| &s.stray,
            ),
            ("endpoint_responses", "Responses whose head came", |s| &s.responses),
            ("endpoint_failures", "Exchanges that failed by its fault", |s| &s.failures),
        ];
        for (name, help, cell) in counters {
            let mut family = counter(encoder, name, help)?;
            for (upstream, endpoint) in self.each_endpoint() {
                let labels = [("upstream", upstream), ("endpoint", &*endpoint.state.label)];
                let sum = endpoint.state.stats.iter().map(|stats| cell(stats).get()).sum();
                one(&mut family, &labels, sum)?;
            }
        }
        self.endpoint_times(encoder)?;
        self.checks(encoder)?;
        let mut family =
            counter(encoder, "endpoint_ejections", "Times that it was left alone, failing")?;
        for (upstream, endpoint) in self.each_endpoint() {
            let labels = [("upstream", upstream), ("endpoint", &*endpoint.state.label)];
            one(&mut family, &labels, endpoint.state.ejections())?;
        }
        Ok(())
    }

    /// A state set: of each endpoint one state is 1 and the others are 0.
    fn endpoint_states(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "What its standing is";
        let mut family =
            encoder.encode_descriptor("endpoint_state", help, None, MetricType::Gauge)?;
        let now = Instant::now();
        for upstream in &self.snapshot.upstreams {
            for endpoint in &upstream.endpoints {
                let current = endpoint.describe(now, upstream.config.slow_start).condition;
                for condition in Condition::ALL {
                    let labels = [
                        ("upstream", &*upstream.config.name),
                        ("endpoint", &*endpoint.state.label),
                        ("state", condition.name()),
                    ];
                    family
                        .encode_family(&labels)?
                        .encode_gauge(&u64::from(condition == current))?;
                }
            }
        }
        Ok(())
    }

    /// The time that responses took to begin, which with their number gives the mean.
    fn endpoint_times(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let name = "endpoint_response_seconds";
        let help = "From asked to a response's head, all together";
        let mut family = counter(encoder, name, help)?;
        for (upstream, endpoint) in self.each_endpoint() {
            let labels = [("upstream", upstream), ("endpoint", &*endpoint.state.label)];
            let micros: u64 = endpoint.state.stats.iter().map(|s| s.response_time.get()).sum();
            #[expect(clippy::cast_precision_loss, reason = "seconds need no more than 53 bits")]
            let seconds = micros as f64 / 1e6;
            family
                .encode_family(&labels)?
                .encode_counter::<super::NoLabels, _, u64>(&seconds, None)?;
        }
        Ok(())
    }

    fn checks(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = counter(encoder, "health_checks", "Checks made, by result")?;
        for (upstream, endpoint) in self.each_endpoint() {
            let Some((passed, failed)) = self.checks.get(&endpoint.state.id) else { continue };
            for (result, count) in [("passed", *passed), ("failed", *failed)] {
                let labels = [
                    ("upstream", upstream),
                    ("endpoint", &*endpoint.state.label),
                    ("result", result),
                ];
                one(&mut family, &labels, count)?;
            }
        }
        Ok(())
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
}
