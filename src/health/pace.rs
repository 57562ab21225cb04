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
        for endpoint in &upstream.endpoints {
            if !upstream.config.limits.adaptive {
                endpoint.state.limit_adaptively(u32::MAX);
                continue;
            }
            let past = self.past(endpoint);
            let tally = Tally::of(&endpoint.state);
            let (count, mean) = tally.since(past.updated);
            past.updated = tally;
            let gradient =
                past.gradient.get_or_insert_with(|| Gradient::new(endpoint.max_requests, now));
            // A reload may have changed it.
            gradient.set_max(endpoint.max_requests);
            let in_flight = endpoint.state.in_flight();
            let window = Window { count, mean: mean.unwrap_or_default(), in_flight };
            endpoint.state.limit_adaptively(gradient.update(now, window));
        }
    }

    /// Looks at the response times of `upstream`; once a second.
    pub fn look(&mut self, upstream: &Upstream, now: Instant) {
        let counts = || Latencies::sum(upstream.shared.latencies.iter());
        let quantile = self.upstreams.entry(upstream.config.name.clone());
        let quantile = quantile.or_insert_with(|| Quantile::new(now, counts()));
        quantile.update(now, counts());
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

    fn past(&mut self, endpoint: &Endpoint) -> &mut Past {
        self.endpoints.entry(endpoint.state.id).or_insert_with(|| {
            let tally = Tally::of(&endpoint.state);
            Past { updated: tally, looked: tally, gradient: None }
        })
    }
}
