//! A backend that speaks HTTP/2 in frames, also as no library would.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::http2::Frames;
use super::listen;

/// A listening backend; stops when dropped, and fails the test if its script did.
#[derive(Debug)]
pub struct FramesBackend {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    connections: AtomicUsize,
    scripts: Mutex<Vec<JoinHandle<()>>>,
}

impl FramesBackend {
    /// Sends these settings on each connection, and runs `script` with it and how many came before it, on
    /// a thread of its own.
    pub fn new(settings: &[u8], script: impl Fn(Frames, usize) + Send + Sync + 'static) -> Self {
        let settings = settings.to_vec();
        Self::raw(move |stream, index| {
            if let Some(frames) = Frames::accept(stream, &settings) {
                script(frames, index);
            }
        })
    }

    /// The same on connections on which nothing has been said.
    pub fn raw(script: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        let listener = listen();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let script = Arc::new(script);
        let accepting = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for stream in listener.incoming() {
                    if shared.is_over.load(Ordering::Acquire) {
                        return;
                    }
                    let (stream, script) = (stream.unwrap(), Arc::clone(&script));
                    let index = shared.connections.fetch_add(1, Ordering::SeqCst);
                    let running = thread::spawn(move || script(stream, index));
                    shared.scripts.lock().unwrap().push(running);
                }
            }
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    pub fn url(&self) -> String {
        format!("h2c://{}", self.address)
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for FramesBackend {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        if TcpStream::connect(self.address).is_ok()
            && let Some(accepting) = self.accepting.take()
        {
            let _ = accepting.join();
        }
        // Those that are not over wait for a balancer that is about to end.
        let scripts = std::mem::take(&mut *self.shared.scripts.lock().unwrap());
        let over = scripts.into_iter().filter(JoinHandle::is_finished);
        let failed = over.map(JoinHandle::join).filter(Result::is_err).count();
        assert!(failed == 0 || thread::panicking(), "a script failed; its message is above");
    }
}
