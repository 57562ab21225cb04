//! What makes a script wait for the test, or the test for a script.

use std::sync::{Arc, Condvar, Mutex};

use super::wire::PATIENCE;

/// Shut until somebody opens it; then open for good.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub fn is_open(&self) -> bool {
        *self.0.0.lock().unwrap()
    }

    /// Waits until it is open. A test fails where it stays shut.
    #[track_caller]
    pub fn pass(&self) {
        let is_open = self.0.0.lock().unwrap();
        let (is_open, _) =
            self.0.1.wait_timeout_while(is_open, PATIENCE, |is_open| !*is_open).unwrap();
        assert!(*is_open, "the gate is opened");
    }
}
