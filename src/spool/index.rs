//! Where each live message stands, and how much of each segment is needed. Pure; the committer and `recover` put every
//! record in, in the order of the log.
//!
//! It holds no envelopes: of a message the place of its record and of the changes since, and which recipients are not
//! over. What is over stays over: a change to such a recipient, or to a finished message, is left out here as it is
//! when the log is read again.

use std::collections::BTreeMap;

use std::ops::Bound;

use super::entry::{Change, State};
use super::open::Open;
pub use changes::{Changed, Changes};

use super::record::{Held, Logged};
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
    messages: BTreeMap<QueueId, Kept>,
    segments: BTreeMap<u32, Segment>,
}

/// A live message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its record.
    pub at: At,
    /// Its content.
    pub content: Place,
    /// Changes since.
    pub changes: Changes,
    open: Open,
    bytes: u32,
}

/// A record's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The segment.
    pub segment: u32,
    /// Where in it the record begins.
    pub offset: u32,
    /// Which of the record's messages it is.
    pub nth: u32,
}

/// Where a content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
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
        /// The folder.
        folder: u32,
        /// CRC-32C, where it is known.
        sum: Option<u32>,
    },
}

/// One segment, as far as it is needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Segment {
    size: u64,
    /// Bytes of live messages.
    live: u64,
    messages: u32,
    has_checkpoint: bool,
}

/// What is not needed any more at the beginning of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Bytes.
    pub bytes: u64,
    /// Segments.
    pub segments: usize,
}

/// Where a record was put.
#[derive(Debug, Clone, Copy)]
pub struct Spot {
    /// The segment.
    pub segment: u32,
    /// Where the record begins.
    pub offset: u32,
    /// Where its contents begin.
    pub contents: u32,
}

/// A message that is finished, and where its content was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over(pub QueueId, pub Place);

impl Index {
    /// A message, if it is live.
    #[must_use]
    pub fn get(&self, id: QueueId) -> Option<&Kept> {
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
    pub fn messages(&self) -> impl Iterator<Item = (QueueId, &Kept)> {
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
                Held::Here { length, sum } => (Place::Segment { offset: content, length, sum }, length),
                Held::File { folder, sum } => (Place::File { folder, sum }, 0),
            };
            content = content.saturating_add(length);
            let open = Open::of(&statement.entry);
            let bytes = share.saturating_add(length);
            over.extend(
                self.state(statement.entry.id, Kept { at, content: place, changes: Changes::None, open, bytes }),
            );
        }
        over.extend(logged.changes.iter().filter_map(|change| self.change(change, spot)));
        over
    }

    /// A message as it stands now, new or moved.
    fn state(&mut self, id: QueueId, kept: Kept) -> Option<Over> {
        self.remove(id);
        if kept.open.is_empty() {
            return Some(Over(id, kept.content));
        }
        let segment = self.segments.entry(kept.at.segment).or_default();
        segment.live += u64::from(kept.bytes);
        segment.messages += 1;
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
        kept.changes.add(Changed { recipient, segment: spot.segment, offset: spot.offset, rerouted });
        if matches!(change.state, State::Done(_)) {
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
        if let Some(segment) = self.segments.get_mut(&kept.at.segment) {
            segment.live -= u64::from(kept.bytes);
            segment.messages -= 1;
        }
    }

    /// A segment has grown by so much, or begins.
    pub fn grow(&mut self, segment: u32, by: u64) {
        self.segments.entry(segment).or_default().size += by;
    }

    /// A segment has a checkpoint of so many bytes.
    pub fn has_checkpoint(&mut self, segment: u32, bytes: u64) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.has_checkpoint = true;
            segment.size += bytes;
        }
    }

    /// The first segment that is needed, before which nothing is live; and what the ones before it take.
    #[must_use]
    pub fn first_needed(&self) -> (u32, Spent) {
        let mut spent = Spent::default();
        let last = self.segments.keys().next_back();
        for (number, segment) in &self.segments {
            if segment.messages > 0 || Some(number) == last {
                return (*number, spent);
            }
            spent.bytes += segment.size;
            spent.segments += 1;
        }
        (0, spent)
    }

    /// The same with `next` as the segment that grows.
    #[must_use]
    pub fn first_needed_or(&self, next: u32) -> u32 {
        self.segments.iter().find(|(_, segment)| segment.messages > 0).map_or(next, |(number, _)| *number)
    }

    /// How many segments are needed, the one that grows among them.
    #[must_use]
    pub fn needed(&self) -> usize {
        self.segments.len() - self.first_needed().1.segments
    }

    /// Forgets the segments before this one; returns which they were.
    pub fn forget_before(&mut self, first: u32) -> Vec<u32> {
        let needed = self.segments.split_off(&first);
        std::mem::replace(&mut self.segments, needed).into_keys().collect()
    }

    /// The segment whose messages are to be moved to the end of the log, if there is one: the first, for segments go in
    /// their order. Little in it is live, the log takes more than it may (half of the slack is for what comes
    /// meanwhile), or short segments have become many.
    #[must_use]
    pub fn to_clean(&self, sizes: &Sizes) -> Option<u32> {
        let (first, spent) = self.first_needed();
        let segment = self.segments.get(&first)?;
        let (mut size, mut live) = (0, 0);
        self.segments.values().for_each(|one| (size, live) = (size + one.size, live + one.live));
        size -= spent.bytes;
        let number = self.segments.len() - spent.segments;
        let is_too_much = size > 2 * live + sizes.slack / 2;
        let are_too_many = number as u64 > 64 + 2 * size / sizes.segment;
        (number > 1 && (segment.is_sparse(sizes) || is_too_much || are_too_many)).then_some(first)
    }

    /// Segments that a start would have to read whole: complete, with much in them that is live, and without a
    /// checkpoint. The last two are left out: what is on its way may soon be over.
    #[must_use]
    pub fn without_checkpoint(&self, sizes: &Sizes) -> Vec<u32> {
        let wants = |one: &Segment| !one.has_checkpoint && one.size >= sizes.worth_it() && one.live >= one.size / 4;
        let complete = self.segments.iter().rev().skip(2);
        complete.filter(|(_, segment)| wants(segment)).map(|(number, _)| *number).collect()
    }
}

impl Segment {
    fn is_sparse(&self, sizes: &Sizes) -> bool {
        self.size >= sizes.worth_it() && self.live < self.size / 4
    }
}

mod changes;
#[cfg(test)]
mod tests;
