//! What is listened on, and how that is told.

use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::support::{Backend, Signal, Tinylb, config};

/// A path in a directory that tests share, for one Unix socket.
fn socket(name: &str) -> PathBuf {
    // The build's own directory may be too deep for what a socket's path may be.
    std::env::temp_dir().join(format!("tinylb-{name}-{}.sock", std::process::id()))
}

/// A file that has a listener on that path, too.
fn file(backend: &Backend, path: &Path) -> String {
    let listener = format!("[[listeners]]\naddress = \"unix:{}\"\n", path.display());
    config(&[backend.url()], &listener, "")
}

#[test]
fn the_start_tells_plain_http_from_https() {
    let backend = Backend::named("it");
    let plain = Tinylb::start(&[backend.url()], &[]);
    assert!(!plain.wait_for_log("listening address=").contains("https"));
    let https = Tinylb::start(&[backend.url()], &["--tls-self-signed"]);
    let line = https.wait_for_log("listening address=");
    assert!(line.ends_with(&format!("address={} scheme=https", https.address())), "{line}");
}

#[test]
fn the_file_of_a_unix_socket_comes_and_goes_with_the_process() {
    let (backend, path) = (Backend::named("it"), socket("comes"));
    // Somebody ended without removing it.
    drop(UnixListener::bind(&path).unwrap());
    let mut tinylb = Tinylb::run(&file(&backend, &path));
    tinylb.wait_for_log(&format!("listening address=unix:{}", path.display()));
    assert!(path.symlink_metadata().unwrap().file_type().is_socket());
    assert!(UnixStream::connect(&path).is_ok());
    tinylb.signal(Signal::TERM);
    assert!(tinylb.wait_exit().success());
    assert!(!path.exists());
}

#[test]
fn a_path_that_cannot_be_had_is_an_error_that_says_why() {
    let backend = Backend::named("it");
    let ends = |path: &Path| {
        let listen = format!("unix:{}", path.display());
        let (code, log) = Tinylb::ends(&[&backend.url(), "--listen", &listen, "--admin", "off"]);
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(&format!("cannot listen on {listen} (address, --listen): ")), "{log}");
        log
    };
    let path = socket("taken");
    let listener = UnixListener::bind(&path).unwrap();
    assert!(ends(&path).contains("another process listens there"));
    assert!(UnixStream::connect(&path).is_ok(), "it still has its socket");
    drop(listener);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "letters").unwrap();
    assert!(ends(&path).contains("there is a file that is no socket"));
    std::fs::remove_file(&path).unwrap();
    assert!(ends(&path.join("none")).contains("its directory is not there"));
}
