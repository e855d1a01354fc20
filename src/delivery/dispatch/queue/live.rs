//! One live message in the queue: its recipients, and which of them are busy. `queue` asks; no I/O.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::lane::Lane;
use super::{Known, Rank, Rules, Ticket, missing_connector};
use crate::delivery::dispatch::branch;
use crate::report::waiting::Counted;
use crate::smtp::domain::Domain;
use crate::spool::entry::{Entry, State};
use crate::time::UnixTime;

/// One live message.
pub(super) struct Live {
    /// As the spool has it, but for ways that were decided again since.
    pub(super) entry: Arc<Entry>,
    /// Beside `entry.recipients`.
    pub(super) slots: Vec<Slot>,
    /// Whether an operator dropped it while an attempt was under way.
    pub(super) dropped: bool,
    /// As a report that a stranger caused.
    pub(super) _counted: Option<Counted>,
}

/// One recipient, beside its entry.
#[derive(Clone, Default)]
pub(super) struct Slot {
    /// Whose it is while an attempt is under way or its outcome is being made durable.
    pub(super) busy: Option<Ticket>,
    /// What is known of it.
    pub(super) known: Known,
}

/// What a message gave.
#[derive(Default)]
pub(super) struct Taken {
    /// The branch: positions, and what is known of them.
    pub(super) recipients: Vec<(usize, Known)>,
    /// Domains that have no room for what is due of theirs.
    pub(super) full: Vec<Domain>,
    /// Whether more is due, and has room.
    pub(super) rest: bool,
}

impl Live {
    /// Before what it goes.
    pub(super) fn rank(&self) -> Rank {
        Rank::of(&self.entry.origin)
    }

    /// The next branch of this message on this connector for which there is room, made busy; empty if there is none.
    pub(super) fn take(
        &mut self,
        connector: &str,
        lane: &Lane,
        (rules, now): (Rules, UnixTime),
        ticket: Ticket,
    ) -> Taken {
        if self.dropped {
            return Taken::default();
        }
        let (recipients, slots) = (&self.entry.recipients, &self.slots);
        let is_ready = |at: usize| {
            slots.get(at).is_some_and(|slot| slot.busy.is_none())
                && recipients.get(at).is_some_and(|queued| match &queued.state {
                    State::Waiting { next_attempt, .. } => *next_attempt <= now,
                    State::Held(why) => *why == missing_connector(connector),
                    State::Done(_) => false,
                })
        };
        let mut full: Vec<Domain> = Vec::new();
        let mut ready = BTreeSet::new();
        let on_connector = recipients.iter().enumerate().filter(|(_, queued)| &*queued.route.connector == connector);
        for (at, queued) in on_connector.filter(|(at, _)| is_ready(*at)) {
            let domain = &queued.route.next_hop_domain;
            if !rules.by_domain() || lane.has_room(domain, rules.limit) {
                ready.insert(at);
            } else if !full.contains(domain) {
                full.push(domain.clone());
            }
        }
        let members = branch::members(recipients, connector, rules.grouping, |at| ready.contains(&at));
        let rest = members.len() < ready.len();
        let taken = |at: usize| {
            let slot = self.slots.get_mut(at)?;
            slot.busy = Some(ticket);
            Some((at, slot.known.clone()))
        };
        Taken { recipients: members.into_iter().filter_map(taken).collect(), full, rest }
    }

    /// Makes those of these recipients busy that wait and are free: positions, and what is known of them.
    pub(super) fn hold(&mut self, recipients: &[usize], ticket: Ticket) -> Vec<(usize, Known)> {
        let mut held = Vec::with_capacity(recipients.len());
        for &at in recipients {
            if let (Some(queued), Some(slot)) = (self.entry.recipients.get(at), self.slots.get_mut(at))
                && matches!(queued.state, State::Waiting { .. })
                && slot.busy.is_none()
            {
                slot.busy = Some(ticket);
                held.push((at, slot.known.clone()));
            }
        }
        held
    }
}
