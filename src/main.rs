//! The `tinylb` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    tinylb::cli::main()
}
