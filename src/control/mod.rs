//! The control thread: signals, reload, names, and what operators ask over the admin address. It
//! never handles traffic, and traffic never waits for it.

mod admin;
mod care;
mod certificates;
mod checkup;
mod drain;
mod endpoints;
mod metrics;
mod names;
mod signals;
mod upkeep;
mod view;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use tokio::runtime::{Builder, LocalOptions};

use crate::config::{self, Config, ListenAddress, Report};
use crate::health::active::MAX_CHECKS;
use crate::health::redial::MAX_REDIALS;
use crate::net::{descriptors, listen};
use crate::proxy::access_log::start_writer;
use crate::proxy::snapshot::Snapshot;
use crate::proxy::worker::Listener;
use crate::server::{Bound, Workers};
use care::Care;
use names::Resolver;
use signals::{Signal, Signals};
use upkeep::Upkeep;
use view::View;

pub use certificates::{Certificates, Owner, Trouble, Troubles, show_doubts_in};

/// Descriptors that are needed besides connections: 128 for sockets that listen, epoll, files and
/// names, and those of checks and dials in the background.
const SPARE_DESCRIPTORS: usize = 128 + MAX_CHECKS + MAX_REDIALS;

/// How long the end waits for the last lines of the access log to be taken.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// A balancer whose sockets are bound, and that serves once it is [run](Balancer::run).
#[derive(Debug)]
pub struct Balancer {
    config: Config,
    reload_from: Option<PathBuf>,
    listeners: Vec<Bound>,
    addresses: Vec<ListenAddress>,
    admin: Option<std::net::TcpListener>,
    certificates: Certificates,
}

/// How a run of the balancer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every request in flight was answered.
    Drained,
    /// The drain's deadline, or a second signal, cut connections off.
    Cut,
}

impl Balancer {
    /// Binds every address in `config`, whose `certificates` were read. `reload_from` is the file that
    /// HUP re-reads.
    ///
    /// # Errors
    /// An address that cannot be bound; the message names it, the key and the option.
    pub fn bind(
        mut config: Config,
        certificates: Certificates,
        reload_from: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let workers = *config.workers.get_or_insert_with(cores);
        fit_to_descriptors(&mut config);
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for (index, listener) in config.listeners.iter().enumerate() {
            let address = &listener.address;
            let fault = match address {
                ListenAddress::Ip { .. } => bind_fault,
                ListenAddress::Unix(_) => unix_bind_fault,
            };
            let group = listen::bind(address, workers)
                .map_err(|error| anyhow::anyhow!(fault(&error)))
                .with_context(|| format!("cannot listen on {address} (address, --listen)"))?;
            addresses.push(group.address);
            let (sockets, file) = (group.sockets, group.file);
            let tls = certificates.server(index).cloned();
            let listener = Listener { config: listener.clone(), tls };
            listeners.push(Bound { listener, sockets, file });
        }
        let admin = config.admin.map(|address| {
            std::net::TcpListener::bind(address)
                .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
                .map_err(|error| anyhow::anyhow!(bind_fault(&error)))
                .with_context(|| format!("cannot listen on {address} ([admin] listen, --admin)"))
        });
        let admin = admin.transpose()?;
        Ok(Self { config, reload_from, listeners, addresses, admin, certificates })
    }

    /// The addresses listened on, in the order of the configuration, real ports in place of 0.
    pub fn addresses(&self) -> Vec<ListenAddress> {
        self.addresses.clone()
    }

