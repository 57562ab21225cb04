//! Endpoints that fail more often than the others: their rates of failure over the last seconds,
//! compared.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use crate::upstream::Upstream;
use crate::upstream::endpoint::{Endpoint, State};

/// Over how many looks, one a second, rates are taken: long enough for a few requests in the
/// quietest upstream where rates say anything, short enough to act soon.
const LOOKS: usize = 10;

/// Exchanges that an endpoint must have had for its rate to say anything.
const MIN_VOLUME: u64 = 20;

/// What an endpoint has been through: exchanges that went well and that failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    well: u64,
    failed: u64,
}

impl Tally {
    /// Since the process began.
    fn of(state: &State) -> Self {
        let mut tally = Self::default();
        for stats in &state.stats {
            tally.well += stats.responses.get();
            tally.failed += stats.failures.get();
        }
        tally
    }

    const fn since(self, before: Self) -> Self {
        Self {
            well: self.well.saturating_sub(before.well),
            failed: self.failed.saturating_sub(before.failed),
        }
    }

    const fn plus(self, other: Self) -> Self {
        Self { well: self.well + other.well, failed: self.failed + other.failed }
    }

    const fn volume(self) -> u64 {
        self.well + self.failed
    }

    /// The share of failures; `None` where there is too little to tell.
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
    fn rate(self) -> Option<f64> {
        (self.volume() >= MIN_VOLUME).then(|| self.failed as f64 / self.volume() as f64)
    }
}

/// The tallies of endpoints at the last looks, the oldest first.
#[derive(Debug, Default)]
pub struct Outliers {
    looks: HashMap<u64, VecDeque<Tally>>,
}

impl Outliers {
    /// Looks at `upstreams`, once a second, and ejects whoever fails much more often than the
    /// others. Returns whether it ejected any.
    pub fn look<'u>(
        &mut self,
        upstreams: impl Iterator<Item = &'u Upstream>,
        now: Instant,
    ) -> bool {
        let mut before = std::mem::take(&mut self.looks);
        let mut has_ejected = false;
        for upstream in upstreams {
            let mut tallies = Vec::new();
            for endpoint in &upstream.endpoints {
                let mut looks = before.remove(&endpoint.state.id).unwrap_or_default();
                if !endpoint.state.is_healthy() {
                    // What it did before it was left alone says nothing of it when it is back.
                    looks.clear();
                }
                let latest = Tally::of(&endpoint.state);
                let oldest = looks.front().copied().unwrap_or(latest);
                tallies.push(latest.since(oldest));
                looks.push_back(latest);
                if looks.len() > LOOKS {
                    looks.pop_front();
                }
                self.looks.insert(endpoint.state.id, looks);
            }
            has_ejected |= Self::eject(upstream, &tallies, now);
        }
        has_ejected
    }

    fn eject(upstream: &Upstream, tallies: &[Tally], now: Instant) -> bool {
        let Some(rules) = upstream.config.ejection.as_ref().filter(|rules| rules.rate > 0.0) else {
            return false;
        };
        let mut has_ejected = false;
        for (index, (endpoint, tally)) in upstream.endpoints.iter().zip(tallies).enumerate() {
            let others = others(upstream.endpoints.iter().zip(tallies), index);
            let (Some(own), Some(rest)) = (tally.rate(), others.rate()) else { continue };
            if own - rest < rules.rate
                || !endpoint.state.is_healthy()
                || !upstream.may_eject_another()
            {
                continue;
            }
            let why = || {
                let (own, rest) = (own * 100.0, rest * 100.0);
                format!("{own:.0} % of {} failed, {rest:.0} % at the others", tally.volume())
            };
            has_ejected |= endpoint.state.eject(now, rules, why);
        }
        has_ejected
    }
}

