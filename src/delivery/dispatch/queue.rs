//! The waiting messages: which branch may be tried now, and when the next one may. `dispatch` uses it under a lock; it
//! does no I/O.
//!
//! Each send connector has a [`lane`]: hints of what is due when, and the number of attempts in progress, so that a
//! queue of a million is never searched and no connector waits for another. A message is in memory ([`live`]) only
//! while an attempt is in progress, and for a while when it is new; otherwise the spool has it, and the queue a hint of
//! some twenty octets. Reports come after all mail that is due, those about strangers' messages at a [`pace`] that all
//! lanes share.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

pub(super) use self::hints::Due;
use self::hints::Hint;
use self::lane::Lane;
use self::live::{Live, Slot};
use self::pace::Pace;
use super::basis::Basis;
use super::branch::Grouping;
use crate::delivery::health::Back;
use crate::message::queue_id::QueueId;
use crate::report::waiting::{Counted, Waiting};
use crate::routing::verdict::Route;
use crate::spool::entry::outline::{Kind, Outline, Standing, Waits, group};
use crate::spool::entry::{Entry, HeldFor, RecipientState, Why};
use crate::time::UnixTime;

mod by_group;
mod dropping;
mod hints;
mod lane;
mod live;
mod loading;
mod pace;
mod picking;

pub(super) use dropping::Dropping;

/// What is known of a recipient beside its entry. Not durable: if it is lost, a route is decided again.
#[derive(Clone, Default)]
pub(super) struct Known {
    /// What its route was decided by; `None`: by an earlier process.
    pub(super) basis: Option<Basis>,
    /// Whether its route was decided again and has not been tried.
    pub(super) fresh: bool,
}

/// Identifies who keeps recipients busy: an attempt or a drop. Each has its own, so that a late release does not free
/// another one's recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ticket(u64);

/// A lane's limits, from the configuration in force.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The most concurrent attempts.
    pub(super) limit: usize,
    pub(super) grouping: Grouping,
    /// The most attempts in a minute on reports about strangers' messages, over all lanes; `None`: they are not
    /// counted, because none leaves from this lane.
    pub(super) reports_per_minute: Option<usize>,
}

/// A slot on a connector for one message. It is freed with [`Queue::gives_place`].
#[derive(Debug)]
pub(super) struct Turn {
    /// For the recipients that it will keep busy.
    pub(super) ticket: Ticket,
    pub(super) id: QueueId,
    pub(super) kind: Kind,
    pub(super) connector: Arc<str>,
    /// The group whose slot it has, where domains share the lane's slots.
    group: u32,
    due: Due,
}

/// A branch to be tried now. Its recipients are busy until they are released or updated.
pub(super) struct Picked {
    /// With the state before the attempt.
    pub(super) entry: Arc<Entry>,
    pub(super) connector: Arc<str>,
    /// Positions in the entry, and what is known of them.
    pub(super) recipients: Vec<(usize, Known)>,
}

/// Recipients of one message that are under way elsewhere. They are busy until they are released or updated.
pub(super) struct Held {
    pub(super) ticket: Ticket,
    pub(super) id: QueueId,
    /// Positions in the entry, and what is known of them.
    pub(super) recipients: Vec<(usize, Known)>,
}

/// A recipient's new state, for the memory.
pub(super) struct Update {
    pub(super) recipient: usize,
    pub(super) state: RecipientState,
    pub(super) route: Route,
    pub(super) known: Known,
}

/// Whether a next hop that was tried answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It answered, with any reply.
    Answer,
    Nothing,
}

/// A lane's figures for gauges.
pub(super) struct Shown<'a> {
    pub(super) connector: &'a str,
    pub(super) waiting: usize,
    /// In addition, reports about strangers' messages.
    pub(super) waiting_reports: usize,
    pub(super) held: usize,
    /// The oldest message, without reports about strangers' messages.
    pub(super) oldest: Option<QueueId>,
}

#[derive(Default)]
pub(super) struct Queue {
    lanes: HashMap<Arc<str>, Lane>,
    live: HashMap<QueueId, Live>,
    /// New ones of these, oldest first; some may have been tried.
    recent: VecDeque<QueueId>,
    /// How many turns each message has: it stays in memory during those, so that all see the same state.
    turns: HashMap<QueueId, usize>,
    last_ticket: Ticket,
    pace: Pace,
    reports: Waiting,
    /// Counts of reports about strangers' messages, to be dropped with them.
    counted: HashMap<QueueId, Counted>,
}