    /// The admin address, if there is one, the real port in place of 0.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|admin| admin.local_addr().ok())
    }

    /// Serves until TERM, INT or QUIT, then drains. Blocks; makes its own threads.
    ///
    /// # Errors
    /// What keeps the workers from starting.
    pub fn run(self) -> anyhow::Result<Ended> {
        let (queue, writer) = start_writer(io::stdout()).context("no thread for the access log")?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .context("no runtime for the control thread")?;
        let ended = runtime.block_on(self.control(queue));
        // Not waiting for a name that is still being looked up.
        runtime.shutdown_background();
        // Every sender is gone, so it writes what it has and ends; unless nobody reads it.
        let patience = Instant::now() + LOG_PATIENCE;
        while !writer.is_finished() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
        ended
    }

    async fn control(self, log: std::sync::mpsc::SyncSender<Vec<u8>>) -> anyhow::Result<Ended> {
        let mut signals = Signals::new().context("signals cannot be caught")?;
        let addresses = self.addresses();
        let admin_address = self.admin_address();
        let Self { config, reload_from, listeners, admin, certificates, .. } = self;
        let count = config.workers.unwrap_or(1);
        let mut resolver = Resolver::new(&config);
        resolver.wait_for_first_answers().await;
        let snapshot = Arc::new(Snapshot::build(
            &config,
            resolver.names(),
            certificates.clients(),
            &Snapshot::default(),
            count,
        ));
        let mut care = Care::new();
        care.checkup.follow(&snapshot).await;
        let log = (config.log.access, log);
        let workers =
            Workers::start(count, listeners, &snapshot, &log).context("workers cannot start")?;
        drop(log);
        let upkeep = Upkeep::new(certificates);
        let mut view = View::new(snapshot, Arc::clone(&workers.shared));
        view.certificates = upkeep.told();
        let view = Rc::new(RefCell::new(view));
        if let Some(admin) = admin {
            let admin = tokio::net::TcpListener::from_std(admin).context("no admin address")?;
            tokio::task::spawn_local(admin::serve(admin, Rc::clone(&view)));
        }
        // What the file says without the options above it, to tell what a reload would change.
        let read = reload_from.as_ref().and_then(|file| config::load(file).ok());
        for (address, listener) in addresses.iter().zip(&config.listeners) {
            match listener.tls {
                Some(_) => tracing::info!(%address, scheme = %"https", "listening"),
                None => tracing::info!(%address, "listening"),
            }
        }
        if let Some(address) = admin_address {
            tracing::info!(%address, "admin");
        }
        tracing::info!(workers = count, "ready");
        let mut control =
            Control { config, reload_from, read, workers, resolver, care, upkeep, view };
        control.until_the_end(&mut signals).await;
        Ok(control.drain(&mut signals).await)
    }
}

/// Why an address cannot be bound, and what can be done about it.
fn bind_fault(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is in use by another process; end it, or choose another port".into()
        }
        io::ErrorKind::PermissionDenied => {
            "not permitted; ports below 1024 need CAP_NET_BIND_SERVICE".into()
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".into(),
        _ => error.to_string(),
    }
}

/// Why a Unix socket cannot be bound, and what can be done about it.
fn unix_bind_fault(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process listens there; end it, or choose another path".into()
        }
        io::ErrorKind::AlreadyExists => {
            "there is a file that is no socket; remove it, or choose another path".into()
        }
        io::ErrorKind::NotFound => "its directory is not there; make it first".into(),
        io::ErrorKind::PermissionDenied => {
            "not permitted; the directory must be one that this user may write to".into()
        }
        _ => error.to_string(),
    }
}

/// Raises the limit of descriptors, and fits the limits of connections to it: where the operator
/// names none, listeners share what there can be; where more are named, says so.
fn fit_to_descriptors(config: &mut Config) {
    let Some(limit) = descriptors::raise_limit() else { return };
    // Two for each: the connection from a client, and one to an endpoint.
    let possible =
        usize::try_from(limit.saturating_sub(SPARE_DESCRIPTORS as u64) / 2).unwrap_or(usize::MAX);
    let named: usize = config.listeners.iter().filter_map(|l| l.max_connections).sum();
    if named > possible {
        let hint = "raise the limit of descriptors (ulimit -n); accepting pauses when they run out";
        tracing::warn!(max_connections = named, possible, hint);
    }
    let open = config.listeners.iter_mut().filter(|l| l.max_connections.is_none());
    let open: Vec<_> = open.collect();
    let share = possible.saturating_sub(named) / open.len().max(1);
    for listener in open {
        listener.max_connections = Some(share.max(1));
    }
}

