//! Certificates, keys and authorities of all listeners and upstreams: read at start and at a reload of
//! the configuration.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::values::ValueError;
use crate::config::{Config, Report, Scheme, Section, Upstream};
use crate::net::tls::client::{self, Clients, TlsClient};
use crate::net::tls::server::{self, TlsServer};
use crate::net::tls::{Fault, Presented, TlsError};

/// Whose TLS it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The listener with this number in the configuration, from 0, and its address.
    Listener(usize, String),
    /// The upstream with this name.
    Upstream(String),
}

/// `listener :443`, `upstream api`.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener(_, address) => write!(f, "listener {address}"),
            Self::Upstream(name) => write!(f, "upstream {name}"),
        }
    }
}

/// A fault, or a doubt, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Whose.
    pub owner: Owner,
    /// What it is.
    pub fault: Fault,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.owner, self.fault, self.fault.help())
    }
}

/// Everything that is wrong; at least one fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(Trouble::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Troubles(pub Vec<Trouble>);

impl Troubles {
    /// Shows them in `report`, that of the file that `config` was read from, where it names the files.
    pub fn show_in(&self, report: &mut Report, config: &Config) {
        each_in(&self.0, config, |section, fault, error| {
            report.add_fault(section, fault.key.name(), fault.certificate, error);
        });
    }
}

/// Shows `doubts` in `report`, as [`Troubles::show_in`] shows faults.
pub fn show_doubts_in(doubts: &[Trouble], report: &mut Report, config: &Config) {
    each_in(doubts, config, |section, fault, error| {
        report.add_doubt(section, fault.key.name(), fault.certificate, error);
    });
}

fn each_in(
    troubles: &[Trouble],
    config: &Config,
    mut show: impl FnMut(Section, &Fault, ValueError),
) {
    for Trouble { owner, fault } in troubles {
        let section = match owner {
            Owner::Listener(index, _) => Some(Section::Listener(*index)),
            Owner::Upstream(name) => {
                config.upstreams.iter().position(|u| u.name == *name).map(Section::Upstream)
            }
        };
        if let Some(section) = section {
            show(section, fault, ValueError::new(fault.to_string(), fault.help()));
        }
    }
}

/// One of them.
#[derive(Debug, Clone)]
pub(super) enum Tls {
    Server(Arc<TlsServer>),
    Client(Arc<TlsClient>),
}

impl Tls {
    /// Reads the files again if they have changed.
    pub(super) fn reload(&self) -> Result<bool, TlsError> {
        match self {
            Self::Server(server) => server.reload(),
            Self::Client(client) => client.reload(),
        }
    }

    /// Reads the files again, and puts nothing in force yet.
    pub(super) fn prepare(&self) -> Result<PreparedTls, TlsError> {
        Ok(match self {
            Self::Server(server) => PreparedTls::Server(Arc::clone(server), server.prepare()?),
            Self::Client(client) => PreparedTls::Client(Arc::clone(client), client.prepare()?),
        })
    }

    /// What others are presented.
    pub(super) fn presented(&self) -> Vec<Presented> {
        match self {
            Self::Server(server) => server.presented(),
            Self::Client(client) => client.presented().into_iter().collect(),
        }
    }

    /// What is doubtful about it at `now`.
    pub(super) fn doubts(&self, now: SystemTime) -> Vec<Fault> {
        match self {
            Self::Server(server) => server.doubts(now),
            Self::Client(client) => client.doubts(now),
        }
    }
}

/// The TLS files of one server or client, read and not in force yet.
#[derive(Debug)]
pub(super) enum PreparedTls {
    Server(Arc<TlsServer>, server::PreparedServer),
    Client(Arc<TlsClient>, client::PreparedClient),
}

impl PreparedTls {
    /// Puts the files in force, and returns the TLS server or client that uses them.
    pub(super) fn commit(self) -> Tls {
        match self {
            Self::Server(server, prepared) => {
                server.commit(prepared);
                Tls::Server(server)
            }
            Self::Client(client, prepared) => {
                client.commit(prepared);
                Tls::Client(client)
            }
        }
    }
}

/// What all listeners and upstreams have.
#[derive(Debug, Clone, Default)]
pub struct Certificates {
    listeners: Vec<String>,
    /// One for each listener, if it speaks TLS.
    servers: Vec<Option<Arc<TlsServer>>>,
    clients: Clients,
}

