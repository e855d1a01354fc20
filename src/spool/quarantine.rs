//! Keeps what cannot be read in `aside/` for operators. `recover` and `compaction` call it; docs/spool.md says what to
//! do with it.

use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::SpoolError;
use super::entry::Entry;
use super::index::{ContentPlace, IndexEntry};
use super::layout::{self, Layout, failed};
use super::record::{Held, Unreadable};
use super::stored::Stored;
use crate::message::queue_id::QueueId;

/// The id in a file's name.
pub(super) fn id(path: &Path) -> Option<QueueId> {
    path.file_name()?.to_str()?.parse().ok()
}

/// Keeps a segment under a second name (a hard link, which takes no space). Returns the path.
pub(super) fn keep_segment(layout: &Layout, number: u32, why: &str) -> Result<PathBuf, SpoolError> {
    let path = layout.segment(number);
    let names = (0..).map(|nth: u32| match nth {
        0 => layout.aside.join(format!("{number:08}.seg")),
        nth => layout.aside.join(format!("{number:08}.{nth}.seg")),
    });
    for aside in names {
        match fs::hard_link(&path, &aside) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && is_same(&path, &aside) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(e) => return Err(failed("cannot link", &aside, &e)),
        }
        layout::sync_folder(&layout.aside)?;
        tracing::error!(alert = true, "spool: {why}; it is kept as {}: see docs/spool.md", aside.display());
        return Ok(aside);
    }
    Err(SpoolError::Io(format!("{} has no room for another name", layout.aside.display())))
}

/// Whether both are names of the same file.
fn is_same(one: &Path, other: &Path) -> bool {
    let inode = |path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
    matches!((inode(one), inode(other)), (Ok(one), Ok(other)) if one == other)
}

#[derive(Debug)]
pub(super) enum Quarantined {
    /// A segment with unreadable ranges.
    Segment(u32, Vec<Range<usize>>),
    /// A message, and what there is of its content.
    Message(Box<Entry>, Vec<u8>),
}

impl Quarantined {
    pub(super) fn keep(self, layout: &Layout) -> Result<(), SpoolError> {
        match self {
            Self::Segment(number, bad) => {
                let why = format!("bytes {bad:?} of a segment of the log cannot be read");
                keep_segment(layout, number, &why).map(|_| ())
            }
            Self::Message(entry, content) => {
                keep_message(layout, &entry, &content);
                Ok(())
            }
        }
    }
}

/// What can be read of a record with damaged contents.
pub(super) fn damaged(segment: &[u8], unreadable: &Unreadable) -> Vec<Quarantined> {
    let Some(frame) = &unreadable.frame else { return Vec::new() };
    let mut at = frame.contents;
    let messages = frame.logged.accepted.iter().map(|statement| {
        let from = at.min(segment.len());
        if let Held::Here { length, .. } = statement.content {
            at = from.saturating_add(length as usize).min(segment.len());
        }
        Quarantined::Message(Box::new(Entry::clone(&statement.entry)), segment[from..at].to_vec())
    });
    messages.collect()
}

/// Keeps a message with a damaged content, if there is space; its segment is kept in any case.
pub(super) fn keep_message(layout: &Layout, entry: &Entry, content: &[u8]) {
    let eml = layout.aside.join(format!("{}.eml", entry.id));
    let kept = write(&eml, content).map_err(|e| failed("cannot write", &eml, &e));
    if let Err(error) = kept.and_then(|()| keep_envelope(layout, entry)) {
        tracing::warn!("{error}");
    }
}

/// Keeps a message that was found damaged when it was read: a large content by a hard link; if the disk cannot read it,
/// its whole segment.
pub(super) fn keep_stored(layout: &Layout, entry: &Entry, content: &Stored, kept: &IndexEntry) {
    let aside = layout.aside.join(format!("{}.eml", entry.id));
    if let ContentPlace::File { folder, .. } = kept.content {
        let path = layout.large(folder, entry.id);
        let linked = match fs::hard_link(&path, &aside) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(failed("cannot link", &path, &e)),
            _ => Ok(()),
        };
        if let Err(error) = linked.and_then(|()| keep_envelope(layout, entry)) {
            tracing::warn!("{error}");
        }
        return;
    }
    let segment = kept.at.segment;
    let whole = |e| keep_segment(layout, segment, &format!("{} cannot be read in segment {segment}: {e}", entry.id));
    let kept = content.as_it_is().map(|bytes| keep_message(layout, entry, &bytes));
    if let Err(error) = kept.or_else(|e| whole(e).and_then(|_| keep_envelope(layout, entry))) {
        tracing::warn!("{error}");
    }
}

/// Keeps the envelope of a message with a missing or damaged content.
pub(super) fn keep_envelope(layout: &Layout, entry: &Entry) -> Result<(), SpoolError> {
    let aside = layout.aside.join(format!("{}.json", entry.id));
    let mut json = entry.to_json().map_err(|e| failed("cannot write", &aside, &e.into()))?;
    json.push(b'\n');
    write(&aside, &json).map_err(|e| failed("cannot write", &aside, &e))?;
    layout::sync_folder(&layout.aside)?;
    tracing::error!(
        alert = true,
        "spool: the content of {} from <{}> is missing or not whole; its envelope is kept as {}: see docs/spool.md",
        entry.id,
        entry.sender.reverse_path.as_str(),
        aside.display()
    );
    Ok(())
}

/// Moves a large content that belongs to no message of the log.
pub(super) fn move_content(layout: &Layout, path: &Path, id: QueueId) -> Result<(), SpoolError> {
    let aside = layout.aside.join(format!("{id}.eml"));
    fs::rename(path, &aside).map_err(|e| failed("cannot move", path, &e))?;
    tracing::error!(alert = true, "spool: the log does not fit {}: it is kept as {}", path.display(), aside.display());
    layout::sync_folder(&layout.aside)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = crate::private::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
