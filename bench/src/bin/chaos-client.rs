//! The client of the chaos run: `chaos-client ADDRESS SEED RATE SECONDS CONNECTIONS TIMEOUT`.
//!
//! Request n is due n / RATE seconds after the start, whatever became of the ones before: each is sent
//! by a connection that has nothing else to do, and its time counts from when it was due. So a stall
//! shows in every request that it held up. At the end the program prints what it saw, as JSON.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bench::chaos::{self, Id, Method};
use bench::histogram::Histogram;
use bench::message::{Broken, Framing, Wire, chunked};

/// Answers are counted in slots of this length.
const SLOT: Duration = Duration::from_millis(250);

/// What is asked of the program.
struct Plan {
    address: SocketAddr,
    /// Where the ids begin; another seed is far from it.
    seed: u64,
    rate: f64,
    requests: u64,
    /// When a request is given up, counted from when it was sent.
    timeout: Duration,
    start: Instant,
}

/// Why a request failed.
struct Failure {
    /// In a few words that stay the same, to be counted by.
    kind: String,
    /// More, if there is more to say.
    detail: String,
}

impl Failure {
    fn new(kind: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind: kind.into(), detail: detail.into() }
    }

    /// One that must never be: an answer to something else, or with other bytes than were sent.
    fn mixed_up(detail: impl Into<String>) -> Self {
        Self::new("mixed up", detail)
    }

    /// Of a connection that broke, with `received` bytes of the answer there.
    fn broken(broken: Broken, received: usize) -> Self {
        match broken {
            Broken::Malformed(detail) => Self::new("malformed", detail),
            Broken::TimedOut if received > 0 => Self::new("timeout", "in the middle of the answer"),
            Broken::TimedOut => Self::new("timeout", ""),
            Broken::Closed if received > 0 => Self::new("cut", "closed"),
            Broken::Reset(kind) if received > 0 => Self::new("cut", kind.to_string()),
            Broken::Closed => Self::new("closed without an answer", ""),
            Broken::Reset(kind) => Self::new("reset", kind.to_string()),
        }
    }
}

/// A failed request, for the list.
struct Failed {
    at: Duration,
    took: Duration,
    id: Id,
    failure: Failure,
}

/// What one connection's thread saw.
#[derive(Default)]
struct Report {
    requests: BTreeMap<&'static str, u64>,
    answered: BTreeMap<&'static str, u64>,
    failed: Vec<Failed>,
    idempotent: Times,
    posts: Times,
    /// For each slot, how many answers each backend gave.
    slots: BTreeMap<(u128, String), u64>,
    opened: u64,
}

impl Report {
    fn add(&mut self, other: Self) {
        merge(&mut self.requests, other.requests);
        merge(&mut self.answered, other.answered);
        self.idempotent.add(other.idempotent);
        self.posts.add(other.posts);
        merge(&mut self.slots, other.slots);
        self.failed.extend(other.failed);
        self.opened += other.opened;
    }
}

/// How long requests took.
#[derive(Default)]
struct Times {
    steps: Histogram,
    worst: Duration,
    /// When that one was due.
    worst_at: Duration,
}

impl Times {
    fn add(&mut self, other: Self) {
        self.steps.merge(other.steps);
        if other.worst > self.worst {
            (self.worst, self.worst_at) = (other.worst, other.worst_at);
        }
    }

    fn took(&mut self, due: Duration, took: Duration) {
        self.steps.add(took);
        if took > self.worst {
            (self.worst, self.worst_at) = (took, due);
        }
    }

    fn json(&self) -> String {
        let (worst, at) = (self.worst.as_secs_f64(), self.worst_at.as_secs_f64());
        let steps = self.steps.json();
        format!("{{\"worst\": {worst:.6}, \"worst_at\": {at:.3}, \"steps\": {steps}}}")
    }
}

fn merge<K: Ord>(into: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(key).or_default() += count;
    }
}

