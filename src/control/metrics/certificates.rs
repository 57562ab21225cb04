//! What is told of certificates.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Sums, counter, one};
use crate::control::certificates::Owner;

impl Sums {
    pub(super) fn certificates(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let name = "certificate_expiry_timestamp_seconds";
        let help = "When a certificate ends; of a listener, or our own for an upstream";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for told in &self.certificates.presented {
            let (listener, upstream) = match &told.owner {
                Owner::Listener(_, address) => (&**address, ""),
                Owner::Upstream(name) => ("", &**name),
            };
            let labels =
                [("listener", listener), ("upstream", upstream), ("certificate", &*told.file)];
            family.encode_family(&labels)?.encode_gauge(&told.end)?;
        }
        let help = "Times that changed certificates were read again";
        let mut family = counter(encoder, "certificate_reloads", help)?;
        let (reloads, failures) = (self.certificates.reloads, self.certificates.failures);
        for (result, count) in [("success", reloads), ("failure", failures)] {
            one(&mut family, &[("result", result)], count)?;
        }
        Ok(())
    }
}
