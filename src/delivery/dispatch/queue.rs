//! All live messages in memory: which branch may be tried now, and when the next one may. `dispatch` locks it, asks
//! and tells; it does no I/O.
//!
//! Each send connector has a lane: a heap of (due time, message) and the number of attempts under way, so that a
//! queue of a hundred thousand is never searched and no connector waits for another. A heap item is a hint: what it
//! leads to is checked when it is taken, so items that nothing belongs to any more are simply dropped.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;

use super::basis::Basis;
use super::branch::{self, Grouping};
use crate::message::queue_id::QueueId;
use crate::routing::verdict::Route;
use crate::spool::entry::{Entry, Outcome, State};
use crate::time::UnixTime;

/// What the queue shows of mail whose connector is gone; only mail that is held for this reason is released by itself.
pub(super) fn missing_connector(connector: &str) -> String {
    format!("send connector `{connector}` no longer exists; write it again, or move the recipients to another one")
}

/// One live message.
pub(super) struct Live {
    /// As the spool has it, but for ways that were decided again since.
    pub(super) entry: Arc<Entry>,
    /// Beside `entry.recipients`.
    slots: Vec<Slot>,
    /// Whether an operator dropped it while an attempt was under way.
    dropped: bool,
}

/// One recipient, beside its entry.
#[derive(Clone, Default)]
struct Slot {
    /// Whose it is while an attempt is under way or its outcome is being made durable.
    busy: Option<Ticket>,
    known: Known,
}

/// What is known of one recipient besides its entry. It is not durable: at worst a way is decided once more.
#[derive(Clone, Default)]
pub(super) struct Known {
    /// What its way was decided by; `None`: before this process.
    pub(super) basis: Option<Basis>,
    /// Its way was decided again and not tried yet.
    pub(super) fresh: bool,
    /// Its way is another one than the spool has.
    pub(super) rerouted: bool,
    /// A next hop's "unknown recipient" led to this way; it does so once.
    pub(super) followed: bool,
}

/// Who holds recipients: an attempt, or a drop. Each has its own, so that a late release frees nothing of another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ticket(u64);

/// One connector's share of the queue.
#[derive(Default)]
struct Lane {
    due: BinaryHeap<Reverse<(UnixTime, QueueId)>>,
    running: usize,
    waiting: BTreeSet<(UnixTime, QueueId)>,
    held: BTreeSet<(UnixTime, QueueId)>,
}

/// What a lane may do: from the configuration in force.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Attempts at once.
    pub(super) limit: usize,
    /// How recipients share an attempt.
    pub(super) grouping: Grouping,
}

/// One branch that is to be tried now. Its recipients are busy until they are released or changed.
pub(super) struct Picked {
    /// Who holds its recipients.
    pub(super) ticket: Ticket,
    /// As it stood.
    pub(super) entry: Arc<Entry>,
    /// The lane.
    pub(super) connector: Arc<str>,
    /// Positions in the entry and what is known of them.
    pub(super) recipients: Vec<(usize, Known)>,
}

/// Recipients of a dropped message, held by the drop.
pub(super) struct Dropping {
    /// Who holds them.
    pub(super) ticket: Ticket,
    /// The message.
    pub(super) entry: Arc<Entry>,
    /// Positions.
    pub(super) recipients: Vec<usize>,
}

/// What became of one recipient, for the memory.
pub(super) struct Update {
    /// Its position.
    pub(super) recipient: usize,
    /// Its state now.
    pub(super) state: State,
    /// Its way now.
    pub(super) route: Route,
    /// What is known of it now.
    pub(super) known: Known,
}

/// What one lane shows of itself.
pub(super) struct Shown<'a> {
    /// The connector.
    pub(super) connector: &'a str,
    /// Branches to be tried.
    pub(super) waiting: usize,
    /// Branches held.
    pub(super) held: usize,
    /// When the oldest message of either was taken.
    pub(super) oldest: Option<UnixTime>,
}

/// All live messages.
#[derive(Default)]
pub(super) struct Queue {
    live: HashMap<QueueId, Live>,
    lanes: HashMap<Arc<str>, Lane>,
    last_ticket: Ticket,
}

impl Queue {
    /// Takes a message in. `basis`: what its ways were decided by, where that is known.
    pub(super) fn insert(&mut self, entry: Entry, basis: Option<&Basis>) {
        let known = Known { basis: basis.cloned(), ..Known::default() };
        let slot = Slot { busy: None, known };
        let slots = vec![slot; entry.recipients.len()];
        let id = entry.id;
        self.live.insert(id, Live { entry: Arc::new(entry), slots, dropped: false });
        self.index(id);
    }

