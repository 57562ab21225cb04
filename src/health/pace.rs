//! How fast endpoints answer: their response times of late, the time that most answers begin
//! within, and how many requests each should have at once.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::upstream::Upstream;
use crate::upstream::endpoint::{Endpoint, State};
use crate::upstream::gradient::{Gradient, Window};
use crate::upstream::quantile::{Latencies, Quantile};

/// What a look tells of the response time of late, against all looks before: about the last ten
/// seconds count.
const WEIGHT: f64 = 0.2;

/// Of so many endpoints of an upstream one may probe its limit at a time: all of them at once would
/// do half of what they can.
const PROBING: usize = 10;

/// What is known of the pace of upstreams and endpoints.
#[derive(Debug, Default)]
pub struct Pace {
    upstreams: HashMap<String, Quantile>,
    endpoints: HashMap<u64, Past>,
}

/// What was known of an endpoint before.
#[derive(Debug)]
struct Past {
    /// At the last update of its limit.
    updated: Tally,
    /// At the last look at its response time.
    looked: Tally,
    gradient: Option<Gradient>,
}

/// Responses so far, and the time that they took in microseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    count: u64,
    micros: u64,
}

impl Tally {
    fn of(state: &State) -> Self {
        state.stats.iter().fold(Self::default(), |sum, stats| Self {
            count: sum.count + stats.responses.get(),
            micros: sum.micros + stats.response_time.get(),
        })
    }

    /// How many came since `before`, and their mean time.
    fn since(self, before: Self) -> (u64, Option<Duration>) {
        let count = self.count.saturating_sub(before.count);
        let micros = self.micros.saturating_sub(before.micros);
        (count, micros.checked_div(count).map(Duration::from_micros))
    }
}

impl Pace {
    /// Sets the limits that follow response times anew; some times a second.
    pub fn limit(&mut self, upstream: &Upstream, now: Instant) {
        if !upstream.config.limits.adaptive {
            upstream.endpoints.iter().for_each(|e| e.state.limit_adaptively(u32::MAX));
            return;
        }
        let mut probing = upstream.endpoints.iter().filter(|e| self.is_probing(e)).count();
        let all = upstream.endpoints.len();
        // From any of them on, so that it is not always the same ones that probe first.
        let first = fastrand::usize(..all.max(1));
        for endpoint in upstream.endpoints.iter().cycle().skip(first).take(all) {
            let past = self.past(endpoint);
            let tally = Tally::of(&endpoint.state);
            let (count, mean) = tally.since(past.updated);
            past.updated = tally;
            let gradient =
                past.gradient.get_or_insert_with(|| Gradient::new(endpoint.max_requests(), now));
            // A reload may have changed it.
            gradient.set_max(endpoint.max_requests());
            let in_flight = endpoint.state.in_flight();
            let window = Window { count, mean: mean.unwrap_or_default(), in_flight };
            let was_probing = gradient.is_probing();
            let may_probe = probing < all.div_ceil(PROBING);
            endpoint.state.limit_adaptively(gradient.update(now, window, may_probe));
            probing += usize::from(!was_probing && gradient.is_probing());
        }
    }

    /// Looks at the response times of `upstream`; once a second.
    pub fn look(&mut self, upstream: &Upstream, now: Instant) {
        let quantile = self.upstreams.entry(upstream.config.name.clone());
        let quantile = quantile.or_insert_with(|| Quantile::new(now));
        quantile.update(now, Latencies::sum(upstream.shared.latencies.iter()));
        upstream.shared.set_p95(quantile.p95());
        for endpoint in &upstream.endpoints {
            let past = self.past(endpoint);
            let tally = Tally::of(&endpoint.state);
            let (_, mean) = tally.since(past.looked);
            past.looked = tally;
            if let Some(mean) = mean {
                let known = endpoint.state.recent_latency().unwrap_or(mean);
                let recent = known.mul_f64(1.0 - WEIGHT) + mean.mul_f64(WEIGHT);
                endpoint.state.set_recent_latency(recent);
            }
        }
    }

    /// Forgets what is no longer there.
    pub fn keep_only<'u>(&mut self, upstreams: impl Iterator<Item = &'u Upstream> + Clone) {
        let names: HashSet<&str> = upstreams.clone().map(|u| u.config.name.as_str()).collect();
        self.upstreams.retain(|name, _| names.contains(name.as_str()));
        let endpoints = upstreams.flat_map(|upstream| &upstream.endpoints);
        let ids: HashSet<u64> = endpoints.map(|endpoint| endpoint.state.id).collect();
        self.endpoints.retain(|id, _| ids.contains(id));
    }

    fn is_probing(&self, endpoint: &Endpoint) -> bool {
        let gradient = self.endpoints.get(&endpoint.state.id).and_then(|p| p.gradient.as_ref());
        gradient.is_some_and(Gradient::is_probing)
    }

    fn past(&mut self, endpoint: &Endpoint) -> &mut Past {
        self.endpoints.entry(endpoint.state.id).or_insert_with(|| {
            let tally = Tally::of(&endpoint.state);
            Past { updated: tally, looked: tally, gradient: None }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config;
    use crate::upstream::Shared;
    use crate::upstream::endpoint::tests::{busy, endpoints};

    /// Endpoints that take 20 ms for each of 8 requests at once and have as many as they may, over
    /// ten minutes: how many of them probed at once, at most, and how many did at all.
    fn probes(count: usize) -> (usize, usize) {
        let mut config = config::Upstream::new("app", Vec::new());
        config.limits.adaptive = true;
        let shared = Arc::new(Shared::new(1));
        let upstream = Upstream::new(config, endpoints(&vec![1; count]), shared, b"");
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let (mut most, mut ever) = (0, HashSet::new());
        for _ in 0..6000 {
            let in_flight: Vec<_> = upstream
                .endpoints
                .iter()
                .flat_map(|endpoint| {
                    let limit = endpoint.limit().min(100);
                    let micros = 20_000 * u64::from(limit.max(8)) / 8;
                    let stats = &endpoint.state.stats[0];
                    // As many as are answered in 100 ms.
                    let answers = u64::from(limit) * 100_000 / micros;
                    stats.responses.add(answers);
                    stats.response_time.add(answers * micros);
                    (0..limit).map(|_| busy(endpoint)).collect::<Vec<_>>()
                })
                .collect();
            now += Duration::from_millis(100);
            pace.limit(&upstream, now);
            drop(in_flight);
            let probing = upstream.endpoints.iter().filter(|e| pace.is_probing(e));
            let ids: Vec<u64> = probing.map(|e| e.state.id).collect();
            most = most.max(ids.len());
            ever.extend(ids);
        }
        (most, ever.len())
    }

    #[test]
    fn few_endpoints_probe_at_once_and_each_has_its_turn() {
        assert_eq!(probes(1), (1, 1));
        assert_eq!(probes(2), (1, 2));
        assert_eq!(probes(21), (3, 21));
    }
}
