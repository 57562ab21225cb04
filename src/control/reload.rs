//! Reload: everything is read on a thread of its own, and then put in force as a whole, or not at all.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout_at};

use super::certificates::{Certificates, Owner, PreparedTls, Troubles, clients, troubles_of};
use crate::config::{self, Config, Listener, Report};
use crate::net::tls::client::Clients;

/// How long a reload waits for its files, on whatever they are. A disk answers within milliseconds, a
/// network file system that is not gone within a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// Readings that were given up and still wait for a file. Each has a thread, which nothing can end.
const MAX_HANGING: usize = 8;

/// Everything that a reload has read. Nothing of it is in force.
#[derive(Debug)]
pub(super) struct ReloadInput {
    /// The file, and what is doubtful about it; `None` where the command line is the configuration.
    pub config: Option<(Config, Report)>,
    /// How upstreams speak TLS.
    pub clients: Clients,
    /// What is in force already, read again.
    pub reread: Vec<(Owner, PreparedTls)>,
}

/// The failure of a reload.
#[derive(Debug)]
pub(super) struct ReloadError {
    /// The reason, in words.
    pub why: String,
    /// Listeners and upstreams whose certificates cannot be used.
    pub failures: usize,
}

impl From<String> for ReloadError {
    fn from(why: String) -> Self {
        Self { why, failures: 0 }
    }
}

/// Reads what a reload needs, one reading at a time.
#[derive(Debug)]
pub(super) struct Reload {
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    under_way: Option<PendingRead>,
    /// Whether another reload was asked for.
    is_wanted: bool,
    /// Held once by each thread that reads.
    threads: Arc<()>,
}

/// A read on a thread of its own, which is under way.
#[derive(Debug)]
struct PendingRead {
    task: JoinHandle<Result<ReloadInput, ReloadError>>,
    due: Instant,
    /// What is being read.
    what: Arc<Mutex<String>>,
}

impl Reload {
    /// Of the configuration `file`, if there is one.
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        Self { file, under_way: None, is_wanted: false, threads: Arc::default() }
    }

    /// A reload is wanted.
    pub(super) const fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Begins to read, if a reload is wanted and none is under way. `running` is what is in force.
    ///
    /// # Errors
    /// Why nothing can be read.
    pub(super) fn begin(
        &mut self,
        running: &Config,
        certificates: &Certificates,
    ) -> Result<(), ReloadError> {
        if self.under_way.is_some() || !std::mem::take(&mut self.is_wanted) {
            return Ok(());
        }
        // One of them is ours.
        let hanging = Arc::strong_count(&self.threads) - 1;
        if hanging >= MAX_HANGING {
            return Err(format!("{hanging} earlier readings still wait for their files").into());
        }
        let what = Arc::default();
        let task = {
            let (thread, what) = (Arc::clone(&self.threads), Arc::clone(&what));
            let (file, running) = (self.file.clone(), running.clone());
            let certificates = certificates.clone();
            spawn_blocking(move || {
                let read = read(file.as_deref(), &running, &certificates, &what);
                drop(thread);
                read
            })
        };
        self.under_way = Some(PendingRead { task, due: Instant::now() + PATIENCE, what });
        Ok(())
    }

    /// Waits until the reading that is under way has ended, or has taken too long. Nothing is lost if
    /// the wait is given up.
    ///
    /// # Errors
    /// What could not be read.
    pub(super) async fn ended(&mut self) -> Result<ReloadInput, ReloadError> {
        let Some(reading) = &mut self.under_way else { return std::future::pending().await };
        let ended = timeout_at(reading.due, &mut reading.task).await;
        let what = reading.what.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.under_way = None;
        match ended {
            Ok(Ok(read)) => read,
            Ok(Err(_)) => Err(format!("reading {what} failed").into()),
            Err(_) => {
                let patience = humantime::format_duration(PATIENCE);
                Err(format!("{what} could not be read within {patience}").into())
            }
        }
    }
}

/// Reads `file`, where there is one, and everything that it names. Blocking. `what` names the file that is
/// being read.
fn read(
    file: Option<&Path>,
    running: &Config,
    certificates: &Certificates,
    what: &Mutex<String>,
) -> Result<ReloadInput, ReloadError> {
    let begin = |next: String| *what.lock().unwrap_or_else(PoisonError::into_inner) = next;
    begin("the configuration file".into());
    let config = file.map(config::load_with_doubts).transpose().map_err(|e| e.to_string())?;
    let wanted = config.as_ref().map_or(running, |(config, _)| config);
    let begin_one = |owner: &Owner| begin(format!("the certificates of {owner}"));
    match read_certificates(wanted, &running.listeners, certificates, begin_one) {
        Ok((clients, reread)) => Ok(ReloadInput { config, clients, reread }),
        Err(troubles) => {
            let owners: BTreeSet<_> = troubles.0.iter().map(|t| t.owner.to_string()).collect();
            let why = match config {
                Some((config, mut report)) => {
                    troubles.show_in(&mut report, &config);
                    report.to_string()
                }
                None => troubles.to_string(),
            };
            Err(ReloadError { why, failures: owners.len() })
        }
    }
}

/// Reads the TLS files of new upstreams, and again those in force that `config` keeps; `listeners` are the
/// running ones. `begin` is called before each owner's files.
pub(super) fn read_certificates(
    config: &Config,
    listeners: &[Listener],
    certificates: &Certificates,
    begin: impl Fn(&Owner),
) -> Result<(Clients, Vec<(Owner, PreparedTls)>), Troubles> {
    let before = certificates.clients();
    let (clients, mut troubles) = match clients(&config.upstreams, before, &begin) {
        Ok(clients) => (clients, Vec::new()),
        Err(Troubles(troubles)) => (Clients::new(), troubles),
    };
    let has_changed = |index: usize| {
        let tls =
            |listeners: &[Listener]| listeners.get(index).map(|listener| listener.tls.clone());
        tls(listeners) != tls(&config.listeners)
    };
    let mut reread = Vec::new();
    for (owner, tls) in certificates.each() {
        // What a restart will replace, and what is going away, may have no files any more.
        let stays = match &owner {
            Owner::Listener(index, _) => !has_changed(*index),
            Owner::Upstream(name) => {
                let of = |clients: &Clients| clients.get(name).map(Arc::as_ptr);
                of(&clients) == of(before)
            }
        };
        if stays {
            begin(&owner);
            match tls.prepare() {
                Ok(prepared) => reread.push((owner, prepared)),
                Err(error) => troubles.extend(troubles_of(&owner, error.0)),
            }
        }
    }
    if troubles.is_empty() { Ok((clients, reread)) } else { Err(Troubles(troubles)) }
}
