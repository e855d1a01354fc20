//! Where each live message is, and how much of each segment is needed. Pure; the committer and `recover` apply every
//! record, in the order of the log.
//!
//! It has no envelopes: only the positions of a message's record and of its later changes, and which recipients are
//! open. Done is final: a change to such a recipient, or to a finished message, is ignored, here and when the log is
//! read again.

use std::collections::BTreeMap;

use std::ops::Bound;

use super::entry::{Change, RecipientState};
use super::open_recipients::OpenRecipients;
pub use changes::{Changed, Changes};
pub use segments::{Segments, Sparse, Spent};

use super::record::{Held, Logged};
use super::rewrite::Moves;
use crate::message::queue_id::QueueId;

/// Limits on the use of the disk, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// A segment of this size is followed by the next.
    pub segment: u64,
    /// The log may take this much more than twice its live bytes.
    pub slack: u64,
    /// The most that is kept free for outcomes and compaction when the disk is full.
    pub reserve: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { segment: 32 << 20, slack: 256 << 20, reserve: 8 << 20 }
    }
}

impl Sizes {
    /// A new segment is begun early if that frees this many bytes.
    #[must_use]
    pub fn worth_it(&self) -> u64 {
        self.segment / 32
    }
}

#[derive(Debug, Default)]
pub struct Index {
    messages: BTreeMap<QueueId, IndexEntry>,
    pub segments: Segments,
}

/// Positions of a live message in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    pub at: At,
    pub content: ContentPlace,
    /// Later changes.
    pub changes: Changes,
    open: OpenRecipients,
    bytes: u32,
}

/// The position of a message in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    pub segment: u32,
    /// Where its record begins in the segment.
    pub offset: u32,
    /// The message's number in the record.
    pub nth: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentPlace {
    Segment {
        /// Offset in the segment.
        offset: u32,
        length: u32,
        /// CRC-32C.
        sum: u32,
    },
    /// In a file in this folder.
    File {
        folder: u32,
        /// CRC-32C; `None`: unknown.
        sum: Option<u32>,
    },
}

/// Where a record was written.
#[derive(Debug, Clone, Copy)]
pub struct Spot {
    pub segment: u32,
    pub offset: u32,
    pub contents: u32,
}

/// A finished message, and where its content was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    pub id: QueueId,
    pub content: ContentPlace,
}

impl Index {
    #[must_use]
    pub fn get(&self, id: QueueId) -> Option<&IndexEntry> {
        self.messages.get(&id)
    }

    /// The number of live messages.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// The ids of up to `most` live messages after this one, oldest first.
    #[must_use]
    pub fn ids_after(&self, id: Option<QueueId>, most: usize) -> Vec<QueueId> {
        let behind = (id.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        self.messages.range(behind).take(most).map(|(id, _)| *id).collect()
    }

    pub fn messages(&self) -> impl Iterator<Item = (QueueId, &IndexEntry)> {
        self.messages.iter().map(|(id, kept)| (*id, kept))
    }

    /// Open recipients of messages whose record is in this segment.
    #[must_use]
    pub fn open_in(&self, segment: u32) -> Vec<(QueueId, usize)> {
        let here = self.messages.iter().filter(|(_, kept)| kept.at.segment == segment);
        here.flat_map(|(id, kept)| kept.open.iter().map(|recipient| (*id, recipient))).collect()
    }

    /// The positions of a message's open recipients.
    #[must_use]
    pub fn open_of(&self, id: QueueId) -> Vec<usize> {
        self.messages.get(&id).map(|kept| kept.open.iter().collect()).unwrap_or_default()
    }

    /// Applies a record. Returns the messages that it finished.
    pub fn apply(&mut self, logged: &Logged<'_>, spot: Spot) -> Vec<Finished> {
        let mut over = Vec::new();
        let mut content = spot.contents;
        let statements = u32::try_from(logged.accepted.len()).unwrap_or(u32::MAX).max(1);
        let share = spot.contents.saturating_sub(spot.offset) / statements;
        for (nth, statement) in (0..).zip(&logged.accepted) {
            let at = At { segment: spot.segment, offset: spot.offset, nth };
            let (place, length) = match statement.content {
                Held::Here { length, sum } => (ContentPlace::Segment { offset: content, length, sum }, length),
                Held::File { folder, sum } => (ContentPlace::File { folder, sum }, 0),
            };
            content = content.saturating_add(length);
            let open = OpenRecipients::of(&statement.entry);
            let bytes = share.saturating_add(length);
            over.extend(
                self.state(statement.entry.id, IndexEntry { at, content: place, changes: Changes::None, open, bytes }),
            );
        }
        over.extend(logged.changes.iter().filter_map(|change| self.change(change, spot)));
        over
    }

    /// Applies a message's state, new or moved.
    fn state(&mut self, id: QueueId, kept: IndexEntry) -> Option<Finished> {
        self.remove(id);
        if kept.open.is_empty() {
            return Some(Finished { id, content: kept.content });
        }
        self.segments.add(kept.at.segment, kept.bytes);
        self.messages.insert(id, kept);
        None
    }

    fn change(&mut self, change: &Change, spot: Spot) -> Option<Finished> {
        let kept = self.messages.get_mut(&change.id)?;
        if !kept.open.has(change.recipient) {
            return None;
        }
        let rerouted = change.route.is_some();
        let recipient = u32::try_from(change.recipient).ok()?;
        kept.changes.iter().for_each(|changed| self.segments.take_change(changed.segment));
        kept.changes.add(Changed { recipient, segment: spot.segment, offset: spot.offset, rerouted });
        kept.changes.iter().for_each(|changed| self.segments.add_change(changed.segment));
        if matches!(change.state, RecipientState::Done(_)) {
            self.segments.add_outcome(spot.segment, change.id);
            kept.open.close(change.recipient);
        }
        let content = kept.content;
        if !kept.open.is_empty() {
            return None;
        }
        self.remove(change.id);
        Some(Finished { id: change.id, content })
    }

    pub fn remove(&mut self, id: QueueId) {
        let Some(kept) = self.messages.remove(&id) else { return };
        self.segments.take(kept.at.segment, kept.bytes);
        kept.changes.iter().for_each(|changed| self.segments.take_change(changed.segment));
    }

    /// Whether these segments exist.
    #[must_use]
    pub fn has_all(&self, Sparse { number, before }: Sparse) -> bool {
        [Some(number), before].into_iter().flatten().all(|number| self.segments.end_of(number).is_some())
    }

    /// A segment was rewritten and ends at `end`; it includes the segment before if that is named. `moves` has the
    /// records' new positions.
    pub fn rewritten(&mut self, sparse: Sparse, end: u64, moves: &Moves) {
        for (id, from, to) in &moves.statements {
            let Some(kept) = self.messages.get_mut(id).filter(|kept| kept.at == *from) else { continue };
            kept.at = to.at;
            if let ContentPlace::Segment { offset, .. } = &mut kept.content {
                *offset = to.content;
            }
        }
        for id in moves.changed() {
            if let Some(kept) = self.messages.get_mut(id) {
                kept.changes.moved(|segment, offset| moves.record(segment, offset));
            }
        }
        self.segments.rewritten(sparse, end);
    }
}

mod changes;
mod segments;
#[cfg(test)]
mod tests;
