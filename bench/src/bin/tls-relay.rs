//! The floor under TLS: rustls, and as little around it as there can be.
//!
//! `tls-relay LISTEN CERT KEY [BACKEND]`. With a backend it is `relay` with TLS towards the client.
//! Without one it answers the first request of each connection itself and ends it: what is left is the
//! handshake.

use std::error::Error;
use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use bench::{
    LISTENER, Moved, Poll, Table, Wake, accept, announce, connect, listen, recv, send, tls,
};
use rustix::fd::OwnedFd;
use rustls::{ServerConfig, ServerConnection};

/// What is read from the backend at once. The largest record of TLS has a quarter of it.
const BUFFER: usize = 64 * 1024;

/// The answer where there is no backend.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\n\
    Content-Length: 6\r\nConnection: close\r\n\r\nhello\n";

/// A socket, and what its edges said.
struct Side {
    socket: OwnedFd,
    /// An edge came and the kernel may hold more to read.
    readable: bool,
    /// The peer has ended: read until the kernel says so.
    ended: bool,
}

impl Side {
    fn new(socket: OwnedFd) -> Self {
        Self { socket, readable: false, ended: false }
    }

    fn note(&mut self, wake: Wake) {
        self.readable |= wake.read;
        self.ended |= wake.ended;
    }
}

impl Read for Side {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match recv(&self.socket, buffer) {
            Moved::Bytes(n) => {
                self.readable = n == buffer.len() || self.ended;
                Ok(n)
            }
            Moved::Later => {
                self.readable = false;
                Err(ErrorKind::WouldBlock.into())
            }
            Moved::Over => Ok(0),
        }
    }
}

impl Write for Side {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    /// All records with one call.
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::writev(&self.socket, pieces)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client, and its backend connection if there is one.
struct Pair {
    client: Side,
    tls: ServerConnection,
    backend: Option<Side>,
    /// What the client sent and the backend has not taken yet; without a backend, the request so far.
    unsent: Vec<u8>,
    /// All has been said: it ends as soon as it is sent.
    done: bool,
}

impl Pair {
    /// Moves what can be moved; an error, or `done` and nothing left to send, ends the pair.
    fn advance(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            let mut moved = self.send_records()?;
            moved |= self.receive_records()?;
            moved |= self.pass_on()?;
            if !self.tls.wants_write() {
                if self.done {
                    return Err(ErrorKind::ConnectionAborted.into());
                }
                moved |= self.fetch(buffer)?;
            }
            if !moved {
                return Ok(());
            }
        }
    }

    /// Sends what TLS has for the client. Each of these says whether there was anything to do.
    fn send_records(&mut self) -> io::Result<bool> {
        let mut moved = false;
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.client) {
                Ok(_) => moved = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(moved)
    }

    /// Reads from the client what there is room for.
    fn receive_records(&mut self) -> io::Result<bool> {
        if !self.client.readable || !self.unsent.is_empty() && self.backend.is_some() {
            return Ok(false);
        }
        match self.tls.read_tls(&mut self.client) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        if self.tls.process_new_packets().is_err() {
            // The alert, if it can be sent at once.
            self.send_records()?;
            return Err(ErrorKind::InvalidData.into());
        }
        Ok(true)
    }

    /// Gives the client's words to the backend, or answers them.
    fn pass_on(&mut self) -> io::Result<bool> {
        let mut moved = false;
        let mut reader = self.tls.reader();
        while let Ok(piece @ [_, ..]) = reader.fill_buf() {
            let length = piece.len();
            self.unsent.extend_from_slice(piece);
            reader.consume(length);
            moved = true;
        }
        let Some(backend) = &self.backend else {
            if !self.done && self.unsent.ends_with(b"\r\n\r\n") {
                self.done = true;
                self.tls.writer().write_all(ANSWER)?;
                self.tls.send_close_notify();
            }
            return Ok(moved);
        };
        while !self.unsent.is_empty() {
            match send(&backend.socket, &self.unsent) {
                Moved::Bytes(n) => drop(self.unsent.drain(..n)),
                Moved::Later => break,
                Moved::Over => return Err(ErrorKind::BrokenPipe.into()),
            }
            moved = true;
        }
        Ok(moved)
    }

    /// Takes what the backend says, once the client has all that it said before.
    fn fetch(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let Some(backend) = self.backend.as_mut().filter(|backend| backend.readable) else {
            return Ok(false);
        };
        match backend.read(buffer) {
            Ok(0) => {
                self.done = true;
                self.tls.send_close_notify();
            }
            Ok(n) => self.tls.writer().write_all(&buffer[..n])?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

/// A pair's client has twice its number as its token, and its backend one more.
fn open(
    poll: &Poll,
    pairs: &mut Table<Pair>,
    client: OwnedFd,
    config: &Arc<ServerConfig>,
    to: Option<SocketAddr>,
) -> Result<(), Box<dyn Error>> {
    let backend = to.map(connect).transpose()?;
    let mut tls = ServerConnection::new(Arc::clone(config))?;
    // `fetch` waits until all is sent, so that no more than a buffer is ever in there.
    tls.set_buffer_limit(None);
    let token = 2 * pairs.next_number() as u64;
    poll.add(&client, token)?;
    if let Some(backend) = &backend {
        poll.add(backend, token + 1)?;
    }
    pairs.insert(Pair {
        client: Side::new(client),
        tls,
        backend: backend.map(Side::new),
        unsent: Vec::new(),
        done: false,
    });
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (address, cert, key, to) = match arguments.as_slice() {
        [address, cert, key] => (address, cert, key, None),
        [address, cert, key, to] => (address, cert, key, Some(to.parse()?)),
        _ => return Err("usage: tls-relay LISTEN CERT KEY [BACKEND]".into()),
    };
    let config = tls::server(cert, key, &["http/1.1"])?;
    let listener = listen(address.parse()?)?;
    announce(&listener)?;
    let mut poll = Poll::new()?;
    poll.add(&listener, LISTENER)?;

    let mut pairs = Table::default();
    let mut buffer = vec![0; BUFFER];
    let mut wakes = Vec::new();
    loop {
        poll.wait(&mut wakes)?;
        for wake in wakes.drain(..) {
            if wake.token == LISTENER {
                while let Some(client) = accept(&listener)? {
                    // What cannot be opened is dropped, which closes it.
                    if let Err(error) = open(&poll, &mut pairs, client, &config, to) {
                        eprintln!("tls-relay: no backend connection: {error}");
                    }
                }
                continue;
            }
            let number = (wake.token / 2) as usize;
            let Some(pair) = pairs.get(number) else { continue };
            if wake.token % 2 == 0 {
                pair.client.note(wake);
            } else if let Some(backend) = &mut pair.backend {
                backend.note(wake);
            }
            if pair.advance(&mut buffer).is_err() {
                pairs.remove(number);
            }
        }
    }
}
