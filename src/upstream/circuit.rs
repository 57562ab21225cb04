//! When an endpoint that fails in traffic is left alone, and how it comes back: pure rules of
//! `now`, for one endpoint.
//!
//! ```text
//!              failures                   time is over, one request
//!   Closed ───────────────▶ Open ◀──────────────────────────────▶ Probation
//!     ▲  no connection ▲      ▲            it failed                  │
//!     │                ▼      │ a connection was made                 │ it was answered
//!     │           Unreachable ┘                                       │
//!     └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! What cannot even be connected to is left alone at once, and dialled in the background until it
//! can, so that it costs no request anything. What answers badly is ejected after several
//! failures, and let in again by a single request.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff::backoff;
use crate::config::Ejection;

/// Between the first failed connection and the next dial. A process that is restarted is back
/// within a few of these.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// The longest between two dials: how late an endpoint that is back is noticed.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How long an endpoint that can be connected to again waits for a request that may be repeated,
/// before any will do to find out the rest.
const REPEATABLE_FIRST: Duration = Duration::from_secs(1);

/// How long the request that finds out whether an endpoint is well again has the place for itself:
/// one that takes longer may be slow for its own reasons.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// What is known of one endpoint's failures.
#[derive(Debug, Default)]
pub struct Circuit {
    phase: Phase,
    /// Ejections soon after one another; the next one lasts twice as long for each.
    repetitions: u32,
    /// When it last closed.
    closed_at: Option<Instant>,
}

/// What becomes of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// They go there.
    #[default]
    Closed,
    /// No connection can be made; the next dial is due at an instant.
    Unreachable {
        /// When.
        until: Instant,
        /// Failed connections in a row.
        failures: u32,
    },
    /// None goes there until an instant, and then one.
    Open {
        /// When.
        until: Instant,
        /// How long it was for.
        lasts: Duration,
    },
    /// One is there, to see whether it is answered; if that takes long, another may be sent too.
    Probation {
        /// When it was let in.
        since: Instant,
        /// For how long it was left alone before.
        lasts: Duration,
    },
}

impl Circuit {
    /// What becomes of requests now.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// A connection could not be made. Returns for how long the endpoint is left alone, where this
    /// failure is the one that decides it; many may fail at once. `jitter` is from 0 to 1.
    pub fn unreachable(&mut self, now: Instant, jitter: f64) -> Option<Duration> {
        let failures = match self.phase {
            Phase::Unreachable { until, .. } if now < until => return None,
            Phase::Unreachable { failures, .. } => failures.saturating_add(1),
            _ => 1,
        };
        let pause = backoff(SHORTEST_PAUSE, LONGEST_PAUSE, failures.saturating_sub(1), jitter);
        self.phase = Phase::Unreachable { until: now + pause, failures };
        Some(pause)
    }

    /// A connection was made. Returns whether it is the first after a failure; then one request may
    /// find out the rest.
    pub fn reached(&mut self, now: Instant) -> bool {
        let was_unreachable = matches!(self.phase, Phase::Unreachable { .. });
        if was_unreachable {
            self.phase = Phase::Open { until: now, lasts: REPEATABLE_FIRST };
        }
        was_unreachable
    }