impl Queue {
    /// A queue that counts reports about strangers' messages in `reports`.
    pub(super) fn counting(reports: Waiting) -> Self {
        Self { reports, ..Self::default() }
    }

    /// Adds a new message. `basis`: what its routes were decided by, if known.
    pub(super) fn insert(&mut self, entry: Entry, basis: Option<&Basis>) {
        let known = Known { basis: basis.cloned(), fresh: false };
        let outline = Outline::of(&entry);
        self.live.insert(entry.id, Live::new(entry, &known));
        self.stays(outline.id);
        self.restore(&outline);
    }

    /// Adds a message that was found at start.
    pub(super) fn restore(&mut self, outline: &Outline) {
        if let Some(counted) = self.reports.count(outline) {
            self.counted.insert(outline.id, counted);
        }
        self.enter(outline, |_| true);
        self.waits_for_hops(outline);
    }

    fn waits_for_hops(&mut self, outline: &Outline) {
        for open in &outline.open {
            if matches!(open.standing, Standing::Waits(Waits { why: Why::Unreachable, .. }))
                && let Some(lane) = self.lanes.get_mut(&open.connector)
            {
                lane.was_unreachable(open.domain);
            }
        }
    }

    /// Makes those of these recipients busy that wait and are free.
    pub(super) fn hold(&mut self, id: QueueId, recipients: &[usize]) -> Held {
        let ticket = self.last_ticket.next();
        let live = self.live.get_mut(&id);
        Held { ticket, id, recipients: live.map(|live| live.hold(recipients, ticket)).unwrap_or_default() }
    }

    /// A turn frees its slot. When it is over as well, [`Queue::ends`] has to be called.
    pub(super) fn gives_place(&mut self, turn: &Turn) {
        if let Some(lane) = self.lanes.get_mut(&turn.connector) {
            lane.finished(turn.kind, turn.group);
        }
    }

    /// A turn is over.
    #[cfg(test)]
    pub(super) fn finished(&mut self, turn: &Turn) {
        self.gives_place(turn);
        self.ends(turn.id);
    }

    /// A next hop of this connector (with MX, of the route's domain) answered, or could not be reached.
    pub(super) fn heard(&mut self, route: &Route, heard: Heard, rules: Rules, now: UnixTime) {
        let Some(lane) = self.lanes.get_mut(&route.connector) else { return };
        let group = group(&route.next_hop_domain);
        match heard {
            Heard::Answer => lane.answered(group, rules, now),
            Heard::Nothing => lane.unreachable(group, rules, now),
        }
    }

    /// A next hop answers again that was down or unknown. With MX, `back` has the domain.
    pub(super) fn hop_is_back(&mut self, back: &Back, rules: Rules, now: UnixTime) {
        let group = match (&back.domain, rules.by_domain()) {
            (Some(domain), true) => group(domain),
            (None, false) => 0,
            (Some(_), false) | (None, true) => return,
        };
        if let Some(lane) = self.lanes.get_mut(&back.connector) {
            lane.is_back(group, rules, now);
        }
    }

    /// Applies recipients' new states and frees them. A message whose last recipient is done is removed.
    pub(super) fn update(&mut self, id: QueueId, updates: Vec<Update>) {
        let Some(live) = self.live.get_mut(&id).filter(|_| !updates.is_empty()) else { return };
        let before = Outline::of(&live.entry);
        let entry = Arc::make_mut(&mut live.entry);
        live.recent = updates.iter().any(|update| update.known.fresh);
        let mut changed = HashSet::new();
        for update in updates {
            let (Some(queued), Some(slot)) =
                (entry.recipients.get_mut(update.recipient), live.slots.get_mut(update.recipient))
            else {
                continue;
            };
            queued.state = update.state;
            queued.route = update.route;
            *slot = Slot { busy: None, known: update.known };
            changed.insert(update.recipient);
        }
        let after = Outline::of(&live.entry);
        if after.open.is_empty() {
            live.recent = false;
            self.counted.remove(&id);
        }
        let is_recent = live.recent;
        self.leave(&before);
        self.enter(&after, |recipient| changed.contains(&recipient));
        if is_recent {
            self.stays(id);
        }
        self.unload(id);
    }

