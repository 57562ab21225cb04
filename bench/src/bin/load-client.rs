//! A client that asks whether or not it is answered:
//! `load-client ADDRESS SEED RATE WARM SECONDS CONNECTIONS DEADLINE WORK`.
//!
//! Requests are due at random moments, RATE of them a second (a Poisson process), drawn from SEED:
//! the same for whatever is measured. Each is sent when it is due by a connection that has nothing
//! else to do, and its time counts from then. An answer that is not there DEADLINE seconds after
//! that is useless: the client closes the connection and counts the request as late. What a good one
//! took beyond its WORK ([`bench::work`]) is what it waited.
//!
//! What is due in the SECONDS after the first WARM ones is counted. It is asked before and after as
//! well, after for as long as the deadline, so that what is counted never finds it quieter than it
//! was. At the end the program prints what it saw, as JSON.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use bench::chaos::{self, Id};
use bench::histogram::Histogram;
use bench::message::{Broken, Framing, Wire};
use bench::work::Work;

/// A thread does little more than to send a head and to read one, and there are many.
const STACK: usize = 128 * 1024;

/// What is asked of the program.
struct Plan {
    address: SocketAddr,
    seed: u64,
    /// When each request is due, from the start.
    due: Vec<Duration>,
    /// Those between these are counted.
    counted: Range<Duration>,
    deadline: Duration,
    work: Work,
    start: Instant,
}

/// What came of a request.
enum Outcome {
    /// 200 in time, by this backend.
    Good(String),
    /// An answer in time, but not the one that was wanted.
    Refused(u16),
    /// None in time.
    Late,
    /// The connection ended, or could not be made.
    Failed(&'static str),
}

/// What one connection's thread saw.
#[derive(Default)]
struct Report {
    offered: u64,
    late: u64,
    backends: BTreeMap<String, u64>,
    refused: BTreeMap<String, u64>,
    failed: BTreeMap<String, u64>,
    /// Of the good ones.
    times: Histogram,
    /// Of the good ones, without the work.
    waits: Histogram,
    /// Of those that were refused.
    refusals: Histogram,
    /// How long after they were due requests were sent.
    delays: Histogram,
}

impl Report {
    fn count(&mut self, outcome: Outcome, took: Duration, work: Duration) {
        self.offered += 1;
        match outcome {
            Outcome::Good(backend) => {
                *self.backends.entry(backend).or_default() += 1;
                self.times.add(took);
                self.waits.add(took.saturating_sub(work));
            }
            Outcome::Refused(status) => {
                *self.refused.entry(status.to_string()).or_default() += 1;
                self.refusals.add(took);
            }
            Outcome::Late => self.late += 1,
            Outcome::Failed(how) => *self.failed.entry(how.to_owned()).or_default() += 1,
        }
    }

    fn merge(&mut self, other: Self) {
        self.offered += other.offered;
        self.late += other.late;
        for (into, from) in [
            (&mut self.backends, other.backends),
            (&mut self.refused, other.refused),
            (&mut self.failed, other.failed),
        ] {
            for (key, count) in from {
                *into.entry(key).or_default() += count;
            }
        }
        self.times.merge(other.times);
        self.waits.merge(other.waits);
        self.refusals.merge(other.refusals);
        self.delays.merge(other.delays);
    }

