//! The segment that grows: a file with a header, followed by records. `committer` and `store` write it.
//!
//! A new one is written under another name, synced, and then renamed, so that none is without its header. Its header
//! says where the previous one ended: anything after that was never acknowledged and is not read.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::SpoolError;
use super::header::{self, Header};
use super::index::Sizes;
use super::layout::{Layout, discard, failed, new_file};
use super::record::{BEFORE, Lengths, Logged, Mark};
use super::reserve::Reserve;
use crate::message::queue_id::QueueId;
use crate::metrics::Metrics;

/// A first read of this size gets most heads.
const GUESS: usize = 2048;
/// The most zeros that are written ahead, bytes.
const AHEAD: u64 = 256 * 1024;

#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    /// Shared with readers of contents.
    pub file: Arc<File>,
    pub number: u32,
    /// The end of its records, all of which are durable.
    pub size: u64,
    /// The size of the file: zeros up to there, so that syncs need not write a new file size, which costs as much as
    /// the data.
    allocated: u64,
    /// How many zeros are written ahead at once.
    ahead: usize,
    /// Marks its records.
    pub mark: Mark,
}

/// Why a new segment could not be begun.
#[derive(Debug)]
pub(super) enum NotBegun {
    /// The disk is full; the previous one is still in force.
    Full(SpoolError),
    /// The previous one is still in force; another may be tried.
    Unwritten(SpoolError),
    /// It has been renamed, but that may not survive a power cut. The folder must not be synced again, since a second
    /// sync may succeed although data of the first is lost.
    Unnamed(SpoolError),
}

/// Why records could not be appended.
#[derive(Debug)]
pub(super) enum NotAppended {
    /// The disk is full. They were removed again; the segment goes on.
    Full(SpoolError),
    /// They could not be written and were removed again; the segment goes on.
    Unwritten(SpoolError),
    /// They may or may not be in the file; nothing more may be appended.
    InDoubt(SpoolError),
}

/// A segment that is open for reading.
#[derive(Debug, Clone)]
pub(super) struct Readable {
    pub file: Arc<File>,
    mark: Mark,
    format: u16,
}

impl Readable {
    pub(super) fn open(path: &Path) -> Result<Self, SpoolError> {
        let file = File::open(path).map_err(|e| failed("cannot open", path, &e))?;
        let header = header_of(&file).map_err(|e| failed("cannot read", path, &e))?;
        let header = header.map_err(|_| SpoolError::Io(format!("{} has no header any more", path.display())))?;
        Ok(Self { file: Arc::new(file), mark: header.mark, format: header.format })
    }

    /// The head of the record at this offset, and where its contents begin.
    pub(super) fn logged(&self, offset: u32) -> io::Result<(Logged<'static>, u64)> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a record is not what was written: check the disk");
        let at = u64::from(offset);
        let mut bytes = vec![0; GUESS];
        let read = read_up_to(&self.file, &mut bytes, at)?;
        bytes.truncate(read);
        let lengths = Lengths::read(self.mark, &bytes).ok_or_else(damaged)?;
        let end = BEFORE + lengths.head;
        if bytes.len() < end {
            let begun = bytes.len();
            bytes.resize(end, 0);
            self.file.read_exact_at(&mut bytes[begun..], at + begun as u64)?;
        }
        let logged = lengths.logged(self.format, &bytes[BEFORE..end]).map_err(|_| damaged())?;
        Ok((logged, at + end as u64))
    }
}

