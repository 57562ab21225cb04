//! The harness: the real binary between raw sockets on both sides.

mod backend;
pub mod certificates;
mod client;
pub mod echo;
mod frames_backend;
mod gate;
mod held;
pub mod http2;
mod http2_backend;
pub mod introduced;
mod message;
mod process;
pub mod program;
pub mod python;
pub mod slow_file;
pub mod streams;
pub mod tls_client;
pub mod tls_front;
mod told;
mod usage;
mod wire;

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

pub use backend::{Backend, Conn, Refusing, ok};
pub use client::Client;
pub use frames_backend::FramesBackend;
pub use gate::Gate;
pub use held::Held;
pub use http2_backend::{Asked, Http2Backend};
pub use message::{Framing, Head, Request, Response};
pub use process::Tinylb;
pub use rustix::process::Signal;
pub use wire::{End, PATIENCE, connect_narrow, find};

/// Looks at something until it is there; a test fails where it does not come.
#[track_caller]
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, look)
}

/// The same, with another patience.
#[track_caller]
pub fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        thread::sleep(process::LOOK);
    }
}

/// Runs something until it takes less than `bound`, and five times at most. A busy machine can make any of
/// them longer; a balancer that waits for what it should not wait for makes all of them longer.
#[track_caller]
pub fn assert_within(bound: Duration, mut run: impl FnMut() -> Duration) {
    let mut took = Vec::new();
    for _ in 0..5 {
        took.push(run());
        if took.last().is_some_and(|last| *last < bound) {
            return;
        }
    }
    panic!("each run takes less than {bound:?}: {took:?}");
}

/// A listening socket on a port that the kernel chooses. Its queue of connections is as long as the kernel
/// allows: where it is full, connections take seconds.
pub fn listen() -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(BACKLOG).unwrap();
    socket.into()
}

/// More connections than any test opens at once; the kernel takes its own limit where that is less.
const BACKLOG: i32 = 4096;

/// Has many clients, on all workers, send their requests one after the other; each is answered 200.
pub fn load(tinylb: &Tinylb, clients: usize, requests: usize) {
    thread::scope(|scope| {
        for client in 0..clients {
            scope.spawn(move || {
                let mut connection = tinylb.connect();
                for request in 0..requests {
                    let response = connection.get(&format!("/{client}/{request}"));
                    assert_eq!(response.status, 200, "{:?}", response.head.raw);
                }
            });
        }
    });
}

/// A configuration with one listener, one route and one upstream, `app`, over `endpoints`; the
/// other two are further lines of the listener and of the upstream.
pub fn config(endpoints: &[String], listener: &str, upstream: &str) -> String {
    config_of(&format!("{endpoints:?}"), listener, upstream)
}

/// The same over endpoints as the file has them.
pub fn config_of(endpoints: &str, listener: &str, upstream: &str) -> String {
    format!(
        "workers = 2\n\
         [admin]\n\
         listen = \"127.0.0.1:0\"\n\
         [[listeners]]\n\
         address = \"127.0.0.1:0\"\n\
         {listener}\n\
         [[routes]]\n\
         upstream = \"app\"\n\
         [upstreams.app]\n\
         endpoints = {endpoints}\n\
         {upstream}\n"
    )
}

/// A configuration like that of [`config`], with a log of JSON, whose endpoints are asked in their
/// order: each only when those before it are gone, full, or have been tried. `route` and `upstream`
/// are further lines of these.
pub fn ranked(endpoints: &[String], route: &str, upstream: &str) -> String {
    let endpoint = |(priority, url)| format!("{{ url = {url:?}, priority = {priority} }}");
    let endpoints: Vec<_> = endpoints.iter().enumerate().map(endpoint).collect();
    format!(
        "workers = 2\n\
         log = {{ access = \"json\" }}\n\
         admin = {{ listen = \"127.0.0.1:0\" }}\n\
         [[listeners]]\n\
         address = \"127.0.0.1:0\"\n\
         [[routes]]\n\
         upstream = \"app\"\n\
         {route}\n\
         [upstreams.app]\n\
         endpoints = [{}]\n\
         {upstream}\n",
        endpoints.join(", ")
    )
}

/// The head that agrees to a WebSocket which `head` asks for.
pub fn switching(head: &Head) -> String {
    let key = head.get("sec-websocket-key").expect("a key");
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n"
    )
}
