//! Waiting no longer than something may take, at next to no cost when it doesn't.
//!
//! Nearly every wait of a proxy ends long before its time, so a timer for each would be set only
//! to be forgotten, and would be as large as all else that an idle connection needs. Here a wait
//! leaves its due time with the worker's [`Clock`], which looks through all of them a few times a
//! second; only a wait that is about to be over gets a timer, and ends on time.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pin_project_lite::pin_project;
use slab::Slab;
use tokio::time::{Instant, Sleep};

/// How often a clock [ticks](Clock::tick).
pub const TICK: Duration = Duration::from_millis(250);

/// How long before it is due a wait gets a timer: longer than a tick that comes late.
const SOON: Duration = Duration::from_millis(750);

/// It took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

/// The due times of one worker's waits.
#[derive(Debug)]
pub struct Clock {
    /// The time at the last tick.
    ticked: Cell<Instant>,
    waits: RefCell<Slab<Wait>>,
}

/// A task that waits, or has waited.
#[derive(Debug)]
struct Wait {
    waker: Waker,
    due: Option<Instant>,
}

impl Clock {
    /// A clock that somebody must [tick](Self::tick) every [`TICK`].
    pub fn new() -> Rc<Self> {
        Rc::new(Self { ticked: Cell::new(Instant::now()), waits: RefCell::default() })
    }

    /// Wakes whoever must look after its own time now.
    pub fn tick(&self, now: Instant) {
        self.ticked.set(now);
        let is_soon = |wait: &Wait| wait.due.is_some_and(|due| due <= now + SOON);
        let waits = self.waits.borrow();
        waits.iter().filter(|(_, w)| is_soon(w)).for_each(|(_, w)| w.waker.wake_by_ref());
    }

    /// Wakes everybody who has ever waited, to look at what else has changed.
    pub fn wake_all(&self) {
        self.waits.borrow().iter().for_each(|(_, wait)| wait.waker.wake_by_ref());
    }
}

/// The waits of one task, one at a time.
///
/// It remembers the waker of the task that first waited, so it must stay in that task.
#[derive(Debug)]
pub struct Deadline {
    clock: Rc<Clock>,
    wait: Option<usize>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Waits that `clock` looks after.
    pub fn new(clock: &Rc<Clock>) -> Self {
        Self { clock: Rc::clone(clock), wait: None, timer: None }
    }

    /// Waits for `future`, at most `after` from when it first has to be waited for.
    ///
    /// # Errors
    /// [`Elapsed`], and `future` is dropped.
    pub fn within<F: Future>(
        &mut self,
        after: Duration,
        future: F,
    ) -> Due<'_, impl FnMut() -> Option<Instant>, F> {
        let mut due = None;
        self.due(move || Some(*due.get_or_insert_with(|| Instant::now() + after)), future)
    }

    /// Waits for `future` until the instant that `due` names, which is asked each time that there
    /// is nothing else to do, and may come to know it only later.
    ///
    /// # Errors
    /// [`Elapsed`], and `future` is dropped.
    pub const fn due<D: FnMut() -> Option<Instant>, F: Future>(
        &mut self,
        due: D,
        future: F,
    ) -> Due<'_, D, F> {
        Due { deadline: self, due, future }
    }

    /// Ready once `at` has passed; until then the task is woken in time to ask again.
    pub fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<Elapsed> {
        if at > self.clock.ticked.get() + SOON {
            self.timer = None;
            self.set(cx, Some(at));
            return Poll::Pending;
        }
        // A timer that is asked when the task has used up its budget does not look at the time.
        if Instant::now() >= at {
            self.clear();
            return Poll::Ready(Elapsed);
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        let elapsed = timer.as_mut().poll(cx).map(|()| Elapsed);
        // Known all the same to those who wake everybody; the timer does the rest.
        self.set(cx, None);
        elapsed
    }

    /// The wait is over.
    pub fn clear(&mut self) {
        self.timer = None;
        if let Some(wait) = self.wait
            && let Some(wait) = self.clock.waits.borrow_mut().get_mut(wait)
        {
            wait.due = None;
        }
    }

    fn set(&mut self, cx: &mut Context<'_>, due: Option<Instant>) {
        let mut waits = self.clock.waits.borrow_mut();
        match self.wait.and_then(|wait| waits.get_mut(wait)) {
            Some(wait) => wait.due = due,
            None => self.wait = Some(waits.insert(Wait { waker: cx.waker().clone(), due })),
        }
    }
}

