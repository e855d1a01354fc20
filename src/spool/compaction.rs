//! The thread that keeps the log short and quick to read: it moves live messages in old segments to the end of the log,
//! a few at a time, rewrites segments of which little is needed, and writes checkpoints of complete ones.
//!
//! A message is moved by a record with its current state; the committer adds changes that come in between. Segments are
//! removed in order, so that no outcome is lost before the message it belongs to. A segment that cannot be read stays,
//! with all segments after it, and that is logged ([`Stuck`]).

use std::fs;
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::changes::Changes;
use super::clock::{EVERY, QueueClock};
use super::condition::Unreadable;
use super::entry::Entry;
use super::header::{self, Header};
use super::index::{At, ContentPlace, IndexEntry};
use super::job::{Job, Moved, What};
use super::layout::{discard, failed};
use super::record::{Frame, Frames, Held, is_unused};
use super::shared::Parts;
use super::stuck::{Stuck, Tell};
use super::{SpoolError, checkpoint, quarantine, reading};
use crate::time::UnixTime;

mod rewriting;

/// The most bytes and messages that are moved at once: other jobs wait for them.
const PIECE: usize = 1 << 20;
const PIECE_MESSAGES: usize = 512;
/// The pause after a failure to write.
const AGAIN: Duration = Duration::from_secs(5);

/// Work for the thread.
#[derive(Debug, Clone, Copy)]
pub(super) enum Task {
    /// A segment is complete; it may need a checkpoint.
    Complete,
    /// There may be space to free, except in the newest segments: this many, including the growing one.
    GiveBack { newest: usize },
}

pub(super) struct Compactor {
    parts: Parts,
    jobs: Sender<Job>,
    clock: QueueClock,
    stuck: Stuck,
    /// The pause after a failure to move.
    not_before: Instant,
    /// The pause after a failure to rewrite.
    rewrite_not_before: Instant,
}

struct Opened {
    header: Header,
    bytes: Vec<u8>,
    /// Ranges that the disk could not read.
    missing: Vec<Range<usize>>,
}

impl Compactor {
    pub(super) fn new(parts: Parts, jobs: Sender<Job>, clock: QueueClock) -> Self {
        let now = Instant::now();
        Self { parts, jobs, clock, stuck: Stuck::default(), not_before: now, rewrite_not_before: now }
    }