/// Reads as much as there is.
fn read_up_to(file: &File, to: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < to.len() {
        match file.read_at(&mut to[read..], at + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(read)
}

impl Segment {
    pub(super) fn readable(&self) -> Readable {
        Readable { file: self.file.clone(), mark: self.mark, format: header::FORMAT }
    }

    /// Writes an empty segment and puts it in force, durably.
    pub(super) fn begin(layout: &Layout, header: &Header, ahead: usize) -> Result<Self, NotBegun> {
        let path = layout.segment(header.number);
        let draft = path.with_extension("new");
        discard(&draft); // a leftover of a process that was killed
        let written = write(&draft, header).and_then(|file| fs::rename(&draft, &path).map(|()| file));
        let file = written.map_err(|e| {
            discard(&draft);
            let error = failed("cannot write", &path, &e);
            if is_full(&e) { NotBegun::Full(error) } else { NotBegun::Unwritten(error) }
        })?;
        layout.sync_names(header.number).map_err(NotBegun::Unnamed)?;
        let size = header::LENGTH as u64;
        let (number, mark, file) = (header.number, header.mark, Arc::new(file));
        Ok(Self { path, file, number, size, allocated: size, ahead, mark })
    }

    /// Appends complete records and syncs them.
    pub(super) fn append(&mut self, records: &[u8], metrics: &Metrics) -> Result<(), NotAppended> {
        let size = self.size + records.len() as u64;
        if u32::try_from(size).is_err() {
            return Err(NotAppended::Unwritten(SpoolError::Io(format!("{} is too long", self.path.display()))));
        }
        if let Err(e) = self.file.write_all_at(records, self.size) {
            let error = failed("cannot write", &self.path, &e);
            self.allocated = self.size;
            return match self.file.set_len(self.size) {
                Ok(()) if is_full(&e) => Err(NotAppended::Full(error)),
                Ok(()) => Err(NotAppended::Unwritten(error)),
                Err(_) => Err(NotAppended::InDoubt(error)),
            };
        }
        if size > self.allocated {
            let zeros = vec![0; self.ahead];
            self.allocated = match self.file.write_all_at(&zeros, size) {
                Ok(()) => size + zeros.len() as u64,
                Err(_) => size, // there is no room: it goes on without
            };
        }
        let begun = Instant::now();
        let synced = self.file.sync_data();
        metrics.spool_sync_duration.with_label_values::<&str>(&[]).observe(begun.elapsed().as_secs_f64());
        synced.map_err(|e| NotAppended::InDoubt(failed("cannot sync", &self.path, &e)))?;
        self.size = size;
        Ok(())
    }

    /// Truncates the file at the end of its records: removes zeros, and records in doubt, which must not reappear if
    /// only the process ends.
    pub(super) fn cut(&self) {
        let _ = self.file.set_len(self.size); // the next segment's header says the same, durably
    }
}

fn write(draft: &Path, header: &Header) -> io::Result<File> {
    let file = new_file(draft)?;
    file.write_all_at(&header.write(), 0)?;
    file.sync_all()?;
    Ok(file)
}

/// Whether the error says that the disk is full.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A segment to be put in force.
#[derive(Debug, Clone, Copy)]
pub(super) struct Next {
    pub number: u32,
    /// The number of the segment before it, and where that ends.
    pub previous: u32,
    pub previous_end: u64,
    /// The first segment that is needed.
    pub first: u32,
    pub last_id: QueueId,
}

/// Puts a segment in force; uses the reserve, if allowed, where there is no other space.
pub(super) fn begin(
    layout: &Layout,
    next: Next,
    reserve: Option<&mut Reserve>,
    sizes: &Sizes,
) -> Result<Segment, NotBegun> {
    let mut mark = [0; 8];
    let made = aws_lc_rs::rand::fill(&mut mark);
    made.map_err(|_| NotBegun::Unwritten(SpoolError::Io("the system gives no random numbers".into())))?;
    let Next { number, previous, previous_end, first, last_id } = next;
    let header =
        Header { format: header::FORMAT, number, previous, previous_end, first, last_id, mark, rewritten_end: 0 };
    let ahead = usize::try_from(sizes.worth_it().min(AHEAD)).unwrap_or_default();
    let begun = Segment::begin(layout, &header, ahead);
    let is_full = matches!(begun, Err(NotBegun::Full(_)));
    if is_full && reserve.is_some_and(Reserve::release) { Segment::begin(layout, &header, ahead) } else { begun }
}

/// Removes segments that no header names any more.
pub(super) fn remove(layout: &Layout, segments: Vec<u32>) {
    for number in segments {
        discard(&layout.segment(number));
        discard(&layout.checkpoint(number));
        layout.forget(number);
    }
}

/// A segment's header; the outer error is the disk's.
pub(super) fn header_of(file: &File) -> io::Result<Result<Header, header::Unreadable>> {
    let (mut bytes, mut length) = ([0; header::LENGTH], 0);
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Header::read(&bytes[..length]))
}
