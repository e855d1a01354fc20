//! Gives up the parts of a segment that the disk cannot read, without the server: for when it refuses to start because
//! of them, and an operator has decided. The segment is kept in `aside/`, and replaced by a copy with zeros for what
//! could not be read, which a start treats as damaged.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::header::{self, Header};
use super::layout::{self, Layout, failed};
use super::record::Frames;
use super::{SpoolError, quarantine, reading};
use crate::message::queue_id::QueueId;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LetGo {
    /// The segment can be read completely.
    Nothing,
    Bytes {
        /// The number of unreadable bytes.
        bytes: usize,
        /// The path of the kept segment.
        aside: PathBuf,
        /// The messages in the readable part, finished or not.
        messages: Vec<Known>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Known {
    pub id: QueueId,
    pub sender: String,
    pub recipients: Vec<String>,
}

/// Gives up the unreadable parts of a segment of the spool below `folder`, which must not be in use.
///
/// # Errors
/// [`SpoolError::Io`]; nothing has changed then.
pub fn release(folder: &Path, segment: u32) -> Result<LetGo, SpoolError> {
    let lock = layout::lock(folder)?;
    let layout = Layout::make(folder)?;
    layout.list_segments()?;
    let path = layout.segment(segment);
    let (bytes, missing) = reading::whole(&path).map_err(|e| failed("cannot read", &path, &e))?;
    if missing.is_empty() {
        return Ok(LetGo::Nothing);
    }
    let copy = path.with_extension("copy");
    let written = crate::private::create(&copy).and_then(|mut file| {
        belongs_to_the_same(&file, &path)?;
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.map_err(|e| failed("cannot write", &copy, &e))?;
    // The second name is made first, so that the original always has a name.
    let why = format!("an operator lets go what cannot be read of segment {segment}");
    let aside = quarantine::keep_segment(&layout, segment, &why)?;
    fs::rename(&copy, &path).map_err(|e| failed("cannot name", &path, &e))?;
    layout::sync_folder(path.parent().unwrap_or(folder))?;
    drop(lock);
    let bytes_let_go = missing.iter().map(ExactSizeIterator::len).sum();
    Ok(LetGo::Bytes { bytes: bytes_let_go, aside, messages: messages(&bytes) })
}

/// Gives the copy the original's owner: root may run this, and the server refuses files of another user.
fn belongs_to_the_same(file: &File, path: &Path) -> io::Result<()> {
    let owner = fs::metadata(path)?;
    if file.metadata()?.uid() == owner.uid() {
        return Ok(());
    }
    fchown(file, Some(owner.uid()), Some(owner.gid()))
}

fn messages(segment: &[u8]) -> Vec<Known> {
    let Ok(header) = Header::read(segment) else { return Vec::new() };
    let frames = Frames::new(header.mark, header.format, segment, header::LENGTH);
    let frames = frames.filter_map(|frame| frame.map_or_else(|unreadable| unreadable.frame, Some));
    let known = |entry: &super::entry::Entry| Known {
        id: entry.id,
        sender: entry.sender.reverse_path.to_string(),
        recipients: entry.recipients.iter().map(|queued| queued.rcpt.address.to_string()).collect(),
    };
    frames.flat_map(|frame| frame.logged.accepted.into_iter().map(|statement| known(&statement.entry))).collect()
}