    fn json(&self) -> String {
        let counts = |counts: &BTreeMap<String, u64>| {
            let each = counts.iter().map(|(key, count)| format!("\"{key}\": {count}"));
            format!("{{{}}}", each.collect::<Vec<_>>().join(", "))
        };
        format!(
            "{{\"offered\": {}, \"late\": {},\n\"backends\": {},\n\"refused\": {},\n\
             \"failed\": {},\n\"times\": {},\n\"waits\": {},\n\"refusals\": {},\n\"delays\": {}}}\n",
            self.offered,
            self.late,
            counts(&self.backends),
            counts(&self.refused),
            counts(&self.failed),
            self.times.json(),
            self.waits.json(),
            self.refusals.json(),
            self.delays.json(),
        )
    }
}

/// Takes one request after the other until all are taken.
fn ask_all(plan: &Plan, next: &AtomicUsize) -> Report {
    let mut report = Report::default();
    let mut kept: Option<Wire> = None;
    loop {
        let number = next.fetch_add(1, Relaxed);
        let Some(due) = plan.due.get(number) else { return report };
        let moment = plan.start + *due;
        thread::sleep(moment.saturating_duration_since(Instant::now()));
        let sent = Instant::now();
        let id = Id(chaos::mix(plan.seed.wrapping_add(number as u64)));
        let outcome = match ask(plan, id, moment + plan.deadline, &mut kept) {
            Ok(outcome) => outcome,
            Err(Broken::TimedOut) => Outcome::Late,
            Err(Broken::Closed) => Outcome::Failed("closed"),
            Err(Broken::Reset(_)) => Outcome::Failed("reset"),
            Err(Broken::Malformed(how)) => Outcome::Failed(how),
        };
        if plan.counted.contains(due) {
            report.delays.add(sent - moment);
            report.count(outcome, moment.elapsed(), plan.work.of(id));
        }
    }
}

/// Sends a request and reads the answer. `kept` keeps its connection only if the next may use it.
fn ask(plan: &Plan, id: Id, end: Instant, kept: &mut Option<Wire>) -> Result<Outcome, Broken> {
    let mut wire = match kept.take() {
        Some(wire) if wire.is_open()? => wire,
        _ => {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Broken::TimedOut);
            }
            Wire::new(TcpStream::connect_timeout(&plan.address, left)?)?
        }
    };
    wire.deadline = Some(end);
    let request = format!("GET /work/{id} HTTP/1.1\r\nHost: {}\r\n\r\n", plan.address);
    wire.send(request.as_bytes())?;
    let head = wire.head()?;
    let framing = head.framing(Framing::UntilClose)?;
    wire.body(framing)?;
    if !head.closes() && framing != Framing::UntilClose {
        *kept = Some(wire);
    }
    Ok(match (head.status()?, head.field("x-backend")) {
        (200, Some(backend)) => Outcome::Good(backend.to_owned()),
        (status, _) => Outcome::Refused(status),
    })
}

/// The moments of a Poisson process, RATE of them a second until `end`.
fn moments(seed: u64, rate: f64, end: Duration) -> Vec<Duration> {
    let mut now = 0.0;
    let gaps = (0..).map(|number| {
        let drawn = chaos::share(seed ^ chaos::mix(number));
        now -= (1.0 - drawn).ln() / rate;
        Duration::from_secs_f64(now)
    });
    gaps.take_while(|moment| *moment < end).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, seed, rate, warm, seconds, connections, deadline, work] = arguments.as_slice()
    else {
        let usage = "usage: load-client ADDRESS SEED RATE WARM SECONDS CONNECTIONS DEADLINE WORK";
        return Err(usage.into());
    };
    let seed = chaos::mix(seed.parse()?);
    let warm = Duration::from_secs_f64(warm.parse()?);
    let end = warm + Duration::from_secs_f64(seconds.parse()?);
    let deadline = Duration::from_secs_f64(deadline.parse()?);
    let plan = Plan {
        address: address.parse()?,
        seed,
        due: moments(seed, rate.parse()?, end + deadline),
        counted: warm..end,
        deadline,
        work: Work::parse(work).ok_or("WORK is even:MS or mixed:MS:MS:SHARE")?,
        // The threads are there by then.
        start: Instant::now() + Duration::from_millis(200),
    };
    let connections: usize = connections.parse()?;
    let next = AtomicUsize::new(0);
    let mut report = Report::default();
    thread::scope(|scope| {
        let thread = || thread::Builder::new().stack_size(STACK);
        let start = |_| thread().spawn_scoped(scope, || ask_all(&plan, &next));
        let threads = (0..connections).map(start).collect::<Result<Vec<_>, _>>()?;
        for thread in threads {
            report.merge(thread.join().map_err(|_| "a connection's thread panicked")?);
        }
        Ok::<(), Box<dyn Error>>(())
    })?;
    print!("{}", report.json());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_come_at_the_rate_and_are_drawn() {
        let moments = |seed| moments(seed, 100.0, Duration::from_secs(100));
        let count = moments(1).len();
        assert!((9_600..10_400).contains(&count), "{count}");
        assert!(moments(1) == moments(1) && moments(1) != moments(2));
        let gaps: Vec<_> = moments(1).windows(2).map(|pair| pair[1] - pair[0]).collect();
        let short = gaps.iter().filter(|gap| **gap < Duration::from_millis(10)).count();
        // 1 - 1/e
        assert!((0.61..0.65).contains(&(short as f64 / gaps.len() as f64)), "{short}");
    }
}
