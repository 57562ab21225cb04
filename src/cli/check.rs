//! `tinylb check`: what a file means, or what is wrong with it.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use super::args::ProcessArgs;
use super::{FAILED, answer, effective, show};
use crate::config::{self, Config, Endpoint};

/// Checks `file` with the options of `process` above it.
pub(super) fn check(file: &Path, process: &ProcessArgs) -> ExitCode {
    match config::load_with_doubts(file) {
        Ok((mut config, doubts)) => {
            show(&doubts);
            effective::put_above(&mut config, process);
            if let Some(contradiction) = effective::contradiction(&config) {
                super::args::usage(&contradiction);
            }
            answer(&format!("{}: ok\n{}", file.display(), summary(&config)));
            ExitCode::SUCCESS
        }
        Err(error) => {
            show(error.report());
            ExitCode::from(FAILED)
        }
    }
}

/// One line for each listener, route and upstream.
fn summary(config: &Config) -> String {
    let mut lines = String::new();
    // Writing to a string cannot fail.
    for listener in &config.listeners {
        let _ = writeln!(lines, "listener {}", listener.address);
    }
    for route in &config.routes {
        if let Some(upstream) = config.upstreams.get(route.upstream) {
            let _ = writeln!(lines, "route {route} to {}", upstream.name);
        }
    }
    for upstream in &config.upstreams {
        let endpoints: Vec<_> = upstream.endpoints.iter().map(weighted).collect();
        let _ = writeln!(
            lines,
            "upstream {}: {} over {}",
            upstream.name,
            upstream.policy,
            endpoints.join(", ")
        );
    }
    match config.admin {
        Some(admin) => drop(writeln!(lines, "admin {admin}")),
        None => lines.push_str("admin off\n"),
    }
    lines
}

fn weighted(endpoint: &Endpoint) -> String {
    match endpoint.weight {
        1 => endpoint.url.to_string(),
        weight => format!("{} (weight {weight})", endpoint.url),
    }
}