/// What the control thread works with.
struct Control {
    config: Config,
    reload_from: Option<PathBuf>,
    /// The file as it was read last.
    read: Option<Config>,
    workers: Workers,
    resolver: Resolver,
    care: Care,
    upkeep: Upkeep,
    view: Rc<RefCell<View>>,
}

impl Control {
    /// Looks after things until a signal says to end.
    async fn until_the_end(&mut self, signals: &mut Signals) {
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::End(name) => {
                        tracing::info!(signal = name, "ending");
                        return;
                    }
                    Signal::Reload => self.reload().await,
                    // There is no log file of ours to be opened again, and no successor yet.
                    Signal::Ignored(name) => tracing::info!(signal = name, "nothing to do"),
                },
                () = self.care.take(&self.view, &self.workers.shared) => {}
                () = self.upkeep.take(&self.view) => {}
                changed = self.resolver.changed() => if changed { self.replace_snapshot().await },
            }
        }
    }

    /// Reads the file again, and certificates; puts its routes and upstreams in force, or changes
    /// nothing.
    async fn reload(&mut self) {
        let Some(file) = self.reload_from.clone() else {
            // Nothing is new in it, so that nothing can be wrong with that.
            let _ = self.upkeep.reread(&self.config).await;
            self.view.borrow_mut().certificates = self.upkeep.told();
            let why = "the configuration came from the command line";
            tracing::info!("nothing to reload but certificates: {why}");
            return;
        };
        let read = self.read_again(&file).await;
        {
            let mut view = self.view.borrow_mut();
            view.reload_succeeded = read.is_ok();
            view.reloaded_at = SystemTime::now();
            view.certificates = self.upkeep.told();
        }
        let file = file.display().to_string();
        let (config, doubts) = match read {
            Ok(read) => read,
            Err(why) => {
                tracing::error!(file, "not reloaded, nothing has changed:\n{why}");
                return;
            }
        };
        if !doubts.is_empty() {
            tracing::warn!(file, "{}", doubts.render(false));
        }
        if let Some(before) = self.read.replace(config.clone()) {
            warn_of_the_rest(&before, &config);
        }
        self.config.routes = config.routes;
        self.config.upstreams = config.upstreams;
        // What is in force stays so until new names have had the time to resolve.
        self.resolver.follow(&self.config);
        self.resolver.wait_for_first_answers().await;
        self.replace_snapshot().await;
        tracing::info!(file, "reloaded");
    }

    /// What `file` says now, and everything that it names read.
    async fn read_again(&mut self, file: &Path) -> Result<(Config, Report), String> {
        let (config, mut report) = config::load_with_doubts(file).map_err(|e| e.to_string())?;
        match self.upkeep.reread(&config).await {
            Ok(()) => Ok((config, report)),
            Err(troubles) => {
                troubles.show_in(&mut report, &config);
                Err(report.to_string())
            }
        }
    }

    /// Builds a snapshot of what is known now, has the endpoints that are new in it checked, and
    /// puts it in force; until then the one before it is.
    async fn replace_snapshot(&mut self) {
        let before = Arc::clone(&self.view.borrow().snapshot);
        let workers = self.config.workers.unwrap_or(1);
        let built = Snapshot::build(
            &self.config,
            self.resolver.names(),
            self.upkeep.certificates.clients(),
            &before,
            workers,
        );
        let snapshot = Arc::new(built);
        if self.care.checkup.follow(&snapshot).await {
            self.workers.shared.endpoint_lost();
        }
        self.view.borrow_mut().snapshot = Arc::clone(&snapshot);
        self.workers.replace(&snapshot);
    }
}

/// Says which changes between two readings of the file a reload does not put in force.
fn warn_of_the_rest(before: &Config, after: &Config) {
    let changes = [
        ("workers", before.workers != after.workers),
        ("[admin]", before.admin != after.admin),
        ("[log]", before.log != after.log),
        ("[drain]", before.drain != after.drain),
        ("[[listeners]]", before.listeners != after.listeners),
    ];
    for (section, _) in changes.iter().filter(|(_, changed)| *changed) {
        tracing::warn!(section, "has changed; that needs a restart");
    }
}
