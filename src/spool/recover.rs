//! Reads a spool's folder at start: finds the live messages, and what is to be discarded or moved to `aside/`. `store`
//! calls it and puts the result in force with a new segment; until then all of it can be repeated.
//!
//! The log decides. Content that it does not name was never accepted or is finished, unless the log itself is damaged:
//! then it is kept in `aside/`. A live message with damaged, missing or truncated content stays queued, so that its
//! sender gets a report in the end. Nothing that might be mail is deleted. What the disk cannot read is not treated as
//! damaged: if outcomes may be in it, the start is refused.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::chain::{Link, chain};
use super::changes::Changes;
use super::entry::Entry;
use super::entry::outline::Outlines;
use super::header::{self, Header};
use super::index::{ContentPlace, Index, IndexEntry, Spot};
use super::layout::{self, Layout, failed, in_format, undecodable};
use super::quarantine::{self, Quarantined};
use super::record::{Frame, Frames, Held, Unreadable, is_torn, is_unused};
use super::segment::{Readable, header_of};
use super::{SpoolError, checkpoint, reading};
use crate::message::queue_id::QueueId;
use crate::time::QueueTime;

#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub index: Index,
    pub outlines: Outlines,
    /// When the newest message was queued; `None`: there is none.
    pub newest: Option<QueueTime>,
    /// Sizes of contents that are files.
    large: HashMap<QueueId, u64>,
    /// The highest id that was ever used.
    pub last_id: QueueId,
    /// The last segment, and where its records end.
    pub last: Option<(u32, u64)>,
    pub next_segment: u32,
    /// The number of the next folder for large contents.
    pub next_folder: u32,
    /// Paths to remove once the next segment is in force. Folders follow their files, and are removed only if empty.
    pub discard: Vec<PathBuf>,
    /// What is to be moved to `aside/` once everything is read: a start that is refused moves nothing.
    aside: Vec<Quarantined>,
    /// Live messages whose content is missing.
    lost: Vec<QueueId>,
    /// Those, and live messages with a damaged content.
    pub not_whole: HashSet<QueueId>,
    /// Whether accepted messages may be missing.
    damaged: bool,
    /// Checkpoints that another version wrote.
    foreign: usize,
}

pub(super) fn recover(layout: &Layout) -> Result<Recovered, SpoolError> {
    let mut found = Recovered { discard: layout::list(&layout.incoming)?, ..Recovered::default() };
    let incoming: Vec<_> = found.discard.iter().filter_map(|path| quarantine::id(path)).collect();
    incoming.into_iter().for_each(|id| found.used(id));
    let headers = found.headers(layout)?;
    let (links, missing) = chain(&headers);
    for number in &missing {
        tracing::error!(
            alert = true,
            "spool: {} is missing; what was in it is lost: see docs/spool.md",
            layout.segment(*number).display()
        );
    }
    found.damaged = links.is_empty() || !missing.is_empty();
    links.iter().try_for_each(|link| found.read(layout, link))?;
    if found.foreign > 0 {
        tracing::info!(
            "spool: {} checkpoints are from another version: their segments were read whole, and new ones are written",
            found.foreign
        );
    }
    found.next_segment = headers.keys().next_back().copied().unwrap_or_default() + 1;
    let is_log = |number: u32| links.iter().any(|link| link.number == number);
    for number in headers.into_keys().filter(|number| !is_log(*number)) {
        found.discard.extend([layout.segment(number), layout.checkpoint(number)]);
    }
    std::mem::take(&mut found.aside).into_iter().try_for_each(|aside| aside.keep(layout))?;
    found.read_large(layout)?;
    found.lay_aside_without_content(layout)?;
    Ok(found)
}

impl Recovered {
    /// An id of a cluster comes from a move; this spool gives none of those out.
    fn used(&mut self, id: QueueId) {
        if !id.is_clustered() {
            self.last_id = self.last_id.max(id);
        }
    }

    /// The existing segments and their headers.
    fn headers(&mut self, layout: &Layout) -> Result<BTreeMap<u32, Option<Header>>, SpoolError> {
        let mut headers = BTreeMap::new();
        let paths = layout.list_segments()?;
        for path in &paths {
            let Some(number) = layout::number(path, ".seg") else { continue };
            let read = reading::patiently(|| header_of(&File::open(path)?), |_| true);
            let header = match read.map_err(|e| unread(path, number, &e.to_string()))? {
                Ok(header) => Some(header),
                Err(header::Unreadable::Format(format)) => return Err(in_format(path, format)),
                Err(header::Unreadable::Damaged) => None,
            };
            headers.insert(number, header);
        }
        let belongs = |path: &PathBuf| {
            let number = layout::number(path, ".seg").or_else(|| layout::number(path, ".sum"));
            number.is_some_and(|number| headers.contains_key(&number))
        };
        self.discard.extend(paths.into_iter().filter(|path| !belongs(path)));
        Ok(headers)
    }

