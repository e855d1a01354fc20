//! A message in memory: its recipients, and which of them are busy. `queue` uses it; no I/O.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::hints::Due;
use super::{Known, Rules, Ticket, Turn};
use crate::delivery::dispatch::branch;
use crate::spool::entry::outline::group;
use crate::spool::entry::{Entry, HeldFor, RecipientState, Why};
use crate::time::UnixTime;

pub(super) struct Live {
    /// As in the spool.
    pub(super) entry: Arc<Entry>,
    /// Parallel to `entry.recipients`.
    pub(super) slots: Vec<Slot>,
    /// Whether an operator dropped it during an attempt.
    pub(super) dropped: bool,
    /// Whether more is known of it than the spool has: it stays in memory for a while.
    pub(super) recent: bool,
}

/// The state of one recipient beside its entry.
#[derive(Clone, Default)]
pub(super) struct Slot {
    /// Set while an attempt is in progress or its outcome is being made durable.
    pub(super) busy: Option<Ticket>,
    pub(super) known: Known,
}

/// The branch that was taken from a message.
pub(super) struct Taken {
    /// Positions, and what is known of them.
    pub(super) recipients: Vec<(usize, Known)>,
    /// Whether more is due.
    pub(super) rest: bool,
}

impl Live {
    /// For a message as the spool has it.
    pub(super) fn read(entry: Entry) -> Self {
        let slots = vec![Slot::default(); entry.recipients.len()];
        Self { entry: Arc::new(entry), slots, dropped: false, recent: false }
    }

    /// For a new message.
    pub(super) fn new(entry: Entry, known: &Known) -> Self {
        let slots = vec![Slot { busy: None, known: known.clone() }; entry.recipients.len()];
        Self { entry: Arc::new(entry), slots, dropped: false, recent: true }
    }

    /// Whether it can be removed from memory without losing anything.
    pub(super) fn is_idle(&self) -> bool {
        let is_free = !self.dropped && !self.recent && self.slots.iter().all(|slot| slot.busy.is_none());
        is_free || self.entry.is_finished()
    }

    /// Whether a recipient waits and is free.
    pub(super) fn has_free(&self) -> bool {
        let mut both = self.entry.recipients.iter().zip(&self.slots);
        both.any(|(queued, slot)| matches!(queued.state, RecipientState::Waiting(_)) && slot.busy.is_none())
    }

    /// For each recipient: whether it is free and waits for a time after `now`.
    pub(super) fn wait_after(&self, now: UnixTime) -> impl Iterator<Item = bool> {
        let both = self.entry.recipients.iter().zip(&self.slots);
        both.map(move |(queued, slot)| match &queued.state {
            RecipientState::Waiting(waiting) => slot.busy.is_none() && waiting.next_attempt > now,
            RecipientState::Held(_) | RecipientState::Done(_) => false,
        })
    }

    /// Takes the next branch of this message on the turn's connector (for the turn's domain, where domains share slots)
    /// and makes it busy; empty if nothing is due.
    pub(super) fn take(&mut self, turn: &Turn, rules: Rules, now: UnixTime) -> Taken {
        let Turn { ticket, ref connector, group: of, due, .. } = *turn;
        let (recipients, slots) = (&self.entry.recipients, &self.slots);
        let is_due = |at: usize| {
            slots.get(at).is_some_and(|slot| slot.busy.is_none())
                && recipients.get(at).is_some_and(|queued| match &queued.state {
                    RecipientState::Waiting(waiting) => {
                        due == Due::RETRY
                            || (due == Due::BACK && waiting.why.ends_with_the_outage())
                            || (due == Due::GONE && waiting.why != Why::InDoubt)
                            || waiting.next_attempt <= now
                    }
                    RecipientState::Held(why) => *why == HeldFor::NoConnector,
                    RecipientState::Done(_) => false,
                })
        };
        let on_connector = recipients.iter().enumerate().filter(|(_, queued)| queued.route.connector == *connector);
        let all: BTreeSet<usize> = on_connector.map(|(at, _)| at).filter(|at| !self.dropped && is_due(*at)).collect();
        let is_meant =
            |at: &&usize| recipients.get(**at).is_some_and(|queued| group(&queued.route.next_hop_domain) == of);
        let ready: BTreeSet<usize> = match rules.by_domain() && of != 0 {
            true => all.iter().filter(is_meant).copied().collect(),
            false => all.clone(),
        };
        let members = branch::members(recipients, connector, rules.grouping, |at| ready.contains(&at));
        let rest = members.len() < ready.len();
        let taken = |at: usize| {
            let slot = self.slots.get_mut(at)?;
            slot.busy = Some(ticket);
            Some((at, slot.known.clone()))
        };
        Taken { recipients: members.into_iter().filter_map(taken).collect(), rest }
    }

    /// Makes those of these recipients busy that wait and are free; returns positions, and what is known of them.
    pub(super) fn hold(&mut self, recipients: &[usize], ticket: Ticket) -> Vec<(usize, Known)> {
        let mut held = Vec::with_capacity(recipients.len());
        for &at in recipients {
            if let (Some(queued), Some(slot)) = (self.entry.recipients.get(at), self.slots.get_mut(at))
                && matches!(queued.state, RecipientState::Waiting(_))
                && slot.busy.is_none()
            {
                slot.busy = Some(ticket);
                held.push((at, slot.known.clone()));
            }
        }
        held
    }
}