/// Takes one request after the other until all are taken.
fn work(plan: &Plan, next: &AtomicU64) -> Report {
    let mut report = Report::default();
    let mut kept: Option<Wire> = None;
    loop {
        let number = next.fetch_add(1, Relaxed);
        if number >= plan.requests {
            return report;
        }
        let due = Duration::from_secs_f64(number as f64 / plan.rate);
        thread::sleep((plan.start + due).saturating_duration_since(Instant::now()));

        let id = Id(chaos::mix(plan.seed.wrapping_add(number)));
        let method = id.method().name();
        *report.requests.entry(method).or_default() += 1;
        let answer = ask(plan, id, &mut kept, &mut report.opened);
        let now = plan.start.elapsed();
        let took = now.saturating_sub(due);
        match id.method() {
            Method::Get | Method::Put => report.idempotent.took(due, took),
            Method::Post => report.posts.took(due, took),
        }
        match answer {
            Ok(backend) => {
                *report.answered.entry(method).or_default() += 1;
                let slot = now.as_millis() / SLOT.as_millis();
                *report.slots.entry((slot, backend)).or_default() += 1;
            }
            Err(failure) => {
                kept = None;
                report.failed.push(Failed { at: now, took, id, failure });
            }
        }
    }
}

/// Sends a request and judges the answer; the name of the backend that gave it. `kept` keeps its
/// connection only if the next request may use it.
fn ask(plan: &Plan, id: Id, kept: &mut Option<Wire>, opened: &mut u64) -> Result<String, Failure> {
    let deadline = Instant::now() + plan.timeout;
    let mut wire = match kept.take() {
        // One that has something to say though nobody asked is a fault.
        Some(wire) if wire.is_open().map_err(|_| unasked())? => wire,
        _ => {
            *opened += 1;
            let connected =
                TcpStream::connect_timeout(&plan.address, plan.timeout).and_then(Wire::new);
            connected.map_err(|error| Failure::new("no connection", error.kind().to_string()))?
        }
    };
    wire.deadline = Some(deadline);
    wire.received = 0;

    let body = id.request_body();
    // An answer may come before all has been sent, and then the rest is not wanted.
    let sent = wire.send(&request(plan, id, &body));
    let all_sent = sent.is_ok();
    let answer = receive(&mut wire).map_err(|broken| match sent {
        Err(unsent) if wire.received == 0 => Failure::broken(unsent, 0),
        _ => Failure::broken(broken, wire.received),
    })?;
    if !wire.left_over().is_empty() {
        return Err(Failure::mixed_up("bytes behind the answer"));
    }
    if answer.id.as_ref().is_some_and(|other| *other != id.to_string()) {
        return Err(Failure::mixed_up(format!("the answer to {}", answer.id.unwrap_or_default())));
    }
    if answer.status != 200 {
        let kind = match (&answer.backend, &answer.error) {
            (Some(_), _) => format!("{} passed on", answer.status),
            (None, Some(error)) => format!("{} {error}", answer.status),
            (None, None) => answer.status.to_string(),
        };
        return Err(Failure::new(kind, answer.backend.unwrap_or_default()));
    }
    chaos::check(id, &body, &answer.body).map_err(Failure::mixed_up)?;
    if all_sent && !answer.close && !id.closes() {
        *kept = Some(wire);
    }
    Ok(answer.backend.unwrap_or_default())
}

fn unasked() -> Failure {
    Failure::mixed_up("bytes that nobody asked for")
}

