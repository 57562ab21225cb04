//! Signals: what each means, and none that kills by default.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// TERM, INT, QUIT: end, after a drain.
    End(&'static str),
    /// HUP: read the configuration again.
    Reload,
    /// USR1, USR2.
    Ignored(&'static str),
}

/// The signals that are caught.
pub(super) struct Signals {
    terminate: Stream,
    interrupt: Stream,
    quit: Stream,
    hangup: Stream,
    user1: Stream,
    user2: Stream,
}

impl Signals {
    /// Catches them from now on.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::End("TERM"),
            _ = self.interrupt.recv() => Signal::End("INT"),
            _ = self.quit.recv() => Signal::End("QUIT"),
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.user1.recv() => Signal::Ignored("USR1"),
            _ = self.user2.recv() => Signal::Ignored("USR2"),
        }
    }

    /// Waits for the next one that asks for an end.
    pub(super) async fn next_end(&mut self) {
        while !matches!(self.next().await, Signal::End(_)) {}
    }
}
