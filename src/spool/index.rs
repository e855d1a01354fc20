//! Where each live message stands, and how much of each segment is needed. Pure; the committer and `recover` put every
//! record in, in the order of the log.
//!
//! It holds no envelopes: of a message the place of its record and of the changes since, and which recipients are not
//! over. What is over stays over: a change to such a recipient, or to a finished message, is left out here as it is
//! when the log is read again.

use std::collections::BTreeMap;

use std::ops::Bound;

use super::entry::{Change, RecipientState};
use super::open_recipients::OpenRecipients;
pub use changes::{Changed, Changes};
pub use segments::{Segments, Sparse, Spent};

use super::record::{Held, Logged};
use super::rewrite::Moves;
use crate::message::queue_id::QueueId;

/// How the spool uses its disk, bytes.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// A segment that has grown so large is followed by the next.
    pub segment: u64,
    /// The log may take this and twice what is live in it.
    pub slack: u64,
    /// Kept free, at most, for outcomes and compaction when the disk is full.
    pub reserve: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { segment: 32 << 20, slack: 256 << 20, reserve: 8 << 20 }
    }
}

impl Sizes {
    /// So many bytes to be had are worth a new segment.
    #[must_use]
    pub fn worth_it(&self) -> u64 {
        self.segment / 32
    }
}

/// All live messages and all segments.
#[derive(Debug, Default)]
pub struct Index {
    messages: BTreeMap<QueueId, IndexEntry>,
    pub segments: Segments,
}

/// A live message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// Its record.
    pub at: At,
    pub content: ContentPlace,
    /// Changes since.
    pub changes: Changes,
    open: OpenRecipients,
    bytes: u32,
}

/// A record's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    pub segment: u32,
    /// Where in it the record begins.
    pub offset: u32,
    /// Which of the record's messages it is.
    pub nth: u32,
}

/// Where a content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentPlace {
    /// In the message's record.
    Segment {
        /// Where in the segment.
        offset: u32,
        /// Bytes.
        length: u32,
        /// CRC-32C.
        sum: u32,
    },
    /// A file in this folder.
    File {
        folder: u32,
        /// CRC-32C, where it is known.
        sum: Option<u32>,
    },
}

/// Where a record was put.
#[derive(Debug, Clone, Copy)]
pub struct Spot {
    pub segment: u32,
    /// Where the record begins.
    pub offset: u32,
    /// Where its contents begin.
    pub contents: u32,
}

/// A message that is finished, and where its content was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over(pub QueueId, pub ContentPlace);

impl Index {
    /// A message, if it is live.
    #[must_use]
    pub fn get(&self, id: QueueId) -> Option<&IndexEntry> {
        self.messages.get(&id)
    }

    /// How many messages are live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The ids of the first live messages behind this one, by age.
    #[must_use]
    pub fn ids_after(&self, id: Option<QueueId>, most: usize) -> Vec<QueueId> {
        let behind = (id.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        self.messages.range(behind).take(most).map(|(id, _)| *id).collect()
    }

    /// All live messages.
    pub fn messages(&self) -> impl Iterator<Item = (QueueId, &IndexEntry)> {
        self.messages.iter().map(|(id, kept)| (*id, kept))
    }

    /// The recipients that are not over of messages whose record is in this segment.
    #[must_use]
    pub fn open_in(&self, segment: u32) -> Vec<(QueueId, usize)> {
        let here = self.messages.iter().filter(|(_, kept)| kept.at.segment == segment);
        here.flat_map(|(id, kept)| kept.open.iter().map(|recipient| (*id, recipient))).collect()
    }

    /// The recipients of a message that are not over, by position.
    #[must_use]
    pub fn open_of(&self, id: QueueId) -> Vec<usize> {
        self.messages.get(&id).map(|kept| kept.open.iter().collect()).unwrap_or_default()
    }

    /// Puts a record in. Returns what it finished.
    pub fn apply(&mut self, logged: &Logged<'_>, spot: Spot) -> Vec<Over> {
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

    /// A message as it stands now, new or moved.
    fn state(&mut self, id: QueueId, kept: IndexEntry) -> Option<Over> {
        self.remove(id);
        if kept.open.is_empty() {
            return Some(Over(id, kept.content));
        }
        self.segments.add(kept.at.segment, kept.bytes);
        self.messages.insert(id, kept);
        None
    }

    fn change(&mut self, change: &Change, spot: Spot) -> Option<Over> {
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
        Some(Over(change.id, content))
    }

    /// Takes a message out.
    pub fn remove(&mut self, id: QueueId) {
        let Some(kept) = self.messages.remove(&id) else { return };
        self.segments.take(kept.at.segment, kept.bytes);
        kept.changes.iter().for_each(|changed| self.segments.take_change(changed.segment));
    }

    /// Whether these segments are there.
    #[must_use]
    pub fn has_all(&self, Sparse { number, before }: Sparse) -> bool {
        [Some(number), before].into_iter().flatten().all(|number| self.segments.end_of(number).is_some())
    }

    /// A segment was rewritten up to `end`, with what was needed of the one before it if that is named. `moves` says where
    /// records are now.
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
