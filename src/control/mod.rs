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
mod reload;
mod signals;
mod state;
mod upkeep;
mod view;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::runtime::{Builder, LocalOptions};

use crate::config::{Config, ListenAddress};
use crate::health::active::MAX_CHECKS;
use crate::health::redial::MAX_REDIALS;
use crate::net::{descriptors, listen};
use crate::proxy::access_log::start_writer;
use crate::proxy::snapshot::Snapshot;
use crate::proxy::worker::Listener;
use crate::server::{Bound, Workers};
use care::Care;
use names::Resolver;
use reload::Reload;
use signals::{Signal, Signals};
use state::{Control, Stage};
use upkeep::Upkeep;
use view::View;

pub use certificates::{Certificates, Owner, Trouble, Troubles, show_doubts_in};

/// Descriptors that are needed besides connections: 128 for sockets that listen, epoll, files and
/// names, and those of checks and dials in the background.
const SPARE_DESCRIPTORS: usize = 128 + MAX_CHECKS + MAX_REDIALS;

/// Below this number of connections per listener a warning is logged at start: a single browser or a pool
/// of another proxy takes up a good part of them.
const FEW_CONNECTIONS: usize = 256;

/// How long the end waits for the last lines of the access log to be taken.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// A balancer whose sockets are bound, and that serves once it is [run](Balancer::run).
#[derive(Debug)]
pub struct Balancer {
    config: Config,
    reload_from: Option<ReloadFrom>,
    listeners: Vec<Bound>,
    addresses: Vec<ListenAddress>,
    admin: Option<std::net::TcpListener>,
    certificates: Certificates,
}

/// Where a reload finds the configuration.
#[derive(Debug)]
pub struct ReloadFrom {
    /// The file.
    pub file: PathBuf,
    /// What it said at start, without the options above it.
    pub read: Config,
}

/// How a run of the balancer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every request in flight was answered, and every response delivered.
    Drained,
    /// The drain's deadline or a second signal cut connections off, or a client stopped reading.
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
        reload_from: Option<ReloadFrom>,
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
        let (file, read) = reload_from.map(|from| (from.file, from.read)).unzip();
        let mut reload = Reload::new(file);
        let mut resolver = Resolver::new(&config);
        let mut ending =
            until_done_or_end(&mut signals, &mut reload, resolver.wait_for_first_answers()).await;
        resolver.warn_of_unanswered();
        let snapshot = Arc::new(Snapshot::build(
            &config,
            resolver.names(),
            certificates.clients(),
            &Snapshot::default(),
            count,
        ));
        let mut care = Care::new();
        care.checkup.follow(&snapshot);
        if ending.is_none() {
            let checked = care.checkup.wait_for_first_results();
            ending = until_done_or_end(&mut signals, &mut reload, checked).await;
        }
        care.checkup.warn_of_unknown();
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
            let hosts = config.admin_hosts.clone();
            tokio::task::spawn_local(admin::serve(admin, hosts, Rc::clone(&view)));
        }
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
        let stage = Stage::Settled;
        let mut control = Control {
            config,
            read,
            workers,
            resolver,
            care,
            upkeep,
            view,
            reload,
            stage,
            has_new_names: false,
            reloaded: None,
        };
        let signal = match ending {
            Some(signal) => signal,
            None => control.until_the_end(&mut signals).await,
        };
        tracing::info!(signal, "ending");
        Ok(control.drain(&mut signals).await)
    }
}

/// Waits until `done` is ready, or until a signal asks the process to end. Returns that signal's name.
async fn until_done_or_end(
    signals: &mut Signals,
    reload: &mut Reload,
    done: impl Future<Output = ()>,
) -> Option<&'static str> {
    let ended = async {
        loop {
            match signals.next().await {
                Signal::End(name) => return name,
                Signal::Reload => reload.want(),
                Signal::Ignored(_) => {}
            }
        }
    };
    tokio::select! {
        () = done => None,
        name = ended => Some(name),
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
    let hint = "raise the limit of descriptors (ulimit -n, LimitNOFILE=)";
    if named > possible {
        let what = "max_connections is more than descriptors allow";
        tracing::warn!(max_connections = named, possible, "{what}; {hint}");
    }
    let open = config.listeners.iter_mut().filter(|l| l.max_connections.is_none());
    let open: Vec<_> = open.collect();
    let share = possible.saturating_sub(named) / open.len().max(1);
    if share < FEW_CONNECTIONS && !open.is_empty() {
        let (descriptors, reserved, max_connections) = (limit, SPARE_DESCRIPTORS, share.max(1));
        let what = "the limit of descriptors leaves few connections for each listener";
        tracing::warn!(descriptors, reserved, max_connections, "{what}; {hint}");
    }
    for listener in open {
        listener.max_connections = Some(share.max(1));
    }
}
