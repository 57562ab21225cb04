//! Cores: one thread each, with a runtime, listening sockets and connections of its own.
//!
//! [`worker`] runs one, [`accept`] takes connections from the kernel, [`share`] shares them out among the workers.

pub mod accept;
pub mod share;
pub mod worker;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;

use socket2::Socket;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::config;
use crate::net::admission::Limits;
use crate::net::listen::stop_handshakes;
use crate::net::socket_file::SocketFile;
use crate::proxy::snapshot::Snapshot;
use crate::proxy::worker::{Listener, Shared};
use accept::Pauses;
use share::Handed;

/// What a worker is told.
#[derive(Debug)]
pub enum Command {
    /// Serve this connection, which another worker accepted.
    Serve(Handed),
    /// Use this snapshot for requests to come.
    Replace(Arc<Snapshot>),
    /// Connections end with their next response.
    Drain,
    /// Tunnels end.
    CloseTunnels,
    /// Accept what still waits, then close the listening sockets.
    Close,
    /// End at once.
    Stop,
}

/// A listener, bound: a socket for each worker.
#[derive(Debug)]
pub struct Bound {
    /// What clients find there.
    pub listener: Listener,
    /// One for each worker.
    pub sockets: Vec<Socket>,
    /// The file of a Unix socket.
    pub file: Option<SocketFile>,
}

/// All workers.
#[derive(Debug)]
pub struct Workers {
    /// What they share.
    pub shared: Arc<Shared>,
    commands: Vec<UnboundedSender<Command>>,
    threads: Vec<JoinHandle<()>>,
    /// Every listening socket, to be told apart from the workers' own ends only by its descriptor.
    sockets: Vec<Socket>,
    /// The files of those that are Unix sockets.
    files: Vec<SocketFile>,
    /// Listening sockets that are open, over all workers.
    listening: Arc<AtomicUsize>,
}

/// What one worker starts with.
pub struct Start {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) log: (config::AccessLog, SyncSender<Vec<u8>>),
    pub(crate) listeners: Vec<(Listener, Socket, Limits)>,
    pub(crate) commands: UnboundedReceiver<Command>,
    pub(crate) workers: Vec<UnboundedSender<Command>>,
    pub(crate) listening: Arc<AtomicUsize>,
    pub(crate) pauses: Arc<Pauses>,
}

impl Workers {
    /// Starts `count` workers on the sockets of `bound`.
    ///
    /// # Errors
    /// A thread or a runtime that cannot be made.
    pub fn start(
        count: usize,
        mut bound: Vec<Bound>,
        snapshot: &Arc<Snapshot>,
        log: &(config::AccessLog, SyncSender<Vec<u8>>),
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(count));
        let listening = Arc::new(AtomicUsize::new(count * bound.len()));
        let pauses = Arc::default();
        let (commands, receivers): (Vec<_>, Vec<_>) =
            (0..count).map(|_| unbounded_channel()).unzip();
        // One set for each listener, over all workers.
        let limits: Vec<_> = bound
            .iter()
            .map(|b| {
                Limits::new(
                    b.listener.config.max_connections,
                    b.listener.config.max_connections_per_client,
                )
            })
            .collect();
        let mut threads = Vec::new();
        let mut sockets = Vec::new();
        for (index, receiver) in receivers.into_iter().enumerate() {
            let mut listeners = Vec::new();
            for (bound, limit) in bound.iter_mut().zip(&limits) {
                let socket = bound.sockets.pop().ok_or(io::ErrorKind::InvalidInput)?;
                sockets.push(socket.try_clone()?);
                listeners.push((bound.listener.clone(), socket, limit.clone()));
            }
            let start = Start {
                index,
                shared: Arc::clone(&shared),
                snapshot: Arc::clone(snapshot),
                log: log.clone(),
                listeners,
                commands: receiver,
                workers: commands.clone(),
                listening: Arc::clone(&listening),
                pauses: Arc::clone(&pauses),
            };
            threads.push(worker::spawn(start)?);
        }
        let files = bound.into_iter().filter_map(|bound| bound.file).collect();
        Ok(Self { shared, commands, threads, sockets, files, listening })
    }

    /// Puts `snapshot` in force on all workers.
    pub fn replace(&self, snapshot: &Arc<Snapshot>) {
        self.tell(|| Command::Replace(Arc::clone(snapshot)));
    }

    /// Has every connection end with its next response.
    pub fn drain(&self) {
        self.tell(|| Command::Drain);
    }

    /// Has every tunnel end in the words of its protocol, if it has any.
    pub fn close_tunnels(&self) {
        self.tell(|| Command::CloseTunnels);
    }

    /// Whether tunnels are open.
    pub fn have_tunnels(&self) -> bool {
        self.shared.stats.iter().any(|stats| stats.tunnels_open.load(Relaxed) > 0)
    }

    /// Has the kernel take no new connections; those that it has can still be accepted.
    pub fn refuse_connections(&mut self) {
        self.files.clear();
        for socket in &self.sockets {
            if let Err(error) = stop_handshakes(socket) {
                tracing::debug!(%error, "no packet filter; connections made meanwhile are reset");
            }
        }
    }

    /// Has the workers accept what still waits, and close their listening sockets then.
    pub fn close_listeners(&mut self) {
        self.sockets.clear();
        self.tell(|| Command::Close);
    }

    /// Connections that are open, over all workers.
    pub fn connections(&self) -> usize {
        self.shared.stats.iter().map(|stats| stats.connections.load(Relaxed)).sum()
    }

    /// Client connections that ended without everything having been delivered, over all workers.
    pub fn undelivered(&self) -> u64 {
        self.shared.stats.iter().map(|stats| stats.undelivered.get()).sum()
    }

    /// Whether every listening socket is closed and every connection over.
    pub fn are_idle(&self) -> bool {
        self.listening.load(Relaxed) == 0 && self.connections() == 0
    }

    /// Ends all workers, and what they still serve with them.
    pub fn stop(self) {
        self.tell(|| Command::Stop);
        for thread in self.threads {
            // A worker that panicked has said so already.
            let _ = thread.join();
        }
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for worker in &self.commands {
            // A worker that is gone has nothing left to do.
            let _ = worker.send(command());
        }
    }
}
