//! The `tinylb` binary.

use std::process::ExitCode;

/// Worker threads allocate and free much and at once; this allocator keeps them out of each
/// other's way.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tinylb::cli::main()
}