    /// Works until all senders are gone.
    pub(super) fn run(mut self, tasks: &Receiver<Task>) {
        let mut save_at = Instant::now();
        loop {
            let now = Instant::now();
            if save_at <= now {
                self.clock.save();
                save_at = now + EVERY;
            }
            // Not while writing fails: what can be read again has to be moved.
            if self.not_before <= now && !self.stuck.due(now).is_empty() {
                self.look_again();
            }
            let until = self.stuck.next().map_or(save_at, |look_at| look_at.max(self.not_before).min(save_at));
            match tasks.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Ok(Task::Complete) => self.checkpoints(),
                Ok(Task::GiveBack { newest }) => {
                    self.rewrite(newest);
                    if self.not_before <= Instant::now() {
                        self.clean();
                    }
                    self.parts.shared.lock().giving_back = false;
                }
            }
            if !self.stuck.is_empty() {
                let first = self.parts.shared.lock().index.segments.first_needed().0;
                self.stuck.before(first).into_iter().for_each(|spent| self.is_well(spent));
            }
        }
        self.clock.save();
    }

    /// Writes checkpoints; one that cannot be written is left out.
    fn checkpoints(&mut self) {
        let wanting = self.parts.shared.lock().index.segments.without_checkpoint(&self.parts.sizes);
        for number in wanting {
            if self.stuck.waits(number, Instant::now()) {
                continue;
            }
            match self.read(number) {
                Ok(opened) if opened.missing.is_empty() => {
                    if let Err(error) = self.checkpoint(number, &opened) {
                        tracing::debug!("{error}; the next start reads the whole segment");
                    }
                }
                Ok(opened) => self.put_off(number, &opened.unread()),
                Err(error) => self.put_off(number, &error.to_string()),
            }
        }
    }

    fn checkpoint(&self, number: u32, opened: &Opened) -> Result<(), SpoolError> {
        let path = self.parts.layout.checkpoint(number);
        // One at a time: all at once would take several times the segment's size.
        let mut is_damaged = false;
        let frames = opened.frames().map_while(|frame| frame.map_err(|_| is_damaged = true).ok());
        let needed = frames.filter(|frame| checkpoint::is_needed(number, frame, &self.parts.shared.lock().index));
        let written = checkpoint::write(&opened.header, opened.bytes.len() as u64, needed);
        if is_damaged {
            return Err(SpoolError::Io(format!("segment {number} is damaged")));
        }
        let bytes = written.map_err(|e| SpoolError::Io(format!("{}: {e}", path.display())))?;
        let draft = path.with_extension("sum.new");
        let named = write(&draft, &bytes).and_then(|()| fs::rename(&draft, &path));
        named.map_err(|e| {
            discard(&draft);
            failed("cannot write", &path, &e)
        })?;
        self.parts.shared.lock().index.segments.has_checkpoint(number, bytes.len() as u64);
        Ok(())
    }

    fn clean(&mut self) {
        if let Err(error) = self.clean_all() {
            tracing::warn!("{error}; the log is made shorter later");
            self.not_before = Instant::now() + AGAIN;
        }
    }

    /// Moves live messages out of the first segments, while that frees enough and they can be read.
    fn clean_all(&mut self) -> Result<(), SpoolError> {
        loop {
            let Some(number) = self.parts.shared.lock().index.segments.to_clean(&self.parts.sizes) else {
                return Ok(());
            };
            if self.stuck.waits(number, Instant::now()) {
                return Ok(());
            }
            let unread = match self.read(number) {
                Ok(opened) => self.clean_one(number, &opened)?,
                Err(error) => Some(error.to_string()),
            };
            // The rest may be finished by now, and the segment removed.
            if self.parts.shared.lock().index.segments.first_needed().0 == number {
                let records = || "records in it are damaged".to_owned();
                self.put_off(number, &unread.unwrap_or_else(records));
                return Ok(());
            }
            self.is_well(number);
            self.ask(vec![What::Release])?;
        }
    }

    /// Tries unreadable segments again when their time has come.
    fn look_again(&mut self) {
        for number in self.stuck.due(Instant::now()) {
            if self.parts.shared.lock().index.open_in(number).is_empty() {
                self.is_well(number);
                continue;
            }
            match self.read(number) {
                Ok(opened) if opened.is_readable() => self.is_well(number),
                // The first segment is read again below, and its readable part moved.
                _ if self.parts.shared.lock().index.segments.to_clean(&self.parts.sizes) == Some(number) => {}
                Ok(opened) => self.put_off(number, &opened.unread()),
                Err(error) => self.put_off(number, &error.to_string()),
            }
        }
        self.clean();
    }

    /// Records that a segment cannot be read, or not completely.
    fn put_off(&mut self, segment: u32, why: &str) {
        let open = self.parts.shared.lock().index.open_in(segment);
        let mut ids: Vec<_> = open.into_iter().map(|(id, _)| id).collect();
        ids.sort_unstable();
        ids.dedup();
        let Parts { condition, metrics, .. } = &self.parts;
        let known = condition.unreadable().into_iter().find(|known| known.segment == segment);
        let since = known.map_or_else(UnixTime::now, |known| known.since);
        condition.add(Unreadable { segment, since, messages: ids.len(), why: why.to_owned() }, metrics);
        if self.stuck.failed(segment, Instant::now()) == Tell::Now {
            tracing::error!(
                alert = true,
                messages = ids.len(),
                log_bytes = self.log_bytes(),
                "spool: segment {segment} cannot be read: {why}; it stays, its messages wait, and the log grows until it can \
                 be read; see docs/spool.md"
            );
        }
    }

    /// Records that a segment can be read again, or is not needed any more.
    fn is_well(&mut self, segment: u32) {
        if self.stuck.remove(segment) {
            let Parts { condition, metrics, .. } = &self.parts;
            condition.remove(segment, metrics);
            tracing::info!("spool: segment {segment} can be read again, or nobody needs it any more");
        }
    }

    fn log_bytes(&self) -> u64 {
        let sizes = self.parts.layout.list_segments().unwrap_or_default().into_iter();
        sizes.filter_map(|path| fs::metadata(path).ok()).map(|file| file.len()).sum()
    }

    /// Moves live messages out of a segment; returns why one of them cannot be moved.
    fn clean_one(&self, number: u32, opened: &Opened) -> Result<Option<String>, SpoolError> {
        let mut unread = (!opened.missing.is_empty()).then(|| opened.unread());
        let (mut moves, mut bytes, mut changes) = (Vec::new(), 0, Changes::new(&self.parts.layout));
        for frame in opened.frames() {
            let Some(frame) = frame.map_or_else(|damaged| damaged.frame, Some) else { continue };
            for (nth, statement) in (0..).zip(&frame.logged.accepted) {
                let offset = u32::try_from(frame.range.start).unwrap_or(u32::MAX);
                let at = At { segment: number, offset, nth };
                let id = statement.entry.id;
                let found = self.parts.shared.lock().index.get(id).filter(|kept| kept.at == at).cloned();
                let Some(found) = found else { continue };
                let mut entry = Entry::clone(&statement.entry);
                if let Err(error) = changes.apply(&mut entry, &found) {
                    unread = Some(error.to_string());
                    continue;
                }
                let Some(moved) = self.moved(opened, entry, found) else { continue };
                bytes += moved.content.len();
                moves.push(What::Move(Box::new(moved)));
            }
            if bytes >= PIECE || moves.len() >= PIECE_MESSAGES {
                bytes = 0;
                self.ask(std::mem::take(&mut moves))?;
            }
        }
        self.ask(moves)?;
        Ok(unread)
    }

    /// A live message with its current state. `None`: the disk cannot read its content. A damaged content is moved
    /// unchanged to a file of its own: its checksum still does not match there, so it is never sent, and the message
    /// waits.
    fn moved(&self, opened: &Opened, entry: Entry, found: IndexEntry) -> Option<Moved> {
        let (held, content) = match found.content {
            ContentPlace::File { folder, sum } => (Held::File { folder, sum }, Bytes::new()),
            ContentPlace::Segment { offset, length, sum } => {
                let range = offset as usize..(offset as usize).saturating_add(length as usize);
                if opened.missing.iter().any(|missing| missing.start < range.end && range.start < missing.end) {
                    return None;
                }
                let rest = opened.bytes.get(range.start..).unwrap_or_default();
                let content = rest.get(..length as usize).unwrap_or(rest);
                if content.len() != length as usize || crc32c::crc32c(content) != sum {
                    let moved = self.moved_damaged(entry, found, content, length, sum);
                    return moved.inspect_err(|error| tracing::warn!("{error}; it stays where it is")).ok();
                }
                (Held::Here { length, sum }, Bytes::copy_from_slice(content))
            }
        };
        Some(Moved { entry, found, held, content, file: None })
    }

    fn moved_damaged(
        &self,
        entry: Entry,
        found: IndexEntry,
        content: &[u8],
        length: u32,
        sum: u32,
    ) -> Result<Moved, SpoolError> {
        if self.parts.shared.lock().damaged.insert(entry.id) {
            self.parts.metrics.spool_damaged_contents.with_label_values::<&str>(&[]).inc();
        }
        quarantine::keep_message(&self.parts.layout, &entry, content);
        let mut whole = content.to_vec();
        whole.resize(length as usize, 0); // as long as it was, or it would be taken for another
        let mut file = self.parts.large.create(entry.id)?;
        file.append(&whole)?;
        let held = Held::File { folder: self.parts.large.place(&mut file)?, sum: Some(sum) };
        Ok(Moved { entry, found, held, content: Bytes::new(), file: Some(file) })
    }

    fn read(&self, number: u32) -> Result<Opened, SpoolError> {
        Opened::read(&self.parts.layout.segment(number))
    }

    /// Sends all these jobs to the committer and waits for every answer, even after a failure: jobs in progress read
    /// segments, which must not be rewritten meanwhile.
    fn ask(&self, whats: Vec<What>) -> Result<(), SpoolError> {
        let ended = || SpoolError::Io("the spool has stopped".into());
        let mut answers = Vec::with_capacity(whats.len());
        for what in whats {
            let (answer, answered) = oneshot::channel();
            self.jobs.send(Job { what, answer }).map_err(|_| ended())?;
            answers.push(answered);
        }
        let all: Vec<_> = answers.into_iter().map(oneshot::Receiver::blocking_recv).collect();
        all.into_iter().try_for_each(|answered| answered.map_err(|_| ended())?)
    }
}

