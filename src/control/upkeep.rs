//! Keeps certificates as fresh as their files, and warns before they end.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::certificates::{Certificates, Owner, PreparedTls, Tls};
use super::view::View;
use crate::net::tls::TlsError;
use crate::net::tls::client::Clients;

/// How often files are looked at. What has changed is read at the second look that finds it the same.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often is warned of what ends soon, or has ended: seldom enough to be read.
const WARN_EVERY: Duration = Duration::from_secs(86_400);

/// What became of files that were looked at: whether anything is different.
type Outcome = (Owner, Tls, Result<bool, TlsError>);

/// What is told of certificates.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// Those that others are presented.
    pub presented: Vec<TellingEnd>,
    /// Times that files were read again, each listener and upstream for itself.
    pub reloads: u64,
    /// Times that what was read could not be used.
    pub failures: u64,
}

/// When a certificate ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TellingEnd {
    pub owner: Owner,
    /// Its file, as it was written.
    pub file: String,
    /// In seconds since 1970.
    pub end: f64,
}

/// Certificates that are looked after.
#[derive(Debug)]
pub(super) struct Upkeep {
    pub certificates: Certificates,
    looks: Interval,
    warned_at: Instant,
    /// Files are read beside this thread: what they are on may be slow, or gone.
    reading: Option<JoinHandle<Vec<Outcome>>>,
    reloads: u64,
    failures: u64,
}

impl Upkeep {
    /// Of `certificates`, which were read just now; says what is doubtful about them.
    pub(super) fn new(certificates: Certificates) -> Self {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let each = certificates.each();
        for (owner, tls) in &each {
            if let Tls::Server(server) = tls
                && let Some(sha256) = server.fingerprint()
            {
                tracing::info!(sha256, "{owner} has a self-signed certificate, made for this run");
            }
        }
        warn(&each);
        let warned_at = Instant::now();
        Self { certificates, looks, warned_at, reading: None, reloads: 0, failures: 0 }
    }

    /// Waits until there is something to do, and does it. Nothing is lost if the wait is given up.
    pub(super) async fn take(&mut self, view: &RefCell<View>) {
        let Some(reading) = &mut self.reading else {
            self.looks.tick().await;
            let each = self.certificates.each();
            if self.warned_at.elapsed() >= WARN_EVERY {
                self.warned_at = Instant::now();
                warn(&each);
            }
            if !each.is_empty() {
                self.reading = Some(read_changed(each));
            }
            return;
        };
        let outcomes = reading.await.unwrap_or_default();
        self.reading = None;
        if self.conclude(&outcomes) {
            view.borrow_mut().certificates = self.told();
        }
    }

    /// Puts in force what a reload has read: the `clients` of upstreams, and what was read again.
    pub(super) fn commit(&mut self, clients: Clients, reread: Vec<(Owner, PreparedTls)>) {
        self.certificates.follow(clients);
        let committed =
            reread.into_iter().map(|(owner, prepared)| (owner, prepared.commit(), Ok(true)));
        self.conclude(&committed.collect::<Vec<_>>());
    }

    /// Counts what a reload found that cannot be used.
    pub(super) const fn count_failures(&mut self, failures: u64) {
        self.failures += failures;
    }

    /// Logs and counts `outcomes`. Returns whether there was anything.
    fn conclude(&mut self, outcomes: &[Outcome]) -> bool {
        let mut is_any = false;
        for (owner, tls, outcome) in outcomes {
            match outcome {
                Ok(false) => continue,
                Ok(true) => {
                    self.reloads += 1;
                    tracing::info!("certificates of {owner} read again");
                    warn(&[(owner.clone(), tls.clone())]);
                }
                Err(error) => {
                    self.failures += 1;
                    tracing::error!("certificates of {owner} stay as they were:\n{error}");
                }
            }
            is_any = true;
        }
        is_any
    }

    /// What is told of them.
    pub(super) fn told(&self) -> Told {
        let mut presented = Vec::new();
        for (owner, tls) in self.certificates.each() {
            for one in tls.presented() {
                let end = one.end.duration_since(SystemTime::UNIX_EPOCH);
                let end = end.map_or_else(
                    |before| -before.duration().as_secs_f64(),
                    |end| end.as_secs_f64(),
                );
                let file = one.file.display().to_string();
                presented.push(TellingEnd { owner: owner.clone(), file, end });
            }
        }
        Told { presented, reloads: self.reloads, failures: self.failures }
    }
}

