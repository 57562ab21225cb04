//! `tinylb check`: what a file means, or what is wrong with it.

use std::path::Path;
use std::process::ExitCode;

use super::args::ProcessArgs;
use super::summary::summary;
use super::{FAILED, answer, effective, show};
use crate::config;

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
