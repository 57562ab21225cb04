//! A backend that behaves exactly as badly as it is told to, and remembers what it was sent.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::message::{Head, Request};
use super::wire::{End, Record, Wire};
use super::{BACKLOG, eventually, listen};

/// One connection of the balancer to a backend, given to the backend's script.
#[derive(Debug)]
pub struct Conn {
    pub wire: Wire,
    /// How many came before it.
    pub index: usize,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Conn {
    /// The whole next request, remembered; `None` where the connection ends first.
    pub fn request(&mut self) -> Option<Request> {
        let request = Request::read(&mut self.wire)?;
        self.requests.lock().unwrap().push(request.clone());
        Some(request)
    }

    /// The next request's head alone.
    pub fn head(&mut self) -> Option<Head> {
        self.wire.head()
    }

    /// The body of the request that `head` began, remembered as a whole request.
    pub fn body(&mut self, head: Head) -> Option<Request> {
        let request = Request::read_body(&mut self.wire, head)?;
        self.requests.lock().unwrap().push(request.clone());
        Some(request)
    }

    /// Sends; the balancer may be gone, which is not the backend's failure.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.send(bytes).is_ok()
    }

    /// Takes in everything until the balancer closes.
    pub fn drain(&mut self) -> Option<End> {
        self.wire.rest();
        self.wire.end()
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.wire.reset();
    }

    /// Answers every request with `answer`, until the balancer closes.
    pub fn answer_all(&mut self, answer: impl AsRef<[u8]>) {
        while self.request().is_some() && self.send(&answer) {}
    }
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    failed: AtomicBool,
    connections: Mutex<Vec<Arc<Mutex<Record>>>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// A listening backend; stops listening when dropped, and fails the test if its script did.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<thread::JoinHandle<()>>,
}

/// Notes a panic of a script, which would otherwise go unnoticed on its thread.
struct Watch(Arc<Shared>);

impl Drop for Watch {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.failed.store(true, Ordering::Release);
        }
    }
}

impl Backend {
    /// Runs `script` once for each connection, on a thread of its own.
    pub fn new(script: impl Fn(Conn) + Send + Sync + 'static) -> Self {
        Self::on(listen(), script)
    }

    /// A well-behaved backend as [named](Self::named), at this address; `None` where it is taken.
    pub fn named_at(address: impl Into<SocketAddr>, name: &str) -> Option<Self> {
        let (listener, answer) = (TcpListener::bind(address.into()).ok()?, ok(name));
        Some(Self::on(listener, move |mut conn| conn.answer_all(&answer)))
    }

    /// A backend whose kernel takes in only a little of what its script does not read, and the balancer's no more
    /// than a few segments besides.
    pub fn narrow(script: impl Fn(Conn) + Send + Sync + 'static) -> Self {
        Self::receiving(Some(536), script)
    }

    /// A backend whose kernel takes in only a little of what its script does not read. The rest lies in the
    /// balancer's kernel.
    pub fn taking_little(script: impl Fn(Conn) + Send + Sync + 'static) -> Self {
        Self::receiving(None, script)
    }

    fn receiving(segment: Option<u32>, script: impl Fn(Conn) + Send + Sync + 'static) -> Self {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        if let Some(segment) = segment {
            socket.set_tcp_mss(segment).unwrap();
        }
        socket.set_recv_buffer_size(2304).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(BACKLOG).unwrap();
        Self::on(socket.into(), script)
    }

    fn on(listener: TcpListener, script: impl Fn(Conn) + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let script = Arc::new(script);
        let accepting = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for stream in listener.incoming() {
                    if shared.stop.load(Ordering::Acquire) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let wire = Wire::new(stream);
                    let mut connections = shared.connections.lock().unwrap();
                    let index = connections.len();
                    connections.push(wire.record());
                    drop(connections);
                    let conn = Conn { wire, index, requests: Arc::clone(&shared.requests) };
                    let (script, watch) = (Arc::clone(&script), Watch(Arc::clone(&shared)));
                    thread::spawn(move || {
                        let _watch = watch;
                        script(conn);
                    });
                }
            }
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    /// Reads whole requests and gives each the same answer, byte for byte.
    pub fn answering(answer: impl AsRef<[u8]>) -> Self {
        let answer = answer.as_ref().to_vec();
        Self::new(move |mut conn| conn.answer_all(&answer))
    }

    /// A well-behaved backend that answers 200 with `name` as the body.
    pub fn named(name: &str) -> Self {
        Self::answering(ok(name))
    }

    /// Gives one answer for each connection, then closes it.
    pub fn closing_after(answer: impl AsRef<[u8]>) -> Self {
        let answer = answer.as_ref().to_vec();
        Self::new(move |mut conn| {
            if conn.request().is_some() {
                conn.send(&answer);
            }
        })
    }

    /// Takes in a whole request on each connection, then resets it.
    pub fn resetting() -> Self {
        Self::new(|mut conn| {
            if conn.request().is_some() {
                conn.reset();
            }
        })
    }

    /// Takes in a whole request on each connection, and never answers.
    pub fn silent() -> Self {
        Self::new(|mut conn| {
            if conn.request().is_some() {
                conn.drain();
            }
        })
    }

    /// Waits until its script has read so many whole requests.
    #[track_caller]
    pub fn wait_for_requests(&self, count: usize) {
        eventually("the requests arrive", || (self.requests().len() >= count).then_some(()));
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.lock().unwrap().len()
    }

    /// Every byte received, connection after connection.
    pub fn received(&self) -> Vec<u8> {
        let connections = self.shared.connections.lock().unwrap();
        connections.iter().flat_map(|record| record.lock().unwrap().bytes.clone()).collect()
    }

    /// The whole requests that its script has read, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// The only request.
    #[track_caller]
    pub fn request(&self) -> Request {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "exactly one request arrived");
        requests.remove(0)
    }

    /// Waits until the balancer has closed the `index`th connection, and says how.
    #[track_caller]
    pub fn end_of(&self, index: usize) -> End {
        let end = eventually("the balancer closes its connection to the backend", || {
            let connections = self.shared.connections.lock().unwrap();
            connections.get(index).and_then(|record| record.lock().unwrap().end)
        });
        assert_ne!(end, End::Stalled, "the balancer closes its connection to the backend");
        end
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if TcpStream::connect(self.address).is_ok()
            && let Some(accepting) = self.accepting.take()
        {
            let _ = accepting.join();
        }
        if self.shared.failed.load(Ordering::Acquire) && !thread::panicking() {
            panic!("a backend's script failed; its message is above");
        }
    }
}

/// A 200 of `body`, framed by its length.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// An address where nothing listens: bound, so that nobody else gets it, but not listening.
#[derive(Debug)]
pub struct Refusing {
    socket: socket2::Socket,
}

impl Refusing {
    pub fn new() -> Self {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        Self { socket }
    }

    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap().as_socket().unwrap()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Begins to listen, as a backend that has come back.
    pub fn revive(self, script: impl Fn(Conn) + Send + Sync + 'static) -> Backend {
        self.socket.listen(BACKLOG).unwrap();
        Backend::on(self.socket.into(), script)
    }
}