    /// Frees the recipients still held with this ticket, because their attempt ended without a result. They are due at
    /// `again`.
    pub(super) fn release(&mut self, id: QueueId, ticket: Ticket, again: UnixTime) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let mut freed = HashSet::new();
        for (at, slot) in live.slots.iter_mut().enumerate().filter(|(_, slot)| slot.busy == Some(ticket)) {
            slot.busy = None;
            freed.insert(at);
        }
        let entry = Arc::make_mut(&mut live.entry);
        for (_, queued) in entry.recipients.iter_mut().enumerate().filter(|(at, _)| freed.contains(at)) {
            if let RecipientState::Waiting(waiting) = &mut queued.state {
                waiting.next_attempt = again;
            }
        }
        let outline = Outline::of(&live.entry);
        self.enter(&outline, |recipient| freed.contains(&recipient));
        self.unload(id);
    }

    /// Makes waiting recipients of one message due now; returns whether there are any.
    pub(super) fn retry(&mut self, id: QueueId) -> bool {
        if self.live.get(&id).is_some_and(|live| !live.has_free()) {
            return false;
        }
        let lanes = self.lanes.values_mut().filter(|lane| lane.waits(id));
        lanes.map(|lane| lane.hint_now(Kind::Mail, id, Due::RETRY)).count() > 0
    }

    /// Makes due, for this reason, what waits for connectors for which `of` is true; returns how many messages.
    pub(super) fn retry_all(&mut self, of: impl Fn(&str) -> bool, due: Due) -> usize {
        let lanes = self.lanes.iter_mut().filter(|(connector, _)| of(connector));
        let mut ids: Vec<QueueId> = lanes.flat_map(|(_, lane)| lane.retry(due)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| self.live.get(id).is_none_or(Live::has_free));
        ids.len()
    }

    /// Makes mail due that is held because its connector is missing, to be examined.
    pub(super) fn look_at_held(&mut self) {
        for lane in self.lanes.values_mut() {
            let held: Vec<_> = lane.held.iter().copied().collect();
            held.into_iter().for_each(|id| lane.hint_now(Kind::Mail, id, Due::HELD));
        }
    }

    /// A message in memory.
    pub(super) fn get(&self, id: QueueId) -> Option<Entry> {
        self.live.get(&id).map(|live| Entry::clone(&live.entry))
    }

    /// The figures of each lane.
    pub(super) fn shown(&self) -> impl Iterator<Item = Shown<'_>> {
        self.lanes.iter().map(|(connector, lane)| Shown {
            connector,
            waiting: lane.waiting.len(),
            waiting_reports: lane.reports.len(),
            held: lane.held.len(),
            oldest: lane.waiting.first().into_iter().chain(lane.held.first()).min().copied(),
        })
    }

    /// Adds a message to the lanes of its recipients, with hints for those that are new there.
    fn enter(&mut self, outline: &Outline, is_new: impl Fn(usize) -> bool) {
        let mut hints = Vec::new();
        for open in &outline.open {
            let lane = self.lanes.entry(open.connector.clone()).or_default();
            match open.standing {
                Standing::Held(HeldFor::NoConnector | HeldFor::Drop) => _ = lane.held.insert(outline.id),
                Standing::Waits(Waits { due, why, .. }) => {
                    lane.those_that_wait(outline.kind).insert(outline.id);
                    let (due, group) = (Due::at(due), open.domain);
                    let hint = Hint { due, id: outline.id, group, sender: outline.sender };
                    let is_there = |(connector, there, _): &(&Arc<str>, Hint, Why)| {
                        **connector == open.connector && *there == hint
                    };
                    if usize::try_from(open.at).is_ok_and(&is_new) && !hints.iter().any(is_there) {
                        hints.push((&open.connector, hint, why));
                    }
                }
            }
        }
        for (connector, hint, why) in hints {
            if let Some(lane) = self.lanes.get_mut(connector) {
                lane.push(outline.kind, hint, why);
            }
        }
    }

    /// Removes a message from the lanes' figures; its hints are dropped when they come up.
    fn leave(&mut self, outline: &Outline) {
        for open in &outline.open {
            if let Some(lane) = self.lanes.get_mut(&open.connector) {
                lane.those_that_wait(outline.kind).remove(&outline.id);
                lane.held.remove(&outline.id);
            }
        }
    }
}

impl Ticket {
    fn next(&mut self) -> Self {
        self.0 = self.0.wrapping_add(1);
        *self
    }
}

#[cfg(test)]
mod bench;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_reports;