/// Reads those again whose files have changed, on a thread of its own.
fn read_changed(each: Vec<(Owner, Tls)>) -> JoinHandle<Vec<Outcome>> {
    let one = |(owner, tls): (Owner, Tls)| {
        let outcome = tls.reload();
        (owner, tls, outcome)
    };
    spawn_blocking(move || each.into_iter().map(one).collect())
}

/// Warns of what is doubtful about each.
fn warn(each: &[(Owner, Tls)]) {
    let now = SystemTime::now();
    for (owner, tls) in each {
        for doubt in tls.doubts(now) {
            tracing::warn!("{owner}: {doubt}; {}", doubt.help());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{
        self, ClientTls, Config, Drain, Endpoint, EndpointHost, EndpointUrl, ListenAddress,
        Listener, Log, Scheme, ServerTls, Upstream,
    };
    use crate::control::certificates::Troubles;
    use crate::control::{metrics, reload};
    use crate::net::tls::tests::Authority;
    use crate::proxy::snapshot::Snapshot;
    use crate::proxy::worker::Shared;

    fn listener(tls: Option<ServerTls>) -> Listener {
        let address: ListenAddress = "127.0.0.1:443".parse().unwrap();
        Listener { tls, ..Listener::new(address) }
    }

    fn upstream(name: &str, scheme: Scheme, tls: ClientTls) -> Upstream {
        let host = EndpointHost::Name("a".into());
        let url = EndpointUrl { scheme, ..EndpointUrl::http(host, 443) };
        Upstream { tls, ..Upstream::new(name, vec![Endpoint::new(url)]) }
    }

    fn config(listeners: Vec<Listener>, upstreams: Vec<Upstream>) -> Config {
        let (log, drain) = (Log::default(), Drain::default());
        Config {
            workers: None,
            admin: None,
            admin_hosts: Vec::new(),
            log,
            drain,
            listeners,
            routes: Vec::new(),
            upstreams,
        }
    }

    fn view(upkeep: &Upkeep) -> RefCell<View> {
        let mut view = View::new(Arc::new(Snapshot::default()), Arc::new(Shared::new(1)));
        view.certificates = upkeep.told();
        RefCell::new(view)
    }

    /// Looks after `upkeep` until something was told.
    async fn until_told(upkeep: &mut Upkeep, view: &RefCell<View>) -> (u64, u64) {
        let counts = |view: &RefCell<View>| {
            let told = &view.borrow().certificates;
            (told.reloads, told.failures)
        };
        let before = counts(view);
        let told = async {
            while counts(view) == before {
                upkeep.take(view).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), told).await.unwrap();
        counts(view)
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_is_read_and_told() {
        let authority = Authority::new();
        let ends = |name: &str, year| {
            authority.give_with(name, &["a"], |params| {
                params.not_after = rcgen::date_time_ymd(year, 1, 1);
            })
        };
        let own = ends("own", 2050);
        let server = ends("server", 2040);
        let identity = Some((own.cert.clone(), own.key));
        let tls = ClientTls { identity, ..authority.client() };
        let config = config(
            vec![listener(None), listener(Some(ServerTls::new(vec![server.clone()])))],
            vec![upstream("plain", Scheme::Http, tls.clone()), upstream("api", Scheme::Https, tls)],
        );
        let certificates = Certificates::read(&config).unwrap();
        assert!(certificates.server(0).is_none() && certificates.server(1).is_some());
        assert_eq!(certificates.clients().keys().collect::<Vec<_>>(), ["api"]);
        let mut upkeep = Upkeep::new(certificates);
        let view = view(&upkeep);
        let (server_file, own_file) = (server.cert.display(), own.cert.display());
        let expected = |server_end: u64, reloads: u64, failures: u64| {
            let name = "tinylb_certificate_expiry_timestamp_seconds";
            let counter = "tinylb_certificate_reloads_total";
            [
                format!(
                    "{name}{{listener=\"127.0.0.1:443\",upstream=\"\",\
                     certificate=\"{server_file}\"}} {server_end}.0"
                ),
                format!(
                    "{name}{{listener=\"\",upstream=\"api\",certificate=\"{own_file}\"}} 2524608000.0"
                ),
                format!("{counter}{{result=\"success\"}} {reloads}"),
                format!("{counter}{{result=\"failure\"}} {failures}"),
            ]
        };
        let assert_told = |expected: [String; 4]| {
            let text = metrics::render(&view.borrow()).unwrap();
            for line in expected {
                assert!(text.lines().any(|told| told == line), "{line} in:\n{text}");
            }
        };
        assert_told(expected(2_208_988_800, 0, 0));
        let new = ends("new", 2045);
        std::fs::rename(&new.cert, &server.cert).unwrap();
        std::fs::rename(&new.key, &server.key).unwrap();
        assert_eq!(until_told(&mut upkeep, &view).await, (1, 0));
        assert_told(expected(2_366_841_600, 1, 0));
        std::fs::write(&server.key, "").unwrap();
        assert_eq!(until_told(&mut upkeep, &view).await, (1, 1));
        assert_told(expected(2_366_841_600, 1, 1));
    }

    #[tokio::test]
    async fn a_reload_takes_what_is_new_or_changes_nothing() {
        let authority = Authority::new();
        let first = upstream("first", Scheme::Https, authority.client());
        let mut upkeep =
            Upkeep::new(Certificates::read(&config(Vec::new(), vec![first.clone()])).unwrap());
        let before = Arc::clone(&upkeep.certificates.clients()["first"]);
        let missing = ClientTls { ca: Some("/nowhere/ca.pem".into()), ..ClientTls::default() };
        let wrong = upstream("second", Scheme::Https, missing);
        let config = |second| config(Vec::new(), vec![first.clone(), second]);
        let read = |config: &Config, upkeep: &Upkeep| {
            reload::read_certificates(config, &config.listeners, &upkeep.certificates, |_| {})
        };
        let Troubles(troubles) = read(&config(wrong), &upkeep).unwrap_err();
        assert_eq!(troubles.len(), 1);
        assert_eq!(troubles[0].owner, Owner::Upstream("second".into()));
        let right = upstream("second", Scheme::Https, authority.client());
        let (clients, reread) = read(&config(right), &upkeep).unwrap();
        assert_eq!(upkeep.certificates.clients().len(), 1, "nothing is in force yet");
        upkeep.commit(clients, reread);
        assert_eq!(upkeep.certificates.clients().len(), 2);
        assert!(Arc::ptr_eq(&before, &upkeep.certificates.clients()["first"]));
        let gone = upstream("second", Scheme::Http, authority.client());
        let (clients, reread) = read(&config(gone), &upkeep).unwrap();
        upkeep.commit(clients, reread);
        assert_eq!(upkeep.certificates.clients().keys().collect::<Vec<_>>(), ["first"]);
    }

    #[test]
    fn every_fault_at_start_says_whose_it_is() {
        let nothing = config::Certificate {
            cert: "/nowhere/a.pem".into(),
            key: "/nowhere/a.key".into(),
            ocsp: None,
        };
        let misnamed = ClientTls { server_name: Some("a b".into()), ..ClientTls::default() };
        let misnamed = ClientTls { insecure_skip_verify: true, ..misnamed };
        let config = config(
            vec![listener(None), listener(Some(ServerTls::new(vec![nothing])))],
            vec![upstream("api", Scheme::Https, misnamed)],
        );
        let text = Certificates::read(&config).unwrap_err().to_string();
        let lines: Vec<_> = text.lines().collect();
        let help = "write the path of a file that this process may read";
        let why = "the file cannot be read: No such file or directory (os error 2)";
        assert_eq!(
            lines,
            [
                format!("listener 127.0.0.1:443: cert \"/nowhere/a.pem\": {why}; {help}"),
                format!("listener 127.0.0.1:443: key \"/nowhere/a.key\": {why}; {help}"),
                "upstream api: server_name: \"a b\" is neither a name nor an address; write the \
                 name in the endpoint's certificate"
                    .to_owned(),
            ]
        );
    }
}
