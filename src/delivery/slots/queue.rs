//! Who gets the next free connection slot of one connector, or of one of its hosts. Pure.
//!
//! `line` performs it: after every change it asks for [`Queue::next`] until there is none, so that nobody waits for a
//! slot that is free for him. The rules:
//!
//! - A free slot is nobody's: whoever comes takes it, unless his kind of transaction has its share.
//! - Transactions with nobody vouched for hold at most half of the slots, and one at least.
//! - While both classes wait for what may be given to both, every second slot goes to either.
//! - Within a class slots go round by client (`turns`).
//! - Where there is one slot, half of it is a half of the turns: two transactions of a class with nobody vouched for do
//!   not follow each other while one of the other kind waits.

use std::time::Instant;

use super::applicant::{Applicant, ByVouched, Class, Vouched};
use super::host::Fewer;
use super::turns::{Open, Turns};

/// The slots, and who waits.
#[derive(Debug, Clone)]
pub(super) struct Queue<W> {
    /// `max_connections`.
    configured: usize,
    /// What a host allows, if that is less.
    fewer: Option<Fewer>,
    held: ByVouched<usize>,
    /// Of those that are held: whose holder was told that somebody waits, and gives them back.
    returning: ByVouched<usize>,
    ours: Waiting<W>,
    strangers: Waiting<W>,
    /// Who got the last slot.
    last: Class,
    arrivals: u64,
}

/// Whoever waits in one class.
#[derive(Debug, Clone)]
struct Waiting<W> {
    turns: Turns<W>,
    /// The transaction that got this class's last slot.
    last: Vouched,
}

/// Where somebody waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    applicant: Applicant,
    number: u64,
}

/// What is known of a slot that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// Whether somebody was vouched for.
    pub vouched: Vouched,
    /// Whether its holder keeps it.
    pub stays: Stays,
}

/// Whether a holder keeps his slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stays {
    /// As far as is known.
    Kept,
    /// He was told that somebody waits, and gives it back.
    Returning,
}

/// Whether a host that refuses one did so lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Nothing was known of it.
    First,
    /// It has not taken as many as the connector allows since.
    Again,
}

impl<W> Queue<W> {
    /// Nobody has a slot yet.
    pub(super) fn new(limit: usize) -> Self {
        let waiting = || Waiting { turns: Turns::default(), last: Vouched::Yes };
        Self {
            configured: limit.max(1),
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

    /// How many may be held by transactions with nobody vouched for.
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

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting(Vouched::Yes) + self.waiting(Vouched::No) == 0
    }

    /// Whether more wait than there are slots.
    pub(super) fn is_crowded(&self) -> bool {
        self.waiting(Vouched::Yes) + self.waiting(Vouched::No) > self.limit()
    }

    /// Sets `max_connections`; says whether that is a change.
    pub(super) fn configure(&mut self, limit: usize) -> bool {
        let limit = limit.max(1);
        std::mem::replace(&mut self.configured, limit) != limit
    }

    /// A slot for somebody who comes, if one is free for him. Whoever waits has been given what is free for him.
    #[must_use]
    pub(super) fn take(&mut self, applicant: Applicant) -> bool {
        let free = self.is_free_for(applicant.vouched);
        if free {
            self.give(applicant.class, applicant.vouched);
        }
        free
    }

    /// He waits.
    pub(super) fn wait(&mut self, applicant: Applicant, waiter: W) -> Ticket {
        self.arrivals += 1;
        let ticket = Ticket { applicant, number: self.arrivals };
        let turns = &mut self.class(applicant.class).turns;
        turns.push(applicant.client, applicant.vouched, (ticket.number, waiter));
        ticket
    }

    /// He does not wait any longer, or has been given a slot already.
    pub(super) fn leave(&mut self, Ticket { applicant, number }: Ticket) {
        self.class(applicant.class).turns.remove(applicant.client, applicant.vouched, number);
    }

    /// Gives a slot to somebody who waits, and says to whom.
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

    /// A slot comes back.
    pub(super) fn free(&mut self, held: Held) {
        *self.held.of_mut(held.vouched) -= 1;
        if held.stays == Stays::Returning {
            *self.returning.of_mut(held.vouched) -= 1;
        }
    }

    /// Somebody is vouched for in a transaction that had nobody.
    pub(super) fn vouch(&mut self, stays: Stays) {
        self.free(Held { vouched: Vouched::No, stays });
        *self.held.of_mut(Vouched::Yes) += 1;
        if stays == Stays::Returning {
            *self.returning.of_mut(Vouched::Yes) += 1;
        }
    }

    /// Whether somebody waits whom such a slot would help, besides those who get one that is on its way back.
    pub(super) fn is_wanted(&self, vouched: Vouched) -> bool {
        let unvouched = match vouched {
            // It makes room in the share as well.
            Vouched::No => self.waiting(Vouched::No),
            Vouched::Yes => {
                let room = self.share() + self.returning.of(Vouched::No);
                self.waiting(Vouched::No).min(room.saturating_sub(*self.held.of(Vouched::No)))
            }
        };
        let helped = self.waiting(Vouched::Yes) + unvouched;
        // After a limit was lowered the first ones that come back help nobody yet.
        let too_many = self.held().saturating_sub(self.limit());
        helped > 0 && self.returning.total() < helped + too_many
    }

    /// One that is kept so far is given back.
    pub(super) fn returns(&mut self, vouched: Vouched) {
        *self.returning.of_mut(vouched) += 1;
    }

    /// One that was to be given back is kept after all.
    pub(super) fn stays(&mut self, vouched: Vouched) {
        *self.returning.of_mut(vouched) -= 1;
    }

    /// The host takes no more than `allowed`.
    pub(super) fn refused(&mut self, allowed: usize, now: Instant) -> Refused {
        let before = self.fewer.replace(Fewer::refused(self.fewer, allowed, now));
        before.map_or(Refused::First, |_| Refused::Again)
    }

    /// When [`Self::rise`] is due, if the host has refused one.
    pub(super) fn rises(&self) -> Option<Instant> {
        self.fewer.map(|fewer| fewer.rises())
    }

    /// Time has passed; when it is due again.
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
