//! Panic mode: where too few endpoints are healthy, requests go to all of them.

use std::sync::atomic::Ordering::Relaxed;

use super::Upstream;
use super::endpoint::Endpoint;

/// Unreachable endpoints that one request is tried on. Most upstreams have fewer, and all of them are
/// tried, since one may be back before a dial in the background has found out, which takes up to ten
/// seconds. If hundreds are down, dialling each would delay every request by 0.1 ms to `connect` for
/// each.
const MAX_UNREACHABLE_TRIED: usize = 8;

impl Upstream {
    /// Whether requests go to all endpoints, though some are healthy.
    pub(super) fn ignores_health(&self) -> bool {
        self.config.panic.is_some_and(|threshold| threshold > 0.0) && self.shared.is_panicking()
    }

    /// Looks whether enough endpoints are healthy, and says what has changed; from time to time.
    #[expect(clippy::cast_precision_loss, reason = "endpoints are counted in thousands at most")]
    pub fn look_after_panic(&self) {
        let Some(threshold) = self.config.panic else {
            return self.shared.is_panicking.store(false, Relaxed);
        };
        let candidates = self.endpoints.iter().filter(|e| e.is_candidate());
        let (mut all, mut healthy) = (0usize, 0usize);
        for endpoint in candidates {
            all += 1;
            healthy += usize::from(endpoint.state.is_healthy());
        }
        let (name, was) = (&self.config.name, self.shared.is_panicking());
        let is_enough = all == 0 || (healthy > 0 && healthy as f64 >= all as f64 * threshold);
        if was && healthy > 0 && is_enough {
            self.shared.is_panicking.store(false, Relaxed);
            tracing::info!(upstream = %name, healthy, of = all, "panic is over");
        } else if !was && !is_enough && threshold > 0.0 {
            self.shared.is_panicking.store(true, Relaxed);
            tracing::error!(upstream = %name, healthy, of = all, "panic: too few endpoints are healthy; requests go to all of them");
        }
    }

    /// Whether a request that was `tried` on these endpoints, by index, can be tried on another one,
    /// healthy or not.
    pub fn has_untried(&self, tried: &[usize]) -> bool {
        let may_dial = self.may_try_unreachable(tried);
        let mut endpoints = self.endpoints.iter().enumerate();
        endpoints.any(|(index, endpoint)| is_left(index, endpoint, tried, may_dial))
    }

    /// Whether a request that was `tried` on these may be tried on one more that is unreachable.
    pub(super) fn may_try_unreachable(&self, tried: &[usize]) -> bool {
        let is_unreachable = |index: &usize| {
            self.endpoints.get(*index).is_some_and(|endpoint| endpoint.state.is_unreachable())
        };
        // Fewer than that are never counted.
        tried.len() < MAX_UNREACHABLE_TRIED
            || tried.iter().filter(|index| is_unreachable(index)).count() < MAX_UNREACHABLE_TRIED
    }
}

/// Whether a request that was `tried` on other endpoints can be tried on this one, healthy or not.
pub(super) fn is_left(index: usize, endpoint: &Endpoint, tried: &[usize], may_dial: bool) -> bool {
    endpoint.is_candidate()
        && !tried.contains(&index)
        && (may_dial || !endpoint.state.is_unreachable())
}