impl Opened {
    fn read(path: &Path) -> Result<Self, SpoolError> {
        let (bytes, missing) = reading::whole(path).map_err(|e| failed("cannot read", path, &e))?;
        let header = Header::read(&bytes);
        let why = |_| SpoolError::Io(format!("{}: {}", path.display(), unread(&missing, "it has no header any more")));
        Ok(Self { header: header.map_err(why)?, bytes, missing })
    }

    fn frames(&self) -> Frames<'_> {
        Frames::new(self.header.mark, self.header.format, &self.bytes, header::LENGTH)
    }

    /// Whether all its records can be read, apart from damaged contents.
    fn is_readable(&self) -> bool {
        let is_fine = |frame: Result<Frame, super::record::Unreadable>| match frame {
            Ok(_) => true,
            Err(unreadable) => unreadable.frame.is_some() || is_unused(&self.bytes, &unreadable.range),
        };
        self.missing.is_empty() && self.frames().all(is_fine)
    }

    /// Describes what cannot be read.
    fn unread(&self) -> String {
        unread(&self.missing, "records in it are damaged")
    }
}

/// Describes the ranges that cannot be read, or the other fault if there are none.
fn unread(missing: &[Range<usize>], otherwise: &str) -> String {
    let all: usize = missing.iter().map(ExactSizeIterator::len).sum();
    let first =
        missing.first().map(|first| format!("the disk does not give {all} bytes, the first at {}", first.start));
    first.unwrap_or_else(|| otherwise.to_owned())
}

fn write(draft: &Path, bytes: &[u8]) -> io::Result<()> {
    crate::private::create(draft)?.write_all(bytes)
}

#[cfg(test)]
mod tests;
