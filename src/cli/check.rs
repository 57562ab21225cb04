//! `tinylb check`: what a file means, or what is wrong with it.

use std::path::Path;
use std::process::ExitCode;

use super::args::ProcessArgs;
use super::summary::summary;
use super::{FAILED, answer, effective, show};
use crate::config;
use crate::control::{Certificates, show_doubts_in};

/// Checks `file` with the options of `process` above it.
pub(super) fn check(file: &Path, process: &ProcessArgs) -> ExitCode {
    let (mut config, mut report) = match config::load_with_doubts(file) {
        Ok(read) => read,
        Err(error) => {
            show(error.report());
            return ExitCode::from(FAILED);
        }
    };
    match Certificates::read(&config) {
        Ok(certificates) => show_doubts_in(&certificates.doubts(), &mut report, &config),
        Err(troubles) => troubles.show_in(&mut report, &config),
    }
    show(&report);
    if report.has_faults() {
        return ExitCode::from(FAILED);
    }
    effective::put_above(&mut config, process);
    if let Some(contradiction) = effective::contradiction(&config) {
        super::args::usage(&contradiction);
    }
    answer(&format!("{}: ok\n{}", file.display(), summary(&config)));
    ExitCode::SUCCESS
}
