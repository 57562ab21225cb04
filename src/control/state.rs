//! The control thread's state, and what changes it: signals, and the results of what was begun elsewhere.
//! No step waits for a single event while others are pending.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::{Instant, sleep_until};

use super::care::Care;
use super::checkup::FIRST_RESULTS;
use super::names::{FIRST_ANSWERS, Resolver};
use super::reload::{Reload, ReloadError, ReloadInput};
use super::signals::{Signal, Signals};
use super::upkeep::Upkeep;
use super::view::View;
use crate::config::{Config, Report};
use crate::proxy::snapshot::Snapshot;
use crate::server::Workers;

/// What the control thread works with.
pub(super) struct Control {
    pub config: Config,
    /// The file as it was read last.
    pub read: Option<Config>,
    pub workers: Workers,
    pub resolver: Resolver,
    pub care: Care,
    pub upkeep: Upkeep,
    pub view: Rc<RefCell<View>>,
    pub reload: Reload,
    pub stage: Stage,
    /// Whether names have resolved to something new that no snapshot has yet.
    pub has_new_names: bool,
    /// The file whose reload comes in force with the next snapshot.
    pub reloaded: Option<String>,
}

/// How far a change of the snapshot has come. What is in force stays so until the last stage is over.
pub(super) enum Stage {
    /// Nothing is about to change.
    Settled,
    /// Names that are new are looked up for the first time.
    Resolving {
        /// How long that may take.
        until: Instant,
    },
    /// Endpoints that are new are checked for the first time.
    Checking {
        /// What comes in force then.
        snapshot: Arc<Snapshot>,
        /// How long that may take.
        until: Instant,
    },
}

impl Stage {
    /// Waits until the stage has taken as long as it may.
    async fn due(&self) {
        match self {
            Self::Settled => std::future::pending().await,
            Self::Resolving { until } | Self::Checking { until, .. } => sleep_until(*until).await,
        }
    }
}

impl Control {
    /// Looks after things until a signal says to end, whose name is returned.
    pub(super) async fn until_the_end(&mut self, signals: &mut Signals) -> &'static str {
        loop {
            self.advance(Instant::now());
            let is_settled = matches!(self.stage, Stage::Settled);
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::End(name) => return name,
                    Signal::Reload => self.reload.want(),
                    // There is no log file of ours to be opened again, and no successor yet.
                    Signal::Ignored(name) => tracing::info!(signal = name, "nothing to do"),
                },
                read = self.reload.ended(), if is_settled => self.take_reload(read),
                () = self.care.take(&self.view, &self.workers.shared) => {}
                () = self.upkeep.take(&self.view) => {}
                has_changed = self.resolver.changed() => self.has_new_names |= has_changed,
                () = self.stage.due() => {}
            }
        }
    }

    /// Begins what is to be begun, and goes through the stages that are over at `now`.
    fn advance(&mut self, now: Instant) {
        if let Err(error) = self.reload.begin(&self.config, &self.upkeep.certificates) {
            self.take_reload(Err(error));
        }
        while self.step(now) {}
    }

    /// Goes to the next stage, if that is due at `now`. Returns whether it was.
    fn step(&mut self, now: Instant) -> bool {
        match &self.stage {
            Stage::Settled if self.has_new_names => self.check_anew(now),
            Stage::Resolving { until } if self.resolver.are_answered() || now >= *until => {
                self.resolver.warn_of_unanswered();
                self.check_anew(now);
            }
            Stage::Checking { snapshot, until }
                if self.care.checkup.are_answered() || now >= *until =>
            {
                let snapshot = Arc::clone(snapshot);
                self.put_in_force(&snapshot);
            }
            _ => return false,
        }
        true
    }

    /// Builds a snapshot of what is known now, and has the endpoints that are new in it checked.
    fn check_anew(&mut self, now: Instant) {
        self.has_new_names = false;
        let before = Arc::clone(&self.view.borrow().snapshot);
        let workers = self.config.workers.unwrap_or(1);
        let snapshot = Arc::new(Snapshot::build(
            &self.config,
            self.resolver.names(),
            self.upkeep.certificates.clients(),
            &before,
            workers,
        ));
        self.care.checkup.follow(&snapshot);
        self.stage = Stage::Checking { snapshot, until: now + FIRST_RESULTS };
    }

    fn put_in_force(&mut self, snapshot: &Arc<Snapshot>) {
        self.care.checkup.warn_of_unknown();
        self.view.borrow_mut().snapshot = Arc::clone(snapshot);
        self.workers.replace(snapshot);
        self.stage = Stage::Settled;
        if let Some(file) = self.reloaded.take() {
            tracing::info!(file, "reloaded");
        }
    }

    /// A reload has read everything, or not; then nothing changes.
    fn take_reload(&mut self, read: Result<ReloadInput, ReloadError>) {
        let file = self.reload.file.as_ref().map(|file| file.display().to_string());
        let is_read = read.is_ok();
        match read {
            Ok(ReloadInput { config, clients, reread }) => {
                self.upkeep.commit(clients, reread);
                match (config, file) {
                    (Some((config, doubts)), Some(file)) => self.follow(config, &doubts, file),
                    _ => {
                        let why = "the configuration came from the command line";
                        tracing::info!("nothing to reload but certificates: {why}");
                    }
                }
            }
            Err(ReloadError { why, failures }) => {
                self.upkeep.count_failures(u64::try_from(failures).unwrap_or(u64::MAX));
                let words = "not reloaded, nothing has changed";
                match file {
                    Some(file) => tracing::error!(file, "{words}:\n{why}"),
                    None => tracing::error!("{words}:\n{why}"),
                }
            }
        }
        let mut view = self.view.borrow_mut();
        view.reload_succeeded = is_read;
        view.reloaded_at = SystemTime::now();
        view.certificates = self.upkeep.told();
    }

    /// Makes `config`, read from `file`, the wanted configuration and starts resolving its names.
    fn follow(&mut self, config: Config, doubts: &Report, file: String) {
        if !doubts.is_empty() {
            tracing::warn!(file, "{}", doubts.render(false));
        }
        if let Some(before) = self.read.replace(config.clone()) {
            warn_of_the_rest(&before, &config);
        }
        self.config.routes = config.routes;
        self.config.upstreams = config.upstreams;
        self.resolver.follow(&self.config);
        self.reloaded = Some(file);
        self.stage = Stage::Resolving { until: Instant::now() + FIRST_ANSWERS };
    }
}

/// Says which changes between two readings of the file a reload does not put in force.
fn warn_of_the_rest(before: &Config, after: &Config) {
    let changes = [
        ("workers", before.workers != after.workers),
        ("[admin]", (before.admin, &before.admin_hosts) != (after.admin, &after.admin_hosts)),
        ("[log]", before.log != after.log),
        ("[drain]", before.drain != after.drain),
        ("[[listeners]]", before.listeners != after.listeners),
    ];
    for (section, _) in changes.iter().filter(|(_, changed)| *changed) {
        tracing::warn!(section, "has changed; that needs a restart");
    }
}