/// What all healthy endpoints but the one at `index` have been through.
fn others<'e>(all: impl Iterator<Item = (&'e Endpoint, &'e Tally)>, index: usize) -> Tally {
    all.enumerate()
        .filter(|(other, (endpoint, _))| *other != index && endpoint.state.is_healthy())
        .fold(Tally::default(), |sum, (_, (_, tally))| sum.plus(*tally))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::upstream::Shared;
    use crate::upstream::endpoint::Protocol;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    fn upstream(count: u16) -> Upstream {
        let limits = config::Limits::default();
        let configured: Vec<config::Endpoint> = (0..count)
            .map(|i| config::Endpoint::new(format!("127.0.0.1:{}", 9000 + i).parse().unwrap()))
            .collect();
        let endpoint = |(i, config): (usize, &config::Endpoint)| {
            let state = State::new(i as u64, "u".into(), config.url.to_string(), 1);
            let address = SocketAddr::from(([127, 0, 0, 1], config.url.port)).into();
            Endpoint::new(config, &limits, 1, vec![address], Protocol::Http1, Arc::new(state))
        };
        let endpoints = configured.iter().enumerate().map(endpoint).collect();
        Upstream::new(
            config::Upstream::new("u", configured),
            endpoints,
            Arc::new(Shared::new(1)),
            b"",
        )
    }

    fn traffic(upstream: &Upstream, index: usize, well: u64, failed: u64) {
        let stats = &upstream.endpoints[index].state.stats[0];
        stats.responses.add(well);
        stats.failures.add(failed);
    }

    fn said(upstream: &Upstream, index: usize) -> (&'static str, String) {
        let description = upstream.endpoints[index].describe(Instant::now(), None);
        (description.condition.name(), description.why)
    }

    #[test]
    fn whoever_fails_much_more_often_than_the_others_is_ejected() {
        let (upstream, mut outliers, now) = (upstream(3), Outliers::default(), Instant::now());
        assert!(!outliers.look([&upstream].into_iter(), now));
        traffic(&upstream, 0, 100, 5);
        traffic(&upstream, 1, 60, 40);
        traffic(&upstream, 2, 95, 5);
        assert!(outliers.look([&upstream].into_iter(), now));
        assert_eq!(
            said(&upstream, 1),
            ("ejected", "40 % of 100 failed, 5 % at the others, for 10s".into())
        );
        assert!(!outliers.look([&upstream].into_iter(), now), "it is out already");
        assert_eq!((said(&upstream, 0).0, said(&upstream, 2).0), ("up", "up"));
    }

    #[test]
    fn when_all_fail_alike_or_too_few_were_asked_nobody_is_ejected() {
        let (upstream, mut outliers, now) = (upstream(3), Outliers::default(), Instant::now());
        outliers.look([&upstream].into_iter(), now);
        (0..3).for_each(|index| traffic(&upstream, index, 10, 90));
        assert!(
            !outliers.look([&upstream].into_iter(), now),
            "it is something that all have in common"
        );
        let mut outliers = Outliers::default();
        outliers.look([&upstream].into_iter(), now);
        traffic(&upstream, 0, 0, 19);
        (1..3).for_each(|index| traffic(&upstream, index, 100, 0));
        assert!(!outliers.look([&upstream].into_iter(), now));
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let (upstream, mut outliers, mut now) = (upstream(2), Outliers::default(), Instant::now());
        let rules = config::Ejection { rate: 1.0, ..config::Ejection::default() };
        let lax = Upstream::new(
            config::Upstream { ejection: Some(rules), ..upstream.config.clone() },
            upstream.endpoints.clone(),
            Arc::clone(&upstream.shared),
            b"",
        );
        outliers.look([&lax].into_iter(), now);
        traffic(&upstream, 0, 10, 90);
        traffic(&upstream, 1, 100, 0);
        for _ in 0..LOOKS {
            now += Duration::from_secs(1);
            outliers.look([&lax].into_iter(), now);
        }
        traffic(&upstream, 0, 100, 0);
        assert!(!outliers.look([&upstream].into_iter(), now));
    }
}
