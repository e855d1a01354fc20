//! What a spool's folder holds at start: the live messages, and what is to be discarded or laid aside. `store` calls
//! it and puts the result in force with a new segment; until then everything here can be done again.
//!
//! The log decides. Content that it does not name was never accepted or is finished, unless the log itself is damaged:
//! then it is kept in `aside/`. A live message whose content is missing or has another length goes there too. Nothing
//! that might be somebody's mail is deleted.

use crate::message::queue_id::QueueId;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::SpoolError;
use super::entry::Entry;
use super::layout::{self, Layout, failed};
use super::line::{self, Line};
use super::live::Live;
use super::segment;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// The live messages.
    pub live: Live,
    /// In which folder each one's content is.
    pub places: HashMap<QueueId, u32>,
    /// The highest id that was ever used.
    pub last_id: QueueId,
    /// The number of the next segment.
    pub next_segment: u64,
    /// The number of the next folder of contents.
    pub next_folder: u32,
    /// What nobody needs once the next segment is in force. Folders come behind what is in them, and go if they are
    /// empty.
    pub discard: Vec<PathBuf>,
    /// Messages that are over. What is left of their content is not missed.
    finished: HashSet<QueueId>,
    /// Whether accepted messages may be missing from `live`.
    damaged: bool,
}

/// Reads the folder.
pub(super) fn recover(layout: &Layout) -> Result<Recovered, SpoolError> {
    let mut found = Recovered::default();
    found.discard.extend(layout::list(&layout.incoming)?);
    let ids: Vec<_> = found.discard.iter().filter_map(|path| id(path)).collect();
    ids.into_iter().for_each(|id| found.used(id));
    found.read_log(layout)?;
    found.read_contents(layout)?;
    found.lay_aside_without_content(layout)?;
    Ok(found)
}

impl Recovered {
    fn used(&mut self, id: QueueId) {
        self.last_id = self.last_id.max(id);
    }

