//! The command line's grammar: commands, options, and what is wrong with their values.

use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use ipnet::IpNet;

use super::work::Work;
use crate::config::fields::parse_check_path;
use crate::config::values::{nearest, parse_duration, parse_network, parse_path};
use crate::config::{
    AccessLog, AdminAddress, EndpointUrl, HostMode, ListenAddress, LogLevel, MAX_WORKERS, Policy,
};

/// The file that is run where none is named.
pub(super) const DEFAULT_FILE: &str = "tinylb.toml";

const EXAMPLES: &str = "\
Examples:
  tinylb http://localhost:8001 http://localhost:8002
                                   balance over two servers, on port 8080
  tinylb 10.0.0.1:80 10.0.0.2:80 --listen :80 --policy least-requests
  tinylb h2c://localhost:50051 --listen :8443 --tls-self-signed
                                   gRPC by HTTPS, with a certificate made at start
  tinylb demo                      try it without any server of your own
  tinylb check && tinylb run       check ./tinylb.toml, then run it

Endpoints are http://host:port/base, https://host:port/base, h2c://host:port (HTTP/2 without TLS),
host:port (http://) or unix:/path.
Exit codes: 0 ok, 1 error in the configuration or at run time, 2 usage.";

/// A tiny load balancer.
///
/// Without endpoints and without a command it runs ./tinylb.toml.
#[derive(Debug, Parser)]
#[command(name = "tinylb", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(override_usage = "tinylb [OPTIONS] URL...\n       tinylb [OPTIONS] [COMMAND]")]
pub(super) struct Cli {
    /// What to do; without one, what the endpoints or ./tinylb.toml say.
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    /// One-line use.
    #[command(flatten)]
    pub(super) line: LineArgs,
    /// Options of every command.
    #[command(flatten)]
    pub(super) process: ProcessArgs,
}

/// What can be done with files, or without servers.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a configuration file
    Run {
        /// The file
        #[arg(short, long, value_name = "FILE", default_value = DEFAULT_FILE)]
        config: PathBuf,
    },
    /// Check a configuration file: what is wrong, where, and what to write instead
    Check {
        /// The file
        #[arg(value_name = "FILE", default_value = DEFAULT_FILE)]
        file: PathBuf,
    },
    /// Run three backends with simulated work, and the balancer in front of them
    Demo(DemoArgs),
}

/// One-line use: everything that a file says about one upstream.
#[derive(Debug, Args)]
pub(super) struct LineArgs {
    /// Endpoints to balance over: http://host:port/base, host:port and others, below
    #[arg(value_name = "URL", value_parser = parse_endpoint)]
    pub(super) urls: Vec<EndpointUrl>,
    /// Listen here, such as 127.0.0.1:8080 or unix:/run/tinylb.sock; can be repeated [default: :8080,
    /// IPv4 and IPv6]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Vec<ListenAddress>,
    /// Speak HTTPS, with this certificate and its chain, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key", value_parser = parse_path)]
    pub(super) tls_cert: Option<PathBuf>,
    /// The private key of that certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert", value_parser = parse_path)]
    pub(super) tls_key: Option<PathBuf>,
    /// Speak HTTPS, with a certificate for localhost that is made at start, to try things out
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    pub(super) tls_self_signed: bool,
    /// How an endpoint is picked: p2c, least-requests, round-robin, random, peak-ewma, least-time
    /// or consistent-hash [default: p2c]
    #[arg(long)]
    pub(super) policy: Option<Policy>,
    /// The Host that endpoints get: pass (the client's) or endpoint (their own) [default: pass]
    #[arg(long, value_name = "MODE")]
    pub(super) host: Option<HostMode>,
    /// Ask each endpoint for this path every 5s whether it is well, such as /healthz
    #[arg(long, value_name = "PATH", value_parser = parse_check_path)]
    pub(super) health: Option<String>,
    /// Networks whose X-Forwarded-* fields are believed, such as 10.0.0.0/8,192.168.1.1
    #[arg(long, value_name = "NETWORK", value_delimiter = ',', value_parser = parse_network)]
    pub(super) trusted_proxies: Vec<IpNet>,
}

/// Options of the process, which every command takes; above what a file says.
#[derive(Debug, Args)]
#[command(next_help_heading = "Process options, which stand above what a file says")]
pub(super) struct ProcessArgs {
    /// Worker threads [default: one per available core]
    #[arg(long, global = true, value_name = "N", value_parser = parse_workers)]
    pub(super) workers: Option<usize>,
    /// One line a request on standard output: off, text or json [default: off]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(super) access_log: Option<AccessLog>,
    /// Messages on standard error: error, warn, info or debug [default: info]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(super) log_level: Option<LogLevel>,
    /// Where /metrics, /healthz and /readyz are, or off [default: 127.0.0.1:9900]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(super) admin: Option<AdminAddress>,
    /// At the end, how long requests in flight may take [default: 30s]
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_duration)]
    pub(super) drain_timeout: Option<Duration>,
    /// At the end, how long to go on accepting after /readyz fails [default: 0s]
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_duration)]
    pub(super) drain_delay: Option<Duration>,
}