    /// Ejects the endpoint, unless it is left alone already. Returns for how long.
    pub fn eject(&mut self, now: Instant, rules: &Ejection) -> Option<Duration> {
        if matches!(self.phase, Phase::Open { .. } | Phase::Unreachable { .. }) {
            return None;
        }
        if let (Phase::Closed, Some(closed_at)) = (self.phase, self.closed_at) {
            // It has been well for as long as that many ejections.
            let calm = now.saturating_duration_since(closed_at).as_millis();
            let forgotten = calm / rules.time.as_millis().max(1);
            self.repetitions =
                self.repetitions.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX));
        }
        // 2^16 times a millisecond is a minute already, and `max_time` bounds what comes of it.
        let doubled = rules.time.saturating_mul(1 << self.repetitions.min(16));
        let lasts = doubled.min(rules.max_time);
        self.repetitions = self.repetitions.saturating_add(1);
        self.phase = Phase::Open { until: now + lasts, lasts };
        Some(lasts)
    }

    /// Whether one request may go there to see whether it is answered: once the time is over, a
    /// request that may be sent again if it is not; any, once twice the time is over, for there may
    /// be no others.
    pub fn may_probe(&self, now: Instant, is_repeatable: bool) -> bool {
        match self.phase {
            Phase::Open { until, .. } if is_repeatable => now >= until,
            Phase::Open { until, lasts } => now >= until + lasts,
            Phase::Probation { since, .. } => now >= since + PROBE_PATIENCE,
            _ => false,
        }
    }

    /// Takes the one place for such a request; false where another was faster.
    pub fn probe(&mut self, now: Instant, is_repeatable: bool) -> bool {
        let (Phase::Open { lasts, .. } | Phase::Probation { lasts, .. }) = self.phase else {
            return false;
        };
        let may = self.may_probe(now, is_repeatable);
        if may {
            self.phase = Phase::Probation { since: now, lasts };
        }
        may
    }

    /// That request has ended without telling anything; another may be the one.
    pub fn probe_ended(&mut self, now: Instant) {
        if let Phase::Probation { lasts, .. } = self.phase {
            self.phase = Phase::Open { until: now, lasts };
        }
    }

    /// That request was answered. Returns whether requests go there again because of it.
    pub fn probe_succeeded(&mut self, now: Instant) -> bool {
        let was_probation = matches!(self.phase, Phase::Probation { .. });
        if was_probation {
            self.phase = Phase::Closed;
            self.closed_at = Some(now);
        }
        was_probation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules() -> Ejection {
        Ejection { time: 10 * SECOND, max_time: 60 * SECOND, ..Ejection::default() }
    }

    #[test]
    fn connections_that_fail_at_once_count_as_one_and_a_connection_lets_one_request_in() {
        let mut circuit = Circuit::default();
        let start = Instant::now();
        let ms = Duration::from_millis;
        assert_eq!(circuit.unreachable(start, 1.0), Some(ms(100)));
        assert_eq!(circuit.unreachable(start + ms(99), 1.0), None);
        assert!(!circuit.may_probe(start + SECOND, true), "only a dial finds out");
        assert_eq!(circuit.unreachable(start + ms(100), 1.0), Some(ms(200)));
        assert!(circuit.reached(start + SECOND));
        assert!(!circuit.reached(start + SECOND));
        assert!(circuit.probe(start + SECOND, true));
        assert!(!circuit.probe(start + SECOND, true), "one at a time");
        assert!(circuit.probe_succeeded(start + SECOND));
        assert_eq!(circuit.phase(), Phase::Closed);
        assert_eq!(circuit.unreachable(start + SECOND, 1.0), Some(ms(100)), "it begins anew");
    }

    #[test]
    fn an_ejection_ends_with_one_request_that_is_answered() {
        let (mut circuit, rules, start) = (Circuit::default(), rules(), Instant::now());
        assert_eq!(circuit.eject(start, &rules), Some(10 * SECOND));
        assert_eq!(circuit.eject(start, &rules), None, "it is out already");
        assert!(!circuit.may_probe(start + 9 * SECOND, true));
        assert!(circuit.may_probe(start + 10 * SECOND, true));
        assert!(!circuit.may_probe(start + 10 * SECOND, false), "not with what cannot be repeated");
        assert!(circuit.may_probe(start + 20 * SECOND, false), "unless there is nothing else");
        assert!(circuit.probe(start + 10 * SECOND, true));
        assert!(!circuit.may_probe(start + 14 * SECOND, true));
        assert!(circuit.may_probe(start + 15 * SECOND, true), "that one takes too long to tell");
        circuit.probe_ended(start + 30 * SECOND);
        assert!(!circuit.probe(start + 39 * SECOND, false));
        assert!(circuit.probe(start + 40 * SECOND, false));
        assert!(circuit.probe_succeeded(start + 41 * SECOND));
        assert!(!circuit.probe_succeeded(start + 41 * SECOND));
    }

    #[test]
    fn repetition_doubles_the_time_up_to_the_longest_and_calm_forgets() {
        let (mut circuit, rules, mut now) = (Circuit::default(), rules(), Instant::now());
        for expected in [10, 20, 40, 60, 60] {
            assert_eq!(circuit.eject(now, &rules), Some(expected * SECOND));
            now += 100 * SECOND;
            assert!(circuit.probe(now, true));
            // The last one is answered, those before it failed.
        }
        assert!(circuit.probe_succeeded(now));
        assert_eq!(circuit.repetitions, 5);
        assert_eq!(circuit.eject(now + 30 * SECOND, &rules), Some(40 * SECOND), "three forgotten");
        now += 100 * SECOND;
        assert!(circuit.probe(now, true) && circuit.probe_succeeded(now));
        assert_eq!(circuit.eject(now + 3600 * SECOND, &rules), Some(10 * SECOND));
    }

    #[test]
    fn a_connection_that_fails_on_probation_goes_back_to_dialling() {
        let (mut circuit, start) = (Circuit::default(), Instant::now());
        circuit.eject(start, &rules());
        assert!(circuit.probe(start + 10 * SECOND, true));
        assert!(circuit.unreachable(start + 11 * SECOND, 1.0).is_some());
        assert!(matches!(circuit.phase(), Phase::Unreachable { failures: 1, .. }));
    }
}
