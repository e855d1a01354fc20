//! All live messages in memory: which branch may be tried now, and when the next one may. `dispatch` locks it, asks
//! and tells; it does no I/O.
//!
//! Each send connector has a [`lane`]: what is due when, and the number of attempts under way, so that a queue of a
//! hundred thousand is never searched and no connector waits for another. Reports that strangers caused come after all
//! mail that is due, at a [`pace`] that all lanes share.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use self::lane::Lane;
use self::live::{Live, Slot};
use self::pace::Pace;
use super::basis::Basis;
use super::branch::Grouping;
use crate::message::queue_id::QueueId;
use crate::report::waiting::Waiting;
use crate::routing::verdict::Route;
use crate::smtp::domain::Domain;
use crate::spool::entry::{Entry, State};
use crate::time::UnixTime;

mod dropping;
mod lane;
mod live;
mod pace;
mod picking;

pub(super) use dropping::{DROPPED_UNDER_WAY, Dropping};
pub(super) use pace::Rank;

/// What the queue shows of mail whose connector is gone; only mail that is held for this reason is released by itself.
pub(super) fn missing_connector(connector: &str) -> String {
    format!("send connector `{connector}` no longer exists; write it again, or move the recipients to another one")
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

/// One branch that is to be tried now. Its recipients are busy until they are released or changed.
pub(super) struct Picked {
    /// Who holds its recipients.
    pub(super) ticket: Ticket,
    /// As it stood.
    pub(super) entry: Arc<Entry>,
    /// Before what it goes.
    pub(super) rank: Rank,
    /// The lane.
    pub(super) connector: Arc<str>,
    /// Whose place it has, where domains share the lane's.
    pub(super) domain: Option<Domain>,
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
    /// Of these, reports that strangers caused.
    pub(super) waiting_reports: usize,
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
    pace: Pace,
    reports: Waiting,
}

impl Queue {
    /// One that counts there the reports that strangers caused.
    pub(super) fn counting(reports: Waiting) -> Self {
        Self { reports, ..Self::default() }
    }

    /// Takes a message in. `basis`: what its ways were decided by, where that is known.
    pub(super) fn insert(&mut self, entry: Entry, basis: Option<&Basis>) {
        let known = Known { basis: basis.cloned(), ..Known::default() };
        let slot = Slot { busy: None, known };
        let slots = vec![slot; entry.recipients.len()];
        let id = entry.id;
        let counted = self.reports.count(&entry);
        self.live.insert(id, Live { entry: Arc::new(entry), slots, dropped: false, _counted: counted });
        self.index(id);
    }

    /// Makes those of these recipients busy that wait and are free.
    pub(super) fn hold(&mut self, id: QueueId, recipients: &[usize]) -> Held {
        let ticket = self.last_ticket.next();
        let live = self.live.get_mut(&id);
        Held { ticket, id, recipients: live.map(|live| live.hold(recipients, ticket)).unwrap_or_default() }
    }

    /// An attempt of this rank on this connector is over, which had a place of this domain's.
    pub(super) fn finished(&mut self, connector: &str, rank: Rank, domain: Option<&Domain>) {
        if let Some(lane) = self.lanes.get_mut(connector) {
            lane.finished(rank, domain);
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
            let held: Vec<_> = lane.held.iter().map(|(_, id)| *id).collect();
            for id in held {
                let rank = self.live.get(&id).map_or(Rank::Mail, Live::rank);
                lane.push(rank, (now, id));
            }
        }
    }

    /// All messages, in no order.
    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        self.live.values().map(|live| live.entry.clone()).collect()
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
            waiting_reports: lane.waiting_reports.len(),
            held: lane.held.len(),
            oldest: lane.waiting.first().into_iter().chain(lane.held.first()).map(|first| first.0).min(),
        })
    }

    /// Enters a message into the lanes of its recipients.
    fn index(&mut self, id: QueueId) {
        let Some(live) = self.live.get(&id) else { return };
        let (member, rank) = ((live.entry.received_at, id), live.rank());
        let mut hints = BTreeSet::new();
        for (queued, slot) in live.entry.recipients.iter().zip(&live.slots) {
            let connector = &queued.route.connector;
            let due = match &queued.state {
                State::Done(_) => continue,
                State::Waiting { next_attempt, .. } => {
                    let lane = self.lanes.entry(connector.clone()).or_default();
                    lane.waiting.insert(member);
                    if rank == Rank::StrangersReport {
                        lane.waiting_reports.insert(member);
                    }
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
            self.lanes.entry(connector).or_default().push(rank, (due, id));
        }
    }

    /// Takes a message out of what the lanes show; hints are left to be dropped when they are met.
    fn unindex(&mut self, id: QueueId) {
        let Some(live) = self.live.get(&id) else { return };
        let member = (live.entry.received_at, id);
        for queued in &live.entry.recipients {
            if let Some(lane) = self.lanes.get_mut(&queued.route.connector) {
                lane.waiting.remove(&member);
                lane.waiting_reports.remove(&member);
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

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_reports;
