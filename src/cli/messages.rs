//! The process's own messages, on their way to standard error: through a bounded queue and a
//! thread of its own, so that nobody who has something to say ever waits for whoever reads it.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Messages that may wait; more are dropped.
const QUEUED: usize = 1024;

/// How long the end waits for what was said last.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where messages go.
#[derive(Debug, Clone)]
pub(super) struct Messages {
    queue: SyncSender<Vec<u8>>,
    /// Messages that are not written yet.
    waiting: Arc<AtomicUsize>,
}

impl Messages {
    /// Starts the thread that writes them.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub(super) fn start() -> io::Result<Self> {
        let (queue, messages) = sync_channel::<Vec<u8>>(QUEUED);
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&waiting);
        std::thread::Builder::new().name("messages".into()).spawn(move || {
            for message in messages {
                // If nobody reads them, there is nobody to tell.
                let _ = io::stderr().write_all(&message);
                left.fetch_sub(1, Ordering::Release);
            }
        })?;
        Ok(Self { queue, waiting })
    }

    /// Waits until everything so far is written, if somebody reads it.
    pub(super) fn finish(&self) {
        let patience = Instant::now() + PATIENCE;
        while self.waiting.load(Ordering::Acquire) > 0 && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl<'a> MakeWriter<'a> for Messages {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

/// The subscriber writes each message whole, in one piece.
impl Write for &Messages {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(message.to_vec()).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
