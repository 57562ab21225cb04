//! `tinylb demo`: backends with simulated work and the balancer in front of them, in one process.

mod backend;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::args::{DemoArgs, ProcessArgs, usage};
use super::{answer, effective, prepare, serve};
use crate::config::{EndpointHost, EndpointUrl, ListenAddress, Listener, Upstream};
use crate::control::{Balancer, Certificates};
use backend::Backend;

/// What the demo's upstream is called.
const UPSTREAM: &str = "demo";

/// Runs the demo until a signal ends it.
pub(super) fn run(args: &DemoArgs, process: &ProcessArgs) -> anyhow::Result<ExitCode> {
    let backends = bind(&args.backends)?;
    let urls: Vec<_> = backends.iter().map(|backend| url(backend.address)).collect();
    let mut upstream = Upstream::new(UPSTREAM, effective::endpoints(&urls));
    upstream.policy = args.policy;
    let mut config = effective::of_one(vec![Listener::new(args.listen.clone())], upstream);
    effective::put_above(&mut config, process);
    let messages = prepare(&config)?;

    let balancer = Balancer::bind(config, Certificates::default(), None)?;
    answer(&introduction(args, &backends, &balancer.addresses(), balancer.admin_address()));
    backend::start(backends, args.work).context("the backends cannot start")?;
    serve(balancer, &messages)
}

/// Takes the backends' ports, all before anything starts.
fn bind(ports: &[u16]) -> anyhow::Result<Vec<Backend>> {
    let repeated = |(index, port): &(usize, &u16)| **port != 0 && ports[..*index].contains(port);
    if let Some((_, port)) = ports.iter().enumerate().find(repeated) {
        usage(&format!("--backends names port {port} twice; write each port once"));
    }
    let mut backends = Vec::new();
    for (port, number) in ports.iter().zip(1..) {
        let name = format!("backend-{number}");
        match Backend::bind(name.clone(), *port) {
            Ok(backend) => backends.push(backend),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                bail!("port {port} for {name} is in use; choose other ports with --backends")
            }
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("port {port} for {name} cannot be had; --backends chooses others")
                });
            }
        }
    }
    Ok(backends)
}

fn url(address: SocketAddr) -> EndpointUrl {
    EndpointUrl::http(EndpointHost::Ip(address.ip()), address.port())
}

/// What runs where, and what to try next.
fn introduction(
    args: &DemoArgs,
    backends: &[Backend],
    addresses: &[ListenAddress],
    admin: Option<SocketAddr>,
) -> String {
    let mut text = format!("tinylb demo: each request takes a backend {}\n\n", args.work);
    let mut place = |name: &str, place: &str, note: &str| {
        text.push_str(&format!("  {name:<12}{place}{note}\n"));
    };
    for address in addresses {
        place("balancer", &in_full(address), &format!("  (policy {})", args.policy));
    }
    for backend in backends {
        place(&backend.name, &format!("http://{}", backend.address), "");
    }
    if let Some(admin) = admin {
        place("admin", &format!("http://{}", from_here(admin)), "");
    }

    text.push_str("\nTry, in another terminal:\n\n");
    let mut try_this = |command: String, what: &str| {
        text.push_str(&format!("  {command}\n      {what}\n"));
    };
    if let Some(address) = addresses.first() {
        let (by, balancer) = match address {
            ListenAddress::Ip { .. } => (String::new(), in_full(address)),
            ListenAddress::Unix(path) => {
                (format!("--unix-socket {} ", path.display()), "http://localhost".to_owned())
            }
        };
        try_this(
            format!("curl {by}'{balancer}/hello?a=b'"),
            "who answers, what it was sent, and how long it worked",
        );
        try_this(
            format!("for i in $(seq 9); do curl -s {by}{balancer}/ | head -1; done"),
            "who answers, nine times",
        );
    }
    if let Some(backend) = backends.first() {
        // As it was started, which after `cargo run` is by its path.
        let program = std::env::args().next().unwrap_or_else(|| "tinylb".to_owned());
        try_this(
            format!(
                "{program} http://{}/base --listen 127.0.0.1:8081 --admin off",
                backend.address
            ),
            "a second balancer, with a base path: http://127.0.0.1:8081/hello asks for /base/hello",
        );
    }
    if let Some(admin) = admin.map(from_here) {
        try_this(format!("curl http://{admin}/metrics"), "what was counted");
    }
    text.push_str("\nCtrl-C ends it, once the requests in flight are answered.\n\n");
    text
}

/// Where a listener is found from this machine.
fn in_full(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Ip { ip: Some(ip), port } => {
            format!("http://{}", from_here(SocketAddr::new(*ip, *port)))
        }
        ListenAddress::Ip { ip: None, port } => format!("http://localhost:{port}"),
        unix @ ListenAddress::Unix(_) => unix.to_string(),
    }
}

/// `address` as this machine reaches it: a listener on every address has none of its own.
fn from_here(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("localhost:{}", address.port()),
        false => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser;

    #[test]
    fn the_introduction_has_the_real_ports() {
        let line = ["tinylb", "demo", "--listen", ":0", "--backends", "0", "--work", "7ms"];
        let Some(Command::Demo(args)) = Cli::try_parse_from(line).unwrap().command else {
            panic!()
        };
        let backends = bind(&args.backends).unwrap();
        let admin = "127.0.0.1:4711".parse().ok();
        let introduction =
            |listen: &str| introduction(&args, &backends, &[listen.parse().unwrap()], admin);
        let text = introduction("[::]:4712");
        let backend = backends[0].address;
        for part in [
            "each request takes a backend 7ms\n".to_owned(),
            "  balancer    http://localhost:4712  (policy p2c)\n".to_owned(),
            format!("  backend-1   http://{backend}\n"),
            "  admin       http://127.0.0.1:4711\n".to_owned(),
            "  curl 'http://localhost:4712/hello?a=b'\n".to_owned(),
            format!(" http://{backend}/base --listen"),
            "  curl http://127.0.0.1:4711/metrics\n".to_owned(),
        ] {
            assert!(text.contains(&part), "{part}\n{text}");
        }
        let text = introduction("unix:/run/demo.sock");
        assert!(text.contains("  balancer    unix:/run/demo.sock  (policy p2c)\n"), "{text}");
        let curl = "  curl --unix-socket /run/demo.sock 'http://localhost/hello?a=b'\n";
        assert!(text.contains(curl), "{text}");
    }
}
