//! What an endpoint's standing is: whether requests may go there, and since when and why it is so.
//!
//! Workers, checks and operators all change it, each in its own part. Whoever picks looks at one
//! atomic, and only where that says that something is the matter at the rest, behind a lock that is
//! held for a few instructions. Every change is one line in the log.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::circuit::{Circuit, Phase};
use super::condition::Condition;
use super::endpoint::State;
use crate::config::{Ejection, SlowStart};
use crate::error::Kind;

/// It has checks, and none of them has ended yet.
const UNKNOWN: u8 = 1;
/// Its checks fail.
const DOWN: u8 = 2;
/// Its circuit is not closed.
const OPEN: u8 = 4;
/// An operator wants nothing new to go there.
const DRAINING: u8 = 8;
/// It is new or has come back, and may have to be eased in.
const WARMING: u8 = 16;
/// No connection to it can be made, and it is dialled in the background.
const UNREACHABLE: u8 = 32;

/// The share that an endpoint begins with when it is eased in; with less it would not get the
/// requests that warm it up.
const FIRST_SHARE: f64 = 0.1;

/// Whether a request may go to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Yes,
    /// It may, as the one that finds out whether the endpoint is well again.
    Probe,
    /// Not this one, since the endpoint is being eased in; if there is no other, it may.
    Later,
    /// It may not.
    No,
}

/// The standing of one endpoint.
#[derive(Debug)]
pub struct Standing {
    bits: AtomicU8,
    /// Failures in a row.
    failures: AtomicU32,
    /// Since when it has been well, in milliseconds after `epoch`.
    well_since: AtomicU64,
    /// When one request may find out whether it is well again, in the same; `u64::MAX` is not now.
    /// So nobody takes the lock before then.
    probe_at: AtomicU64,
    epoch: Instant,
    account: Mutex<Account>,
}

/// The long form.
#[derive(Debug)]
struct Account {
    circuit: Circuit,
    /// When and why it last changed.
    since: Instant,
    why: String,
    ejections: u64,
}

impl Default for Standing {
    fn default() -> Self {
        let epoch = Instant::now();
        let account =
            Account { circuit: Circuit::default(), since: epoch, why: String::new(), ejections: 0 };
        Self {
            bits: AtomicU8::new(0),
            failures: AtomicU32::new(0),
            well_since: AtomicU64::new(0),
            probe_at: AtomicU64::new(u64::MAX),
            epoch,
            account: Mutex::new(account),
        }
    }
}

impl Standing {
    fn has(&self, bits: u8) -> bool {
        self.bits.load(Relaxed) & bits != 0
    }

