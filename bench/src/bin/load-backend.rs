//! A backend that can do so much and no more: `load-backend LISTEN NAME SLOTS WORK`.
//!
//! It works on SLOTS requests at once, on each as long as WORK ([`bench::work`]) says; all others
//! wait here, the oldest first, and there is no end to how many. Work is sleep, so that the machine
//! has none. It does not notice that nobody waits for an answer any more and works on it all the
//! same, as most servers do that have a thread or a process for each request.
//!
//! It answers `GET /work/ID` with its name and `ok`, and `/healthz` at once. It ends with its
//! standard input.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use bench::chaos::Id;
use bench::message::{Broken, Framing, Wire};
use bench::work::Work;

/// A thread does little more than to read a head, and under overload there are thousands.
const STACK: usize = 128 * 1024;

/// A request that waits.
struct Job {
    need: Duration,
    came: Instant,
    /// Where the answer goes, while that connection is there.
    client: Weak<TcpStream>,
}

/// What all threads share.
struct Backend {
    name: String,
    work: Work,
    jobs: Mutex<VecDeque<Job>>,
    comes: Condvar,
}

impl Backend {
    /// Reads a connection's requests until it ends.
    fn read(&self, stream: TcpStream) -> Result<(), Broken> {
        let client = Arc::new(stream.try_clone()?);
        let mut wire = Wire::new(stream)?;
        loop {
            let head = wire.head()?;
            wire.body(head.framing(Framing::Length(0))?)?;
            if head.word(1) == "/healthz" {
                self.answer(&client, "200 OK")?;
                continue;
            }
            let Some(id) = head.word(1).strip_prefix("/work/").and_then(Id::parse) else {
                self.answer(&client, "404 Not Found")?;
                continue;
            };
            let (need, client) = (self.work.of(id), Arc::downgrade(&client));
            let job = Job { need, came: Instant::now(), client };
            self.jobs.lock().unwrap_or_else(PoisonError::into_inner).push_back(job);
            self.comes.notify_one();
        }
    }

    /// One slot: works on one request after the other.
    fn serve(&self) {
        let mut free = Instant::now();
        loop {
            let job = self.next();
            // By the clock and not by how long this thread slept: a late wake-up, of which a busy
            // machine has many, takes nothing from what the backend can do.
            free = free.max(job.came) + job.need;
            thread::sleep(free.saturating_duration_since(Instant::now()));
            if let Some(client) = job.client.upgrade() {
                // It may have gone in this moment.
                let _ = self.answer(&client, "200 OK");
            }
        }
    }

    fn next(&self) -> Job {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(job) = jobs.pop_front() {
                return job;
            }
            jobs = self.comes.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn answer(&self, mut client: &TcpStream, status: &str) -> io::Result<()> {
        let name = &self.name;
        let head =
            format!("HTTP/1.1 {status}\r\nX-Backend: {name}\r\nContent-Length: 3\r\n\r\nok\n");
        client.write_all(head.as_bytes())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, name, slots, work] = arguments.as_slice() else {
        return Err("usage: load-backend LISTEN NAME SLOTS WORK".into());
    };
    let listener = TcpListener::bind(address)?;
    let backend: &'static Backend = Box::leak(Box::new(Backend {
        name: name.clone(),
        work: Work::parse(work).ok_or("WORK is even:MS or mixed:MS:MS:SHARE")?,
        jobs: Mutex::default(),
        comes: Condvar::new(),
    }));
    for _ in 0..slots.parse()? {
        thread::spawn(|| backend.serve());
    }
    thread::spawn(move || {
        for stream in listener.incoming() {
            let thread = thread::Builder::new().stack_size(STACK);
            // How a connection ends is for the other side to tell.
            let started =
                stream.and_then(|stream| thread.spawn(move || drop(backend.read(stream))));
            if let Err(error) = started {
                eprintln!("load-backend: {error}");
            }
        }
    });
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
