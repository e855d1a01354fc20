//! The segments of the log: how much of each is needed, and what follows from that. Pure.

use std::collections::BTreeMap;

use super::Sizes;
use crate::message::queue_id::QueueId;

/// Bytes of a change's record, about.
const CHANGE: u64 = 64;

/// All segments that are there, the last one grows.
#[derive(Debug, Default)]
pub struct Segments(BTreeMap<u32, Segment>);

/// One segment, as far as it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    /// Where its acknowledged records end.
    end: u64,
    /// Bytes of its checkpoint, if it has one.
    checkpoint: Option<u64>,
    /// Bytes of live messages.
    live: u64,
    messages: u32,
    /// Records of changes that live messages need.
    changes: u32,
    /// Outcomes of messages that may stand in earlier segments.
    outcomes: u32,
    /// The highest id that earlier segments may have.
    last_id: QueueId,
    /// Whether its file must stay, though the index has what is in it somewhere else.
    is_held: bool,
    /// What seemed to be needed of it when it turned out that rewriting it is not worth it.
    dense_at: u64,
}

/// What is not needed any more at the beginning of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Bytes.
    pub bytes: u64,
    pub segments: usize,
}

/// A segment that is worth [rewriting](crate::spool::rewrite).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sparse {
    pub number: u32,
    /// The one before it, if that is short: it goes into the same file.
    pub before: Option<u32>,
}

impl Default for Segment {
    fn default() -> Self {
        Self {
            end: 0,
            checkpoint: None,
            live: 0,
            messages: 0,
            changes: 0,
            outcomes: 0,
            last_id: QueueId(0),
            is_held: false,
            dense_at: u64::MAX,
        }
    }
}

impl Segments {
    /// A segment begins, behind this highest id.
    pub fn begin(&mut self, segment: u32, last_id: QueueId) {
        self.0.entry(segment).or_default().last_id = last_id;
    }

    /// It has grown by so much.
    pub fn grow(&mut self, segment: u32, by: u64) {
        self.0.entry(segment).or_default().end += by;
    }

    /// It has a checkpoint of so many bytes.
    pub fn has_checkpoint(&mut self, segment: u32, bytes: u64) {
        if let Some(segment) = self.0.get_mut(&segment) {
            segment.checkpoint = Some(bytes);
        }
    }

    /// A live message of so many bytes stands in it.
    pub(super) fn add(&mut self, segment: u32, bytes: u32) {
        let segment = self.0.entry(segment).or_default();
        segment.live += u64::from(bytes);
        segment.messages += 1;
    }

    /// It does not any more.
    pub(super) fn take(&mut self, segment: u32, bytes: u32) {
        if let Some(segment) = self.0.get_mut(&segment) {
            segment.live -= u64::from(bytes);
            segment.messages -= 1;
        }
    }

    /// A change that a live message needs stands in it.
    pub(super) fn add_change(&mut self, segment: u32) {
        self.0.entry(segment).or_default().changes += 1;
    }

    /// It is not needed any more.
    pub(super) fn take_change(&mut self, segment: u32) {
        if let Some(segment) = self.0.get_mut(&segment) {
            segment.changes -= 1;
        }
    }

    /// An outcome for a recipient of this message stands in it.
    pub(super) fn add_outcome(&mut self, segment: u32, id: QueueId) {
        if let Some(segment) = self.0.get_mut(&segment)
            && id <= segment.last_id
        {
            segment.outcomes += 1;
        }
    }

    /// Where its acknowledged records end, if it is there.
    #[must_use]
    pub fn end_of(&self, segment: u32) -> Option<u64> {
        self.0.get(&segment).map(|segment| segment.end)
    }

    /// The first segment that is needed, before which nothing is live; and what the ones before it take.
    #[must_use]
    pub fn first_needed(&self) -> (u32, Spent) {
        let mut spent = Spent::default();
        let last = self.0.keys().next_back();
        for (number, segment) in &self.0 {
            if segment.must_stay() || Some(number) == last {
                return (*number, spent);
            }
            spent.bytes += segment.size();
            spent.segments += 1;
        }
        (0, spent)
    }

    /// The same with `next` as the segment that grows.
    #[must_use]
    pub fn first_needed_or(&self, next: u32) -> u32 {
        self.0.iter().find(|(_, segment)| segment.must_stay()).map_or(next, |(number, _)| *number)
    }

    /// How many segments are needed, the one that grows among them.
    #[must_use]
    pub fn needed(&self) -> usize {
        self.0.len() - self.first_needed().1.segments
    }

