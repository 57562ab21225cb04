//! The configuration that a command line asks for: a file's with options above it, or one made of
//! endpoints and options alone.

use super::args::{LineArgs, ProcessArgs};
use crate::config::{
    Certificate, Check, Config, DEFAULT_ADMIN, Drain, Endpoint, EndpointUrl, Health, HttpCheck,
    ListenAddress, Listener, Log, Route, ServerTls, Upstream,
};

/// What the only upstream is called in one-line use.
const UPSTREAM: &str = "default";

/// Where one-line use listens unless told otherwise: every address of IPv4 and IPv6.
const LISTEN: ListenAddress = ListenAddress::Ip { ip: None, port: 8080 };

/// `listeners` in front of one `upstream` that gets every request.
pub(super) fn of_one(listeners: Vec<Listener>, upstream: Upstream) -> Config {
    Config {
        workers: None,
        admin: Some(DEFAULT_ADMIN),
        admin_hosts: Vec::new(),
        log: Log::default(),
        drain: Drain::default(),
        listeners,
        routes: vec![Route::any(0)],
        upstreams: vec![upstream],
    }
}

/// One-line use.
pub(super) fn of_line(line: &LineArgs) -> Config {
    let mut upstream = Upstream::new(UPSTREAM, endpoints(&line.urls));
    upstream.policy = line.policy.unwrap_or(upstream.policy);
    upstream.host = line.host.unwrap_or(upstream.host);
    upstream.health = line.health.as_ref().map(|path| {
        Health::new(Check::Http(HttpCheck { path: path.clone(), ..HttpCheck::default() }))
    });
    let addresses = match line.listen.as_slice() {
        [] => &[LISTEN],
        given => given,
    };
    let tls = tls(line);
    let listener = |address: &ListenAddress| Listener {
        tls: tls.clone(),
        trusted_proxies: line.trusted_proxies.clone(),
        ..Listener::new(address.clone())
    };
    of_one(addresses.iter().map(listener).collect(), upstream)
}

/// How HTTPS is spoken, if it is.
fn tls(line: &LineArgs) -> Option<ServerTls> {
    let pair = line.tls_cert.clone().zip(line.tls_key.clone());
    let certificate = pair.map(|(cert, key)| Certificate { cert, key, ocsp: None });
    let certificates: Vec<_> = certificate.into_iter().collect();
    let self_signed = line.tls_self_signed;
    (self_signed || !certificates.is_empty())
        .then(|| ServerTls { self_signed, ..ServerTls::new(certificates) })
}

/// Endpoints that share alike.
pub(super) fn endpoints(urls: &[EndpointUrl]) -> Vec<Endpoint> {
    urls.iter().map(|url| Endpoint::new(url.clone())).collect()
}

/// Puts the options of the process above `config`.
pub(super) fn put_above(config: &mut Config, process: &ProcessArgs) {
    config.workers = process.workers.or(config.workers);
    config.log.access = process.access_log.unwrap_or(config.log.access);
    config.log.level = process.log_level.unwrap_or(config.log.level);
    config.admin = process.admin.map_or(config.admin, |admin| admin.0);
    config.drain.timeout = process.drain_timeout.unwrap_or(config.drain.timeout);
    config.drain.delay = process.drain_delay.unwrap_or(config.drain.delay);
}

/// What options allow each for itself and that cannot work together. Files are checked for the
/// same when they are read, but options may stand above them.
pub(super) fn contradiction(config: &Config) -> Option<String> {
    let addresses: Vec<_> = config.listeners.iter().map(|l| &l.address).collect();
    for (index, later) in addresses.iter().enumerate() {
        if let Some(earlier) = addresses[..index].iter().find(|earlier| earlier.collides(later)) {
            return Some(format!(
                "the addresses {earlier} and {later} of --listen collide; leave one of them out, \
                 or give it another {}",
                match later {
                    ListenAddress::Ip { .. } => "port",
                    ListenAddress::Unix(_) => "path",
                }
            ));
        }
    }
    if let Some(admin) = config.admin.map(ListenAddress::from)
        && let Some(listener) = addresses.iter().find(|listener| listener.collides(&admin))
    {
        return Some(format!(
            "the admin address {admin} and the listener {listener} collide; write --admin with \
             another port, or --admin off"
        ));
    }
    let urls: Vec<_> = config.upstreams.iter().flat_map(|u| &u.endpoints).map(|e| &e.url).collect();
    for url in urls {
        if let Some(listener) = addresses.iter().find(|listener| listener.is_dialled_by(url)) {
            return Some(format!(
                "the endpoint {url} is this balancer itself, which listens on {listener}; write \
                 --listen with another address"
            ));
        }
    }
    None
}

