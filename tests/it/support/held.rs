//! A backend that holds requests until it is told to answer them, and counts what it has at once.

use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;

use super::backend::{Backend, Conn, Refusing, ok};
use super::eventually;
use super::process::LOOK;

/// What one backend, or several, have in hand.
#[derive(Debug, Default)]
struct Hand {
    /// The targets of the requests that are held, in the order in which they came, and by whom.
    held: Vec<(String, String)>,
    /// The most that were ever held at once.
    most: usize,
    /// Targets that are to be answered.
    released: Vec<String>,
    /// Whether everything is answered at once.
    is_open: bool,
    connections: Vec<TcpStream>,
    /// The most that were ever open at once.
    most_connections: usize,
}

#[derive(Debug, Default)]
struct Shared(Mutex<Hand>, Condvar);

impl Shared {
    fn hand(&self) -> MutexGuard<'_, Hand> {
        self.0.lock().unwrap()
    }
}

/// A backend that answers only what it is told to, with its name; or everything after some time.
/// What is held is known by its target, so each request needs one of its own.
#[derive(Debug)]
pub struct Held {
    backend: Backend,
    name: String,
    shared: Arc<Shared>,
}

impl Held {
    pub fn new(name: &str) -> Self {
        Self::counting(name, None, Arc::default())
    }

    /// One that takes so long for each request.
    pub fn working(name: &str, time: Duration) -> Self {
        Self::counting(name, Some(time), Arc::default())
    }

    /// Another one that takes so long; what both have at once is counted together.
    pub fn working_beside(&self, name: &str, time: Duration) -> Self {
        Self::counting(name, Some(time), Arc::clone(&self.shared))
    }

    fn counting(name: &str, time: Option<Duration>, shared: Arc<Shared>) -> Self {
        let backend = Backend::new(script(name, time, Arc::clone(&shared)));
        Self { backend, name: name.to_owned(), shared }
    }

    /// One that begins to listen only now, where nobody did.
    pub fn revived(name: &str, address: Refusing) -> Self {
        let shared = Arc::default();
        let backend = address.revive(script(name, None, Arc::clone(&shared)));
        Self { backend, name: name.to_owned(), shared }
    }

    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    pub fn url(&self) -> String {
        self.backend.url()
    }

    /// The targets of what it holds now.
    pub fn holds(&self) -> Vec<String> {
        let hand = self.shared.hand();
        let own = hand.held.iter().filter(|(name, _)| *name == self.name);
        own.map(|(_, target)| target.clone()).collect()
    }

    /// Waits until it holds `n` requests; more are a failure.
    #[track_caller]
    pub fn wait_for(&self, n: usize) {
        eventually(&format!("{} has {n} requests", self.name), || {
            let held = self.holds().len();
            assert!(held <= n, "{} has {held} instead of {n}", self.name);
            (held == n).then_some(())
        });
    }

    /// Answers the request for `target`, which it holds or will get.
    pub fn answer(&self, target: &str) {
        self.shared.hand().released.push(target.to_owned());
        self.shared.1.notify_all();
    }

    /// Answers everything that it holds and gets from now on.
    pub fn open(&self) {
        self.shared.hand().is_open = true;
        self.shared.1.notify_all();
    }

    /// The most requests that there ever were at once.
    pub fn most(&self) -> usize {
        self.shared.hand().most
    }

    /// The most connections that were ever open at once.
    pub fn most_connections(&self) -> usize {
        self.shared.hand().most_connections
    }
}

/// What a backend called `name` does on each connection.
fn script(
    name: &str,
    time: Option<Duration>,
    shared: Arc<Shared>,
) -> impl Fn(Conn) + Send + Sync + 'static {
    let (answer, name) = (ok(name), name.to_owned());
    move |mut conn: Conn| {
        shared.count_connection(conn.wire.stream());
        while let Some(request) = conn.request() {
            let stream = conn.wire.stream();
            if !shared.hold(&name, request.target(), time, stream) || !conn.send(&answer) {
                return;
            }
        }
    }
}

impl Shared {
    /// Counts a connection beside those that the balancer has not closed. The kernel knows that
    /// before whoever reads them does.
    fn count_connection(&self, stream: &TcpStream) {
        let mut hand = self.hand();
        hand.connections.retain(|open| !is_closed(open));
        hand.connections.push(stream.try_clone().unwrap());
        hand.most_connections = hand.most_connections.max(hand.connections.len());
    }

    /// Holds a request until it is to be answered; false where the balancer has gone meanwhile.
    fn hold(&self, name: &str, target: &str, time: Option<Duration>, stream: &TcpStream) -> bool {
        let due = time.map(|time| Instant::now() + time);
        let me = (name.to_owned(), target.to_owned());
        let mut hand = self.hand();
        hand.held.push(me.clone());
        hand.most = hand.most.max(hand.held.len());
        let is_answered = loop {
            if let Some(at) = hand.released.iter().position(|released| released == target) {
                hand.released.remove(at);
                break true;
            }
            let left = due.map(|due| due.saturating_duration_since(Instant::now()));
            if hand.is_open || left.is_some_and(|left| left.is_zero()) {
                break true;
            }
            if is_closed(stream) {
                break false;
            }
            hand = self.1.wait_timeout(hand, left.unwrap_or(LOOK).min(LOOK)).unwrap().0;
        };
        // Before it is answered, for with the answer the next one may come.
        let at = hand.held.iter().position(|held| *held == me).unwrap();
        hand.held.remove(at);
        is_answered
    }
}

/// Whether the balancer has closed.
fn is_closed(stream: &TcpStream) -> bool {
    match rustix::net::recv(stream, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, n)) => n == 0,
        Err(error) => error != rustix::io::Errno::AGAIN,
    }
}