    /// Applies the records of one segment.
    fn read(&mut self, layout: &Layout, link: &Link) -> Result<(), SpoolError> {
        if let Some(header) = &link.header {
            self.used(header.last_id);
            self.index.segments.begin(link.number, header.last_id);
            if self.read_checkpoint(layout, header, link.end) {
                return Ok(());
            }
        }
        let path = layout.segment(link.number);
        let read = reading::patiently(|| reading::whole(&path), |(_, missing)| missing.is_empty());
        let (mut bytes, missing) = read.map_err(|e| unread(&path, link.number, &e.to_string()))?;
        let (is_all_read, mut bad) = (missing.is_empty(), Vec::new());
        let is_missing =
            |range: &Range<usize>| missing.iter().any(|one| one.start < range.end && range.start < one.end);
        let end = usize::try_from(link.end.unwrap_or(bytes.len() as u64)).unwrap_or(usize::MAX);
        if bytes.len() < end || link.header.is_none() {
            bad.push(bytes.len()..end.max(bytes.len()));
        }
        bytes.truncate(end);
        let mut read_to = bytes.len();
        let mark = link.header.map_or([0; 8], |header| header.mark);
        let frames =
            link.header.iter().flat_map(|header| Frames::new(header.mark, header.format, &bytes, header::LENGTH));
        for read in frames {
            match read {
                Err(unreadable) if unreadable.is_undecodable => return Err(undecodable(&path, unreadable.range.start)),
                Ok(frame) => self.put_in(link.number, &frame),
                // The disk cannot read it, so its content is unknown.
                Err(Unreadable { range, frame: None, .. }) if is_missing(&range) => {
                    let why = format!("the disk does not give what stands in bytes {range:?}");
                    return Err(unread(&path, link.number, &why));
                }
                Err(Unreadable { range, frame: Some(frame), .. }) if is_missing(&range) => {
                    tracing::error!(
                        alert = true,
                        "spool: contents in bytes {range:?} of {} cannot be read; their messages wait",
                        path.display()
                    );
                    self.put_in(link.number, &frame);
                }
                Err(unused) if link.end.is_none() && is_unused(&bytes, &unused.range) => {
                    read_to = read_to.min(unused.range.start);
                }
                Err(torn) if link.end.is_none() && is_torn(mark, &bytes, &torn.range) => {
                    tracing::warn!(
                        "spool: the last {} bytes of {} were being written when fingerpost ended; they are cut off, \
                         nothing in them was acknowledged",
                        torn.range.len(),
                        path.display()
                    );
                    read_to = read_to.min(torn.range.start);
                }
                Err(unreadable) => {
                    self.aside.extend(quarantine::damaged(&bytes, &unreadable));
                    bad.push(unreadable.range);
                    if let Some(frame) = unreadable.frame {
                        self.put_in_damaged(link.number, &frame);
                    }
                }
            }
        }
        // An unreadable part may be more than an interrupted write: then nothing is cut off.
        let end = if is_all_read { read_to } else { bytes.len() } as u64;
        self.index.segments.grow(link.number, end);
        self.last = Some((link.number, end));
        if !bad.is_empty() {
            self.damaged = true;
            self.aside.push(Quarantined::Segment(link.number, bad));
        }
        Ok(())
    }

    /// Only contents are damaged; the envelopes and changes are intact. For a moved message whose old copy still
    /// exists, the old copy is used.
    fn put_in_damaged(&mut self, segment: u32, frame: &Frame) {
        if frame.logged.accepted.iter().all(|statement| self.index.get(statement.entry.id).is_none()) {
            self.not_whole.extend(frame.logged.accepted.iter().map(|statement| statement.entry.id));
            self.put_in(segment, frame);
        }
    }

    /// Whether the checkpoint could be applied completely.
    fn read_checkpoint(&mut self, layout: &Layout, header: &Header, end: Option<u64>) -> bool {
        let Some(end) = end else { return false };
        let is_there = fs::metadata(layout.segment(header.number)).is_ok_and(|segment| segment.len() >= end);
        let bytes = if is_there { fs::read(layout.checkpoint(header.number)) } else { Ok(Vec::new()) };
        let bytes = bytes.unwrap_or_default();
        // If it stops halfway the segment is read, which repeats the same records; applying a record twice is harmless.
        let mut put_in = |frame: Option<Frame>| frame.map(|frame| self.put_in(header.number, &frame)).is_some();
        if !checkpoint::read(header, end, &bytes).is_some_and(|mut frames| frames.all(&mut put_in)) {
            self.foreign += usize::from(checkpoint::is_foreign(header, end, &bytes));
            return false;
        }
        self.index.segments.grow(header.number, end);
        self.index.segments.has_checkpoint(header.number, bytes.len() as u64);
        true
    }

