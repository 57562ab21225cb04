//! Files that whoever opens them has to wait for.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::eventually;
use super::program::{Serving, run, skipped};
use super::python::start_script;

/// A file that nobody can open until this is dropped.
#[derive(Debug)]
pub struct Leased(Serving);

impl Leased {
    /// Takes a lease on the file at `path`; `None`, which is counted, where that cannot be had.
    #[track_caller]
    pub fn new(path: &str) -> Option<Self> {
        let serving = start_script("fcntl", "lease.py", &[path])?;
        let outcome = serving.wait_for("lease ");
        if outcome != "held" {
            skipped(&format!("no lease: {outcome}"));
            return None;
        }
        Some(Self(serving))
    }

    /// Waits until somebody waits for the file.
    #[track_caller]
    pub fn wait_for_reader(&self) {
        self.0.wait_for("opened");
    }
}

/// Puts a pipe in place of the file at `path`, waits until `open` has somebody open it, and gives the end
/// that nothing is written to.
#[track_caller]
pub fn silent_pipe(path: &Path, open: impl FnOnce()) -> Option<File> {
    const O_NONBLOCK: i32 = 0o4000;
    let pipe = path.with_extension("pipe");
    run("mkfifo", &[pipe.to_str().unwrap()], b"")?.ok();
    std::fs::rename(&pipe, path).unwrap();
    open();
    let mut options = File::options();
    // Without waiting, it cannot be opened before somebody reads.
    options.write(true).custom_flags(O_NONBLOCK);
    Some(eventually("the file is being read", || options.open(path).ok()))
}
