//! What a node has in memory of the mail that it owns: where each message stands and how long it is, not its envelope.
//! Pure.

use std::collections::BTreeMap;

use crate::message::queue_id::QueueId;
use crate::spool::entry::{Change, Entry, RecipientState};

/// A live message of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// Positions of the recipients that are not done.
    pub open: Box<[u32]>,
    /// Octets of its content.
    pub size: u64,
    /// CRC-32C of its content.
    pub sum: u32,
    /// Whether its content was found damaged.
    pub is_damaged: bool,
}

/// The live messages of this node.
#[derive(Debug, Default)]
pub struct OwnMail(BTreeMap<QueueId, Owned>);

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
        let is_open = |state: &RecipientState| !matches!(state, RecipientState::Done(_));
        let open: Box<[u32]> =
            (0..).zip(&entry.recipients).filter(|(_, queued)| is_open(&queued.state)).map(|(at, _)| at).collect();
        if !open.is_empty() {
            self.0.insert(entry.id, Owned { open, size: entry.content.size, sum, is_damaged: false });
        }
    }

    /// The row of a message has these recipients done: another node may have delivered it after all.
    pub fn narrow(&mut self, entry: &Entry) {
        let Some(owned) = self.0.get_mut(&entry.id) else { return };
        let is_done = |at: &u32| {
            let queued = entry.recipients.get(*at as usize);
            queued.is_some_and(|queued| matches!(queued.state, RecipientState::Done(_)))
        };
        owned.open = owned.open.iter().copied().filter(|at| !is_done(at)).collect();
    }

    /// A message's content was found damaged; returns whether that is new.
    pub fn found_damaged(&mut self, id: QueueId) -> bool {
        self.0.get_mut(&id).is_some_and(|owned| !std::mem::replace(&mut owned.is_damaged, true))
    }

    pub fn remove(&mut self, id: QueueId) {
        self.0.remove(&id);
    }

    #[must_use]
    pub fn get(&self, id: QueueId) -> Option<&Owned> {
        self.0.get(&id)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ids of up to `most` messages after this one, oldest first.
    #[must_use]
    pub fn ids_after(&self, id: Option<QueueId>, most: usize) -> Vec<QueueId> {
        use std::ops::Bound;
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.0.range((from, Bound::Unbounded)).map(|(id, _)| *id).take(most).collect()
    }

    /// How these changes are written. Changes of messages that are not ours, or finished, change nothing.
    #[must_use]
    pub fn writes(&self, changes: &[Change]) -> Writes {
        let mut of: BTreeMap<QueueId, Vec<u32>> = BTreeMap::new();
        for change in changes.iter().filter(|change| self.0.contains_key(&change.id)) {
            let done = of.entry(change.id).or_default();
            if let (RecipientState::Done(_), Ok(at)) = (&change.state, u32::try_from(change.recipient)) {
                done.push(at);
            }
        }
        let mut writes = Writes::default();
        for (id, done) in of {
            let is_finished = self.get(id).is_some_and(|owned| owned.open.iter().all(|at| done.contains(at)));
            if is_finished { writes.finished.push(id) } else { writes.changed.push(id) }
        }
        writes
    }

    /// These changes are durable.
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            let Some(owned) = self.0.get_mut(&change.id) else { continue };
            if matches!(change.state, RecipientState::Done(_)) {
                owned.open = owned.open.iter().copied().filter(|at| *at as usize != change.recipient).collect();
            }
            if owned.open.is_empty() {
                self.0.remove(&change.id);
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
        assert_eq!(own.get(QueueId(1)).map(|owned| owned.open.to_vec()), Some(vec![0, 1]));
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
}
