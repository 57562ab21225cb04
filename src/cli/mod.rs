//! The command line: finds out what is wanted, makes the configuration, and runs it.

mod args;
mod check;
mod demo;
mod effective;
mod messages;
mod summary;
mod work;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

use crate::config::{self, Config, LogLevel, Report};
use crate::control::{Balancer, Certificates, Ended, ReloadFrom};
use args::{Cli, Command, DEFAULT_FILE, LineArgs, ProcessArgs, usage};
use messages::Messages;

/// Something is wrong with the configuration, or went wrong at run time.
const FAILED: u8 = 1;

/// The command line itself is wrong.
const USAGE: u8 = 2;

/// Does what the process's arguments ask for.
pub fn main() -> ExitCode {
    let cli = Cli::of_process();
    let done = match &cli.command {
        Some(Command::Run { config }) => run_file(config, &cli.process),
        Some(Command::Check { file }) => Ok(check::check(file, &cli.process)),
        Some(Command::Demo(args)) => demo::run(args, &cli.process),
        None if !cli.line.urls.is_empty() => run_line(&cli.line, &cli.process),
        None if Path::new(DEFAULT_FILE).exists() => run_file(Path::new(DEFAULT_FILE), &cli.process),
        None => Ok(show_help()),
    };
    done.unwrap_or_else(|error| {
        tell(&format!("error: {error:#}\n"));
        ExitCode::from(FAILED)
    })
}

/// Nothing was asked for and there is no file.
fn show_help() -> ExitCode {
    tell(&format!("{}\n", Cli::command().render_help()));
    ExitCode::from(USAGE)
}

fn run_line(line: &LineArgs, process: &ProcessArgs) -> anyhow::Result<ExitCode> {
    if let Some(url) = effective::repeated(&line.urls) {
        usage(&format!("the endpoint {url} is listed twice; write it once"));
    }
    let mut config = effective::of_line(line);
    effective::put_above(&mut config, process);
    let certificates = Certificates::read(&config)?;
    run(config, certificates, None)
}

fn run_file(file: &Path, process: &ProcessArgs) -> anyhow::Result<ExitCode> {
    let (mut config, mut report) = match config::load_with_doubts(file) {
        Ok(read) => read,
        Err(error) => {
            show(error.report());
            return Ok(ExitCode::from(FAILED));
        }
    };
    let certificates = Certificates::read(&config);
    if let Err(troubles) = &certificates {
        troubles.show_in(&mut report, &config);
    }
    show(&report);
    let Ok(certificates) = certificates else { return Ok(ExitCode::from(FAILED)) };
    let reload_from = ReloadFrom { file: file.to_owned(), read: config.clone() };
    effective::put_above(&mut config, process);
    run(config, certificates, Some(reload_from))
}

/// Runs `config` until a signal ends it.
fn run(
    config: Config,
    certificates: Certificates,
    reload_from: Option<ReloadFrom>,
) -> anyhow::Result<ExitCode> {
    let messages = prepare(&config)?;
    serve(Balancer::bind(config, certificates, reload_from)?, &messages)
}

/// What comes before any socket: contradictions end the process, and messages get their way out.
fn prepare(config: &Config) -> anyhow::Result<Messages> {
    if let Some(contradiction) = effective::contradiction(config) {
        usage(&contradiction);
    }
    let level = match config.log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let messages = Messages::start().context("no thread for messages")?;
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        // Where nobody reads standard error any more, that is no reason to end.
        .log_internal_errors(false)
        .with_ansi(is_coloured())
        .with_writer(messages.clone())
        .finish()
        // Libraries use other words, and warn of what any client can do to them.
        .with(Targets::new().with_target(env!("CARGO_CRATE_NAME"), level));
    // It can only fail where one is installed already, which then does as well.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(messages)
}

fn serve(balancer: Balancer, messages: &Messages) -> anyhow::Result<ExitCode> {
    let ended = balancer.run();
    messages.finish();
    match ended.context("the balancer cannot run")? {
        Ended::Drained => Ok(ExitCode::SUCCESS),
        Ended::Cut => Ok(ExitCode::from(FAILED)),
    }
}

/// Whether standard error understands colours and nobody asked for none.
fn is_coloured() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Shows what is wrong with a file, or doubtful about it.
fn show(report: &Report) {
    if !report.is_empty() {
        tell(&report.render(is_coloured()));
    }
}

/// Writes to standard error; if that is closed there is nobody to tell.
fn tell(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Writes to standard output, on which only the answers of commands and the access log are.
fn answer(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