    /// Takes what is due, as far as each connector's limit allows.
    pub(super) fn pick(&mut self, rules: impl Fn(&str) -> Rules, now: UnixTime) -> Vec<Picked> {
        let mut picked = Vec::new();
        for (connector, lane) in &mut self.lanes {
            let rules = rules(connector);
            while lane.running < rules.limit {
                let Some(due) = lane.due.peek().filter(|due| due.0.0 <= now).map(|due| due.0) else { break };
                let ticket = self.last_ticket.next();
                let taken = self.live.get_mut(&due.1).map(|live| (live.take(connector, (rules, now), ticket), live));
                let Some((recipients, live)) = taken.filter(|(recipients, _)| !recipients.is_empty()) else {
                    lane.due.pop(); // nothing is left of what it stood for
                    continue;
                };
                lane.running += 1;
                picked.push(Picked { ticket, entry: live.entry.clone(), connector: connector.clone(), recipients });
            }
        }
        picked
    }

    /// When the next one is due, among connectors that have room.
    pub(super) fn next_due(&self, rules: impl Fn(&str) -> Rules) -> Option<UnixTime> {
        let with_room = self.lanes.iter().filter(|(connector, lane)| lane.running < rules(connector).limit);
        with_room.filter_map(|(_, lane)| lane.due.peek().map(|due| due.0.0)).min()
    }

    /// An attempt on this connector is over.
    pub(super) fn finished(&mut self, connector: &str) {
        if let Some(lane) = self.lanes.get_mut(connector) {
            lane.running = lane.running.saturating_sub(1);
        }
    }

    /// Takes over what became of recipients and frees them. A message whose last recipient is done leaves.
    pub(super) fn update(&mut self, id: QueueId, updates: Vec<Update>) {
        if updates.is_empty() {
            return;
        }
        self.unindex(id);
        if let Some(live) = self.live.get_mut(&id) {
            let entry = Arc::make_mut(&mut live.entry);
            for update in updates {
                let (Some(queued), Some(slot)) =
                    (entry.recipients.get_mut(update.recipient), live.slots.get_mut(update.recipient))
                else {
                    continue;
                };
                queued.state = update.state;
                queued.route = update.route;
                *slot = Slot { busy: None, known: update.known };
            }
            if entry.recipients.iter().all(|queued| matches!(queued.state, State::Done(_))) {
                self.live.remove(&id);
            }
        }
        self.index(id);
    }

    /// Frees the recipients that are still held with this ticket: their attempt ended without an outcome. They are due
    /// at `again`.
    pub(super) fn release(&mut self, id: QueueId, ticket: Ticket, again: UnixTime) {
        let Some(live) = self.live.get_mut(&id) else { return };
        if !live.slots.iter().any(|slot| slot.busy == Some(ticket)) {
            return;
        }
        let recipients = &mut Arc::make_mut(&mut live.entry).recipients;
        for (queued, slot) in recipients.iter_mut().zip(&mut live.slots).filter(|(_, slot)| slot.busy == Some(ticket)) {
            slot.busy = None;
            if let State::Waiting { next_attempt, .. } = &mut queued.state {
                *next_attempt = again;
            }
        }
        self.index(id);
    }

    /// Makes waiting recipients due now; how many messages have some.
    pub(super) fn retry(&mut self, only: Option<QueueId>, now: UnixTime) -> usize {
        let ids: Vec<_> = match only {
            Some(id) => vec![id],
            None => self.live.keys().copied().collect(),
        };
        ids.into_iter().filter(|id| self.retry_one(*id, now)).count()
    }

    /// Makes messages due now that wait for a connector which is gone: they are held, or find another way, at once.
    pub(super) fn retry_orphans(&mut self, exists: impl Fn(&str) -> bool, now: UnixTime) {
        let orphaned = self.lanes.iter().filter(|(connector, _)| !exists(connector));
        let ids: Vec<_> = orphaned.flat_map(|(_, lane)| lane.waiting.iter().map(|(_, id)| *id)).collect();
        ids.into_iter().for_each(|id| _ = self.retry_one(id, now));
    }

    fn retry_one(&mut self, id: QueueId, now: UnixTime) -> bool {
        let Some(live) = self.live.get_mut(&id) else { return false };
        let mut some = false;
        for (queued, slot) in Arc::make_mut(&mut live.entry).recipients.iter_mut().zip(&live.slots) {
            if let (State::Waiting { next_attempt, .. }, None) = (&mut queued.state, slot.busy) {
                *next_attempt = (*next_attempt).min(now);
                some = true;
            }
        }
        if some {
            self.index(id);
        }
        some
    }

    /// Mail that is held for want of its connector is looked at again now.
    pub(super) fn look_at_held(&mut self, now: UnixTime) {
        for lane in self.lanes.values_mut() {
            lane.due.extend(lane.held.iter().map(|(_, id)| Reverse((now, *id))));
        }
    }

    /// Marks a message dropped and takes those of its recipients that nothing is under way for.
    pub(super) fn begin_drop(&mut self, id: QueueId) -> Option<Dropping> {
        self.live.get_mut(&id)?.dropped = true;
        self.rest_of_dropped(id)
    }

