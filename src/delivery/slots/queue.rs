//! Decides which transaction gets the next free connection slot of a connector, or of one of its hosts. Pure.
//!
//! `line` performs it: after every change it asks for [`Queue::next`] until there is none, so that no transaction waits
//! while a slot is free for it. The rules:
//!
//! - A free slot is given to the next transaction that comes, unless its kind has its share.
//! - Transactions without evidence for a recipient ([`Vouched::No`]) hold at most half of the slots, but may hold one.
//! - While both classes wait for a slot that either may have, they get slots alternately.
//! - Within a class clients take turns (`turns`).
//! - With one slot only, half of it means half of the turns: two transactions of a class without evidence do not follow
//!   each other while one with evidence waits.

use std::time::Instant;

use super::applicant::{Applicant, ByVouched, Class, Vouched};
use super::host::Fewer;
use super::turns::{Open, Turns};

/// The slots, and the waiting transactions.
#[derive(Debug, Clone)]
pub(super) struct Queue<W> {
    /// `max_connections`, or this node's share of it: 0 while other nodes have all connections.
    configured: usize,
    /// The host's limit, if that is lower.
    fewer: Option<Fewer>,
    held: ByVouched<usize>,
    /// Of the held slots: those whose holder was notified and gives them back.
    returning: ByVouched<usize>,
    ours: Waiting<W>,
    strangers: Waiting<W>,
    /// The class that got the last slot.
    last: Class,
    arrivals: u64,
}

/// The waiting transactions of one class.
#[derive(Debug, Clone)]
struct Waiting<W> {
    turns: Turns<W>,
    /// The kind of transaction that got this class's last slot.
    last: Vouched,
}

/// A place in the queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    applicant: Applicant,
    number: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub vouched: Vouched,
    pub stays: Stays,
}

/// Whether a holder keeps its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stays {
    /// As far as is known.
    Kept,
    /// It was notified that others wait, and gives it back.
    Returning,
}

/// Whether a host's refusal is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Its limit was not known.
    First,
    /// It has not accepted as many as the connector allows since the last one.
    Again,
}

impl<W> Queue<W> {
    /// Without held slots.
    pub(super) fn new(limit: usize) -> Self {
        let waiting = || Waiting { turns: Turns::default(), last: Vouched::Yes };
        Self {
            configured: limit,
            fewer: None,
            held: ByVouched::default(),
            returning: ByVouched::default(),
            ours: waiting(),
            strangers: waiting(),
            last: Class::Stranger,
            arrivals: 0,
        }
    }

    /// How many may be held.
    pub(super) fn limit(&self) -> usize {
        self.fewer.map_or(self.configured, |fewer| fewer.allowed().min(self.configured))
    }

    /// How many are held.
    pub(super) fn held(&self) -> usize {
        self.held.total()
    }

    /// How many may be held by transactions with [`Vouched::No`].
    fn share(&self) -> usize {
        self.limit().div_ceil(2)
    }

    fn is_free_for(&self, vouched: Vouched) -> bool {
        self.held() < self.limit() && (vouched == Vouched::Yes || *self.held.of(Vouched::No) < self.share())
    }

    /// How many transactions wait.
    pub(super) fn waiting(&self, vouched: Vouched) -> usize {
        self.ours.turns.count(vouched) + self.strangers.turns.count(vouched)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting(Vouched::Yes) + self.waiting(Vouched::No) == 0
    }

    /// Whether more wait than there are slots. Where there are none it helps nobody to hasten those that are held.
    pub(super) fn is_crowded(&self) -> bool {
        self.limit() > 0 && self.waiting(Vouched::Yes) + self.waiting(Vouched::No) > self.limit()
    }

    /// Sets the limit; returns whether it changed.
    pub(super) fn configure(&mut self, limit: usize) -> bool {
        std::mem::replace(&mut self.configured, limit) != limit
    }

    /// A slot for a new transaction, if one is free for it. Waiting transactions already have what is free for them.
    #[must_use]
    pub(super) fn take(&mut self, applicant: Applicant) -> bool {
        let free = self.is_free_for(applicant.vouched);
        if free {
            self.give(applicant.class, applicant.vouched);
        }
        free
    }

