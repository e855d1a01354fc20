//! The log's segment in force: a file that begins with all live messages and goes on with records. `committer` and
//! `store` write it.
//!
//! The segment with the highest number says everything; older ones are leftovers. A new one is written under another
//! name, synced, and only then named, so that there is none in force that lacks its beginning.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::SpoolError;
use super::layout::{discard, failed, new_file, sync_folder};
use super::live::Live;
use crate::message::queue_id::QueueId;
use crate::metrics::Metrics;

/// The segment that records are appended to.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    number: u64,
    size: u64,
}

/// Why there is no new segment.
#[derive(Debug)]
pub(super) enum NotBegun {
    /// The one before is still in force; another can be tried.
    Unwritten(SpoolError),
    /// It has its name, but after a power cut the one before may be found instead. Neither can be relied on, and
    /// the folder must not be synced again (a second sync may claim what the first one lost).
    Unnamed(SpoolError),
}

/// Why a record is not in the log.
#[derive(Debug)]
pub(super) enum NotAppended {
    /// It could not be written and was taken back; the segment goes on.
    Unwritten(SpoolError),
    /// It may or may not be there; nothing more may be appended.
    InDoubt(SpoolError),
}

impl Segment {
    /// Writes all live messages into a new segment and puts it in force, durably.
    pub(super) fn begin(folder: &Path, number: u64, live: &mut Live, last_id: QueueId) -> Result<Self, NotBegun> {
        let path = folder.join(name(number));
        let draft = path.with_extension("new");
        let (file, size) = Self::write(&draft, live, last_id).map_err(|e| {
            discard(&draft);
            NotBegun::Unwritten(e)
        })?;
        if let Err(e) = fs::rename(&draft, &path) {
            discard(&draft);
            return Err(NotBegun::Unwritten(failed("cannot name", &path, &e)));
        }
        sync_folder(folder).map_err(NotBegun::Unnamed)?;
        Ok(Self { path, file, number, size })
    }

    fn write(draft: &Path, live: &mut Live, last_id: QueueId) -> Result<(File, u64), SpoolError> {
        let bytes = live.write_segment(last_id).map_err(|e| SpoolError::Io(format!("cannot write JSON: {e}")))?;
        discard(draft); // a leftover of a process that was killed
        let file = new_file(draft)?;
        file.write_all_at(&bytes, 0).map_err(|e| failed("cannot write", draft, &e))?;
        file.sync_all().map_err(|e| failed("cannot sync", draft, &e))?;
        Ok((file, bytes.len() as u64))
    }

    /// Appends whole lines and syncs them.
    pub(super) fn append(&mut self, lines: &[u8], metrics: &Metrics) -> Result<(), NotAppended> {
        if let Err(e) = self.file.write_all_at(lines, self.size) {
            let error = failed("cannot write", &self.path, &e);
            return match self.file.set_len(self.size) {
                Ok(()) => Err(NotAppended::Unwritten(error)),
                Err(_) => Err(NotAppended::InDoubt(error)),
            };
        }
        let begun = Instant::now();
        let synced = self.file.sync_data();
        metrics.spool_sync_duration.with_label_values::<&str>(&[]).observe(begun.elapsed().as_secs_f64());
        synced.map_err(|e| NotAppended::InDoubt(failed("cannot sync", &self.path, &e)))?;
        self.size += lines.len() as u64;
        Ok(())
    }

    /// Its number.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Its size, bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

/// A segment's file name.
pub(super) fn name(number: u64) -> String {
    format!("{number:08}.log")
}

/// The number of a segment, from its path.
pub(super) fn number(path: &Path) -> Option<u64> {
    let number = path.file_name()?.to_str()?.strip_suffix(".log")?;
    number.parse().ok()
}
