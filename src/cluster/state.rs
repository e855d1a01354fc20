//! What a node has in memory of the mail that it owns: where each message stands and how long it is, not its envelope.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::message::queue_id::QueueId;
use crate::spool::entry::{Change, Entry, RecipientState};

/// The live messages of this node, in little memory: there may be a million.
#[derive(Debug, Default)]
pub struct OwnMail {
    messages: BTreeMap<QueueId, Owned>,
    /// The open recipients of messages that have one at position 32 or above.
    crowds: BTreeMap<QueueId, Vec<u32>>,
    /// Those whose content was found damaged.
    damaged: BTreeSet<QueueId>,
}

/// A live message of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    /// The recipients that are not done, a bit each; 0: they stand in `crowds`.
    open: u32,
    /// CRC-32C of its content.
    pub sum: u32,
    /// Octets of its content.
    pub size: u64,
}

/// How a record's changes are written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// Messages of which no recipient is left: their rows are deleted unread.
    pub finished: Vec<QueueId>,
    /// Messages whose entries are read, changed and written.
    pub changed: Vec<QueueId>,
}

impl OwnMail {
    /// Inserts a message with its current state, unless it is finished.
    pub fn insert(&mut self, entry: &Entry, sum: u32) {
        self.messages.insert(entry.id, Owned { open: 0, sum, size: entry.content.size });
        let is_open = |state: &RecipientState| !matches!(state, RecipientState::Done(_));
        let open = (0..).zip(&entry.recipients).filter(|(_, queued)| is_open(&queued.state));
        self.set_open(entry.id, open.map(|(at, _)| at).collect());
    }

    /// Sets the open recipients of a message that is here; without any it is finished, and removed.
    fn set_open(&mut self, id: QueueId, open: Vec<u32>) {
        self.crowds.remove(&id);
        if open.is_empty() {
            self.messages.remove(&id);
            self.damaged.remove(&id);
        } else if let Some(owned) = self.messages.get_mut(&id) {
            let bits = open.iter().map(|at| 1u32.checked_shl(*at));
            owned.open = bits.sum::<Option<u32>>().unwrap_or_default();
            if owned.open == 0 {
                self.crowds.insert(id, open);
            }
        }
    }

    /// The row of a message has these recipients done: another node may have delivered it after all.
    pub fn narrow(&mut self, entry: &Entry) {
        let is_done = |at: &u32| {
            let queued = entry.recipients.get(*at as usize);
            queued.is_some_and(|queued| matches!(queued.state, RecipientState::Done(_)))
        };
        if self.get(entry.id).is_some() {
            let open = self.open(entry.id).into_iter().filter(|at| !is_done(at)).collect();
            self.set_open(entry.id, open);
        }
    }

    /// A message's content was found damaged; returns whether that is new.
    pub fn found_damaged(&mut self, id: QueueId) -> bool {
        self.messages.contains_key(&id) && self.damaged.insert(id)
    }

    /// Whether its content was found damaged.
    #[must_use]
    pub fn is_damaged(&self, id: QueueId) -> bool {
        self.damaged.contains(&id)
    }

    pub fn remove(&mut self, id: QueueId) {
        self.set_open(id, Vec::new());
    }

    #[must_use]
    pub fn get(&self, id: QueueId) -> Option<Owned> {
        self.messages.get(&id).copied()
    }

