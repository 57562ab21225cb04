//! What is told of workers and the process.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Sums, counter, one};
use crate::stats::{Counter, WorkerStats};

impl Sums {
    pub(super) fn workers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
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
        let mut family = encoder.encode_descriptor(
            "tunnels_open",
            "Connections switched to another protocol that are open",
            None,
            MetricType::Gauge,
        )?;
        for (index, stats) in self.shared.stats.iter().enumerate() {
            let open = stats.tunnels_open.load(Relaxed) as u64;
            let index = index.to_string();
            let labels = [("worker", &*index)];
            family.encode_family(&labels)?.encode_gauge(&open)?;
        }
        type Cell = fn(&WorkerStats) -> &Counter;
        let counters: [(&str, &str, Cell); 13] = [
            ("connections_accepted", "Client connections accepted", |s| &s.accepted),
            ("connections_handed_over", "Of these, handed to another worker", |s| &s.handed_over),
            ("accept_pauses", "Times that accepting paused for want of descriptors", |s| {
                &s.accept_pauses
            }),
            (
                "connections_refused",
                "Client connections refused, one address having too many",
                |s| &s.refused,
            ),
            (
                "proxy_protocol_errors",
                "Client connections closed for want of a valid PROXY protocol header",
                |s| &s.proxy_protocol_errors,
            ),
            (
                "connections_undelivered",
                "Client connections closed because the client stopped reading its last answer",
                |s| &s.undelivered,
            ),
            ("access_log_dropped_lines", "Lines of the access log dropped", |s| &s.log_dropped),
            ("http2_connections", "Client connections in HTTP/2", |s| &s.http2_connections),
            (
                "http2_connections_cut_off",
                "Client connections in HTTP/2 ended with ENHANCE_YOUR_CALM",
                |s| &s.http2_floods,
            ),
            (
                "http2_malformed_requests",
                "Streams of clients reset because the request on them was malformed",
                |s| &s.http2_malformed,
            ),
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
        let name = "tls_handshakes";
        let mut family = counter(encoder, name, "TLS handshakes with clients")?;
        for (index, stats) in self.shared.stats.iter().enumerate() {
            let results = [
                ("full", &stats.tls_full),
                ("resumed", &stats.tls_resumed),
                ("failed", &stats.tls_failed),
            ];
            for (result, cell) in results {
                let labels = [("worker", &*index.to_string()), ("result", result)];
                one(&mut family, &labels, cell.get())?;
            }
        }
        Ok(())
    }

    pub(super) fn process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
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
}
