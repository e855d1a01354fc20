//! Encodes the needed parts of a complete segment as a file that replaces it. Most mail is finished soon, and without
//! this it would keep disk space for as long as a few messages wait. Pure; `compaction` reads the segment and renames
//! the file.
//!
//! Needed are the records of live messages, changes of live messages, and outcomes of messages whose record may be in
//! an earlier segment: without these, reading that segment would bring a finished message back. A message whose id is
//! higher than all in earlier segments has no earlier record ([`Header::may_be_before`]); its outcomes are dropped with
//! its record.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use super::entry::{Change, RecipientState};
use super::header::{self, FORMAT, Header};
use super::index::{At, Index};
use super::record::{self, Frame, Held, Logged, Statement};
use crate::message::queue_id::QueueId;

/// The needed parts of a complete segment.
#[derive(Debug)]
pub struct Source {
    pub header: Header,
    /// Its length up to the end of its acknowledged records.
    pub length: usize,
    contents: Vec<u8>,
    /// The needed records, with the ranges of their contents in `contents`.
    records: Vec<Needed>,
}

impl Source {
    /// Copies the needed contents out of `bytes`.
    #[must_use]
    pub fn new(header: Header, bytes: &[u8], mut records: Vec<Needed>) -> Self {
        let places = || records.iter().flat_map(|needed| &needed.accepted).map(|(_, range, _)| range);
        let mut contents = Vec::with_capacity(places().map(ExactSizeIterator::len).sum());
        for (_, range, _) in records.iter_mut().flat_map(|needed| &mut needed.accepted) {
            let from = contents.len();
            contents.extend_from_slice(bytes.get(range.clone()).unwrap_or_default());
            *range = from..contents.len();
        }
        Self { header, length: bytes.len(), contents, records }
    }
}

/// The needed part of one record.
#[derive(Debug)]
pub struct Needed {
    /// Its offset.
    offset: u32,
    /// Its messages: number in the record, range of the content in the segment, and state.
    accepted: Vec<(u32, Range<usize>, Statement<'static>)>,
    changes: Vec<Change>,
}

/// The new segment.
#[derive(Debug)]
pub struct Rewritten {
    pub bytes: Vec<u8>,
    pub moves: Moves,
}

/// New positions of records.
#[derive(Debug, Default)]
pub struct Moves {
    /// Messages: the old and the new position.
    pub statements: Vec<(QueueId, At, To)>,
    /// By segment and offset.
    records: HashMap<(u32, u32), (u32, u32)>,
    /// Messages with changes there.
    changed: BTreeSet<QueueId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct To {
    pub at: At,
    /// Where its content begins, if it is in the record.
    pub content: u32,
}

impl Moves {
    /// The new position of a record, if it was moved.
    #[must_use]
    pub fn record(&self, segment: u32, offset: u32) -> Option<(u32, u32)> {
        self.records.get(&(segment, offset)).copied()
    }

    /// Messages with changes that were moved.
    pub fn changed(&self) -> impl Iterator<Item = &QueueId> {
        self.changed.iter()
    }
}

/// The needed part of a record of this segment, if there is any.
#[must_use]
pub fn needed(header: &Header, frame: Frame, index: &Index) -> Option<Needed> {
    let offset = four(frame.range.start);
    let (mut accepted, mut at) = (Vec::new(), frame.contents);
    for (nth, statement) in (0..).zip(frame.logged.accepted) {
        let from = at;
        if let Held::Here { length, .. } = statement.content {
            at += length as usize;
        }
        let place = At { segment: header.number, offset, nth };
        if index.get(statement.entry.id).is_some_and(|kept| kept.at == place) {
            accepted.push((nth, from..at, statement));
        }
    }
    let is_needed = |change: &&Change| is_change_needed(header, offset, change, index);
    let changes: Vec<Change> = frame.logged.changes.iter().filter(is_needed).cloned().collect();
    (!accepted.is_empty() || !changes.is_empty()).then_some(Needed { offset, accepted, changes })
}

fn is_change_needed(header: &Header, offset: u32, change: &Change, index: &Index) -> bool {
    let is_it = |changed: super::index::Changed| {
        (changed.segment, changed.offset) == (header.number, offset)
            && usize::try_from(changed.recipient) == Ok(change.recipient)
    };
    (matches!(change.state, RecipientState::Done(_)) && header.may_be_before(change.id))
        || index.get(change.id).is_some_and(|kept| kept.changes.iter().any(is_it))
}

/// Encodes the needed parts of these segments, concatenated, as one segment with the last one's number.
///
/// # Errors
/// The segment would be larger than 4 GiB.
pub fn write(sources: Vec<Source>) -> Result<Option<Rewritten>, postcard::Error> {
    let (Some(first), Some(last)) = (sources.first(), sources.last()) else { return Ok(None) };
    let (first, last) = (first.header, last.header);
    // Reserved memory that is not written costs nothing, while growing would copy.
    let (mut bytes, mut moves) =
        (Vec::with_capacity(sources.iter().map(|source| source.length).sum()), Moves::default());
    bytes.resize(header::LENGTH, 0);
    for Source { header, contents: segment, records, .. } in sources {
        for Needed { offset, accepted, changes } in records {
            let to = four(bytes.len());
            moves.records.insert((header.number, offset), (last.number, to));
            moves.changed.extend(changes.iter().map(|change| change.id));
            let (places, accepted): (Vec<(u32, Range<usize>)>, Vec<Statement<'_>>) =
                accepted.into_iter().map(|(nth, range, statement)| ((nth, range), statement)).unzip();
            let content = |(_, range): &(u32, Range<usize>)| segment.get(range.clone()).unwrap_or_default();
            let contents: Vec<&[u8]> = places.iter().map(content).collect();
            let logged = Logged { accepted, changes: Cow::Owned(changes) };
            let mut content = four(record::write(last.mark, &logged, &contents, &mut bytes)?);
            for (nth, (((was, _), statement), bytes)) in (0..).zip(places.iter().zip(&logged.accepted).zip(&contents)) {
                let from = At { segment: header.number, offset, nth: *was };
                let at = At { segment: last.number, offset: to, nth };
                moves.statements.push((statement.entry.id, from, To { at, content }));
                content += four(bytes.len());
            }
        }
    }
    u32::try_from(bytes.len()).map_err(|_| postcard::Error::SerializeBufferFull)?;
    let header = Header {
        format: FORMAT,
        previous: first.previous,
        previous_end: first.previous_end,
        rewritten_end: bytes.len() as u64,
        ..last
    };
    bytes[..header::LENGTH].copy_from_slice(&header.write());
    Ok(Some(Rewritten { bytes, moves }))
}

/// Whether these segments can become one: the second names the first as the previous one.
#[must_use]
pub fn is_run(before: &Header, header: &Header) -> bool {
    header.previous == before.number
}

fn four(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX) // a segment is never that long
}

#[cfg(test)]
mod tests;