impl Certificates {
    /// Reads all that `config` names.
    ///
    /// # Errors
    /// Everything that is wrong with the files.
    pub fn read(config: &Config) -> Result<Self, Troubles> {
        let mut troubles = Vec::new();
        let mut servers = Vec::new();
        let listeners: Vec<_> = config.listeners.iter().map(|l| l.address.to_string()).collect();
        for (index, listener) in config.listeners.iter().enumerate() {
            let server = listener.tls.as_ref().map(|tls| TlsServer::new(tls, listener.http2));
            servers.push(server.transpose().map(|server| server.map(Arc::new)).unwrap_or_else(
                |e| {
                    let owner = Owner::Listener(index, listener.address.to_string());
                    troubles.extend(troubles_of(&owner, e.0));
                    None
                },
            ));
        }
        let clients = clients(&config.upstreams, &Clients::new(), |_| {});
        let clients = clients.unwrap_or_else(|Troubles(more)| {
            troubles.extend(more);
            Clients::new()
        });
        match troubles.is_empty() {
            true => Ok(Self { listeners, servers, clients }),
            false => Err(Troubles(troubles)),
        }
    }

    /// How listener number `index` speaks TLS, if it does.
    pub fn server(&self, index: usize) -> Option<&Arc<TlsServer>> {
        self.servers.get(index).and_then(Option::as_ref)
    }

    /// How upstreams speak TLS to their endpoints.
    pub const fn clients(&self) -> &Clients {
        &self.clients
    }

    /// What is allowed but hardly meant, such as a certificate that ends soon.
    pub fn doubts(&self) -> Vec<Trouble> {
        let now = SystemTime::now();
        self.each().iter().flat_map(|(owner, tls)| troubles_of(owner, tls.doubts(now))).collect()
    }

    /// From now on it is these that upstreams speak by.
    pub(super) fn follow(&mut self, clients: Clients) {
        self.clients = clients;
    }

    /// Every one, and whose it is; those of upstreams by their names.
    pub(super) fn each(&self) -> Vec<(Owner, Tls)> {
        let servers = self.listeners.iter().zip(&self.servers).enumerate();
        let servers = servers.filter_map(|(index, (address, server))| {
            let server = Arc::clone(server.as_ref()?);
            Some((Owner::Listener(index, address.clone()), Tls::Server(server)))
        });
        let mut clients: Vec<_> = self.clients.iter().collect();
        clients.sort_by_key(|(name, _)| *name);
        let clients = clients
            .into_iter()
            .map(|(name, client)| (Owner::Upstream(name.clone()), Tls::Client(Arc::clone(client))));
        servers.chain(clients).collect()
    }
}

/// Reads what `upstreams` name; what has not changed since `before` stays as it is there. `begin` is told
/// whose files are read next.
pub(super) fn clients(
    upstreams: &[Upstream],
    before: &Clients,
    begin: impl Fn(&Owner),
) -> Result<Clients, Troubles> {
    let mut clients = Clients::new();
    let mut troubles = Vec::new();
    for upstream in upstreams {
        if !upstream.endpoints.iter().any(|endpoint| endpoint.url.scheme == Scheme::Https) {
            continue;
        }
        let owner = Owner::Upstream(upstream.name.clone());
        begin(&owner);
        let known = before.get(&upstream.name).filter(|client| *client.config() == upstream.tls);
        let client = known.map_or_else(
            || TlsClient::new(&upstream.tls).map(Arc::new),
            |client| Ok(Arc::clone(client)),
        );
        // Names of endpoints are as strict here as in the certificates that they must have.
        let named = client.and_then(|client| {
            for endpoint in upstream.endpoints.iter().filter(|e| e.url.scheme == Scheme::Https) {
                client.endpoint(&endpoint.url.host.certified())?;
            }
            Ok(client)
        });
        match named {
            Ok(client) => drop(clients.insert(upstream.name.clone(), client)),
            Err(TlsError(faults)) => {
                troubles.extend(troubles_of(&owner, faults));
            }
        }
    }
    if troubles.is_empty() { Ok(clients) } else { Err(Troubles(troubles)) }
}

pub(super) fn troubles_of(owner: &Owner, faults: Vec<Fault>) -> impl Iterator<Item = Trouble> {
    let owner = owner.clone();
    faults.into_iter().map(move |fault| Trouble { owner: owner.clone(), fault })
}