    /// Sets `bit` or clears it; returns whether that changes anything.
    fn put(&self, bit: u8, is_set: bool) -> bool {
        let before = match is_set {
            true => self.bits.fetch_or(bit, Relaxed),
            false => self.bits.fetch_and(!bit, Relaxed),
        };
        (before & bit != 0) != is_set
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows whoever picks what the circuit has become. To be called before its lock is given up.
    fn show(&self, account: &Account) {
        let probe_at = match account.circuit.phase() {
            Phase::Open { until, .. } => self.millis(until),
            // It has a time as well, which the circuit knows.
            Phase::Probation { .. } => 0,
            _ => u64::MAX,
        };
        self.probe_at.store(probe_at, Relaxed);
        self.put(UNREACHABLE, matches!(account.circuit.phase(), Phase::Unreachable { .. }));
        self.put(OPEN, account.circuit.phase() != Phase::Closed);
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// It is well from now on, and may have to be eased in.
    fn is_well(&self, now: Instant) {
        self.failures.store(0, Relaxed);
        self.well_since.store(self.millis(now), Relaxed);
        self.put(WARMING, true);
    }

    /// The share of requests, 0 to 1, that an endpoint gets that is being eased in.
    fn share(&self, now: Instant, slow_start: SlowStart) -> f64 {
        let well_for = self.millis(now).saturating_sub(self.well_since.load(Relaxed));
        let well_for = Duration::from_millis(well_for).as_secs_f64();
        share(well_for / slow_start.time.as_secs_f64(), slow_start.curve)
    }
}

/// The share after `elapsed` (0 to 1) of the time.
fn share(elapsed: f64, curve: f64) -> f64 {
    elapsed.clamp(0.0, 1.0).powf(1.0 / curve).max(FIRST_SHARE)
}

impl Account {
    fn note(&mut self, now: Instant, why: String) {
        (self.since, self.why) = (now, why);
    }
}

impl State {
    /// Whether a request may go there. `is_repeatable` says whether it could be sent again.
    pub fn admits(
        &self,
        now: Instant,
        is_repeatable: bool,
        slow_start: Option<SlowStart>,
    ) -> Admission {
        let bits = self.standing.bits.load(Relaxed);
        if bits == 0 {
            return Admission::Yes;
        }
        if bits & (UNKNOWN | DOWN | DRAINING) != 0 {
            return Admission::No;
        }
        if bits & OPEN != 0 {
            if self.standing.millis(now) < self.standing.probe_at.load(Relaxed) {
                return Admission::No;
            }
            let may = self.standing.account().circuit.may_probe(now, is_repeatable);
            return if may { Admission::Probe } else { Admission::No };
        }
        let share = slow_start.map_or(1.0, |slow_start| self.standing.share(now, slow_start));
        if share >= 1.0 {
            self.standing.put(WARMING, false);
            return Admission::Yes;
        }
        if fastrand::f64() < share { Admission::Yes } else { Admission::Later }
    }

    /// Whether nothing at all is the matter with it, so that any request may go there.
    #[inline]
    pub fn is_at_ease(&self) -> bool {
        self.standing.bits.load(Relaxed) == 0
    }

    /// Whether a request may go there where no endpoint is well.
    pub fn admits_in_panic(&self) -> bool {
        !self.standing.has(UNKNOWN | DRAINING)
    }

    /// Whether it counts as healthy: checked, up, and its circuit closed.
    pub fn is_healthy(&self) -> bool {
        !self.standing.has(UNKNOWN | DOWN | OPEN)
    }

    /// Whether no connection to it can be made, as far as is known.
    pub fn is_unreachable(&self) -> bool {
        self.standing.has(UNREACHABLE)
    }

    /// Whether nothing is known of it yet.
    pub fn is_unknown(&self) -> bool {
        self.standing.has(UNKNOWN)
    }

    /// Whether whoever waits for its answer had better ask another.
    pub fn is_lost(&self) -> bool {
        self.standing.has(DOWN | OPEN)
    }

    /// Takes the place of the request that finds out whether it is well again; false where
    /// another was faster, or it is not time yet.
    pub fn probe(&self, now: Instant, is_repeatable: bool) -> bool {
        if self.standing.millis(now) < self.standing.probe_at.load(Relaxed) {
            return false;
        }
        let mut account = self.standing.account();
        let has_place = account.circuit.probe(now, is_repeatable);
        self.standing.show(&account);
        has_place
    }

    /// That request has ended without telling anything.
    pub fn probe_ended(&self, now: Instant) {
        let mut account = self.standing.account();
        account.circuit.probe_ended(now);
        self.standing.show(&account);
    }

    /// That request was answered.
    pub fn probe_succeeded(&self, now: Instant) {
        let mut account = self.standing.account();
        if account.circuit.probe_succeeded(now) {
            account.note(now, "it answered a request".into());
            // Before it is shown, so that nobody picks it who does not know that it is new.
            self.standing.is_well(now);
            self.standing.show(&account);
            drop(account);
            tracing::info!(endpoint = %self.label, upstream = %self.upstream, "back in: it answered a request");
        }
    }

    /// An exchange with it went well to its end.
    pub fn succeeded(&self) {
        if self.standing.failures.load(Relaxed) != 0 {
            self.standing.failures.store(0, Relaxed);
        }
    }

    /// An exchange with it failed, by its fault. `may_eject` is asked only where that would eject
    /// it. Returns whether it is left alone from now on because of this.
    pub fn failed(
        &self,
        now: Instant,
        what: &str,
        is_probe: bool,
        rules: &Ejection,
        may_eject: impl FnOnce() -> bool,
    ) -> bool {
        let failures = self.standing.failures.fetch_add(1, Relaxed).saturating_add(1);
        if is_probe {
            return self.eject(now, rules, || format!("{what} on probation"));
        }
        let is_enough = rules.failures > 0 && failures >= rules.failures;
        if !is_enough || self.standing.has(OPEN) || !may_eject() {
            return false;
        }
        self.eject(now, rules, || format!("{failures} failures in a row, the last one {what}"))
    }

    /// Ejects it. Returns whether it was not left alone before.
    pub fn eject(&self, now: Instant, rules: &Ejection, why: impl FnOnce() -> String) -> bool {
        let mut account = self.standing.account();
        let Some(lasts) = account.circuit.eject(now, rules) else { return false };
        let why = why();
        account.note(now, format!("{why}, for {}", rounded(lasts)));
        account.ejections += 1;
        self.standing.show(&account);
        drop(account);
        let (endpoint, upstream) = (&self.label, &self.upstream);
        tracing::warn!(%endpoint, %upstream, "ejected: {why}, for {}", rounded(lasts));
        true
    }

    /// No connection to it could be made. Returns whether it is left alone from now on because of
    /// this.
    pub fn unreachable(&self, now: Instant, kind: Kind) -> bool {
        let mut account = self.standing.account();
        let was_open = !matches!(account.circuit.phase(), Phase::Closed | Phase::Probation { .. });
        let Some(pause) = account.circuit.unreachable(now, fastrand::f64()) else { return false };
        self.standing.show(&account);
        account.note(now, kind.name().into());
        if was_open {
            // It has been said that it is left alone.
            return false;
        }
        account.ejections += 1;
        drop(account);
        let (endpoint, upstream, error) = (&self.label, &self.upstream, kind.name());
        tracing::warn!(%endpoint, %upstream, error, "unreachable: dialled again in {}", rounded(pause));
        true
    }

    /// Whether the time has come to dial it again, to see whether it can be reached.
    pub fn is_due(&self, now: Instant) -> bool {
        self.standing.has(OPEN)
            && matches!(
                self.standing.account().circuit.phase(),
                Phase::Unreachable { until, .. } if now >= until
            )
    }

    /// A connection to it was made.
    pub fn reached(&self, now: Instant) {
        if !self.standing.has(OPEN) {
            return;
        }
        let mut account = self.standing.account();
        if account.circuit.reached(now) {
            account.note(now, "it can be connected to again".into());
            self.standing.show(&account);
            drop(account);
            tracing::info!(endpoint = %self.label, upstream = %self.upstream, "reachable again: one request goes there first");
        }
    }

    /// It has checks, and is unknown until the first of them ends.
    pub fn awaits_check(&self) {
        self.standing.put(UNKNOWN, true);
        self.standing.account().note(Instant::now(), "not checked yet".into());
    }

    /// It has no checks any more.
    pub fn is_not_checked(&self) {
        self.standing.put(UNKNOWN | DOWN, false);
    }

    /// It is new beside others that are warm.
    pub fn is_new(&self) {
        self.standing.is_well(Instant::now());
    }

    /// What its checks say has changed. Returns whether it is left alone from now on because of
    /// this.
    pub fn checked(&self, now: Instant, is_up: bool, why: &str) -> bool {
        let was_unknown = self.standing.put(UNKNOWN, false);
        let has_changed = self.standing.put(DOWN, !is_up);
        if has_changed || was_unknown {
            self.standing.account().note(now, why.to_owned());
        }
        let (endpoint, upstream) = (&self.label, &self.upstream);
        if is_up {
            self.reached(now);
            if has_changed {
                self.standing.is_well(now);
                tracing::info!(%endpoint, %upstream, "up: {why}");
            } else if was_unknown {
                tracing::info!(%endpoint, %upstream, "up: its first check passed");
            }
        } else if has_changed {
            tracing::warn!(%endpoint, %upstream, "down: {why}");
        }
        has_changed && !is_up
    }

    /// An operator wants nothing new to go there, or wants that no more.
    pub fn drain(&self, now: Instant, is_draining: bool) {
        if self.standing.put(DRAINING, is_draining) {
            let (endpoint, upstream) = (&self.label, &self.upstream);
            let why =
                if is_draining { "an operator drains it" } else { "an operator wants it back" };
            self.standing.account().note(now, why.into());
            match is_draining {
                true => tracing::info!(%endpoint, %upstream, "draining: {why}"),
                false => {
                    self.standing.is_well(now);
                    tracing::info!(%endpoint, %upstream, "no longer draining: {why}");
                }
            }
        }
    }

    /// How often it was ejected, or could not be reached.
    pub fn ejections(&self) -> u64 {
        self.standing.account().ejections
    }

    /// What its standing is, since when, and why.
    pub(super) fn condition(
        &self,
        now: Instant,
        slow_start: Option<SlowStart>,
    ) -> (Condition, Duration, String) {
        let bits = self.standing.bits.load(Relaxed);
        let account = self.standing.account();
        let is_warming = || {
            let share = slow_start.map(|slow_start| self.standing.share(now, slow_start));
            bits & WARMING != 0 && share.is_some_and(|share| share < 1.0)
        };
        let condition = match account.circuit.phase() {
            _ if bits & UNKNOWN != 0 => Condition::Unknown,
            _ if bits & DOWN != 0 => Condition::Down,
            Phase::Unreachable { .. } => Condition::Unreachable,
            Phase::Open { .. } => Condition::Ejected,
            Phase::Probation { .. } => Condition::Probation,
            Phase::Closed if bits & DRAINING != 0 => Condition::Draining,
            Phase::Closed if is_warming() => Condition::Warming,
            Phase::Closed => Condition::Up,
        };
        let since = now.saturating_duration_since(account.since);
        (condition, since, account.why.clone())
    }
}

/// A duration for people: whole milliseconds, or whole seconds from ten of them on.
fn rounded(duration: Duration) -> humantime::FormattedDuration {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let whole = if millis >= 10_000 { millis / 1000 * 1000 } else { millis };
    humantime::format_duration(Duration::from_millis(whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::endpoint::tests::endpoints;

    const SECOND: Duration = Duration::from_secs(1);

    fn state() -> std::sync::Arc<State> {
        endpoints(&[1]).remove(0).state
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_between_them_does_not_count() {
        let (state, rules, now) = (state(), Ejection::default(), Instant::now());
        for _ in 0..4 {
            assert!(!state.failed(now, "reset", false, &rules, || true));
        }
        state.succeeded();
        for _ in 0..4 {
            assert!(!state.failed(now, "reset", false, &rules, || true));
        }
        assert!(!state.failed(now, "reset", false, &rules, || false), "too many others are out");
        assert!(state.failed(now, "reset", false, &rules, || true));
        assert!(!state.failed(now, "reset", false, &rules, || true), "it is out already");
        assert_eq!(state.admits(now, true, None), Admission::No);
        let (condition, _, why) = state.condition(now, None);
        assert_eq!(condition, Condition::Ejected);
        assert_eq!(why, "6 failures in a row, the last one reset, for 10s");
        let later = now + 10 * SECOND;
        assert_eq!(state.admits(later, true, None), Admission::Probe);
        assert!(state.probe(later, true) && !state.probe(later, true));
        assert_eq!(state.admits(later, true, None), Admission::No);
        assert!(state.failed(later, "reset", true, &rules, || false), "whatever the others do");
        assert_eq!(state.condition(later, None).2, "reset on probation, for 20s");
        let again = later + 20 * SECOND;
        assert!(state.probe(again, true));
        state.probe_succeeded(again);
        assert_eq!(state.admits(again, true, None), Admission::Yes);
        assert_eq!(state.ejections(), 2);
    }

    #[test]
    fn what_is_not_checked_yet_gets_nothing_not_even_in_panic() {
        let (state, now) = (state(), Instant::now());
        state.awaits_check();
        assert_eq!(state.admits(now, true, None), Admission::No);
        assert!(!state.admits_in_panic() && !state.is_lost());
        assert!(state.checked(now, false, "status 503"), "nobody may wait for it");
        assert!(state.admits_in_panic() && state.is_lost() && !state.is_healthy());
        assert!(!state.checked(now, true, "2 checks passed"));
        assert_eq!(state.admits(now, true, None), Admission::Yes);
    }

    #[test]
    fn an_endpoint_that_came_back_is_eased_in() {
        let (state, start) = (state(), Instant::now());
        let slow = Some(SlowStart { time: 10 * SECOND, curve: 1.0 });
        assert_eq!(state.admits(start, true, slow), Admission::Yes, "not at the start of all");
        state.checked(start, false, "gone");
        state.checked(start, true, "here");
        let admitted = |after| {
            let admits = || state.admits(start + after, true, slow);
            (0..1000).filter(|_| admits() == Admission::Yes).count()
        };
        assert!((50..200).contains(&admitted(Duration::ZERO)), "{}", admitted(Duration::ZERO));
        assert!((400..600).contains(&admitted(5 * SECOND)), "{}", admitted(5 * SECOND));
        assert_eq!(state.condition(start + 5 * SECOND, slow).0, Condition::Warming);
        assert_eq!(admitted(11 * SECOND), 1000);
        assert_eq!(state.condition(start + 11 * SECOND, slow).0, Condition::Up);
    }

    #[test]
    fn the_curve_of_a_slow_start() {
        let percent = |elapsed, curve| (share(elapsed, curve) * 100.0).round();
        assert_eq!(
            [0.0, 0.05, 0.5, 1.0, 2.0].map(|e| percent(e, 1.0)),
            [10., 10., 50., 100., 100.]
        );
        assert_eq!([0.25, 0.5].map(|e| percent(e, 2.0)), [50.0, 71.0]);
        assert_eq!([0.5, 0.9].map(|e| percent(e, 0.5)), [25.0, 81.0]);
    }

    #[test]
    fn sessions_stay_with_an_endpoint_that_drains_and_leave_one_that_is_gone() {
        let (state, now) = (state(), Instant::now());
        state.drain(now, true);
        assert_eq!(state.admits(now, true, None), Admission::No);
        assert!(state.is_healthy() && !state.admits_in_panic());
        assert_eq!(state.condition(now, None).0, Condition::Draining);
        assert!(state.unreachable(now, Kind::ConnectionRefused));
        assert!(!state.is_healthy() && state.is_unreachable());
        state.drain(now, false);
        assert_eq!(state.condition(now, None).0, Condition::Unreachable);
        state.reached(now);
        assert!(!state.is_healthy() && !state.is_unreachable());
    }
}
