//! Which endpoint a request goes to: what the policy says, among those that may have it.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::Upstream;
use super::endpoint::Endpoint;
use super::panic::is_left;
use super::standing::Admission;

/// How often a pick is made anew where another worker took the last place in between.
const MAX_RACES: usize = 3;

/// What a request wants of a pick.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'w> {
    /// Endpoints that it has been tried on, by index; it wants another.
    pub tried: &'w [usize],
    /// What `consistent-hash` goes by.
    pub key: Option<u64>,
    /// The endpoint that its session belongs to, by index.
    pub session: Option<usize>,
    /// Whether it could be sent again.
    pub is_repeatable: bool,
    /// Whether it may go to one that is not healthy where none is.
    pub may_panic: bool,
    /// The time.
    pub now: Instant,
}

impl Wanted<'_> {
    /// Of a first try that may go anywhere, at the time `now`.
    pub fn anything(now: impl Into<Instant>) -> Self {
        let now = now.into();
        let (tried, key, session): (&[usize], _, _) = (&[], None, None);
        Self { tried, key, session, is_repeatable: true, may_panic: true, now }
    }
}

/// An endpoint for one request, which is in flight to it until this is dropped: at its response's
/// end, or when it is given up.
#[derive(Debug)]
pub struct Picked<'u> {
    /// Of this upstream.
    pub upstream: &'u Upstream,
    /// Its index in the upstream.
    pub index: usize,
    /// The endpoint.
    pub endpoint: &'u Endpoint,
    /// Why this one.
    pub how: How,
    /// When it was picked.
    pub since: Instant,
    /// Whether this request is to find out whether the endpoint is well again.
    is_probe: Cell<bool>,
}

/// Why an endpoint was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By the policy.
    Policy,
    /// Its session belongs there.
    Session,
    /// No endpoint is healthy, so all are tried.
    Panic,
}

/// Why no endpoint was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPick {
    /// Those that could take it are at their limits.
    Full,
    /// None has been checked yet.
    Unknown,
    /// None has an address.
    NoAddress,
    /// All are gone, or have been tried.
    None,
}

/// What was found on the way to a pick.
#[derive(Debug, Default)]
struct Found {
    /// One is being eased in, and may have the request if there is no other of its priority.
    later: Cell<bool>,
    /// There is no other.
    also_later: Cell<bool>,
    /// One is at its limit.
    full: Cell<bool>,
}

