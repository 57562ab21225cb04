//! The file of a Unix socket that is listened on: who may have it, and when it goes.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// The file of a listening Unix socket. It is removed with this, unless another has taken its place: once
/// it is gone nobody new can connect, while whoever has connected already is still in the socket's queue.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and number of the file that was made here.
    identity: (u64, u64),
}

impl SocketFile {
    /// A non-blocking socket that is bound to `path`, and its file. One that a process left behind, which
    /// nobody listens on any more, is replaced. Who may connect is up to the process's umask.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] where somebody listens there, [`io::ErrorKind::AlreadyExists`] where
    /// the file is no socket, and what the kernel says.
    pub fn bind(path: &Path) -> io::Result<(Socket, Self)> {
        let address = SockAddr::unix(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        match socket.bind(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let there = fs::symlink_metadata(path)?;
                if !there.file_type().is_socket() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                if is_listened_on(&address)? {
                    return Err(error);
                }
                remove(path, identity(&there));
                socket.bind(&address)?;
            }
            result => result?,
        }
        let identity = identity(&fs::symlink_metadata(path)?);
        Ok((socket, Self { path: path.to_owned(), identity }))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        remove(&self.path, self.identity);
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Removes the file at `path`, if it is still the one that it was.
fn remove(path: &Path, was: (u64, u64)) {
    if fs::symlink_metadata(path).is_ok_and(|there| identity(&there) == was) {
        // Where it must not be removed, the next one to bind says so.
        let _ = fs::remove_file(path);
    }
}

/// Whether somebody listens on `address`. A listener whose queue is full does (`EAGAIN`).
fn is_listened_on(address: &SockAddr) -> io::Result<bool> {
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    /// A path in a directory of this test's own, which goes with it.
    struct Place(PathBuf);

    impl Place {
        fn new(test: &str) -> Self {
            let directory =
                std::env::temp_dir().join(format!("tinylb-{test}-{}", std::process::id()));
            fs::create_dir_all(&directory).unwrap();
            Self(directory)
        }

        fn path(&self) -> PathBuf {
            self.0.join("socket")
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn the_file_goes_with_its_owner_and_what_waits_stays() {
        let place = Place::new("goes");
        let (socket, file) = SocketFile::bind(&place.path()).unwrap();
        socket.listen(1).unwrap();
        let _waits = UnixStream::connect(place.path()).unwrap();
        drop(file);
        assert!(!place.path().exists());
        assert!(socket.accept().is_ok());
        assert_eq!(socket.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_file_that_nobody_listens_on_is_replaced() {
        let place = Place::new("stale");
        drop(UnixListener::bind(place.path()).unwrap());
        assert!(place.path().exists());
        let (socket, _file) = SocketFile::bind(&place.path()).unwrap();
        socket.listen(1).unwrap();
        assert!(UnixStream::connect(place.path()).is_ok());
    }

    #[test]
    fn what_somebody_else_has_is_left_alone() {
        let place = Place::new("taken");
        let listener = UnixListener::bind(place.path()).unwrap();
        let taken = || SocketFile::bind(&place.path()).unwrap_err().kind();
        assert_eq!(taken(), io::ErrorKind::AddrInUse);
        // Also when its queue is full.
        socket2::SockRef::from(&listener).listen(0).unwrap();
        let fill = |_| {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let made = socket.connect(&SockAddr::unix(place.path()).unwrap());
            (socket, made)
        };
        let waiting: Vec<_> = (0..3).map(fill).collect();
        assert!(waiting.iter().any(|(_, made)| made.is_err()), "the queue is full");
        assert_eq!(taken(), io::ErrorKind::AddrInUse);
        drop(listener);
        fs::remove_file(place.path()).unwrap();
        fs::write(place.path(), "letters").unwrap();
        assert_eq!(taken(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(place.path()).unwrap(), b"letters");
    }

    #[test]
    fn a_successor_keeps_its_file() {
        let place = Place::new("successor");
        let (_socket, file) = SocketFile::bind(&place.path()).unwrap();
        let moved = place.0.join("moved");
        fs::rename(place.path(), &moved).unwrap();
        let _successor = UnixListener::bind(place.path()).unwrap();
        drop(file);
        assert!(place.path().exists() && moved.exists());
    }

    #[test]
    fn a_directory_that_is_not_there_is_said_so() {
        let place = Place::new("nowhere");
        let error = SocketFile::bind(&place.0.join("none/socket")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
