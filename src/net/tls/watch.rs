//! Notices that files have changed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What tells one state of a file from another. Links are followed, so that another target is another
/// state.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    /// Of anything about it, also where the time above was set back.
    changed: (i64, i64),
}

impl Stamp {
    /// `None` where there is none to be seen.
    fn of(path: &Path) -> Option<Self> {
        let data = std::fs::metadata(path).ok()?;
        Some(Self {
            device: data.dev(),
            inode: data.ino(),
            length: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }
}

/// The states of all files.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamps(Vec<Option<Stamp>>);

/// Files, and in which state they were read.
#[derive(Debug)]
pub(super) struct Watch {
    files: Vec<PathBuf>,
    read: Stamps,
    /// What they were found to be since.
    found: Option<Stamps>,
}

impl Watch {
    /// Of `files`, which are about to be read: what changes while they are is noticed afterwards.
    pub(super) fn new(files: Vec<PathBuf>) -> Self {
        let read = stamps(&files);
        Self { files, read, found: None }
    }

    /// Whether they have to be read again: they have changed since, and not since the last time that
    /// this was asked, so that a certificate is not read while its key is still on its way.
    pub(super) fn is_due(&mut self) -> bool {
        let now = stamps(&self.files);
        if now == self.read {
            self.found = None;
            return false;
        }
        if self.found.as_ref() == Some(&now) {
            self.read = now;
            self.found = None;
            return true;
        }
        self.found = Some(now);
        false
    }
}

fn stamps(files: &[PathBuf]) -> Stamps {
    Stamps(files.iter().map(|file| Stamp::of(file)).collect())
}
