//! Waiting with a limit, where it happens several times a message: the runtime's timers are not touched each time.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// As [`tokio::time::timeout`], for writing: the kernel takes most at once, and then no clock is asked.
///
/// # Errors
/// It took longer.
pub(crate) async fn within<T>(limit: Duration, writing: impl Future<Output = T>) -> Result<T, Elapsed> {
    let mut writing = pin!(writing);
    let at_once = poll_fn(|context| Poll::Ready(writing.as_mut().poll(context))).await;
    match at_once {
        Poll::Ready(done) => Ok(done),
        Poll::Pending => timeout(limit, writing).await,
    }
}

/// A timer that is kept between waits. Their ends mostly move away before they come, so it is set anew only when it has
/// rung, or when an end is nearer than it. It may ring for nobody: who waited for it last is woken once for nothing.
pub(crate) struct ReusableTimer(Pin<Box<Sleep>>);

impl ReusableTimer {
    pub(crate) fn new() -> Self {
        Self(Box::pin(sleep_until(Instant::now() + Duration::from_hours(24))))
    }

    /// Waits for that moment.
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
