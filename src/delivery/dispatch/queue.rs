//! What waits: which branch may be tried now, and when the next one may. `dispatch` locks it, asks and tells; it does no
//! I/O.
//!
//! Each send connector has a [`lane`]: hints of what is due when, and the number of attempts under way, so that a queue of a
//! million is never searched and no connector waits for another. A message itself is in memory ([`live`]) only while
//! something is under way for it, and for a while when it is new; else the spool has it, and a hint of some twenty octets
//! stands here. Reports come after all mail that is due, those that strangers caused at a [`pace`] that all lanes share.

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

/// What is known of one recipient besides its entry. It is not durable: at worst a way is decided once more.
#[derive(Clone, Default)]
pub(super) struct Known {
    /// What its way was decided by; `None`: before this process.
    pub(super) basis: Option<Basis>,
    /// Its way was decided again and not tried yet.
    pub(super) fresh: bool,
}

/// Who holds recipients: an attempt, or a drop. Each has its own, so that a late release frees nothing of another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ticket(u64);

/// What a lane may do: from the configuration in force.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Attempts at once.
    pub(super) limit: usize,
    /// How recipients share an attempt.
    pub(super) grouping: Grouping,
    /// Attempts in a minute on reports that strangers caused, of all lanes together; `None`: they do not count, for
    /// nothing leaves here.
    pub(super) reports_per_minute: Option<usize>,
}

/// Somebody's turn: a place on a connector for one message. It is given back with [`Queue::gives_place`].
#[derive(Debug)]
pub(super) struct Turn {
    /// Who will hold its recipients.
    pub(super) ticket: Ticket,
    /// The message.
    pub(super) id: QueueId,
    pub(super) kind: Kind,
    /// The lane.
    pub(super) connector: Arc<str>,
    /// Whose place it has, where domains share the lane's: a number.
    group: u32,
    /// Why it is due.
    due: Due,
}

/// One branch that is to be tried now. Its recipients are busy until they are released or changed.
pub(super) struct Picked {
    /// As it stood.
    pub(super) entry: Arc<Entry>,
    /// The lane.
    pub(super) connector: Arc<str>,
    /// Positions in the entry and what is known of them.
    pub(super) recipients: Vec<(usize, Known)>,
}

/// Recipients of one message that are under way elsewhere. They are busy until they are released or changed.
pub(super) struct Held {
    /// Who holds them.
    pub(super) ticket: Ticket,
    /// The message.
    pub(super) id: QueueId,
    /// Positions in the entry and what is known of them.
    pub(super) recipients: Vec<(usize, Known)>,
}

/// What became of one recipient, for the memory.
pub(super) struct Update {
    /// Its position.
    pub(super) recipient: usize,
    /// Its state now.
    pub(super) state: RecipientState,
    /// Its way now.
    pub(super) route: Route,
    /// What is known of it now.
    pub(super) known: Known,
}

/// What was heard of a next hop that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It answered, whatever it said.
    Answer,
    /// It could not be reached.
    Nothing,
}

/// What one lane shows of itself.
pub(super) struct Shown<'a> {
    pub(super) connector: &'a str,
    /// Branches to be tried.
    pub(super) waiting: usize,
    /// Besides, reports that strangers caused.
    pub(super) waiting_reports: usize,
    /// Branches held.
    pub(super) held: usize,
    /// The oldest message, reports that strangers caused apart.
    pub(super) oldest: Option<QueueId>,
}

/// What waits.
#[derive(Default)]
pub(super) struct Queue {
    lanes: HashMap<Arc<str>, Lane>,
    /// Messages in memory.
    live: HashMap<QueueId, Live>,
    /// New ones of these, oldest first; some may have been tried.
    recent: VecDeque<QueueId>,
    /// How many turns each message has that has some: it stays in memory, so that none of them sees an old state.
    turns: HashMap<QueueId, usize>,
    last_ticket: Ticket,
    pace: Pace,
    reports: Waiting,
    /// Reports that strangers caused, counted there.
    counted: HashMap<QueueId, Counted>,
}

