//! What is needed of a complete segment, in a file that takes its place: most mail passes, and what it leaves would
//! fill the disk behind mail that waits. Pure; `compaction` reads the segment, and names the file.
//!
//! Needed are statements of messages that are live as they stand there, changes of live messages, and outcomes of
//! messages that an earlier segment may state: read without them, it would bring a finished message back. A message whose
//! id is higher than all before the segment is stated nowhere earlier; its outcomes go with its statement.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use super::entry::{Change, RecipientState};
use super::header::{self, FORMAT, Header};
use super::index::{At, Index};
use super::record::{self, Frame, Held, Logged, Statement};
use crate::message::queue_id::QueueId;

/// What is needed of a complete segment.
#[derive(Debug)]
pub struct Source {
    /// What it says of itself.
    pub header: Header,
    /// How long it is, up to where its acknowledged records end.
    pub length: usize,
    /// Contents that the records need.
    contents: Vec<u8>,
    /// Its records, as far as they are needed, with their places in `contents`.
    records: Vec<Needed>,
}

impl Source {
    /// Of a segment's bytes, which may go then.
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

/// What is needed of one record.
#[derive(Debug)]
pub struct Needed {
    /// Where it stands.
    offset: u32,
    /// Which of its messages, each with its content in the segment.
    accepted: Vec<(u32, Range<usize>, Statement<'static>)>,
    changes: Vec<Change>,
}

/// The file.
#[derive(Debug)]
pub struct Rewritten {
    pub bytes: Vec<u8>,
    /// Where records are in it.
    pub moves: Moves,
}

/// Where records are that were in other places.
#[derive(Debug, Default)]
pub struct Moves {
    /// Messages: where their statement was, and where it is.
    pub statements: Vec<(QueueId, At, To)>,
    /// Records by segment and offset.
    records: HashMap<(u32, u32), (u32, u32)>,
    /// Messages of whose recipients something became there.
    changed: BTreeSet<QueueId>,
}

/// A statement's new place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct To {
    /// Its record.
    pub at: At,
    /// Where its content begins, if that is in the record.
    pub content: u32,
}

impl Moves {
    /// Where a record is now, if it was moved.
    #[must_use]
    pub fn record(&self, segment: u32, offset: u32) -> Option<(u32, u32)> {
        self.records.get(&(segment, offset)).copied()
    }

    /// Messages whose changes were moved.
    pub fn changed(&self) -> impl Iterator<Item = &QueueId> {
        self.changed.iter()
    }
}

/// What is needed of a record of this segment, if anything is.
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
    (matches!(change.state, RecipientState::Done(_)) && change.id <= header.last_id)
        || index.get(change.id).is_some_and(|kept| kept.changes.iter().any(is_it))
}

/// Writes what is needed of these segments, one behind the other, as one that has the last one's number.
///
/// # Errors
/// What cannot be written: a segment of more than 4 GiB.
pub fn write(sources: Vec<Source>) -> Result<Option<Rewritten>, postcard::Error> {
    let (Some(first), Some(last)) = (sources.first(), sources.last()) else { return Ok(None) };
    let (first, last) = (first.header, last.header);
    // What is not written to takes no memory, and growing would take it twice.
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

/// Whether these segments can become one: each names the one before it.
#[must_use]
pub fn is_run(before: &Header, header: &Header) -> bool {
    header.previous == before.number
}

fn four(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX) // a segment is never that long
}

#[cfg(test)]
mod tests;