    /// Adds a waiting transaction.
    pub(super) fn wait(&mut self, applicant: Applicant, waiter: W) -> Ticket {
        self.arrivals += 1;
        let ticket = Ticket { applicant, number: self.arrivals };
        let turns = &mut self.class(applicant.class).turns;
        turns.push(applicant.client, applicant.vouched, ticket.number, waiter);
        ticket
    }

    /// Removes it, unless it got a slot already.
    pub(super) fn leave(&mut self, Ticket { applicant, number }: Ticket) {
        self.class(applicant.class).turns.remove(applicant.client, applicant.vouched, number);
    }

    /// Gives a slot to a waiting transaction, and returns which.
    pub(super) fn next(&mut self) -> Option<(W, Vouched)> {
        if self.is_empty() || self.held() >= self.limit() {
            return None;
        }
        let room = self.is_free_for(Vouched::No);
        for class in [self.last.other(), self.last] {
            let alternates = self.limit() == 1;
            let Waiting { turns, last } = self.class(class);
            let again = alternates && *last == Vouched::No && turns.count(Vouched::Yes) > 0;
            let open = if room && !again { Open::ToAll } else { Open::ToVouched };
            if let Some((waiter, vouched)) = turns.pop(open) {
                self.give(class, vouched);
                return Some((waiter, vouched));
            }
        }
        None
    }

    fn give(&mut self, class: Class, vouched: Vouched) {
        *self.held.of_mut(vouched) += 1;
        self.class(class).last = vouched;
        self.last = class;
    }

    /// A slot is returned.
    pub(super) fn free(&mut self, held: Held) {
        *self.held.of_mut(held.vouched) -= 1;
        if held.stays == Stays::Returning {
            *self.returning.of_mut(held.vouched) -= 1;
        }
    }

    /// A transaction becomes [`Vouched::Yes`].
    pub(super) fn vouch(&mut self, stays: Stays) {
        self.free(Held { vouched: Vouched::No, stays });
        *self.held.of_mut(Vouched::Yes) += 1;
        if stays == Stays::Returning {
            *self.returning.of_mut(Vouched::Yes) += 1;
        }
    }

    /// Whether a transaction waits that such a slot would help, beside those that get one that is being returned.
    pub(super) fn is_wanted(&self, vouched: Vouched) -> bool {
        let unvouched = match vouched {
            // It frees a place in the share as well.
            Vouched::No => self.waiting(Vouched::No),
            Vouched::Yes => {
                let room = self.share() + self.returning.of(Vouched::No);
                self.waiting(Vouched::No).min(room.saturating_sub(*self.held.of(Vouched::No)))
            }
        };
        let helped = self.waiting(Vouched::Yes) + unvouched;
        // After the limit was lowered, the first slots that are returned help no transaction.
        let too_many = self.held().saturating_sub(self.limit());
        self.limit() > 0 && helped > 0 && self.returning.total() < helped + too_many
    }

    /// A slot that was kept is being returned.
    pub(super) fn returns(&mut self, vouched: Vouched) {
        *self.returning.of_mut(vouched) += 1;
    }

    /// A slot that was being returned is kept after all.
    pub(super) fn stays(&mut self, vouched: Vouched) {
        *self.returning.of_mut(vouched) -= 1;
    }

    /// The host accepts no more than `allowed`.
    pub(super) fn refused(&mut self, allowed: usize, now: Instant) -> Refused {
        let before = self.fewer.replace(Fewer::refused(self.fewer, allowed, now));
        before.map_or(Refused::First, |_| Refused::Again)
    }

    /// When [`Self::rise`] is due, if the host has a limit.
    pub(super) fn rises(&self) -> Option<Instant> {
        self.fewer.map(|fewer| fewer.rises())
    }

    /// Raises the limit if it is time; returns when it is due again.
    pub(super) fn rise(&mut self, now: Instant) -> Option<Instant> {
        self.fewer = self.fewer.and_then(|fewer| fewer.at(now, self.configured));
        self.rises()
    }

    fn class(&mut self, class: Class) -> &mut Waiting<W> {
        match class {
            Class::Ours => &mut self.ours,
            Class::Stranger => &mut self.strangers,
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
