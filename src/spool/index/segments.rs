//! The segments of the log: how much of each is needed, and so which can be removed, cleaned or rewritten. Pure.

use std::collections::BTreeMap;

use super::super::header::is_known_by;
use super::Sizes;
use crate::message::queue_id::QueueId;

/// The approximate size of a change's record, bytes.
const CHANGE: u64 = 64;

/// All segments that exist; the last one grows.
#[derive(Debug, Default)]
pub struct Segments(BTreeMap<u32, Segment>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    end: u64,
    /// Bytes of its checkpoint, if there is one.
    checkpoint: Option<u64>,
    live: u64,
    messages: u32,
    /// Changes that live messages need.
    changes: u32,
    /// Outcomes of messages that may be in earlier segments.
    outcomes: u32,
    /// The highest id in earlier segments, but for those that came from a cluster.
    last_id: QueueId,
    /// Whether its file has to stay although the index has its content elsewhere.
    is_held: bool,
    /// The bytes that seemed to be needed when rewriting turned out not to be worth it.
    dense_at: u64,
}

/// What can be removed at the beginning of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    pub bytes: u64,
    pub segments: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sparse {
    pub number: u32,
    /// The segment before it, if that is short: both are rewritten into one file.
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
    /// Begins a segment; ids up to `last_id` are in earlier ones.
    pub fn begin(&mut self, segment: u32, last_id: QueueId) {
        self.0.entry(segment).or_default().last_id = last_id;
    }

    /// The segment has grown by this many bytes.
    pub fn grow(&mut self, segment: u32, by: u64) {
        self.0.entry(segment).or_default().end += by;
    }

    /// The segment has a checkpoint of this many bytes.
    pub fn has_checkpoint(&mut self, segment: u32, bytes: u64) {
        if let Some(segment) = self.0.get_mut(&segment) {
            segment.checkpoint = Some(bytes);
        }
    }

    /// A live message of this many bytes is in the segment.
    pub(super) fn add(&mut self, segment: u32, bytes: u32) {
        let segment = self.0.entry(segment).or_default();
        segment.live += u64::from(bytes);
        segment.messages += 1;
    }

    /// It is not any more.
    pub(super) fn take(&mut self, segment: u32, bytes: u32) {
        if let Some(segment) = self.0.get_mut(&segment) {
            segment.live -= u64::from(bytes);
            segment.messages -= 1;
        }
    }

    /// A change that a live message needs is in the segment.
    pub(super) fn add_change(&mut self, segment: u32) {
        self.0.entry(segment).or_default().changes += 1;
    }

    /// It is not needed any more.
    pub(super) fn take_change(&mut self, segment: u32) {
        if let Some(segment) = self.0.get_mut(&segment) {
            segment.changes -= 1;
        }
    }

    /// An outcome of a recipient of this message is in the segment.
    pub(super) fn add_outcome(&mut self, segment: u32, id: QueueId) {
        if let Some(segment) = self.0.get_mut(&segment)
            && is_known_by(segment.last_id, id)
        {
            segment.outcomes += 1;
        }
    }

    /// Where its acknowledged records end; `None`: there is no such segment.
    #[must_use]
    pub fn end_of(&self, segment: u32) -> Option<u64> {
        self.0.get(&segment).map(|segment| segment.end)
    }

    /// The first segment that is needed, and the size of those before it.
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

    /// The first segment that is needed if `next` is the one that grows.
    #[must_use]
    pub fn first_needed_or(&self, next: u32) -> u32 {
        self.0.iter().find(|(_, segment)| segment.must_stay()).map_or(next, |(number, _)| *number)
    }

    /// The number of segments that are needed, including the one that grows.
    #[must_use]
    pub fn needed(&self) -> usize {
        self.0.len() - self.first_needed().1.segments
    }

    /// Forgets the segments before this one and returns them.
    pub fn forget_before(&mut self, first: u32) -> Vec<u32> {
        let needed = self.0.split_off(&first);
        std::mem::replace(&mut self.0, needed).into_keys().collect()
    }

    /// The segment whose live messages are to be moved to the end of the log, if there is one. It is the first, since
    /// segments are removed in order. It is cleaned if the log is larger than allowed (half of the slack is left for
    /// mail that comes meanwhile), if there are many short segments, or if little of it is live and it cannot be
    /// [rewritten](Self::to_rewrite).
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

    /// Complete segments with many live bytes and without a checkpoint, which a start would have to read completely.
    /// The last two are left out, since their messages may soon be finished.
    #[must_use]
    pub fn without_checkpoint(&self, sizes: &Sizes) -> Vec<u32> {
        let wants =
            |one: &Segment| one.checkpoint.is_none() && one.end >= sizes.worth_it() && one.live >= one.size() / 4;
        let complete = self.0.iter().rev().skip(2);
        complete.filter(|(_, segment)| wants(segment)).map(|(number, _)| *number).collect()
    }

    /// A complete segment of which little is needed: rewriting frees its space out of order. The `newest` segments,
    /// including the one that grows, are left out, since their messages may soon be finished.
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

    /// The segment that it was merged into may not be durable: a start may have to read its file.
    pub fn hold(&mut self, segment: u32) {
        self.0.entry(segment).or_default().is_held = true;
    }

    /// The segment was rewritten and ends here; it includes the one before if that is named.
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

    /// Whether rewriting it frees enough.
    fn is_worth_it(&self, sizes: &Sizes) -> bool {
        let needed = self.needed();
        self.end >= sizes.worth_it() && needed < self.end / 4 && needed < self.dense_at / 2
    }

    /// The bytes of it that are needed, approximately.
    fn needed(&self) -> u64 {
        self.live + (u64::from(self.changes) + u64::from(self.outcomes)) * CHANGE
    }
}
