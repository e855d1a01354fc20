//! Messages that an operator drops: their recipients are taken as they become free. `dispatch` calls it and makes the
//! drop durable.

use std::sync::Arc;

use super::{Known, Live, Queue, Ticket, Update};
use crate::message::queue_id::QueueId;
use crate::spool::entry::outline::Kind;
use crate::spool::entry::{Entry, Outcome, RecipientState};
use crate::time::UnixTime;

/// Recipients of a dropped message that the drop keeps busy.
pub(in crate::delivery::dispatch) struct Dropping {
    pub(in crate::delivery::dispatch) ticket: Ticket,
    pub(in crate::delivery::dispatch) entry: Arc<Entry>,
    pub(in crate::delivery::dispatch) recipients: Vec<usize>,
    /// Positions of recipients in an attempt.
    pub(in crate::delivery::dispatch) under_way: Vec<usize>,
}

impl Queue {
    /// Marks a message in memory as dropped, and takes its free recipients.
    pub(in crate::delivery::dispatch) fn begin_drop(&mut self, id: QueueId) -> Option<Dropping> {
        self.live.get_mut(&id)?.dropped = true;
        self.rest_of_dropped(id)
    }

    /// Whether an operator dropped it.
    pub(in crate::delivery::dispatch) fn is_dropped(&self, id: QueueId) -> bool {
        self.live.get(&id).is_some_and(|live| live.dropped)
    }

    /// Takes recipients of a dropped message that have become free.
    pub(in crate::delivery::dispatch) fn rest_of_dropped(&mut self, id: QueueId) -> Option<Dropping> {
        let ticket = self.last_ticket.next();
        let live = self.live.get_mut(&id).filter(|live| live.dropped)?;
        let (recipients, under_way) = live.take_unfinished(ticket);
        Some(Dropping { ticket, entry: live.entry.clone(), recipients, under_way })
    }

    /// The message is finished; called for one that is not in memory.
    pub(in crate::delivery::dispatch) fn forget(&mut self, id: QueueId) {
        let kind = if self.counted.remove(&id).is_some() { Kind::StrangersReport } else { Kind::Mail };
        self.lanes.values_mut().for_each(|lane| lane.forget(kind, id));
    }

    /// The drop is durable.
    pub(in crate::delivery::dispatch) fn dropped(&mut self, dropping: &Dropping) {
        let gone = |&recipient: &usize| {
            let route = dropping.entry.recipients.get(recipient)?.route.clone();
            Some(Update { recipient, state: RecipientState::Done(Outcome::Dropped), route, known: Known::default() })
        };
        self.update(dropping.entry.id, dropping.recipients.iter().filter_map(gone).collect());
    }

    /// The drop could not be made durable: the message stays.
    pub(in crate::delivery::dispatch) fn undo_drop(&mut self, dropping: &Dropping, now: UnixTime) {
        if let Some(live) = self.live.get_mut(&dropping.entry.id) {
            live.dropped = false;
        }
        self.release(dropping.entry.id, dropping.ticket, now);
    }
}

impl Live {
    /// Takes the free recipients that are not done; the second list has those in an attempt.
    fn take_unfinished(&mut self, ticket: Ticket) -> (Vec<usize>, Vec<usize>) {
        let (mut taken, mut under_way) = (Vec::new(), Vec::new());
        for (at, (queued, slot)) in self.entry.recipients.iter().zip(&mut self.slots).enumerate() {
            match (&queued.state, slot.busy) {
                (RecipientState::Done(_), _) => {}
                (RecipientState::Waiting(_) | RecipientState::Held(_), Some(_)) => under_way.push(at),
                (RecipientState::Waiting(_) | RecipientState::Held(_), None) => {
                    slot.busy = Some(ticket);
                    taken.push(at);
                }
            }
        }
        (taken, under_way)
    }
}
