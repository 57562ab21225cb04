//! Active checks: a task for each endpoint that is checked, whose results come here.
//!
//! Nothing is known here of what requests go by. Whoever has the [`Checks`] is told what changes.

use std::collections::HashMap;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::check::{Probe, Target, Verdict};
use super::checked::{Change, Checked, Last};

/// Checks under way at once. Each needs a descriptor, and they are all one thread's work; 128 that
/// take a millisecond are 128,000 a second, and while a network is gone those that run into their
/// timeout of a second leave the others a turn every few seconds.
pub const MAX_CHECKS: usize = 128;

/// How far the time between two checks is from the interval, up or down, as a share of it. Drawn
/// anew each time, so that neither endpoints nor balancers fall into step.
const JITTER: f64 = 0.1;

/// The endpoints that are checked.
#[derive(Debug)]
pub struct Checks {
    watched: HashMap<u64, Watched>,
    turns: Rc<Semaphore>,
    how: How,
    /// Counts tasks, to tell the answers of one that was replaced.
    runs: u64,
    answers: UnboundedReceiver<Answer>,
    sender: UnboundedSender<Answer>,
}

/// How a check is made, which tests replace.
type How = fn(Rc<Probe>) -> Pin<Box<dyn Future<Output = Verdict>>>;

/// One endpoint that is checked again and again.
#[derive(Debug)]
struct Watched {
    probe: Rc<Probe>,
    run: u64,
    /// `None` where there is nothing to be asked.
    task: Option<AbortHandle>,
    is_answered: bool,
    checked: Checked,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// What a task has to say.
#[derive(Debug)]
struct Answer {
    id: u64,
    run: u64,
    /// `None` where the endpoint has no address.
    check: Option<Last>,
}

impl Default for Checks {
    fn default() -> Self {
        Self::new(|probe| Box::pin(async move { probe.make().await }))
    }
}

impl Checks {
    fn new(how: How) -> Self {
        let (sender, answers) = unbounded_channel();
        let turns = Rc::new(Semaphore::new(MAX_CHECKS));
        Self { watched: HashMap::new(), turns, how, runs: 0, answers, sender }
    }

    /// Checks `targets` from now on, and no others. New ones, and those of which anything has
    /// changed, are checked at once; what is known of the latter stays. Must be called on a local
    /// runtime.
    pub fn follow(&mut self, targets: Vec<Target>) {
        let mut before = mem::take(&mut self.watched);
        for target in targets {
            let watched = match before.remove(&target.id) {
                Some(watched) if *watched.probe.target() == target => watched,
                Some(mut watched) => {
                    let checked = mem::take(&mut watched.checked);
                    self.begin(target, checked, watched.is_answered)
                }
                None => self.begin(target, Checked::default(), false),
            };
            self.watched.insert(watched.probe.target().id, watched);
        }
    }

    fn begin(&mut self, target: Target, checked: Checked, is_answered: bool) -> Watched {
        self.runs += 1;
        let (id, run) = (target.id, self.runs);
        let has_address = !target.addresses.is_empty();
        let probe = Rc::new(Probe::new(target));
        let task = if has_address {
            let (turns, answers) = (Rc::clone(&self.turns), self.sender.clone());
            let task = check_again_and_again(Rc::clone(&probe), self.how, turns, run, answers);
            Some(tokio::task::spawn_local(task).abort_handle())
        } else {
            // The receiver is ours.
            let _ = self.sender.send(Answer { id, run, check: None });
            None
        };
        Watched { probe, run, task, is_answered, checked }
    }

    /// Waits for the next result, and says what it changes. Nothing is lost if the wait is given up.
    pub async fn next(&mut self) -> Option<Change> {
        let answer = self.answer().await;
        self.take(answer)
    }

    /// Whether each endpoint has been checked once.
    pub fn are_answered(&self) -> bool {
        self.watched.values().all(|watched| watched.is_answered)
    }

    /// Waits until each endpoint has been checked once, but no longer than `patience`. Returns what
    /// has changed meanwhile, of all endpoints; it is lost if the wait is given up.
    pub async fn wait_for_first_results(&mut self, patience: Duration) -> Vec<Change> {
        let until = Instant::now() + patience;
        let mut changes = Vec::new();
        while !self.are_answered() {
            let Ok(answer) = timeout_at(until, self.answer()).await else { break };
            changes.extend(self.take(answer));
        }
        changes
    }

    /// What is known of the endpoint with this number; `None` if it is not checked.
    pub fn state(&self, id: u64) -> Option<&Checked> {
        self.watched.get(&id).map(|watched| &watched.checked)
    }

    async fn answer(&mut self) -> Answer {
        match self.answers.recv().await {
            Some(answer) => answer,
            // There is always a sender, `self.sender`, so there is always another answer to wait for.
            None => std::future::pending().await,
        }
    }

    /// Takes note of an answer, and says what it changes.
    fn take(&mut self, answer: Answer) -> Option<Change> {
        let watched = self.watched.get_mut(&answer.id).filter(|w| w.run == answer.run)?;
        watched.is_answered = true;
        let Target { id, label, health, .. } = watched.probe.target();
        let Some(last) = answer.check else {
            return watched.checked.has_no_address(*id);
        };
        if let Err(why) = &last.verdict {
            tracing::debug!(endpoint = %label, %why, took = ?last.took, "check failed");
        }
        watched.checked.note(*id, last, health.rise, health.fall)
    }
}

/// The time from one check to the next; `draw` is from 0 to 1.
fn pause(interval: Duration, draw: f64) -> Duration {
    interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * draw)
}

async fn check_again_and_again(
    probe: Rc<Probe>,
    how: How,
    turns: Rc<Semaphore>,
    run: u64,
    answers: UnboundedSender<Answer>,
) {
    let Target { id, health, .. } = probe.target();
    // The first check is made at once and the second after any part of the interval, so that
    // endpoints that began together do not go on together.
    let mut next = health.interval.mul_f64(fastrand::f64());
    loop {
        // Never closed.
        let Ok(turn) = turns.acquire().await else { return };
        let began = Instant::now();
        let verdict = how(Rc::clone(&probe)).await;
        drop(turn);
        let at = Instant::now();
        let last = Last { at, took: at - began, verdict };
        if answers.send(Answer { id: *id, run, check: Some(last) }).is_err() {
            return;
        }
        sleep_until(began + next).await;
        next = pause(health.interval, fastrand::f64());
    }
}

#[cfg(test)]
mod tests;
