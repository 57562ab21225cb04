//! What is looked after from time to time, whatever the traffic: endpoints that may have come back,
//! those that fail more than the others, requests that wait, and what is known of response times.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::outliers::Outliers;
use super::pace::Pace;
use super::redial::Redials;
use crate::upstream::Upstream;

/// How often to [look](Watch::look): an endpoint that is back is noticed about as soon.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often rates are compared.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// What is looked after.
#[derive(Debug)]
pub struct Watch {
    redials: Redials,
    outliers: Outliers,
    pace: Pace,
    compared: Instant,
}

impl Default for Watch {
    fn default() -> Self {
        let compared = Instant::now();
        let (redials, outliers, pace) = Default::default();
        Self { redials, outliers, pace, compared }
    }
}

impl Watch {
    /// Looks at `upstreams`. Returns whether requests may be waiting for an endpoint that is gone.
    pub fn look(&mut self, upstreams: &[Arc<Upstream>], now: Instant) -> bool {
        self.redials.settle(now);
        for upstream in upstreams {
            for endpoint in &upstream.endpoints {
                self.redials.look_at(upstream, endpoint, now);
            }
            upstream.look_after_panic();
            self.pace.limit(upstream, now);
            upstream.wake_waiting(now);
        }
        if now.saturating_duration_since(self.compared) < COMPARE_EVERY {
            return false;
        }
        self.compared = now;
        let upstreams = upstreams.iter().map(|upstream| &**upstream);
        self.pace.keep_only(upstreams.clone());
        upstreams.clone().for_each(|upstream| self.pace.look(upstream, now));
        self.outliers.look(upstreams, now)
    }
}
