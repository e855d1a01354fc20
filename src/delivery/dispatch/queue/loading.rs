//! Which messages are in memory: those that something is under way for, and new ones until they were tried. No I/O.

use super::Queue;
use super::live::Live;
use crate::message::queue_id::QueueId;
use crate::spool::entry::Entry;

/// New messages that stay in memory until they were tried, at most.
pub(super) const RECENT: usize = 2_000;

impl Queue {
    /// A message stays in memory until it was tried, unless too many do.
    pub(super) fn stays(&mut self, id: QueueId) {
        self.recent.push_back(id);
        while self.recent.len() > RECENT {
            let Some(oldest) = self.recent.pop_front() else { return };
            if let Some(live) = self.live.get_mut(&oldest) {
                live.recent = false;
            }
            self.unload(oldest);
        }
    }

    /// Whether it is in memory.
    pub(in crate::delivery::dispatch) fn is_loaded(&self, id: QueueId) -> bool {
        self.live.contains_key(&id)
    }

    /// A message that the spool has, if it is not in memory yet.
    pub(in crate::delivery::dispatch) fn load(&mut self, entry: Entry) {
        self.live.entry(entry.id).or_insert_with(|| Live::read(entry));
    }

    /// It need not stay in memory if nothing is under way for it.
    pub(super) fn unload(&mut self, id: QueueId) {
        if !self.turns.contains_key(&id) && self.live.get(&id).is_some_and(Live::is_idle) {
            self.live.remove(&id);
        }
    }

    /// Somebody else needs the message in memory; [`Queue::ends`] gives it back.
    pub(in crate::delivery::dispatch) fn begins(&mut self, id: QueueId) {
        *self.turns.entry(id).or_default() += 1;
    }

    /// See [`Queue::begins`].
    pub(in crate::delivery::dispatch) fn ends(&mut self, id: QueueId) {
        if let Some(turns) = self.turns.get_mut(&id) {
            *turns -= 1;
            if *turns == 0 {
                self.turns.remove(&id);
            }
        }
        self.unload(id);
    }
}
