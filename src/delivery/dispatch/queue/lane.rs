//! One send connector's share of the queue: what is due, and how many places are taken. `queue` asks; no I/O.
//!
//! A hint is (due time, message): what it leads to is checked when it is taken, so hints that nothing belongs to any
//! more are simply dropped.
//!
//! Where every domain has next hops of its own (its MX), a domain whose servers accept and then say nothing would in
//! time hold every place of the connector. So one domain may have half of the places that the others leave, and one
//! at least; what is due beyond that is parked until the domain has room.
//!
//! Reports that strangers caused have hints of their own, and at most half of the places: servers that are slow on purpose
//! are not to keep other mail from them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

use super::Rules;
use super::pace::Rank;
use crate::delivery::dispatch::branch::Grouping;
use crate::message::queue_id::QueueId;
use crate::smtp::domain::Domain;
use crate::time::UnixTime;

/// When something may be due, and in which message.
pub(super) type Hint = (UnixTime, QueueId);

/// One connector's share of the queue.
#[derive(Default)]
pub(super) struct Lane {
    mail: Hints,
    reports: Hints,
    running: usize,
    /// Of these, attempts on reports that strangers caused.
    running_reports: usize,
    /// Attempts under way for each domain, where domains share the places. No number is 0.
    running_for: HashMap<Domain, usize>,
    /// Messages to be tried, by age.
    pub(super) waiting: BTreeSet<Hint>,
    /// Of these, reports that strangers caused.
    pub(super) waiting_reports: BTreeSet<Hint>,
    /// Messages held, by age.
    pub(super) held: BTreeSet<Hint>,
}

/// The hints of one rank.
#[derive(Default)]
struct Hints {
    due: BinaryHeap<Reverse<Hint>>,
    /// What was due when its domain had no room. No set is empty.
    parked: HashMap<Domain, BTreeSet<Hint>>,
}

impl Hints {
    /// The one that is due first and may have room, and its domain where it was parked.
    fn first(&self, now: UnixTime, has_room: impl Fn(&Domain) -> bool) -> Option<(Hint, Option<&Domain>)> {
        let due = self.due.peek().map(|due| due.0).filter(|due| due.0 <= now);
        let with_room = self.parked.iter().filter(|(domain, _)| has_room(domain));
        let parked = with_room.filter_map(|(domain, hints)| Some((*hints.first()?, domain))).min();
        match (due, parked) {
            (due, Some((hint, domain))) if due.is_none_or(|due| hint <= due) => Some((hint, Some(domain))),
            (due, _) => Some((due?, None)),
        }
    }

    fn remove(&mut self, hint: Hint, parked: Option<&Domain>) {
        let Some(domain) = parked else {
            self.due.pop();
            return;
        };
        if let Some(hints) = self.parked.get_mut(domain) {
            hints.remove(&hint);
            if hints.is_empty() {
                self.parked.remove(domain);
            }
        }
    }
}

impl Lane {
    fn hints(&self, rank: Rank) -> &Hints {
        match rank {
            Rank::Mail => &self.mail,
            Rank::StrangersReport => &self.reports,
        }
    }

    fn hints_mut(&mut self, rank: Rank) -> &mut Hints {
        match rank {
            Rank::Mail => &mut self.mail,
            Rank::StrangersReport => &mut self.reports,
        }
    }

    /// Something in this message may be due.
    pub(super) fn push(&mut self, rank: Rank, hint: Hint) {
        self.hints_mut(rank).due.push(Reverse(hint));
    }

    /// Something was due for this domain, which had no room.
    pub(super) fn park(&mut self, rank: Rank, domain: Domain, hint: Hint) {
        self.hints_mut(rank).parked.entry(domain).or_default().insert(hint);
    }

    /// The hint that is due first and may have room.
    pub(super) fn first(&self, rank: Rank, limit: usize, now: UnixTime) -> Option<Hint> {
        self.hints(rank).first(now, |domain| self.has_room(domain, limit)).map(|(hint, _)| hint)
    }

    /// Takes it.
    pub(super) fn take(&mut self, rank: Rank, limit: usize, now: UnixTime) -> Option<Hint> {
        let (hint, parked) = self.hints(rank).first(now, |domain| self.has_room(domain, limit))?;
        let parked = parked.cloned();
        self.hints_mut(rank).remove(hint, parked.as_ref());
        Some(hint)
    }

    /// Whether another attempt may begin.
    pub(super) fn has_place(&self, rank: Rank, limit: usize) -> bool {
        self.running < limit
            && match rank {
                Rank::Mail => true,
                Rank::StrangersReport => self.running_reports < (limit / 2).max(1),
            }
    }

    /// When the next hint is due, those that are parked apart: an attempt that ends wakes them.
    pub(super) fn next_due(&self, rank: Rank) -> Option<UnixTime> {
        self.hints(rank).due.peek().map(|due| due.0.0)
    }

    /// Whether a domain may have another of the places.
    pub(super) fn has_room(&self, domain: &Domain, limit: usize) -> bool {
        let its = self.running_for.get(domain).copied().unwrap_or(0);
        let others = self.running.saturating_sub(its);
        its < (limit.saturating_sub(others) / 2).max(1)
    }

    /// An attempt begins; `domain` where domains share the places.
    pub(super) fn begun(&mut self, rank: Rank, domain: Option<&Domain>) {
        self.running += 1;
        self.running_reports += usize::from(rank == Rank::StrangersReport);
        if let Some(domain) = domain {
            *self.running_for.entry(domain.clone()).or_default() += 1;
        }
    }

    /// It is over.
    pub(super) fn finished(&mut self, rank: Rank, domain: Option<&Domain>) {
        self.running = self.running.saturating_sub(1);
        self.running_reports = self.running_reports.saturating_sub(usize::from(rank == Rank::StrangersReport));
        if let Some(domain) = domain
            && let Some(running) = self.running_for.get_mut(domain)
        {
            *running -= 1;
            if *running == 0 {
                self.running_for.remove(domain);
            }
        }
    }
}

impl Rules {
    /// Whether domains share the places.
    pub(super) fn by_domain(self) -> bool {
        self.grouping == Grouping::ByDomain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_has_half_of_what_others_leave() {
        for (limit, others, its, room) in [
            (20, 0, 9, true),
            (20, 0, 10, false),
            (20, 10, 4, true),
            (20, 10, 5, false),
            (20, 15, 2, false),
            (20, 19, 0, true),
            (20, 18, 1, false),
            (3, 0, 1, false),
            (1, 0, 0, true),
        ] {
            let [domain, other] = ["contoso.com", "fabrikam.com"].map(|name| Domain::parse(name).unwrap());
            let mut lane = Lane::default();
            (0..its).for_each(|_| lane.begun(Rank::Mail, Some(&domain)));
            (0..others).for_each(|_| lane.begun(Rank::Mail, Some(&other)));
            assert_eq!(lane.has_room(&domain, limit), room, "{limit} {others} {its}");
        }
    }
}