fn request(plan: &Plan, id: Id, body: &[u8]) -> Vec<u8> {
    let method = id.method();
    let mut text = format!(
        "{} /chaos/{id} HTTP/1.1\r\nHost: {}\r\nX-Chaos-Id: {id}\r\n",
        method.name(),
        plan.address
    );
    if id.closes() {
        text += "Connection: close\r\n";
    }
    let framing = match method {
        Method::Get => String::new(),
        _ if id.chunks_request() => "Transfer-Encoding: chunked\r\n".into(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    text += &framing;
    text += "\r\n";
    let mut bytes = text.into_bytes();
    match method {
        Method::Get => {}
        _ if id.chunks_request() => bytes.extend(chunked(body)),
        _ => bytes.extend_from_slice(body),
    }
    bytes
}

/// An answer, whole.
struct Answer {
    status: u16,
    /// The request that the backend says it answers.
    id: Option<String>,
    /// Who answered, if it was not the proxy itself.
    backend: Option<String>,
    /// The error that the proxy names in `Proxy-Status` (RFC 9209).
    error: Option<String>,
    close: bool,
    body: Vec<u8>,
}

fn receive(wire: &mut Wire) -> Result<Answer, Broken> {
    let (head, status) = loop {
        let head = wire.head()?;
        let status = head.status()?;
        if status >= 200 {
            break (head, status);
        }
    };
    let field = |name| head.field(name).map(str::to_owned);
    let error = head.field("proxy-status").and_then(|value| value.split("error=").nth(1));
    let framing = head.framing(Framing::UntilClose)?;
    Ok(Answer {
        status,
        id: field("x-chaos-id"),
        backend: field("x-chaos-backend"),
        error: error.map(|rest| rest.split([';', ',']).next().unwrap_or(rest).trim().to_owned()),
        close: head.closes() || framing == Framing::UntilClose,
        body: wire.body(framing)?,
    })
}

/// The report as JSON.
fn json(report: &Report, started: f64) -> Result<String, std::fmt::Error> {
    let mut out = format!("{{\"started\": {started:.3}, \"opened\": {}", report.opened);
    for (name, counts) in [("requests", &report.requests), ("answered", &report.answered)] {
        let each = Method::ALL.map(|method| {
            let name = method.name();
            format!("\"{name}\": {}", counts.get(name).unwrap_or(&0))
        });
        write!(out, ",\n\"{name}\": {{{}}}", each.join(", "))?;
    }
    let (idempotent, posts) = (report.idempotent.json(), report.posts.json());
    write!(out, ",\n\"idempotent\": {idempotent},\n\"posts\": {posts}")?;
    let slots = report.slots.iter().map(|((slot, backend), count)| {
        let second = *slot as f64 * SLOT.as_secs_f64();
        format!("[{second:.2}, \"{}\", {count}]", plain(backend))
    });
    write!(out, ",\n\"slots\": [{}]", slots.collect::<Vec<_>>().join(", "))?;
    let failed = report.failed.iter().map(|failed| {
        format!(
            "{{\"at\": {:.3}, \"took\": {:.3}, \"method\": \"{}\", \"id\": \"{}\", \
             \"kind\": \"{}\", \"detail\": \"{}\"}}",
            failed.at.as_secs_f64(),
            failed.took.as_secs_f64(),
            failed.id.method().name(),
            failed.id,
            plain(&failed.failure.kind),
            plain(&failed.failure.detail),
        )
    });
    write!(out, ",\n\"failed\": [{}]}}\n", failed.collect::<Vec<_>>().join(",\n"))?;
    Ok(out)
}

/// What a string of JSON can hold without escapes.
fn plain(text: &str) -> String {
    let dull = |c: char| c == '"' || c == '\\' || c.is_control();
    text.chars().map(|c| if dull(c) { '?' } else { c }).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, seed, rate, seconds, connections, timeout] = arguments.as_slice() else {
        let usage = "usage: chaos-client ADDRESS SEED RATE SECONDS CONNECTIONS TIMEOUT";
        return Err(usage.into());
    };
    let rate: f64 = rate.parse()?;
    let plan = Plan {
        address: address.parse()?,
        seed: chaos::mix(seed.parse()?),
        rate,
        requests: (rate * seconds.parse::<f64>()?) as u64,
        timeout: Duration::from_secs_f64(timeout.parse()?),
        start: Instant::now(),
    };
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
    let connections: usize = connections.parse()?;
    let next = AtomicU64::new(0);
    let mut report = Report::default();
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..connections).map(|_| scope.spawn(|| work(&plan, &next))).collect();
        for thread in threads {
            // One that has panicked has a fault of its own, and so has the report.
            report.add(thread.join().map_err(|_| "a connection's thread panicked")?);
        }
        Ok::<(), &str>(())
    })?;
    report.failed.sort_by_key(|failed| failed.at);
    print!("{}", json(&report, started)?);
    Ok(())
}
