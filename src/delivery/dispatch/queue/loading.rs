//! Which messages are in memory: those with a turn, and new ones until they have been tried. No I/O.

use super::Queue;
use super::live::Live;
use crate::message::queue_id::QueueId;
use crate::spool::entry::Entry;

/// The most new messages that stay in memory until they have been tried.
pub(super) const RECENT: usize = 2_000;

impl Queue {
    /// A new message stays in memory until it has been tried, unless there are too many.
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

    /// Adds a message from the spool, unless it is in memory.
    pub(in crate::delivery::dispatch) fn load(&mut self, entry: Entry) {
        self.live.entry(entry.id).or_insert_with(|| Live::read(entry));
    }

    /// Removes it from memory if it is idle.
    pub(super) fn unload(&mut self, id: QueueId) {
        if !self.turns.contains_key(&id) && self.live.get(&id).is_some_and(Live::is_idle) {
            self.live.remove(&id);
        }
    }

    /// The message is needed in memory until [`Queue::ends`].
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
