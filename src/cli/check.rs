//! `tinylb check`: what a file means, or what is wrong with it.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use super::args::ProcessArgs;
use super::{FAILED, answer, effective, show};
use crate::config::{self, BACKUP, Check, Config, Endpoint, Health};

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
        let endpoints: Vec<_> = upstream.endpoints.iter().map(endpoint_words).collect();
        let checks = upstream.health.as_ref().map_or_else(String::new, check_words);
        let _ = writeln!(
            lines,
            "upstream {}: {} over {}{checks}",
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

/// `http://a:1 (weight 3, backup)`; what is as always is not said.
fn endpoint_words(endpoint: &Endpoint) -> String {
    let mut said = Vec::new();
    if endpoint.weight != 1 {
        said.push(format!("weight {}", endpoint.weight));
    }
    match endpoint.priority {
        0 => {}
        BACKUP => said.push("backup".to_owned()),
        priority => said.push(format!("priority {priority}")),
    }
    if endpoint.drain {
        said.push("drain".to_owned());
    }
    match said.is_empty() {
        true => endpoint.url.to_string(),
        false => format!("{} ({})", endpoint.url, said.join(", ")),
    }
}

/// `; GET /healthz every 5s`, what each endpoint is asked.
fn check_words(health: &Health) -> String {
    let what = match &health.check {
        Check::Tcp => "a connection".to_owned(),
        Check::Grpc(service) if service.is_empty() => "gRPC health".to_owned(),
        Check::Grpc(service) => format!("gRPC health of {service}"),
        Check::Http(check) => format!("{} {}", check.method, check.path),
    };
    let port = health.port.map_or_else(String::new, |port| format!(" on port {port}"));
    format!("; {what}{port} every {}", humantime::format_duration(health.interval))
}
