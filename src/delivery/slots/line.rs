//! The slots of one connector or one host, and the tasks that wait for them. `queue` decides, `line` wakes tasks.
//!
//! A slot that becomes free is sent to the task that is next; holders that would give a slot back are notified one at a
//! time. A waiting task is woken once, when it has a slot; a holder may be woken in vain if another one was faster.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::applicant::{Applicant, ByVouched, Vouched};
use super::queue::{Held, Queue, Stays, Ticket};

/// Waiting tasks, with the channel for their slot.
type Waiters = Queue<oneshot::Sender<Slot>>;

#[derive(Debug)]
pub(super) struct Line {
    queue: Mutex<Waiters>,
    /// Holders that wait until their slot is wanted.
    wanted: ByVouched<Notify>,
}

impl Line {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { queue: Mutex::new(Queue::new(limit)), wanted: ByVouched::default() })
    }

    /// A slot, if one is free for this applicant.
    pub(super) fn try_take(self: Arc<Self>, limit: usize, applicant: Applicant) -> Option<Slot> {
        let free = self.configured(limit).take(applicant);
        free.then(|| Slot::new(self, applicant.vouched))
    }

    /// A slot, or a place in the queue.
    pub(super) fn take(self: Arc<Self>, limit: usize, applicant: Applicant) -> Result<Slot, Waiting> {
        let mut queue = self.configured(limit);
        if queue.take(applicant) {
            drop(queue);
            return Ok(Slot::new(self, applicant.vouched));
        }
        let (sender, given) = oneshot::channel();
        let ticket = queue.wait(applicant, sender);
        self.settle(queue);
        Err(Waiting { line: self, ticket, given })
    }

    /// Applies a limit: those who are next get slots that it frees.
    pub(super) fn configure(self: &Arc<Self>, limit: usize) {
        drop(self.configured(limit));
    }

    /// The queue, with this limit applied.
    fn configured(self: &Arc<Self>, limit: usize) -> MutexGuard<'_, Waiters> {
        let mut queue = self.queue.lock();
        if queue.configure(limit) {
            self.settle(queue);
            queue = self.queue.lock();
        }
        queue
    }

    /// After a change: gives free slots to those who are next, and notifies holders if others still wait.
    fn settle<'a>(self: &'a Arc<Self>, mut queue: MutexGuard<'a, Waiters>) {
        if queue.is_empty() {
            return;
        }
        while let Some((waiter, vouched)) = queue.next() {
            // A task that is woken or found gone may drop a slot, which needs the lock.
            drop(queue);
            drop(waiter.send(Slot::new(self.clone(), vouched)));
            queue = self.queue.lock();
        }
        let wanted = [Vouched::No, Vouched::Yes].map(|vouched| (vouched, queue.is_wanted(vouched)));
        drop(queue);
        for (vouched, _) in wanted.iter().filter(|(_, is_wanted)| *is_wanted) {
            self.wanted.of(*vouched).notify_one();
        }
    }

    /// Makes a change that concerns all slots.
    pub(super) fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut Waiters) -> T) -> T {
        let mut queue = self.queue.lock();
        let result = change(&mut queue);
        self.settle(queue);
        result
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&Waiters) -> T) -> T {
        look(&self.queue.lock())
    }
}

/// A place in the queue; completes with a slot. Dropping it leaves the queue.
pub(super) struct Waiting {
    line: Arc<Line>,
    ticket: Ticket,
    given: oneshot::Receiver<Slot>,
}

impl Future for Waiting {
    type Output = Slot;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Slot> {
        match Pin::new(&mut self.given).poll(context) {
            Poll::Ready(Ok(slot)) => Poll::Ready(slot),
            // The sender is removed from the queue when it sends, or when this is dropped.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    /// A slot that was sent meanwhile is dropped with `given`, and goes to the next in the queue.
    fn drop(&mut self) {
        self.line.queue.lock().leave(self.ticket);
    }
}

/// A connection slot; dropping it gives it to the next in the queue.
#[derive(Debug)]
#[must_use]
pub struct Slot {
    line: Arc<Line>,
    vouched: Vouched,
    /// When it was given.
    since: Instant,
    /// Whether its holder was notified that it is wanted. Changes only under the queue's lock.
    returning: AtomicBool,
    kept: SlotUse,
}

/// Whether a slot is still held.
#[derive(Debug, PartialEq, Eq)]
enum SlotUse {
    Yes,
    GivenBack,
}

impl Slot {
    fn new(line: Arc<Line>, vouched: Vouched) -> Self {
        Self { line, vouched, since: Instant::now(), returning: AtomicBool::new(false), kept: SlotUse::Yes }
    }

    /// Records evidence for a recipient of its transaction: it no longer counts among those that may hold half of the
    /// slots.
    pub fn vouch(&mut self) {
        if self.vouched == Vouched::Yes {
            return;
        }
        self.vouched = Vouched::Yes;
        let stays = self.stays();
        self.line.change(|queue| queue.vouch(stays));
    }

    /// How long it has been held, if more tasks wait than there are slots.
    #[must_use]
    pub fn crowded(&self) -> Option<Duration> {
        self.line.look(Waiters::is_crowded).then(|| self.since.elapsed())
    }

    /// Waits until it is wanted. The holder gives it back then; no other holder is notified for the same waiting task.
    /// Calling it again revokes that. Cancel-safe.
    pub async fn wanted(&self) {
        loop {
            // Registered before the check: a notification in between is kept for the next that waits.
            let notice = self.line.wanted.of(self.vouched).notified();
            if self.will_return_if_wanted() {
                return;
            }
            notice.await;
        }
    }

    fn will_return_if_wanted(&self) -> bool {
        let mut queue = self.line.queue.lock();
        if self.returning.swap(false, Ordering::Relaxed) {
            queue.stays(self.vouched);
        }
        let wanted = queue.is_wanted(self.vouched);
        if wanted {
            queue.returns(self.vouched);
            self.returning.store(true, Ordering::Relaxed);
        }
        // The notification was for one holder: the next one that is wanted is notified now.
        self.line.settle(queue);
        wanted
    }

    fn stays(&self) -> Stays {
        if self.returning.load(Ordering::Relaxed) { Stays::Returning } else { Stays::Kept }
    }

    /// Gives it back although its holder continues, which only waits for a reply that nothing can hasten.
    pub fn give_up(&mut self) {
        if self.kept == SlotUse::Yes {
            let held = Held { vouched: self.vouched, stays: self.stays() };
            self.kept = SlotUse::GivenBack;
            self.line.change(|queue| queue.free(held));
        }
    }

    /// Gives it back, and makes a change before the slot is given to another task.
    pub(super) fn give_back<T>(mut self, change: impl FnOnce(&mut Waiters) -> T) -> T {
        self.kept = SlotUse::GivenBack;
        let held = Held { vouched: self.vouched, stays: self.stays() };
        self.line.change(|queue| {
            queue.free(held);
            change(queue)
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.give_up();
    }
}

#[cfg(test)]
mod tests;