    /// Positions of a message's recipients that are not done, in order.
    #[must_use]
    pub fn open(&self, id: QueueId) -> Vec<u32> {
        let Some(owned) = self.get(id) else { return Vec::new() };
        let crowd = self.crowds.get(&id).cloned();
        crowd.unwrap_or_else(|| (0..u32::BITS).filter(|at| owned.open & 1 << at != 0).collect())
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The ids of up to `most` messages after this one, oldest first.
    #[must_use]
    pub fn ids_after(&self, id: Option<QueueId>, most: usize) -> Vec<QueueId> {
        use std::ops::Bound;
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.messages.range((from, Bound::Unbounded)).map(|(id, _)| *id).take(most).collect()
    }

    /// How these changes are written. Changes of messages that are not ours, or finished, change nothing.
    #[must_use]
    pub fn writes(&self, changes: &[Change]) -> Writes {
        let mut of: BTreeMap<QueueId, Vec<u32>> = BTreeMap::new();
        for change in changes.iter().filter(|change| self.messages.contains_key(&change.id)) {
            let done = of.entry(change.id).or_default();
            if let (RecipientState::Done(_), Ok(at)) = (&change.state, u32::try_from(change.recipient)) {
                done.push(at);
            }
        }
        let mut writes = Writes::default();
        for (id, done) in of {
            let is_finished = self.open(id).iter().all(|at| done.contains(at));
            if is_finished { writes.finished.push(id) } else { writes.changed.push(id) }
        }
        writes
    }

    /// These changes are durable.
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            if matches!(change.state, RecipientState::Done(_)) && self.get(change.id).is_some() {
                let others = |at: &u32| *at as usize != change.recipient;
                let open = self.open(change.id).into_iter().filter(others).collect();
                self.set_open(change.id, open);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::entry::{HeldFor, Outcome};
    use crate::spool::sample::entry;

    fn change(id: u64, recipient: usize, state: RecipientState) -> Change {
        Change { id: QueueId(id), recipient, state, route: None }
    }

    #[test]
    fn a_message_is_finished_with_its_last_recipient() {
        let done = || RecipientState::Done(Outcome::Dropped);
        let held = || RecipientState::Held(HeldFor::NoConnector);
        let mut own = OwnMail::default();
        for id in [1, 2, 3] {
            own.insert(&entry(QueueId(id), 9), 7);
        }
        assert_eq!(own.open(QueueId(1)), [0, 1]);
        let changes = [
            change(1, 0, done()),
            change(1, 1, done()),
            change(2, 1, done()),
            change(3, 0, held()),
            change(9, 0, done()),
        ];
        let expected = Writes { finished: vec![QueueId(1)], changed: vec![QueueId(2), QueueId(3)] };
        assert_eq!(own.writes(&changes), expected);
        own.apply(&changes);
        assert_eq!(own.ids_after(None, 9), [QueueId(2), QueueId(3)]);
        assert_eq!(own.ids_after(Some(QueueId(2)), 9), [QueueId(3)]);
        // The last one of the second; and what somebody else delivered of the third.
        let last = [change(2, 0, done())];
        assert_eq!(own.writes(&last), Writes { finished: vec![QueueId(2)], changed: Vec::new() });
        let mut third = entry(QueueId(3), 9);
        third.recipients[1].state = done();
        own.narrow(&third);
        assert_eq!(own.writes(&[change(3, 0, done())]).finished, [QueueId(3)]);
        own.remove(QueueId(3));
        own.apply(&last);
        assert!(own.is_empty());
    }

    #[test]
    fn open_recipients_are_the_same_however_many_there_are() {
        for recipients in [1, 2, 31, 32, 33, 100] {
            let mut entry = entry(QueueId(1), 9);
            let one = entry.recipients[0].clone();
            entry.recipients = vec![one; recipients];
            let mut own = OwnMail::default();
            own.insert(&entry, 7);
            let mut open: Vec<u32> = (0..).take(recipients).collect();
            // From the middle outwards, so that the last ones go at last.
            while !open.is_empty() {
                assert_eq!((own.open(QueueId(1)), own.len()), (open.clone(), 1), "{recipients}");
                let at = open.remove(open.len() / 2);
                own.apply(&[change(1, at as usize, RecipientState::Done(Outcome::Dropped))]);
            }
            assert!(own.is_empty() && own.crowds.is_empty() && own.open(QueueId(1)).is_empty());
        }
    }
}