    fn put_in(&mut self, segment: u32, frame: &Frame) {
        let at = |at: usize| u32::try_from(at).unwrap_or(u32::MAX); // a segment is never that long
        let spot = Spot { segment, offset: at(frame.range.start), contents: at(frame.contents) };
        self.index.apply(&frame.logged, spot);
        for statement in &frame.logged.accepted {
            self.used(statement.entry.id);
            self.newest = self.newest.max(Some(statement.entry.queued_at));
            if matches!(statement.content, Held::File { .. }) {
                self.large.insert(statement.entry.id, statement.entry.content.size);
            }
            self.outlines.insert(&statement.entry);
        }
        for change in frame.logged.changes.iter() {
            self.outlines.apply(change);
        }
    }

    /// Finds the large contents, and files that belong to no message.
    fn read_large(&mut self, layout: &Layout) -> Result<(), SpoolError> {
        let mut wanted: HashMap<(u32, QueueId), u64> = HashMap::new();
        for (id, kept) in self.index.messages() {
            if let (ContentPlace::File { folder, .. }, Some(size)) = (kept.content, self.large.get(&id)) {
                wanted.insert((folder, id), *size);
            }
        }
        for folder in layout::list(&layout.large)? {
            let Some(number) = layout::number(&folder, "") else { continue };
            self.next_folder = self.next_folder.max(number + 1);
            for path in layout::list(&folder)? {
                let Some(id) = quarantine::id(&path) else { continue };
                self.used(id);
                let size = fs::metadata(&path).map_err(|e| failed("cannot read", &path, &e))?.len();
                match wanted.get(&(number, id)) {
                    Some(expected) if *expected == size => drop(wanted.remove(&(number, id))),
                    None if !self.damaged => self.discard.push(path),
                    Some(_) | None => quarantine::move_content(layout, &path, id)?,
                }
            }
            self.discard.push(folder);
        }
        // The rest was not found complete.
        self.lost.extend(wanted.into_keys().map(|(_, id)| id));
        Ok(())
    }

    /// A live message without its content cannot be delivered: it stays queued until its sender gets a report, or the
    /// content is there again. Its envelope is kept for operators.
    fn lay_aside_without_content(&mut self, layout: &Layout) -> Result<(), SpoolError> {
        self.not_whole.extend(&self.lost);
        for id in std::mem::take(&mut self.lost) {
            let kept = self.index.get(id);
            if let Some(entry) = kept.and_then(|kept| entry_of(layout, id, kept)) {
                quarantine::keep_envelope(layout, &entry)?;
            }
        }
        Ok(())
    }
}

/// A message's current state, if it can be read.
fn entry_of(layout: &Layout, id: QueueId, kept: &IndexEntry) -> Option<Entry> {
    let segment = Readable::open(&layout.segment(kept.at.segment)).ok()?;
    let (logged, _) = segment.logged(kept.at.offset).ok()?;
    let statement = logged.accepted.into_iter().nth(kept.at.nth as usize)?;
    let mut entry = Some(statement.entry.into_owned()).filter(|entry| entry.id == id)?;
    Changes::new(layout).apply(&mut entry, kept).ok()?;
    Some(entry)
}

/// The error if the disk cannot read what may contain outcomes: a start would lose them, or send messages again.
fn unread(path: &Path, number: u32, why: &str) -> SpoolError {
    let text = format!(
        "cannot read {}: {why}. What became of mail may stand there, so nothing is begun, and nothing was changed. Look \
         at the disk; each start tries again. Where it stays so, `fingerpost spool release {number} --offline` lets go \
         what cannot be read (docs/spool.md)",
        path.display()
    );
    SpoolError::Io(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::record::{self, Logged};

    /// A kill leaves zeros that were written ahead, or part of a record, after the last record.
    #[test]
    fn a_segment_ends_where_its_records_end_and_is_known_to() {
        let header = crate::spool::sample::header();
        let mut written = header.write();
        let logged = Logged { accepted: Vec::new(), changes: Vec::new().into() };
        record::write(header.mark, &logged, &[], &mut written).unwrap();
        for tail in [&[][..], &[0; 5000], &[7; 12]] {
            let folder = tempfile::tempdir().unwrap();
            let layout = Layout::make(folder.path()).unwrap();
            fs::write(layout.segment(1), [&written, tail].concat()).unwrap();
            let found = recover(&layout).unwrap();
            let end = written.len() as u64;
            assert_eq!(found.last, Some((1, end)));
            assert_eq!(found.index.segments.end_of(1), Some(end), "{} octets behind it", tail.len());
        }
    }
}