/// An endpoint that stands on the command line twice.
pub(super) fn repeated(urls: &[EndpointUrl]) -> Option<&EndpointUrl> {
    urls.iter().enumerate().find(|(index, url)| urls[..*index].contains(url)).map(|(_, url)| url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Cli;
    use crate::config::{self, AccessLog, HostMode, Policy};
    use clap::Parser;

    fn line(line: &str) -> Config {
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let mut config = of_line(&cli.line);
        put_above(&mut config, &cli.process);
        config
    }

    #[test]
    fn one_line_is_the_same_as_a_file() {
        let file = "
            [[listeners]]
            address = \":8080\"
            [[routes]]
            upstream = \"default\"
            [upstreams.default]
            endpoints = [\"http://localhost:8001\", \"http://localhost:8002\"]
        ";
        let parsed = |file: &str| config::parse("t.toml", file, &|_| None).unwrap();
        assert_eq!(line("tinylb http://localhost:8001 localhost:8002"), parsed(file));
        let file = format!("{file}health = {{ path = \"/healthz\" }}");
        assert_eq!(line("tinylb localhost:8001 localhost:8002 --health /healthz"), parsed(&file));
    }

    #[test]
    fn https_is_the_same_as_in_a_file() {
        let file = |tls: &str| {
            let text = format!(
                "[[listeners]]\naddress = \":8080\"\ntls = {{ {tls} }}\n\
                 [upstreams.default]\nendpoints = [\"https://a\"]\n"
            );
            config::parse("t.toml", &text, &|_| None).unwrap()
        };
        let own = line("tinylb https://a --tls-cert c.pem --tls-key /k.pem");
        assert_eq!(own, file("cert = \"c.pem\", key = \"/k.pem\""));
        assert_eq!(line("tinylb https://a --tls-self-signed"), file("self_signed = true"));
    }

    #[test]
    fn options_reach_the_configuration() {
        let config = line(
            "tinylb a:1 --listen :1 --listen [::1]:2 --policy random --host endpoint --admin off \
             --trusted-proxies 10.0.0.0/8 --access-log json --drain-delay 5s --workers 2",
        );
        assert_eq!(config.listeners.len(), 2);
        assert!(config.listeners.iter().all(|l| l.trusted_proxies.len() == 1));
        let upstream = &config.upstreams[0];
        assert_eq!((upstream.policy, upstream.host), (Policy::Random, HostMode::Endpoint));
        assert_eq!((config.admin, config.workers), (None, Some(2)));
        assert_eq!(config.log.access, AccessLog::Json);
        assert_eq!(config.drain.delay.as_secs(), 5);
        assert_eq!(config.drain.timeout, Drain::default().timeout);
    }

    #[test]
    fn contradictions_name_the_option() {
        for (text, option) in [
            ("tinylb a:1 --listen :80 --listen 127.0.0.1:80", "--listen"),
            ("tinylb a:1 --listen :9900", "--admin"),
            ("tinylb localhost:8080", "--listen"),
            ("tinylb a:1 --listen unix:/a --listen unix:/a", "another path"),
            ("tinylb unix:/a --listen unix:/a", "--listen with another address"),
        ] {
            assert!(contradiction(&line(text)).unwrap().contains(option), "{text}");
        }
        assert_eq!(contradiction(&line("tinylb localhost:8001")), None);
        assert_eq!(contradiction(&line("tinylb a:1 --listen :9900 --admin off")), None);
    }
}
