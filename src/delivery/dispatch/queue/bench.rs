//! A queue and its spool for tests: does what `dispatch` does around an attempt, without the attempt.

use std::collections::BTreeMap;

use super::*;
use crate::spool::entry::Outcome;

#[derive(Default)]
pub(super) struct Bench {
    pub(super) queue: Queue,
    spool: BTreeMap<QueueId, Entry>,
}

/// An attempt that has begun.
pub(super) struct Begun {
    pub(super) turn: Turn,
    pub(super) picked: Picked,
}

impl Begun {
    /// Connector, message number and positions.
    pub(super) fn what(&self) -> (String, u64, Vec<usize>) {
        let positions = self.picked.recipients.iter().map(|(at, _)| *at).collect();
        (self.turn.connector.to_string(), self.turn.id.0, positions)
    }

    /// The domain of its first recipient.
    pub(super) fn domain(&self) -> String {
        let first = self.picked.recipients.first().map(|(at, _)| *at).unwrap();
        self.picked.entry.recipients[first].route.next_hop_domain.to_string()
    }
}

impl Bench {
    /// A session hands a message over.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.spool.insert(entry.id, entry.clone());
        self.queue.insert(entry, None);
    }

    /// The message existed before the start.
    pub(super) fn restore(&mut self, entry: Entry) {
        self.queue.restore(&Outline::of(&entry));
        self.spool.insert(entry.id, entry);
    }

    /// Begins what is due, as far as there are slots.
    pub(super) fn pick(&mut self, rules: impl Fn(&str) -> Rules, now: u64) -> Vec<Begun> {
        let mut begun = Vec::new();
        loop {
            let turns = self.queue.pick(&rules, UnixTime(now));
            if turns.is_empty() {
                return begun;
            }
            for turn in turns {
                if let Some(entry) = self.spool.get(&turn.id).filter(|_| !self.queue.is_loaded(turn.id)) {
                    self.queue.load(entry.clone());
                }
                match self.queue.take(&turn, rules(&turn.connector), UnixTime(now)) {
                    Some(picked) => begun.push(Begun { turn, picked }),
                    None => {
                        self.queue.led_nowhere(&turn);
                        self.queue.finished(&turn);
                    }
                }
            }
        }
    }

    /// Recipients' new states are durable.
    pub(super) fn update(&mut self, id: u64, updates: Vec<Update>) {
        let id = QueueId(id);
        if let Some(entry) = self.spool.get_mut(&id) {
            for update in &updates {
                let queued = &mut entry.recipients[update.recipient];
                (queued.state, queued.route) = (update.state.clone(), update.route.clone());
            }
            if entry.is_finished() {
                self.spool.remove(&id);
            }
        }
        self.queue.update(id, updates);
    }

    /// An attempt ends with this state for each of its recipients.
    pub(super) fn ends(&mut self, begun: Begun, state: &RecipientState) {
        let update = |(at, _): &(usize, Known)| Update {
            recipient: *at,
            state: state.clone(),
            route: begun.picked.entry.recipients[*at].route.clone(),
            known: Known::default(),
        };
        self.update(begun.turn.id.0, begun.picked.recipients.iter().map(update).collect());
        self.queue.finished(&begun.turn);
    }

    /// An attempt delivers to all its recipients.
    pub(super) fn delivers(&mut self, begun: Begun) {
        self.ends(begun, &RecipientState::Done(Outcome::Dropped));
    }

    /// Messages that are not finished.
    pub(super) fn left(&self) -> usize {
        self.spool.len()
    }
}
