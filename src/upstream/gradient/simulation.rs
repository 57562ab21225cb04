//! Limits that a simulated endpoint gets, on virtual time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::{Gradient, Window};

/// From one update to the next, in microseconds.
const TICK: u64 = 250_000;

/// What an answer takes to be made.
#[derive(Debug, Clone, Copy)]
enum Noise {
    /// 0.5 to 1.5 times the service time.
    Even,
    /// Exponential: as much variation as mean.
    Exponential,
}

/// An endpoint that works on `slots` requests at once while others wait, and those that send there
/// as many as they may.
struct Simulation {
    slots: usize,
    /// Microseconds.
    service: f64,
    noise: Noise,
    /// Requests a second.
    arrivals: f64,
    rng: Rng,
    start: Instant,
    now: u64,
    gradient: Gradient,
    in_flight: u32,
    /// Requests that wait here, at most 1000.
    waiting: u32,
    /// When each that waits at the endpoint was sent.
    queue: VecDeque<u64>,
    /// When each that is worked on ends, and was sent.
    working: BinaryHeap<Reverse<(u64, u64)>>,
}

/// What was seen over some time.
#[derive(Debug, Default)]
struct Seen {
    count: u64,
    /// Seconds.
    latency: f64,
    limit: f64,
    least: u32,
    /// Answers as a share of what the endpoint can give.
    throughput: f64,
}

impl Simulation {
    fn new(slots: usize, service: Duration, noise: Noise, load: f64) -> Self {
        // Always the same, so that what is seen changes only with the limit's rules.
        let seed = 7;
        println!("{slots} slots, {service:?}, {noise:?}, load {load}");
        let start = Instant::now();
        Self {
            slots,
            service: service.as_secs_f64() * 1e6,
            noise,
            arrivals: load * slots as f64 / service.as_secs_f64(),
            rng: Rng::with_seed(seed),
            start,
            now: 0,
            gradient: Gradient::new(10_000, start),
            in_flight: 0,
            waiting: 0,
            queue: VecDeque::new(),
            working: BinaryHeap::new(),
        }
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.rng.f64()).ln()
    }

    /// Sends what may be sent, and begins what can be begun.
    fn settle(&mut self) {
        while self.waiting > 0 && self.in_flight < self.gradient.limit() {
            self.waiting -= 1;
            self.in_flight += 1;
            self.queue.push_back(self.now);
        }
        while self.working.len() < self.slots
            && let Some(sent) = self.queue.pop_front()
        {
            let took = match self.noise {
                Noise::Even => self.service * (0.5 + self.rng.f64()),
                Noise::Exponential => self.exponential(self.service),
            };
            self.working.push(Reverse((self.now + took as u64 + 1, sent)));
        }
    }

    fn run(&mut self, time: Duration) -> Seen {
        let end = self.now + u64::try_from(time.as_micros()).unwrap();
        let mut seen = Seen { least: u32::MAX, ..Seen::default() };
        let (mut window, mut sum, mut ticks) = (Window::default(), 0.0, 0.0);
        let mut arrival = self.now;
        let mut tick = self.now + TICK;
        while self.now < end {
            let ends = self.working.peek().map_or(u64::MAX, |Reverse((end, _))| *end);
            self.now = arrival.min(tick).min(ends);
            if self.now == ends {
                let Reverse((_, sent)) = self.working.pop().unwrap();
                self.in_flight -= 1;
                window.count += 1;
                sum += (self.now - sent) as f64 / 1e6;
            } else if self.now == arrival {
                arrival += self.exponential(1e6 / self.arrivals) as u64 + 1;
                self.waiting = (self.waiting + 1).min(1000);
            } else {
                tick += TICK;
                window.mean = Duration::from_secs_f64(sum / window.count.max(1) as f64);
                let now = self.start + Duration::from_micros(self.now);
                let limit = self.gradient.update(now, window, true);
                seen.count += window.count;
                seen.latency += sum;
                seen.limit += f64::from(limit);
                seen.least = seen.least.min(limit);
                ticks += 1.0;
                (window, sum) = (Window::default(), 0.0);
            }
            self.settle();
            window.in_flight = window.in_flight.max(self.in_flight);
        }
        seen.latency /= seen.count as f64;
        seen.limit /= ticks;
        let capacity = self.slots as f64 / (self.service / 1e6);
        seen.throughput = seen.count as f64 / time.as_secs_f64() / capacity;
        seen
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Whether what was `seen` is what an endpoint at its best gives under overload.
fn assert_balance(simulation: &Simulation, seen: &Seen) {
    let baseline = simulation.gradient.baseline().unwrap().as_secs_f64() * 1e6 / simulation.service;
    let limit = seen.limit / simulation.slots as f64;
    let latency = seen.latency * 1e6 / simulation.service;
    let text = format!("{seen:?}: limit {limit:.2}, latency {latency:.2}, baseline {baseline:.2}");
    assert!((1.0..2.5).contains(&limit), "{text}");
    assert!(latency < 2.5, "{text}");
    assert!(seen.throughput > 0.9, "{text}");
    assert!((0.5..1.6).contains(&baseline), "{text}");
}

#[test]
fn overloaded_endpoints_do_all_they_can_and_little_waits() {
    for noise in [Noise::Even, Noise::Exponential] {
        for (slots, millis) in [(4, 50), (10, 50), (100, 50), (30, 1000)] {
            for load in [1.2, 2.0, 5.0] {
                let service = Duration::from_millis(millis);
                let mut simulation = Simulation::new(slots, service, noise, load);
                simulation.run(service * 1200);
                let seen = simulation.run(service * 2400);
                assert_balance(&simulation, &seen);
            }
        }
    }
}

#[test]
fn endpoints_that_are_not_overloaded_are_not_limited() {
    for noise in [Noise::Even, Noise::Exponential] {
        for slots in [4, 10, 100] {
            let mut simulation = Simulation::new(slots, SECOND / 20, noise, 0.5);
            simulation.run(SECOND * 10);
            let seen = simulation.run(SECOND * 120);
            assert!((0.45..0.55).contains(&seen.throughput), "{seen:?}");
            assert!(seen.latency < 0.05 * 1.4, "{seen:?}");
            assert!(f64::from(seen.least) > slots as f64 * 0.8, "{seen:?}");
        }
    }
}

#[test]
fn an_endpoint_that_becomes_slower_or_faster_is_known_again_within_a_minute() {
    for noise in [Noise::Even, Noise::Exponential] {
        for slots in [10, 100] {
            let mut simulation = Simulation::new(slots, SECOND / 20, noise, 3.0);
            let service = simulation.service;
            for factor in [1.0, 3.0, 1.0, 1.5, 0.5] {
                simulation.service = service * factor;
                let seen = simulation.run(SECOND * 60);
                assert!(seen.throughput > 0.7, "meanwhile: {seen:?}");
                let seen = simulation.run(SECOND * 60);
                assert_balance(&simulation, &seen);
            }
        }
    }
}

#[test]
fn an_hour_of_overload_does_not_pass_for_normal() {
    let mut simulation = Simulation::new(10, SECOND / 20, Noise::Exponential, 1.5);
    simulation.run(SECOND * 60);
    for _ in 0..12 {
        let seen = simulation.run(SECOND * 300);
        assert_balance(&simulation, &seen);
    }
}

#[test]
fn one_slot_gets_the_least_limit() {
    let mut simulation = Simulation::new(1, SECOND / 20, Noise::Even, 5.0);
    simulation.run(SECOND * 60);
    let seen = simulation.run(SECOND * 120);
    assert!(seen.limit < 7.0 && seen.throughput > 0.95, "{seen:?}");
}
