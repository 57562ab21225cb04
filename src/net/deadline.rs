//! Waiting no longer than something may take, at next to no cost when it doesn't.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// It took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

/// One timer for all the waits of one task, one at a time.
///
/// Most waits end long before their time, so the timer is lazy: it is moved only if it would fire
/// too late, and when it fires early it is moved on. A connection under load touches the timer
/// wheel about once a timeout, not once a request.
///
/// It remembers the waker of the task that first waited, so it must stay in that task.
#[derive(Debug, Default)]
pub struct Deadline {
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Waits for `future`, at most `after` from when it first has to be waited for.
    ///
    /// # Errors
    /// [`Elapsed`], and `future` is dropped.
    pub async fn within<F: Future>(
        &mut self,
        after: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        let mut due = None;
        self.due(|| Some(*due.get_or_insert_with(|| Instant::now() + after)), future).await
    }

    /// Waits for `future` until the instant that `due` names, which is asked each time that there
    /// is nothing else to do, and may come to know it only later.
    ///
    /// # Errors
    /// [`Elapsed`], and `future` is dropped.
    pub async fn due<F: Future>(
        &mut self,
        mut due: impl FnMut() -> Option<Instant>,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            match due() {
                Some(at) => self.poll(cx, at).map(Err),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Ready once `at` has passed.
    pub fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<Elapsed> {
        let Some(timer) = &mut self.timer else {
            let timer = self.timer.insert(Box::pin(tokio::time::sleep_until(at)));
            return timer.as_mut().poll(cx).map(|()| Elapsed);
        };
        // Still armed, early enough, and it knows whom to wake: nothing to do.
        if !timer.is_elapsed() && timer.deadline() <= at {
            return Poll::Pending;
        }
        if Instant::now() >= at {
            return Poll::Ready(Elapsed);
        }
        timer.as_mut().reset(at);
        timer.as_mut().poll(cx).map(|()| Elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_length_whatever_came_before() {
        let mut deadline = Deadline::default();
        for seconds in [5, 1, 3, 10, 2] {
            let start = Instant::now();
            let waited = deadline.within(seconds * SECOND, std::future::pending::<()>()).await;
            assert_eq!(waited, Err(Elapsed));
            assert_eq!(start.elapsed().as_secs(), u64::from(seconds));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_short_waits_that_end_well_do_not_run_into_an_old_deadline() {
        let mut deadline = Deadline::default();
        for _ in 0..20 {
            let waited = deadline.within(3 * SECOND, tokio::time::sleep(SECOND)).await;
            assert_eq!(waited, Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_owed_may_begin_later() {
        let mut deadline = Deadline::default();
        let owed = std::cell::Cell::new(None);
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
        assert_eq!(waited, Err(Elapsed));
    }
}