    /// The segment with the highest number says everything.
    fn read_log(&mut self, layout: &Layout) -> Result<(), SpoolError> {
        self.discard.extend(layout::list(&layout.log)?.into_iter().filter(|path| segment::number(path).is_none()));
        let mut segments: Vec<_> =
            layout::list(&layout.log)?.into_iter().filter_map(|path| Some((segment::number(&path)?, path))).collect();
        segments.sort();
        self.next_segment = segments.last().map_or(0, |(number, _)| *number) + 1;
        self.discard.extend(segments.iter().map(|(_, path)| path.clone()));
        let Some((number, path)) = segments.pop() else {
            self.damaged = true; // nothing, or a log that somebody took away
            return Ok(());
        };
        let bytes = fs::read(&path).map_err(|e| failed("cannot read", &path, &e))?;
        let bad = self.replay(&bytes, &path)?;
        let (torn, rotten): (Vec<_>, Vec<_>) = bad.into_iter().partition(|range| is_torn(&bytes, range));
        for torn in torn {
            tracing::warn!(
                "spool: the last {} bytes of {} were being written when fingerpost ended; they are cut off, nothing in \
                 them was acknowledged",
                torn.len(),
                path.display()
            );
        }
        if !rotten.is_empty() {
            self.damaged = true;
            let aside = layout.aside.join(segment::name(number));
            match fs::hard_link(&path, &aside) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed("cannot link", &aside, &e)),
                _ => layout::sync_folder(&layout.aside)?,
            }
            tracing::error!(
                "spool: bytes {rotten:?} of a segment of the log cannot be read; it is kept as {}: see docs/spool.md",
                aside.display()
            );
        }
        Ok(())
    }

    /// Applies a segment's lines. Returns what cannot be read.
    fn replay(&mut self, bytes: &[u8], path: &Path) -> Result<Vec<Range<usize>>, SpoolError> {
        let mut bad = Vec::new();
        for line in line::Lines::new(bytes) {
            match line {
                Ok(Line::Segment(header)) if header.format == line::FORMAT => self.used(header.last_id),
                Ok(Line::Segment(header)) => {
                    let text = format!(
                        "{} is in format {}, this version reads {}: start the version that wrote it and let the queue \
                         run empty",
                        path.display(),
                        header.format,
                        line::FORMAT
                    );
                    return Err(SpoolError::Io(text));
                }
                Ok(Line::Record(logged)) => {
                    for entry in logged.accepted {
                        self.used(entry.id);
                        self.finished.extend(self.live.accept(entry.into_owned(), 0));
                    }
                    let live = &mut self.live;
                    self.finished.extend(logged.changes.iter().filter_map(|change| live.change(change)));
                }
                Err(range) => bad.push(range),
            }
        }
        Ok(bad)
    }

    /// Finds each message's content, and what belongs to none.
    fn read_contents(&mut self, layout: &Layout) -> Result<(), SpoolError> {
        let sizes: HashMap<QueueId, u64> = self.live.entries().map(|entry| (entry.id, entry.content.size)).collect();
        let mut stray = Vec::new();
        for folder in layout::list(&layout.messages)? {
            let Some(number) = folder.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else { continue };
            self.next_folder = self.next_folder.max(number + 1);
            for path in layout::list(&folder)? {
                let Some(id) = id(&path) else { continue };
                self.used(id);
                let size = fs::metadata(&path).map_err(|e| failed("cannot read", &path, &e))?.len();
                match sizes.get(&id) {
                    Some(expected) if *expected == size => {
                        self.places.insert(id, number);
                    }
                    None if self.finished.contains(&id) || !self.damaged => self.discard.push(path),
                    Some(_) | None => stray.push((path, id)),
                }
            }
            self.discard.push(folder);
        }
        for (path, id) in &stray {
            let aside = layout.aside.join(format!("{id}.eml"));
            fs::rename(path, &aside).map_err(|e| failed("cannot move", path, &e))?;
            tracing::error!("spool: the log does not fit {}: it is kept as {}", path.display(), aside.display());
        }
        if stray.is_empty() { Ok(()) } else { layout::sync_folder(&layout.aside) }
    }

    /// A live message without its content cannot be delivered: its envelope is kept for a person to read.
    fn lay_aside_without_content(&mut self, layout: &Layout) -> Result<(), SpoolError> {
        let lost: Vec<QueueId> =
            self.live.entries().map(|entry| entry.id).filter(|id| !self.places.contains_key(id)).collect();
        for id in lost {
            let Some(entry) = self.live.remove(id) else { continue };
            let aside = layout.aside.join(format!("{id}.json"));
            write_aside(&aside, &entry).map_err(|e| failed("cannot write", &aside, &e))?;
            layout::sync_folder(&layout.aside)?;
            tracing::error!(
                "spool: the content of {id} from <{}> is missing or not whole; its envelope is kept as {}: see \
                 docs/spool.md",
                entry.sender.reverse_path.as_str(),
                aside.display()
            );
        }
        Ok(())
    }
}

/// Whether an unreadable stretch is what an interrupted write leaves: at the end, and no whole line of text in it.
/// Blocks that never reached the disk read as zeros. Anything else was once written and synced.
fn is_torn(bytes: &[u8], range: &Range<usize>) -> bool {
    let mut lines = bytes[range.clone()].split_inclusive(|b| *b == b'\n');
    range.end == bytes.len() && lines.all(|line| line.contains(&0) || !line.ends_with(b"\n"))
}

fn write_aside(path: &Path, entry: &Entry) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    serde_json::to_writer_pretty(&mut file, entry)?;
    file.write_all(b"\n")?;
    file.sync_all()
}

/// The id that a content file is named by.
fn id(path: &Path) -> Option<QueueId> {
    path.file_name()?.to_str()?.parse().ok()
}