    /// Forgets the segments before this one; returns which they were.
    pub fn forget_before(&mut self, first: u32) -> Vec<u32> {
        let needed = self.0.split_off(&first);
        std::mem::replace(&mut self.0, needed).into_keys().collect()
    }

    /// The segment whose messages are to be moved to the end of the log, if there is one: the first, for segments go in
    /// their order. The log takes more than it may (half of the slack is for what comes meanwhile), short segments have
    /// become many, or little in it is live and it cannot be [rewritten](Self::to_rewrite) as it stands.
    #[must_use]
    pub fn to_clean(&self, sizes: &Sizes) -> Option<u32> {
        let (first, spent) = self.first_needed();
        let segment = self.0.get(&first).filter(|segment| !segment.is_held)?;
        let (mut size, mut live) = (0, 0);
        self.0.values().for_each(|one| (size, live) = (size + one.size(), live + one.live));
        size -= spent.bytes;
        let number = self.0.len() - spent.segments;
        let is_too_much = size > 2 * live + sizes.slack / 2;
        let are_too_many = number as u64 > 64 + 2 * size / sizes.segment;
        let is_sparse = segment.size() >= sizes.worth_it() && segment.live < segment.size() / 4;
        let is_left = is_sparse && !segment.is_worth_it(sizes);
        (number > 1 && (is_left || is_too_much || are_too_many)).then_some(first)
    }

    /// Segments that a start would have to read whole: complete, with much in them that is live, and without a
    /// checkpoint. The last two are left out: what is on its way may soon be over.
    #[must_use]
    pub fn without_checkpoint(&self, sizes: &Sizes) -> Vec<u32> {
        let wants =
            |one: &Segment| one.checkpoint.is_none() && one.end >= sizes.worth_it() && one.live >= one.size() / 4;
        let complete = self.0.iter().rev().skip(2);
        complete.filter(|(_, segment)| wants(segment)).map(|(number, _)| *number).collect()
    }

    /// A complete segment of which little is needed: rewriting it gives its space back out of turn. The newest are left
    /// out, this many with the one that grows: what is on its way may soon be over.
    #[must_use]
    pub fn to_rewrite(&self, sizes: &Sizes, newest: usize) -> Option<Sparse> {
        let first = self.first_needed().0;
        let complete = self.0.range(first..).count().saturating_sub(newest);
        let mut complete = self.0.range(first..).take(complete);
        let (number, segment) = complete.find(|(_, segment)| segment.is_worth_it(sizes))?;
        let before = self.0.range(first..*number).next_back();
        let is_short = |before: &Segment| before.end <= segment.end.min(sizes.segment / 4);
        let before = before.filter(|(_, before)| is_short(before));
        Some(Sparse { number: *number, before: before.map(|(before, _)| *before) })
    }

    /// Rewriting it is not worth it until much less of it is needed.
    pub fn is_dense(&mut self, segment: u32) {
        if let Some(segment) = self.0.get_mut(&segment) {
            segment.dense_at = segment.needed();
        }
    }

    /// The segment that it went into may not be on the disk: a start may have to read its file.
    pub fn hold(&mut self, segment: u32) {
        self.0.entry(segment).or_default().is_held = true;
    }

    /// It was rewritten up to here, with what was needed of the one before.
    pub(super) fn rewritten(&mut self, Sparse { number, before }: Sparse, end: u64) {
        let before = before.and_then(|before| self.0.remove(&before)).unwrap_or_default();
        if let Some(segment) = self.0.get_mut(&number) {
            segment.live += before.live;
            segment.messages += before.messages;
            segment.changes += before.changes;
            segment.outcomes += before.outcomes;
            (segment.end, segment.checkpoint, segment.dense_at) = (end, None, u64::MAX);
        }
    }
}

impl Segment {
    fn must_stay(&self) -> bool {
        self.messages > 0 || self.is_held
    }

    fn size(&self) -> u64 {
        self.end + self.checkpoint.unwrap_or_default()
    }

    /// Whether rewriting it gives much back.
    fn is_worth_it(&self, sizes: &Sizes) -> bool {
        let needed = self.needed();
        self.end >= sizes.worth_it() && needed < self.end / 4 && needed < self.dense_at / 2
    }

    /// Bytes that are needed of it, about.
    fn needed(&self) -> u64 {
        self.live + (u64::from(self.changes) + u64::from(self.outcomes)) * CHANGE
    }
}
