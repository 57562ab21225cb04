//! The floor: a relay of one thread that parses nothing.
//!
//! `relay LISTEN BACKEND`. Each client connection gets a backend connection of its own, opened when
//! the client is accepted and closed with it. A small request costs recv, send, recv, send, and its
//! share of epoll_wait. Nothing that proxies over ordinary sockets can do with fewer calls.

use std::error::Error;
use std::mem;
use std::net::SocketAddr;

use bench::{LISTENER, Moved, Poll, Table, Wake, accept, connect, listen, recv, send};
use rustix::fd::OwnedFd;
use rustix::io;
use rustix::net::Shutdown;

/// One buffer serves all connections. Of the sizes from 16 KiB to 1 MiB, tried on 1 MiB bodies, this
/// one cost least, half of what 16 KiB did; small requests do not care.
const BUFFER: usize = 512 * 1024;

/// One socket of a pair, with what waits to be sent on it.
struct Side {
    socket: OwnedFd,
    /// Read from the other side and not yet taken by this one.
    unsent: Option<Unsent>,
    /// An edge came and the kernel may hold more to read.
    readable: bool,
    /// The peer has ended: read until the kernel says so.
    ended: bool,
}

/// A buffer taken out of service until its bytes are sent. It is not copied.
struct Unsent {
    buffer: Vec<u8>,
    from: usize,
    to: usize,
}

/// How far one direction came.
enum Progress {
    /// It waits for an edge.
    Waits,
    /// The source ended and all that it sent has been passed on.
    Finished,
    /// A socket broke.
    Broken,
}

/// Buffers: the one in service, and those that have come back.
struct Buffers {
    current: Vec<u8>,
    spare: Vec<Vec<u8>>,
}

impl Buffers {
    fn take_current(&mut self) -> Vec<u8> {
        let fresh = self.spare.pop().unwrap_or_else(|| vec![0; BUFFER]);
        mem::replace(&mut self.current, fresh)
    }
}

impl Side {
    fn new(socket: OwnedFd) -> Self {
        Self { socket, unsent: None, readable: false, ended: false }
    }

    /// Sends what waits. False: some still waits.
    fn flush(&mut self, buffers: &mut Buffers) -> Result<bool, Progress> {
        let Some(unsent) = &mut self.unsent else { return Ok(true) };
        while unsent.from < unsent.to {
            match send(&self.socket, &unsent.buffer[unsent.from..unsent.to]) {
                Moved::Bytes(n) => unsent.from += n,
                Moved::Later => return Ok(false),
                Moved::Over => return Err(Progress::Broken),
            }
        }
        buffers.spare.extend(self.unsent.take().map(|unsent| unsent.buffer));
        Ok(true)
    }
}

/// Moves bytes from `source` to `sink` until one of them has to wait.
fn pump(source: &mut Side, sink: &mut Side, buffers: &mut Buffers) -> Progress {
    loop {
        match sink.flush(buffers) {
            Ok(true) => {}
            Ok(false) => return Progress::Waits,
            Err(broken) => return broken,
        }
        if !source.readable {
            return Progress::Waits;
        }
        let n = match recv(&source.socket, &mut buffers.current) {
            Moved::Bytes(n) => n,
            Moved::Later => {
                source.readable = false;
                return Progress::Waits;
            }
            Moved::Over => return Progress::Finished,
        };
        source.readable = n == BUFFER || source.ended;
        let sent = match send(&sink.socket, &buffers.current[..n]) {
            Moved::Bytes(sent) => sent,
            Moved::Later => 0,
            Moved::Over => return Progress::Broken,
        };
        if sent < n {
            sink.unsent = Some(Unsent { buffer: buffers.take_current(), from: sent, to: n });
        }
    }
}

/// A client and its backend connection.
struct Pair {
    client: Side,
    backend: Side,
    /// The client will send no more; the backend has been told.
    half_closed: bool,
}

impl Pair {
    /// Takes an event; false when the pair is done with.
    fn wake(&mut self, wake: Wake, buffers: &mut Buffers) -> bool {
        let side = if from_client(wake.token) { &mut self.client } else { &mut self.backend };
        side.readable |= wake.read;
        side.ended |= wake.ended;
        // A side that can be read feeds the other one; a side that can be written drains it.
        let upward = if from_client(wake.token) { wake.read } else { wake.write };
        let downward = if from_client(wake.token) { wake.write } else { wake.read };
        if upward && !self.half_closed {
            match pump(&mut self.client, &mut self.backend, buffers) {
                Progress::Waits => {}
                Progress::Broken => return false,
                Progress::Finished => {
                    self.half_closed = true;
                    if rustix::net::shutdown(&self.backend.socket, Shutdown::Write).is_err() {
                        return false;
                    }
                }
            }
        }
        if downward {
            let progress = pump(&mut self.backend, &mut self.client, buffers);
            return matches!(progress, Progress::Waits);
        }
        true
    }
}

/// Tokens are twice the pair's number, plus one for the backend's side.
fn from_client(token: u64) -> bool {
    token.is_multiple_of(2)
}

fn open(poll: &Poll, pairs: &mut Table<Pair>, client: OwnedFd, to: SocketAddr) -> io::Result<()> {
    let backend = connect(to)?;
    let token = pairs.next_number() as u64 * 2;
    poll.add(&client, token)?;
    poll.add(&backend, token + 1)?;
    pairs.insert(Pair {
        client: Side::new(client),
        backend: Side::new(backend),
        half_closed: false,
    });
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, to] = arguments.as_slice() else {
        return Err("usage: relay LISTEN BACKEND".into());
    };
    let to: SocketAddr = to.parse()?;
    let listener = listen(address.parse()?)?;
    let mut poll = Poll::new()?;
    poll.add(&listener, LISTENER)?;

    let mut pairs = Table::default();
    let mut buffers = Buffers { current: vec![0; BUFFER], spare: Vec::new() };
    let mut wakes = Vec::new();
    loop {
        poll.wait(&mut wakes)?;
        for wake in wakes.drain(..) {
            if wake.token == LISTENER {
                while let Some(client) = accept(&listener)? {
                    // Without a backend connection the client is dropped, which closes it.
                    if let Err(error) = open(&poll, &mut pairs, client, to) {
                        eprintln!("relay: no backend connection: {error}");
                    }
                }
                continue;
            }
            let number = (wake.token / 2) as usize;
            let Some(pair) = pairs.get(number) else { continue };
            if !pair.wake(wake, &mut buffers) {
                pairs.remove(number);
            }
        }
    }
}