pin_project! {
    /// A wait for a future, at most until it is due.
    ///
    /// An async function would hold the future twice, as its argument and where it is pinned, and so
    /// would each around it: an exchange was twice as large.
    #[derive(Debug)]
    pub struct Due<'d, D, F> {
        deadline: &'d mut Deadline,
        due: D,
        #[pin]
        future: F,
    }
}

impl<D: FnMut() -> Option<Instant>, F: Future> Future for Due<'_, D, F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            this.deadline.clear();
            return Poll::Ready(Ok(output));
        }
        match (this.due)() {
            Some(at) => this.deadline.poll(cx, at).map(Err),
            None => Poll::Pending,
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Some(wait) = self.wait {
            let _ = self.clock.waits.borrow_mut().try_remove(wait);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A deadline on a clock that ticks for as long as `test` runs.
    async fn ticking<T>(test: impl AsyncFnOnce(&mut Deadline, &Clock) -> T) -> T {
        let clock = Clock::new();
        let mut ticks = tokio::time::interval(TICK);
        let mut deadline = Deadline::new(&clock);
        tokio::select! {
            result = test(&mut deadline, &clock) => result,
            () = async { loop { clock.tick(ticks.tick().await) } } => unreachable!(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_length_whatever_came_before() {
        ticking(async |deadline, _| {
            for millis in [5_000, 1_000, 300, 3_100, 10_000, 1, 2_000] {
                let start = Instant::now();
                let wait = Duration::from_millis(millis);
                let waited = deadline.within(wait, std::future::pending::<()>()).await;
                assert_eq!(waited, Err(Elapsed));
                let took = start.elapsed().as_millis();
                assert!((wait.as_millis()..=wait.as_millis() + 2).contains(&took), "{took} ms");
            }
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn waits_that_end_well_have_no_timer_and_leave_no_trace() {
        ticking(async |deadline, clock| {
            for _ in 0..20 {
                let waited = deadline
                    .within(3 * SECOND, async {
                        tokio::time::sleep(SECOND).await;
                    })
                    .await;
                assert_eq!(waited, Ok(()));
                assert!(deadline.timer.is_none());
                assert!(clock.waits.borrow().iter().all(|(_, wait)| wait.due.is_none()));
            }
            assert_eq!(clock.waits.borrow().len(), 1);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_owed_may_begin_later() {
        ticking(async |deadline, _| {
            let start = Instant::now();
            let owed = Cell::new(None);
            let (waited, ()) = tokio::join!(
                deadline.due(|| owed.get(), async {
                    tokio::time::sleep(4 * SECOND).await;
                    std::future::pending::<()>().await;
                }),
                async {
                    tokio::time::sleep(2 * SECOND).await;
                    owed.set(Some(Instant::now() + 5 * SECOND));
                }
            );
            assert_eq!((waited, start.elapsed().as_secs()), (Err(Elapsed), 7));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_gone_is_forgotten() {
        let clock = Clock::new();
        let mut deadline = Deadline::new(&clock);
        let wait = deadline.within(9 * SECOND, std::future::pending::<()>());
        assert!(tokio::time::timeout(SECOND, wait).await.is_err());
        assert_eq!(clock.waits.borrow().len(), 1);
        drop(deadline);
        assert!(clock.waits.borrow().is_empty());
    }
}