/// Options of the demo.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Where the balancer listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(super) listen: ListenAddress,
    /// The backends' ports; as many backends as ports
    #[arg(long, value_name = "PORT", value_delimiter = ',', default_value = "8001,8002,8003")]
    #[arg(value_parser = parse_port)]
    pub(super) backends: Vec<u16>,
    /// The time each request takes a backend: one value, or a range to draw from
    #[arg(long, value_name = "TIME", default_value = "5ms..50ms")]
    pub(super) work: Work,
    /// How a backend is picked: p2c, least-requests, round-robin, random, peak-ewma, least-time
    /// or consistent-hash
    #[arg(long, default_value = "p2c")]
    pub(super) policy: Policy,
}

impl Cli {
    /// The process's arguments. Ends the process where they are wrong (2), or ask for help (0).
    pub(super) fn of_process() -> Self {
        let cli = Self::parse();
        if let Some(option) = cli.line.first_option() {
            match &cli.command {
                Some(command) => usage(&format!(
                    "{option} before a command says nothing; see `tinylb {} --help`",
                    command.name()
                )),
                None if cli.line.urls.is_empty() => {
                    usage(&format!("{option} needs endpoints, such as `tinylb http://host:port`"))
                }
                None => {}
            }
        }
        cli
    }
}

impl Command {
    const fn name(&self) -> &'static str {
        match self {
            Self::Run { .. } => "run",
            Self::Check { .. } => "check",
            Self::Demo(_) => "demo",
        }
    }
}

impl LineArgs {
    /// An option that was given and only makes sense with endpoints.
    fn first_option(&self) -> Option<&'static str> {
        let given = [
            ("--listen", !self.listen.is_empty()),
            ("--tls-cert", self.tls_cert.is_some()),
            ("--tls-self-signed", self.tls_self_signed),
            ("--policy", self.policy.is_some()),
            ("--host", self.host.is_some()),
            ("--health", self.health.is_some()),
            ("--trusted-proxies", !self.trusted_proxies.is_empty()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }
}

/// Ends the process with a usage error, 2.
pub(super) fn usage(message: &str) -> ! {
    Cli::command().error(ErrorKind::ValueValidation, message).exit()
}

/// An endpoint; or, for a word that cannot be one, what else was probably meant.
fn parse_endpoint(text: &str) -> Result<EndpointUrl, String> {
    let error = match text.parse() {
        Ok(url) => return Ok(url),
        Err(error) => error,
    };
    let cli = Cli::command();
    let commands: Vec<_> = cli.get_subcommands().map(clap::Command::get_name).collect();
    if commands.contains(&text) {
        return Err(format!("the command `{text}` stands first and takes no endpoints"));
    }
    if text.ends_with(".toml") {
        return Err(format!("to run a configuration file write `tinylb run -c {text}`"));
    }
    match nearest(text, commands) {
        Some(command) => Err(format!("did you mean the command `{command}`?")),
        None => Err(error.to_string()),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "write ports from 1 to 65535, with commas between".to_owned())
}

fn parse_workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=MAX_WORKERS).contains(&number) => Ok(number),
        _ => Err(format!("write a number from 1 to {MAX_WORKERS}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_policy_is_in_the_help() {
        for command in [Cli::command(), DemoArgs::augment_args(clap::Command::new("demo"))] {
            let policy = command.get_arguments().find(|a| a.get_id() == "policy").unwrap();
            let help = policy.get_help().unwrap().to_string();
            for policy in Policy::ALL {
                assert!(help.contains(policy.name()), "{policy}: {help}");
            }
        }
    }

    fn parse(line: &str) -> Cli {
        Cli::try_parse_from(line.split_whitespace()).unwrap()
    }

    #[test]
    fn process_options_stand_anywhere() {
        for line in [
            "tinylb --workers 3 http://a:1 b:2",
            "tinylb http://a:1 --workers 3 b:2",
            "tinylb http://a:1 b:2 --workers 3",
        ] {
            let cli = parse(line);
            assert_eq!((cli.process.workers, cli.line.urls.len()), (Some(3), 2), "{line}");
        }
        for line in [
            "tinylb --workers 3 run -c x.toml",
            "tinylb run --workers 3 -c x.toml",
            "tinylb run -c x.toml --workers 3",
        ] {
            let cli = parse(line);
            assert_eq!(cli.process.workers, Some(3), "{line}");
            let Some(Command::Run { config }) = cli.command else { panic!("{line}") };
            assert_eq!(config, PathBuf::from("x.toml"));
        }
    }

    #[test]
    fn lists_are_split() {
        let cli = parse("tinylb a:1 --trusted-proxies 10.0.0.0/8,::1 --listen :1 --listen :2");
        assert_eq!(cli.line.trusted_proxies.len(), 2);
        assert_eq!(cli.line.listen.len(), 2);
        let Some(Command::Demo(demo)) = parse("tinylb demo --backends 1,2").command else {
            panic!()
        };
        assert_eq!(demo.backends, [1, 2]);
    }
}