impl Upstream {
    /// Picks an endpoint for a request: that of its session, or the policy's choice among those of
    /// the smallest priority that may have it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn pick(&self, wanted: &Wanted<'_>) -> Result<Picked<'_>, NoPick> {
        let is_counted = self.counts_requests();
        if is_counted && !self.shared.in_flight.take(self.max_requests()) {
            return Err(NoPick::Full);
        }
        let picked = self.pick_uncounted(wanted);
        if is_counted && picked.is_err() {
            self.shared.in_flight.give();
        }
        picked
    }

    fn pick_uncounted(&self, wanted: &Wanted<'_>) -> Result<Picked<'_>, NoPick> {
        if let Some(picked) = wanted.session.and_then(|index| self.pick_session(index, wanted)) {
            return Ok(picked);
        }
        let found = Found::default();
        if !(wanted.may_panic && self.ignores_health()) {
            let ready = |i: usize, e: &Endpoint| self.is_ready(i, e, wanted, &found);
            if let Some(picked) = self.pick_among(wanted, How::Policy, &found, ready) {
                return Ok(picked);
            }
        }
        if found.full.get() {
            return Err(NoPick::Full);
        }
        if self.endpoints.iter().all(|e| e.addresses.is_empty()) {
            Err(NoPick::NoAddress)
        } else if self.config.panic.is_some() && wanted.may_panic {
            self.pick_in_panic(wanted, &found)
        } else if self.endpoints.iter().all(|e| e.state.is_unknown() || !e.is_usable()) {
            Err(NoPick::Unknown)
        } else {
            Err(NoPick::None)
        }
    }

    /// Any endpoint with an address, but one that is unknown yet or drains; few of those that are
    /// unreachable.
    fn pick_in_panic(&self, wanted: &Wanted<'_>, found: &Found) -> Result<Picked<'_>, NoPick> {
        let has_unknown = Cell::new(false);
        let may_dial = self.may_try_unreachable(wanted.tried);
        let ready = |index: usize, e: &Endpoint| {
            has_unknown.set(has_unknown.get() || e.state.is_unknown());
            is_left(index, e, wanted.tried, may_dial) && self.has_room(e, found)
        };
        let picked = self.pick_among(wanted, How::Panic, found, ready);
        match picked {
            Some(picked) => {
                if wanted.tried.is_empty() && !self.shared.is_panicking.swap(true, Relaxed) {
                    let upstream = &self.config.name;
                    tracing::error!(%upstream, "panic: no endpoint is healthy; requests go to all of them");
                }
                Ok(picked)
            }
            None if found.full.get() => Err(NoPick::Full),
            None if has_unknown.get() && wanted.tried.is_empty() => Err(NoPick::Unknown),
            None => Err(NoPick::None),
        }
    }

    /// The policy's choice among those that are `ready`, priority by priority.
    fn pick_among(
        &self,
        wanted: &Wanted<'_>,
        how: How,
        found: &Found,
        ready: impl Fn(usize, &Endpoint) -> bool,
    ) -> Option<Picked<'_>> {
        for (_, balancer) in &self.tiers {
            found.later.set(false);
            found.also_later.set(false);
            for _ in 0..MAX_RACES {
                match balancer.pick(&self.endpoints, wanted.key, wanted.now, &ready) {
                    Some(index) => {
                        let picked = self.start(index, how, wanted);
                        if picked.is_some() {
                            return picked;
                        }
                    }
                    // There are only some that are being eased in.
                    None if found.later.get() => found.also_later.set(true),
                    None => break,
                }
            }
        }
        None
    }

    /// The endpoint that the request's session belongs to, if it is still there: also one that
    /// drains.
    fn pick_session(&self, index: usize, wanted: &Wanted<'_>) -> Option<Picked<'_>> {
        let endpoint = self.endpoints.get(index)?;
        let may = !endpoint.addresses.is_empty()
            && endpoint.state.is_healthy()
            && !wanted.tried.contains(&index);
        if may { self.start(index, How::Session, wanted) } else { None }
    }

    #[inline]
    fn is_ready(
        &self,
        index: usize,
        endpoint: &Endpoint,
        wanted: &Wanted<'_>,
        found: &Found,
    ) -> bool {
        // Nearly always nothing is the matter with it.
        if endpoint.state.is_at_ease() && endpoint.is_usable() && wanted.tried.is_empty() {
            return self.has_room(endpoint, found);
        }
        if !endpoint.is_usable() || wanted.tried.contains(&index) {
            return false;
        }
        let slow_start = self.config.slow_start;
        match endpoint.state.admits(wanted.now, wanted.is_repeatable, slow_start) {
            Admission::Yes | Admission::Probe => {}
            Admission::Later => {
                found.later.set(true);
                if !found.also_later.get() {
                    return false;
                }
            }
            Admission::No => return false,
        }
        self.has_room(endpoint, found)
    }

    #[inline]
    fn has_room(&self, endpoint: &Endpoint, found: &Found) -> bool {
        let has_room = !self.is_limited || endpoint.state.in_flight() < endpoint.limit();
        if !has_room {
            found.full.set(true);
        }
        has_room
    }

    /// The request is in flight to the endpoint from now on, unless another was faster.
    fn start(&self, index: usize, how: How, wanted: &Wanted<'_>) -> Option<Picked<'_>> {
        let endpoint = self.endpoints.get(index)?;
        let limit = if self.is_limited { endpoint.limit() } else { u32::MAX };
        if !endpoint.state.start(limit) {
            return None;
        }
        // Also in panic, which would never end otherwise where it is by a threshold.
        let is_lost = how != How::Session && endpoint.state.is_lost();
        let is_probe = is_lost && endpoint.state.probe(wanted.now, wanted.is_repeatable);
        if is_lost && !is_probe && how == How::Policy {
            endpoint.state.end();
            return None;
        }
        let (since, is_probe) = (wanted.now, Cell::new(is_probe));
        Some(Picked { upstream: self, index, endpoint, how, since, is_probe })
    }

    /// Whether a request could go to another endpoint than those it has been tried on.
    /// `is_repeatable` says whether it could be sent again then.
    pub fn has_another(
        &self,
        tried: impl Fn(usize) -> bool,
        is_repeatable: bool,
        now: Instant,
    ) -> bool {
        let found = Found::default();
        let slow_start = self.config.slow_start;
        let mut others = self.endpoints.iter().enumerate().filter(|(index, _)| !tried(*index));
        others.any(|(_, e)| {
            e.is_usable()
                && e.state.admits(now, is_repeatable, slow_start) != Admission::No
                && self.has_room(e, &found)
        })
    }

    /// Wakes as many of those that wait as there is room for now: for room that nobody freed, since
    /// an endpoint is back or a limit was raised, and for what was freed while somebody lined up.
    pub fn wake_waiting(&self, now: Instant) {
        let queue = &self.shared.queue;
        if !queue.is_empty() {
            queue.wake_for(usize::try_from(self.room(now)).unwrap_or(usize::MAX), now);
        }
    }

    /// How many more requests could be picked for now.
    fn room(&self, now: Instant) -> u32 {
        let all = self.max_requests().saturating_sub(self.shared.in_flight.get());
        let sum = |may: &dyn Fn(&Endpoint) -> bool| {
            let rooms = self.endpoints.iter().filter(|e| e.is_usable() && may(e));
            rooms.map(|e| e.limit().saturating_sub(e.state.in_flight())).reduce(u32::saturating_add)
        };
        let slow_start = self.config.slow_start;
        let admits = |e: &Endpoint| e.state.admits(now, true, slow_start) != Admission::No;
        let in_panic = |e: &Endpoint| e.state.admits_in_panic();
        let rooms = match (self.ignores_health(), self.config.panic) {
            (true, _) => sum(&in_panic),
            (false, Some(_)) => sum(&admits).or_else(|| sum(&in_panic)),
            (false, None) => sum(&admits),
        };
        // Where nobody can have them, they are to be told.
        rooms.map_or(u32::MAX, |room| room.min(all))
    }
}

impl Picked<'_> {
    /// The endpoint has begun to answer well.
    pub fn answered(&self, now: Instant) {
        if self.is_probe.replace(false) {
            self.endpoint.state.probe_succeeded(now);
        }
    }

    /// Whether the endpoint has gone since, so that whoever waits for its answer had better ask
    /// another; not where it was known from the start.
    pub fn is_lost(&self) -> bool {
        self.endpoint.state.is_lost() && !self.is_probe.get() && self.how != How::Panic
    }

    /// The exchange has failed by the endpoint's fault, as `what` says. Returns whether the endpoint
    /// is left alone from now on because of this.
    pub fn failed(&self, now: Instant, what: &str) -> bool {
        let Some(rules) = &self.upstream.config.ejection else {
            return false;
        };
        let is_probe = self.is_probe.replace(false);
        let may_eject = || self.upstream.may_eject_another();
        self.endpoint.state.failed(now, what, is_probe, rules, may_eject)
    }

    /// No connection to the endpoint could be made. Returns whether it is left alone from now on
    /// because of this.
    pub fn unreachable(&self, now: Instant, kind: crate::error::Kind) -> bool {
        self.is_probe.set(false);
        self.endpoint.state.unreachable(now, kind)
    }
}

impl Drop for Picked<'_> {
    fn drop(&mut self) {
        self.endpoint.state.end();
        if self.is_probe.get() {
            self.endpoint.state.probe_ended(Instant::now());
        }
        if self.upstream.is_limited {
            if self.upstream.counts_requests() {
                self.upstream.shared.in_flight.give();
            }
            self.upstream.shared.queue.wake_one();
        }
    }
}
