//! What the programs here share. For the chaos run: [`chaos`], what is asked and answered. For the
//! runs under load: [`work`], how long a request takes. For both: [`message`], how they are read, and
//! [`histogram`], how long it took. For those that speak TLS: [`tls`], how they do. For `relay`,
//! `tls-relay` and `backend`: a listening socket, an epoll that is edge-triggered throughout, and a
//! table of connections.
//!
//! Edge-triggered is the cheapest way on Linux: a descriptor is registered once, for both directions,
//! and never touched again. The price is one rule that both programs keep: after an edge, read until
//! the kernel has no more. A read shorter than the buffer says so as well, and spares the call that
//! would only return EAGAIN.

use std::net::SocketAddr;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::{self, Errno};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

pub mod chaos;
pub mod histogram;
pub mod message;
pub mod tls;
pub mod work;

/// Every socket here never blocks and never leaks into a child.
const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// Events taken in one call.
const BATCH: usize = 256;

/// The token of the listening socket; connections use small ones.
pub const LISTENER: u64 = u64::MAX;

/// Binds and listens. `TCP_NODELAY` is set here because accepted sockets inherit it, for nothing.
pub fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = tcp_socket(address)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 4096)?;
    Ok(socket)
}

/// Says on standard output where a program listens: port 0 lets the kernel choose.
pub fn announce(listener: &OwnedFd) -> io::Result<()> {
    let address = rustix::net::getsockname(listener)?;
    if let Ok(address) = SocketAddr::try_from(address) {
        println!("{address}");
    }
    Ok(())
}

/// Starts to connect. Until it is done, a send answers EAGAIN, just as if the socket were full.
pub fn connect(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = tcp_socket(address)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

fn tcp_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, FLAGS, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(socket)
}

/// The next waiting connection, if there is one.
pub fn accept(listener: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    match rustix::net::accept_with(listener, FLAGS) {
        Ok(socket) => Ok(Some(socket)),
        Err(Errno::AGAIN) => Ok(None),
        // The client left before we came, or we are out of descriptors: neither ends the program.
        Err(Errno::CONNABORTED | Errno::INTR | Errno::MFILE | Errno::NFILE) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a non-blocking call on a stream came to.
pub enum Moved {
    /// That many bytes, at least one.
    Bytes(usize),
    /// Nothing now; an edge will come.
    Later,
    /// The other side is done, or gone.
    Over,
}

/// Receives into `buffer`.
pub fn recv(socket: &OwnedFd, buffer: &mut [u8]) -> Moved {
    match rustix::net::recv(socket, buffer, rustix::net::RecvFlags::empty()) {
        Ok((0, _)) => Moved::Over,
        Ok((n, _)) => Moved::Bytes(n),
        Err(Errno::AGAIN | Errno::INTR) => Moved::Later,
        Err(_) => Moved::Over,
    }
}

/// Sends the start of `bytes`, as much as fits.
pub fn send(socket: &OwnedFd, bytes: &[u8]) -> Moved {
    match rustix::net::send(socket, bytes, rustix::net::SendFlags::NOSIGNAL) {
        Ok(n) => Moved::Bytes(n),
        Err(Errno::AGAIN | Errno::INTR) => Moved::Later,
        Err(_) => Moved::Over,
    }
}

/// What woke a descriptor.
#[derive(Clone, Copy)]
pub struct Wake {
    /// The token it was registered with.
    pub token: u64,
    /// It can be read, or has ended.
    pub read: bool,
    /// It can be written, or has ended.
    pub write: bool,
    /// Its peer will send no more: a short read is not the last one.
    pub ended: bool,
}

/// The epoll instance and its batch of events.
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poll {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(BATCH) })
    }

    /// Watches a descriptor until it is closed.
    pub fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        use epoll::EventFlags as On;
        let flags = On::IN | On::OUT | On::RDHUP | On::ET;
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), flags)
    }

    /// Waits for one event or more and puts them into `wakes`.
    pub fn wait(&mut self, wakes: &mut Vec<Wake>) -> io::Result<()> {
        use epoll::EventFlags as On;
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        wakes.extend(self.events.drain(..).map(|event| {
            let flags = event.flags;
            let ended = flags.intersects(On::RDHUP | On::HUP | On::ERR);
            Wake {
                token: event.data.u64(),
                read: ended || flags.intersects(On::IN),
                write: flags.intersects(On::OUT | On::HUP | On::ERR),
                ended,
            }
        }));
        Ok(())
    }
}

/// Connections by number; a number is used again after its connection is gone. An event of the old
/// one may then reach the new one, which costs a call that returns EAGAIN and harms nothing.
pub struct Table<T> {
    slots: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Table<T> {
    /// The number that the next [`Table::insert`] will use.
    pub fn next_number(&mut self) -> usize {
        if self.free.is_empty() {
            self.free.push(self.slots.len());
            self.slots.push(None);
        }
        self.free[self.free.len() - 1]
    }

    /// Stores a connection under the number that [`Table::next_number`] named.
    pub fn insert(&mut self, value: T) {
        let number = self.next_number();
        self.free.pop();
        self.slots[number] = Some(value);
    }

    /// The connection of that number, unless it is gone.
    pub fn get(&mut self, number: usize) -> Option<&mut T> {
        self.slots.get_mut(number)?.as_mut()
    }

    /// Drops a connection, which closes its sockets.
    pub fn remove(&mut self, number: usize) {
        if self.slots[number].take().is_some() {
            self.free.push(number);
        }
    }
}
