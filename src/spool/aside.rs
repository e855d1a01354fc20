//! What cannot be read is kept in `aside/` for a person to look at. `recover` and `tidy` call it; docs/spool.md says what
//! to do with it.

use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use super::SpoolError;
use super::entry::Entry;
use super::layout::{self, Layout, failed};
use super::record::{Held, Unreadable};
use crate::message::queue_id::QueueId;

/// The id that a file is named by.
pub(super) fn id(path: &Path) -> Option<QueueId> {
    path.file_name()?.to_str()?.parse().ok()
}

/// Keeps a segment in which these bytes cannot be read, under a second name: that takes no space.
pub(super) fn keep_segment(layout: &Layout, number: u32, bad: &[Range<usize>]) -> Result<(), SpoolError> {
    let (path, aside) = (layout.segment(number), layout.aside.join(format!("{number:08}.seg")));
    match fs::hard_link(&path, &aside) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed("cannot link", &aside, &e)),
        _ => layout::sync_folder(&layout.aside)?,
    }
    tracing::error!(
        "spool: bytes {bad:?} of a segment of the log cannot be read; it is kept as {}: see docs/spool.md",
        aside.display()
    );
    Ok(())
}

/// Something that is to be kept.
#[derive(Debug)]
pub(super) enum Aside {
    /// A segment in which these bytes cannot be read.
    Segment(u32, Vec<Range<usize>>),
    /// A message and what there is of its content.
    Message(Box<Entry>, Vec<u8>),
}

impl Aside {
    /// Keeps it.
    pub(super) fn keep(self, layout: &Layout) -> Result<(), SpoolError> {
        match self {
            Self::Segment(number, bad) => keep_segment(layout, number, &bad),
            Self::Message(entry, content) => {
                keep_message(layout, &entry, &content);
                Ok(())
            }
        }
    }
}

/// What can be read of a record whose contents are damaged.
pub(super) fn damaged(segment: &[u8], unreadable: &Unreadable) -> Vec<Aside> {
    let Some(frame) = &unreadable.frame else { return Vec::new() };
    let mut at = frame.contents;
    let messages = frame.logged.accepted.iter().map(|statement| {
        let from = at.min(segment.len());
        if let Held::Here { length, .. } = statement.content {
            at = from.saturating_add(length as usize).min(segment.len());
        }
        Aside::Message(Box::new(Entry::clone(&statement.entry)), segment[from..at].to_vec())
    });
    messages.collect()
}

/// Keeps a message whose content is damaged, if there is room; its segment is kept anyway.
pub(super) fn keep_message(layout: &Layout, entry: &Entry, content: &[u8]) {
    let eml = layout.aside.join(format!("{}.eml", entry.id));
    let kept = write(&eml, content).map_err(|e| failed("cannot write", &eml, &e));
    if let Err(error) = kept.and_then(|()| keep_envelope(layout, entry)) {
        tracing::warn!("{error}");
    }
}

/// Keeps the envelope of a message whose content is missing or damaged.
pub(super) fn keep_envelope(layout: &Layout, entry: &Entry) -> Result<(), SpoolError> {
    let aside = layout.aside.join(format!("{}.json", entry.id));
    let mut json = entry.to_json().map_err(|e| failed("cannot write", &aside, &e.into()))?;
    json.push(b'\n');
    write(&aside, &json).map_err(|e| failed("cannot write", &aside, &e))?;
    layout::sync_folder(&layout.aside)?;
    tracing::error!(
        "spool: the content of {} from <{}> is missing or not whole; its envelope is kept as {}: see docs/spool.md",
        entry.id,
        entry.sender.reverse_path.as_str(),
        aside.display()
    );
    Ok(())
}

/// Moves a large content that no message of the log fits.
pub(super) fn move_content(layout: &Layout, path: &Path, id: QueueId) -> Result<(), SpoolError> {
    let aside = layout.aside.join(format!("{id}.eml"));
    fs::rename(path, &aside).map_err(|e| failed("cannot move", path, &e))?;
    tracing::error!("spool: the log does not fit {}: it is kept as {}", path.display(), aside.display());
    layout::sync_folder(&layout.aside)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = crate::private::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
