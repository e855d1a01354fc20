//! Flow control for a stream. The client library reads messages from the socket as fast as they come, and queues them
//! without a bound: a million entries would take more than a gigabyte. While a reader is behind, the library's task is
//! paused, and the full socket makes the server wait.
//!
//! `connection` drives the library through a [`Backpressure`]; `stream` closes it while it is behind.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};

use futures_util::poll;
use parking_lot::Mutex;
use tokio::task::unconstrained;

/// Open, unless a reader is behind.
#[derive(Debug, Default)]
pub(super) struct Backpressure {
    /// How many readers are behind.
    behind: AtomicUsize,
    resting: Mutex<Option<Waker>>,
}

/// A reader. Dropping it opens the gate again.
pub(super) struct Taker {
    gate: Arc<Backpressure>,
    is_behind: bool,
}

impl Backpressure {
    /// Drives the task while the gate is open. One turn reads about a megabyte.
    pub(super) async fn drive<T>(&self, task: impl Future<Output = T>) -> T {
        let mut task = pin!(task);
        std::future::poll_fn(|context| {
            // Registered before the check, so that a reader that opens the gate in between wakes it.
            *self.resting.lock() = Some(context.waker().clone());
            if self.behind.load(Ordering::SeqCst) > 0 { Poll::Pending } else { task.as_mut().poll(context) }
        })
        .await
    }

    fn open(&self) {
        if self.behind.fetch_sub(1, Ordering::SeqCst) == 1
            && let Some(waker) = self.resting.lock().take()
        {
            waker.wake();
        }
    }
}

impl Taker {
    pub(super) fn new(gate: &Arc<Backpressure>) -> Self {
        Self { gate: Arc::clone(gate), is_behind: false }
    }

    /// Waits for the next message. The reader is behind until it finds none waiting.
    pub(super) async fn next<T>(&mut self, next: impl Future<Output = T>) -> T {
        // Only with `unconstrained` a message that is there is always returned at once.
        let mut next = pin!(unconstrained(next));
        let Poll::Ready(taken) = poll!(next.as_mut()) else {
            self.catches_up();
            let taken = next.await;
            self.falls_behind();
            return taken;
        };
        self.falls_behind();
        taken
    }

    /// From now on the gate stays open for this reader.
    pub(super) fn catches_up(&mut self) {
        if std::mem::take(&mut self.is_behind) {
            self.gate.open();
        }
    }

    fn falls_behind(&mut self) {
        if !std::mem::replace(&mut self.is_behind, true) {
            self.gate.behind.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.catches_up();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    /// A source that would fill memory, turn by turn.
    async fn source(items: usize, channel: mpsc::UnboundedSender<usize>) {
        for item in 0..items {
            if channel.send(item).is_err() {
                return;
            }
            if item % 100 == 99 {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn who_takes_slowly_has_no_more_waiting_than_one_turn_brings() {
        let (sender, mut items) = mpsc::unbounded_channel();
        let gate = Arc::new(Backpressure::default());
        let driven = Arc::clone(&gate);
        let driver = tokio::spawn(async move { driven.drive(source(20_000, sender)).await });
        let mut taker = Taker::new(&gate);
        let (mut taken, mut most) = (0, 0);
        while let Some(item) = taker.next(items.recv()).await {
            assert_eq!(item, taken);
            taken += 1;
            most = most.max(items.len());
            if taken % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
        driver.await.unwrap();
        assert_eq!(taken, 20_000);
        assert!(most <= 200, "{most} were waiting");
    }

    #[tokio::test]
    async fn a_taker_that_is_gone_or_has_had_enough_holds_up_nobody() {
        let gate = Arc::new(Backpressure::default());
        let (mut one, mut other) = (Taker::new(&gate), Taker::new(&gate));
        one.next(async {}).await;
        other.next(async {}).await;
        assert_eq!(gate.behind.load(Ordering::SeqCst), 2);
        one.catches_up();
        one.catches_up();
        drop(other);
        assert_eq!(gate.drive(async { 7 }).await, 7);
    }
}
