//! Detects branches that are slower than the others of their message.
//!
//! All branches write the same piece concurrently; the first to finish starts the others' clock. The time that a branch
//! makes the others wait, over all pieces, is limited: beyond that it is given up, and the queue delivers it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long one branch may make the others wait in total.
const BEHIND: Duration = Duration::from_secs(5);

/// The branches that write one piece.
pub(crate) enum Lag {
    /// There is only one.
    Alone,
    /// When the first of them finished.
    Others(watch::Sender<Option<Instant>>),
}

impl Lag {
    /// For this many branches.
    pub(crate) fn of(branches: usize) -> Self {
        if branches < 2 { Self::Alone } else { Self::Others(watch::Sender::new(None)) }
    }

    /// A branch has finished; returns how long it made the others wait.
    pub(super) fn arrived(&self) -> Duration {
        let Self::Others(first) = self else { return Duration::ZERO };
        let now = Instant::now();
        first.send_if_modified(|first| first.is_none() && first.replace(now).is_none());
        first.borrow().map_or(Duration::ZERO, |first| now.duration_since(first))
    }

    /// Completes when a branch that has not finished, and made the others wait for `before` already, exceeds the limit.
    pub(super) async fn too_far(&self, before: Duration) {
        let Self::Others(first) = self else { return std::future::pending().await };
        let mut first = first.subscribe();
        let when = first.wait_for(Option::is_some).await.ok().and_then(|first| *first);
        match when {
            Some(when) => sleep_until(when + BEHIND.saturating_sub(before)).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_the_others_wait_for_is_bounded_in_all() {
        let second = Duration::from_secs(1);
        for (before, cut_after) in
            [(Duration::ZERO, 5 * second), (3 * second, 2 * second), (9 * second, Duration::ZERO)]
        {
            let lag = Lag::of(2);
            let slow = lag.too_far(before);
            tokio::pin!(slow);
            assert!(tokio::time::timeout(60 * second, &mut slow).await.is_err(), "nobody is through yet");
            assert_eq!(lag.arrived(), Duration::ZERO);
            let began = Instant::now();
            slow.await;
            assert_eq!(began.elapsed(), cut_after);
            assert_eq!(lag.arrived(), cut_after);
        }
        assert!(tokio::time::timeout(60 * second, Lag::of(1).too_far(second)).await.is_err());
    }
}