impl Queue {
    /// One that counts there the reports that strangers caused.
    pub(super) fn counting(reports: Waiting) -> Self {
        Self { reports, ..Self::default() }
    }

    /// Takes a new message in. `basis`: what its ways were decided by, where that is known.
    pub(super) fn insert(&mut self, entry: Entry, basis: Option<&Basis>) {
        let known = Known { basis: basis.cloned(), fresh: false };
        let outline = Outline::of(&entry);
        self.live.insert(entry.id, Live::new(entry, &known));
        self.stays(outline.id);
        self.restore(&outline);
    }

    /// Takes in what was found at the start.
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

    /// A turn has its place no longer. Once it is over too, [`Queue::ends`] is called.
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

    /// A next hop of this connector (that of the domain, where it goes by MX) answered, or could not be reached.
    pub(super) fn heard(&mut self, route: &Route, heard: Heard, (rules, now): (Rules, UnixTime)) {
        let Some(lane) = self.lanes.get_mut(&route.connector) else { return };
        let group = group(&route.next_hop_domain);
        match heard {
            Heard::Answer => lane.answered(group, rules, now),
            Heard::Nothing => lane.unreachable(group, rules, now),
        }
    }

    /// A next hop answers that was down, or not known. Where it goes by MX it must be said whose that is.
    pub(super) fn hop_is_back(&mut self, back: &Back, (rules, now): (Rules, UnixTime)) {
        let group = match (&back.domain, rules.by_domain()) {
            (Some(domain), true) => group(domain),
            (None, false) => 0,
            (Some(_), false) | (None, true) => return,
        };
        if let Some(lane) = self.lanes.get_mut(&back.connector) {
            lane.is_back(group, rules, now);
        }
    }

    /// Takes over what became of recipients and frees them. A message whose last recipient is done leaves.
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

    /// Frees the recipients that are still held with this ticket: their attempt ended without an outcome. They are due
    /// at `again`.
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

    /// Makes waiting recipients of one message due now; whether it has some.
    pub(super) fn retry(&mut self, id: QueueId) -> bool {
        if self.live.get(&id).is_some_and(|live| !live.has_free()) {
            return false;
        }
        let lanes = self.lanes.values_mut().filter(|lane| lane.waits(id));
        lanes.map(|lane| lane.hint_now(Kind::Mail, id, Due::RETRY)).count() > 0
    }

    /// Makes due, for this reason, what waits for connectors of which this is true; how many messages that is.
    pub(super) fn retry_all(&mut self, of: impl Fn(&str) -> bool, due: Due) -> usize {
        let lanes = self.lanes.iter_mut().filter(|(connector, _)| of(connector));
        let mut ids: Vec<QueueId> = lanes.flat_map(|(_, lane)| lane.retry(due)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| self.live.get(id).is_none_or(Live::has_free));
        ids.len()
    }

    /// Mail that is held for want of its connector is looked at again now.
    pub(super) fn look_at_held(&mut self) {
        for lane in self.lanes.values_mut() {
            let held: Vec<_> = lane.held.iter().copied().collect();
            held.into_iter().for_each(|id| lane.hint_now(Kind::Mail, id, Due::HELD));
        }
    }

    /// A message that is in memory.
    pub(super) fn get(&self, id: QueueId) -> Option<Entry> {
        self.live.get(&id).map(|live| Entry::clone(&live.entry))
    }

    /// What each lane shows of itself.
    pub(super) fn shown(&self) -> impl Iterator<Item = Shown<'_>> {
        self.lanes.iter().map(|(connector, lane)| Shown {
            connector,
            waiting: lane.waiting.len(),
            waiting_reports: lane.reports.len(),
            held: lane.held.len(),
            oldest: lane.waiting.first().into_iter().chain(lane.held.first()).min().copied(),
        })
    }

    /// Enters a message into the lanes of its recipients, with hints for those that are new there.
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

    /// Takes a message out of what the lanes show; hints are left to be dropped when they are met.
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
