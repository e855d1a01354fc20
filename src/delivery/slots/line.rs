//! The slots of one connector or one host, and the tasks that wait for them: performs what `queue` decides.
//!
//! A slot that comes free is sent to the one task that is next; who holds a slot and would give it back is told one at
//! a time. Who waits is woken once, when he has a slot; a holder may be woken in vain where another one was faster.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::applicant::{Applicant, ByVouched, Vouched};
use super::queue::{Held, Queue, Stays, Ticket};

/// Who waits, and by what he is told.
type Waiters = Queue<oneshot::Sender<Slot>>;

/// The slots of one connector or one host.
#[derive(Debug)]
pub(super) struct Line {
    queue: Mutex<Waiters>,
    /// Holders of such slots that wait until somebody wants them.
    wanted: ByVouched<Notify>,
}

impl Line {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { queue: Mutex::new(Queue::new(limit)), wanted: ByVouched::default() })
    }

    /// A slot, if one is free for him.
    pub(super) fn try_take(self: Arc<Self>, limit: usize, applicant: Applicant) -> Option<Slot> {
        let free = self.configured(limit).take(applicant);
        free.then(|| Slot::new(self, applicant.vouched))
    }

    /// A slot, or to wait for it.
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

    /// The queue, with this limit in force.
    fn configured(self: &Arc<Self>, limit: usize) -> MutexGuard<'_, Waiters> {
        let mut queue = self.queue();
        if queue.configure(limit) {
            self.settle(queue);
            queue = self.queue();
        }
        queue
    }

    fn queue(&self) -> MutexGuard<'_, Waiters> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a change: who is next has what is free, and holders hear if somebody still waits.
    fn settle<'a>(self: &'a Arc<Self>, mut queue: MutexGuard<'a, Waiters>) {
        if queue.is_empty() {
            return;
        }
        while let Some((waiter, vouched)) = queue.next() {
            // A task that is woken or found gone may drop a slot: not under the lock.
            drop(queue);
            drop(waiter.send(Slot::new(self.clone(), vouched)));
            queue = self.queue();
        }
        let wanted = [Vouched::No, Vouched::Yes].map(|vouched| (vouched, queue.is_wanted(vouched)));
        drop(queue);
        for (vouched, _) in wanted.iter().filter(|(_, is_wanted)| *is_wanted) {
            self.wanted.of(*vouched).notify_one();
        }
    }

    /// Changes what concerns all slots.
    pub(super) fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut Waiters) -> T) -> T {
        let mut queue = self.queue();
        let result = change(&mut queue);
        self.settle(queue);
        result
    }

    /// Looks at the queue.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Waiters) -> T) -> T {
        look(&self.queue())
    }
}

/// Somebody in the queue: ready once it is his turn. Dropped before, he does not wait any longer.
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
            // The sender leaves the queue when it sends, or when this is dropped.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    /// A slot that was sent meanwhile is dropped with `given`, and goes to the next one.
    fn drop(&mut self) {
        self.line.queue().leave(self.ticket);
    }
}

/// Room for one connection, until it is dropped: then whoever is next has it.
#[derive(Debug)]
#[must_use]
pub struct Slot {
    line: Arc<Line>,
    vouched: Vouched,
    /// When it was given.
    since: Instant,
    /// Its holder was told that it is wanted. Changes under the lock of the queue only.
    returning: AtomicBool,
    kept: SlotUse,
}

/// Whether a slot still counts.
#[derive(Debug, PartialEq, Eq)]
enum SlotUse {
    Yes,
    GivenBack,
}

impl Slot {
    fn new(line: Arc<Line>, vouched: Vouched) -> Self {
        Self { line, vouched, since: Instant::now(), returning: AtomicBool::new(false), kept: SlotUse::Yes }
    }

    /// Whether somebody is vouched for in its transaction.
    #[must_use]
    pub fn vouched(&self) -> Vouched {
        self.vouched
    }

    /// Somebody is vouched for in its transaction from now on: it does not count any longer among those of which there
    /// may be half.
    pub fn vouch(&mut self) {
        if self.vouched == Vouched::Yes {
            return;
        }
        self.vouched = Vouched::Yes;
        let stays = self.stays();
        self.line.change(|queue| queue.vouch(stays));
    }

    /// For how long it is held already, if more wait than there are slots.
    #[must_use]
    pub fn crowded(&self) -> Option<Duration> {
        self.line.look(Waiters::is_crowded).then(|| self.since.elapsed())
    }

    /// Whether somebody waits whom this slot would help, besides those who get one that is [on its way
    /// back](Self::will_return).
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        let mut queue = self.line.queue();
        let stays = self.stays();
        if stays == Stays::Returning {
            queue.stays(self.vouched);
        }
        let wanted = queue.is_wanted(self.vouched);
        if stays == Stays::Returning {
            queue.returns(self.vouched);
        }
        wanted
    }

    /// Waits until it is wanted. Whoever is told gives it back now: another holder is not told for the same waiter.
    /// Asking again takes that back. Cancel-safe.
    pub async fn wanted(&self) {
        loop {
            // Made before the look: a notice that comes between is kept for whoever waits next.
            let notice = self.line.wanted.of(self.vouched).notified();
            if self.will_return_if_wanted() {
                return;
            }
            notice.await;
        }
    }

    /// It will be dropped soon, as after [`Self::wanted`]: for a holder who saw that it [is wanted](Self::is_wanted) and
    /// says RSET first. Other holders are not told for the same waiter.
    pub fn will_return(&self) {
        let mut queue = self.line.queue();
        if !self.returning.swap(true, Ordering::Relaxed) {
            queue.returns(self.vouched);
        }
    }

    fn will_return_if_wanted(&self) -> bool {
        let mut queue = self.line.queue();
        if self.returning.swap(false, Ordering::Relaxed) {
            queue.stays(self.vouched);
        }
        let wanted = queue.is_wanted(self.vouched);
        if wanted {
            queue.returns(self.vouched);
            self.returning.store(true, Ordering::Relaxed);
        }
        // One notice was for one of us: who else is wanted hears it now.
        self.line.settle(queue);
        wanted
    }

    fn stays(&self) -> Stays {
        if self.returning.load(Ordering::Relaxed) { Stays::Returning } else { Stays::Kept }
    }

    /// Gives it back, though its holder goes on: he only waits for an answer that nothing can hasten.
    pub fn give_up(&mut self) {
        if self.kept == SlotUse::Yes {
            let held = Held { vouched: self.vouched, stays: self.stays() };
            self.kept = SlotUse::GivenBack;
            self.line.change(|queue| queue.free(held));
        }
    }

    /// Gives it back, and changes something before anybody else has it.
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
