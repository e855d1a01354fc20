//! Time limits for operations that happen several times for each message, without using the runtime's timers each time.

use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures_util::poll;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// Like [`tokio::time::timeout`], for writing: the kernel usually accepts everything at once, and then no clock is
/// read.
///
/// # Errors
/// It took longer.
pub(crate) async fn within<T>(limit: Duration, writing: impl Future<Output = T>) -> Result<T, Elapsed> {
    let mut writing = pin!(writing);
    match poll!(writing.as_mut()) {
        Poll::Ready(done) => Ok(done),
        Poll::Pending => timeout(limit, writing).await,
    }
}

/// A timer that is reused. Deadlines usually move before they are reached, so the timer is reset only when it has
/// fired, or when a deadline is earlier. It may fire needlessly: the task that waited last is then woken once in vain.
pub(crate) struct ReusableTimer(Pin<Box<Sleep>>);

impl ReusableTimer {
    pub(crate) fn new() -> Self {
        Self(Box::pin(sleep_until(Instant::now() + Duration::from_hours(24))))
    }

    /// Waits until this time.
    pub(crate) async fn at(&mut self, when: Instant) {
        if self.0.is_elapsed() || self.0.deadline() > when {
            self.0.as_mut().reset(when);
        }
        loop {
            self.0.as_mut().await;
            if Instant::now() >= when {
                return;
            }
            self.0.as_mut().reset(when);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_alarm_rings_when_it_is_due_whatever_was_waited_for_before() {
        let began = Instant::now();
        let mut alarm = ReusableTimer::new();
        for (wait, given_up_after, at) in [(10, 1, 1), (20, 30, 21), (5, 30, 26), (0, 30, 26), (86_400 * 2, 4, 30)] {
            let when = Instant::now() + Duration::from_secs(wait);
            let _ = timeout(Duration::from_secs(given_up_after), alarm.at(when)).await;
            assert_eq!(began.elapsed(), Duration::from_secs(at), "{wait}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_written_is_given_up() {
        assert_eq!(within(Duration::ZERO, async { 1 }).await.unwrap(), 1);
        let began = Instant::now();
        assert!(within(Duration::from_secs(3), std::future::pending::<()>()).await.is_err());
        assert_eq!(began.elapsed(), Duration::from_secs(3));
    }
}