    /// Whether an operator dropped it.
    pub(super) fn is_dropped(&self, id: QueueId) -> bool {
        self.live.get(&id).is_some_and(|live| live.dropped)
    }

    /// The recipients of a dropped message that nothing is under way for (any more).
    pub(super) fn rest_of_dropped(&mut self, id: QueueId) -> Option<Dropping> {
        let ticket = self.last_ticket.next();
        let live = self.live.get_mut(&id).filter(|live| live.dropped)?;
        Some(Dropping { ticket, entry: live.entry.clone(), recipients: live.take_unfinished(ticket) })
    }

    /// The drop is durable.
    pub(super) fn dropped(&mut self, dropping: &Dropping) {
        let gone = |&recipient: &usize| {
            let route = dropping.entry.recipients.get(recipient)?.route.clone();
            Some(Update { recipient, state: State::Done(Outcome::Dropped), route, known: Known::default() })
        };
        self.update(dropping.entry.id, dropping.recipients.iter().filter_map(gone).collect());
    }

    /// The drop could not be made durable: the message stays.
    pub(super) fn undo_drop(&mut self, dropping: &Dropping, now: UnixTime) {
        if let Some(live) = self.live.get_mut(&dropping.entry.id) {
            live.dropped = false;
        }
        self.release(dropping.entry.id, dropping.ticket, now);
    }

    /// All messages, oldest first.
    pub(super) fn list(&self) -> Vec<Entry> {
        let mut all: Vec<_> = self.live.values().map(|live| live.entry.clone()).collect();
        all.sort_by_key(|entry| (entry.received_at, entry.id));
        all.iter().map(|entry| Entry::clone(entry)).collect()
    }

    /// One message.
    pub(super) fn get(&self, id: QueueId) -> Option<Entry> {
        self.live.get(&id).map(|live| Entry::clone(&live.entry))
    }

    /// What each lane shows of itself.
    pub(super) fn shown(&self) -> impl Iterator<Item = Shown<'_>> {
        self.lanes.iter().map(|(connector, lane)| Shown {
            connector,
            waiting: lane.waiting.len(),
            held: lane.held.len(),
            oldest: lane.waiting.first().into_iter().chain(lane.held.first()).map(|first| first.0).min(),
        })
    }

    /// Enters a message into the lanes of its recipients.
    fn index(&mut self, id: QueueId) {
        let Some(live) = self.live.get(&id) else { return };
        let member = (live.entry.received_at, id);
        let mut hints = BTreeSet::new();
        for (queued, slot) in live.entry.recipients.iter().zip(&live.slots) {
            let connector = &queued.route.connector;
            let due = match &queued.state {
                State::Done(_) => continue,
                State::Waiting { next_attempt, .. } => {
                    self.lanes.entry(connector.clone()).or_default().waiting.insert(member);
                    *next_attempt
                }
                State::Held(_) => {
                    self.lanes.entry(connector.clone()).or_default().held.insert(member);
                    continue; // until `look_at_held`
                }
            };
            if slot.busy.is_none() {
                hints.insert((connector.clone(), due));
            }
        }
        for (connector, due) in hints {
            self.lanes.entry(connector).or_default().due.push(Reverse((due, id)));
        }
    }

    /// Takes a message out of what the lanes show; hints are left to be dropped when they are met.
    fn unindex(&mut self, id: QueueId) {
        let Some(live) = self.live.get(&id) else { return };
        let member = (live.entry.received_at, id);
        for queued in &live.entry.recipients {
            if let Some(lane) = self.lanes.get_mut(&queued.route.connector) {
                lane.waiting.remove(&member);
                lane.held.remove(&member);
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

impl Live {
    /// The next branch of this message on this connector, made busy; empty if there is none.
    fn take(&mut self, connector: &str, (rules, now): (Rules, UnixTime), ticket: Ticket) -> Vec<(usize, Known)> {
        if self.dropped {
            return Vec::new();
        }
        let slots = &self.slots;
        let ready = |at: usize| {
            slots.get(at).is_some_and(|slot| slot.busy.is_none())
                && self.entry.recipients.get(at).is_some_and(|queued| match &queued.state {
                    State::Waiting { next_attempt, .. } => *next_attempt <= now,
                    State::Held(why) => *why == missing_connector(connector),
                    State::Done(_) => false,
                })
        };
        let members = branch::members(&self.entry.recipients, connector, rules.grouping, ready);
        let taken = |at: usize| {
            let slot = self.slots.get_mut(at)?;
            slot.busy = Some(ticket);
            Some((at, slot.known.clone()))
        };
        members.into_iter().filter_map(taken).collect()
    }

    fn take_unfinished(&mut self, ticket: Ticket) -> Vec<usize> {
        let mut taken = Vec::new();
        for (at, (queued, slot)) in self.entry.recipients.iter().zip(&mut self.slots).enumerate() {
            if slot.busy.is_none() && !matches!(queued.state, State::Done(_)) {
                slot.busy = Some(ticket);
                taken.push(at);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests;
