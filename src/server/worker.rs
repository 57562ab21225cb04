//! One worker's thread: it serves connections, and looks after what it keeps.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::accept::{Acceptor, accept};
use super::share::Sharing;
use super::{Command, Start};
use crate::net::deadline::TICK;
use crate::net::listen::Listening;
use crate::proxy::access_log::{AccessLog, FLUSH_EVERY};
use crate::proxy::connection::serve;
use crate::proxy::worker::Worker;

/// Starts the thread of one worker.
///
/// # Errors
/// A thread or a runtime that cannot be made.
pub fn spawn(start: Start) -> io::Result<JoinHandle<()>> {
    let name = format!("worker-{}", start.index);
    std::thread::Builder::new().name(name).spawn(move || {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => runtime.block_on(run(start)),
            Err(error) => tracing::error!(%error, "a worker cannot start"),
        }
    })
}

async fn run(start: Start) {
    let Start { index, shared, snapshot, log, listeners, workers, listening, pauses, .. } = start;
    let mut commands = start.commands;
    let worker = Rc::new(Worker::new(index, shared, snapshot, AccessLog::new(log.0, log.1)));
    let closing = Rc::new(Notify::new());
    let mut known = Vec::new();
    for (number, (listener, socket, limits)) in listeners.into_iter().enumerate() {
        let listener = Rc::new(listener);
        known.push(Rc::clone(&listener));
        match Listening::new(socket) {
            Ok(socket) => {
                let sharing = Rc::new(Sharing {
                    worker: Rc::clone(&worker),
                    listener,
                    number,
                    limits,
                    workers: workers.clone(),
                    told_of_refusal: Cell::new(None),
                    told_of_header: Cell::new(None),
                    refusing: Rc::default(),
                });
                let acceptor = Acceptor {
                    socket,
                    sharing,
                    closing: Rc::clone(&closing),
                    listening: Arc::clone(&listening),
                    pauses: Arc::clone(&pauses),
                    told: Cell::new(None),
                };
                tokio::task::spawn_local(accept(acceptor));
            }
            Err(error) => tracing::error!(%error, "a listening socket cannot be watched"),
        }
    }
    tokio::task::spawn_local(look_after(Rc::clone(&worker)));
    while let Some(command) = commands.recv().await {
        match command {
            Command::Serve(handed) => {
                if let Some(listener) = known.get(handed.listener) {
                    let (worker, listener) = (Rc::clone(&worker), Rc::clone(listener));
                    serve(worker, listener, handed.accepted, handed.place);
                }
            }
            Command::Replace(snapshot) => worker.replace_snapshot(snapshot),
            Command::Drain => worker.drain(),
            Command::CloseTunnels => worker.close_tunnels(),
            Command::Close => closing.notify_waiters(),
            Command::Stop => break,
        }
    }
    worker.log.flush(worker.stats());
}

/// Looks after what is idle, and hands over the log, for as long as the worker lives.
async fn look_after(worker: Rc<Worker>) {
    let every = if worker.log.is_on() { FLUSH_EVERY } else { TICK };
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ticked = Instant::now();
    // There is one for each worker; without it nothing would be noticed but by the tick.
    let none = Notify::new();
    let shared = Arc::clone(&worker.shared);
    let nudge = shared.nudges.get(worker.index).unwrap_or(&none);
    loop {
        let now = tokio::select! {
            now = ticks.tick() => now,
            () = nudge.notified() => {
                worker.attend();
                continue;
            }
        };
        worker.log.flush(worker.stats());
        if now.duration_since(ticked) >= TICK {
            ticked = now;
            worker.tick(now);
        }
    }
}
