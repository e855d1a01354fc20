//! Reads a spool without opening it: for `fingerpost queue export` and `check`.
//!
//! It changes nothing, so it works on a read-only disk, on a copy, and on a spool that this version refuses to start
//! with. What cannot be read is reported and skipped. Meanwhile no server can start on the spool.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::chain::{Link, chain};
use super::changes::Changes;
use super::entry::Entry;
use super::header::{self, Header};
use super::index::{At, ContentPlace, Index, IndexEntry, Spot};
use super::layout::{self, Layout, failed};
use super::record::{Frame, Frames, Unreadable, is_torn, is_unused};
use super::segment::header_of;
use super::{SpoolError, quarantine, reading};
use crate::message::queue_id::QueueId;

pub struct Offline {
    layout: Layout,
    links: Vec<Link>,
    index: Index,
    problems: Vec<Problem>,
    _lock: Option<File>,
}

/// Why a spool cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum NotRead {
    #[error("there is no spool in {0}")]
    Missing(PathBuf),
    /// A server uses it.
    #[error(transparent)]
    InUse(SpoolError),
    /// It is of version 1.
    #[error(transparent)]
    OtherFormat(SpoolError),
    #[error(transparent)]
    Io(#[from] SpoolError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Headers of segments only.
    Headers,
    Whole,
}

/// A part of the log that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Another version wrote it: a start is refused.
    OtherFormat(String),
    /// It is damaged or missing: a start moves the rest of it to `aside/`.
    Damage(String),
    /// The disk cannot read it: a start is refused while outcomes may be in it.
    Withheld(String),
}

#[derive(Debug)]
pub struct Waiting<'a> {
    /// Its envelope, and the state of each recipient.
    pub entry: Entry,
    pub content: Content<'a>,
}

#[derive(Debug)]
pub enum Content<'a> {
    Here {
        /// What there is of it.
        bytes: &'a [u8],
        /// Whether its checksum is right.
        is_whole: bool,
    },
    /// In a file.
    File {
        path: PathBuf,
        /// CRC-32C; `None`: unknown.
        sum: Option<u32>,
    },
}

struct Opened {
    header: Header,
    bytes: Vec<u8>,
    /// Ranges that the disk could not read.
    withheld: Vec<Range<usize>>,
}

impl Problem {
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::OtherFormat(text) | Self::Damage(text) | Self::Withheld(text) => text,
        }
    }
}

impl Offline {
    /// Reads the log below `folder`. Blocks, and keeps servers from starting there until it is dropped.
    ///
    /// # Errors
    /// [`NotRead`].
    pub fn read(folder: &Path, look: Look) -> Result<Self, NotRead> {
        let layout = Layout::at(folder);
        if !layout.segments.is_dir() && !layout.root.join("messages").is_dir() {
            // A path without access is not a missing one.
            return match std::fs::metadata(folder) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed("cannot read", folder, &e).into()),
                _ => Err(NotRead::Missing(folder.to_owned())),
            };
        }
        let lock = layout::lock_for_reading(folder)?.map_err(NotRead::InUse)?;
        layout.refuse_old().map_err(NotRead::OtherFormat)?;
        let mut found = Self { layout, links: Vec::new(), index: Index::default(), problems: Vec::new(), _lock: lock };
        let headers = found.headers()?;
        let (links, missing) = chain(&headers);
        for number in missing {
            let path = found.layout.segment(number);
            found.problems.push(Problem::Damage(format!("{} is missing", path.display())));
        }
        if look == Look::Whole {
            links.iter().for_each(|link| found.read_segment(link));
        }
        found.links = links;
        Ok(found)
    }

    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The number of waiting messages.
    #[must_use]
    pub fn count(&self) -> usize {
        self.index.messages().count()
    }

    /// Calls `take` for each waiting message, approximately in the order in which they came.
    ///
    /// # Errors
    /// The first error of `take`, which stops it.
    pub fn each<E>(&self, mut take: impl FnMut(Waiting<'_>) -> Result<(), E>) -> Result<(), E> {
        let mut changes = Changes::new(&self.layout);
        for link in &self.links {
            // A segment that has become unreadable since is skipped; the caller can compare counts.
            let Ok(Some(Opened { header, bytes, .. })) = self.opened(link) else { continue };
            for frame in frames(&header, &bytes).filter_map(read_as_far_as_it_goes) {
                let offset = place(frame.range.start);
                for (nth, statement) in (0..).zip(&frame.logged.accepted) {
                    let at = At { segment: link.number, offset, nth };
                    let Some(kept) = self.index.get(statement.entry.id).filter(|kept| kept.at == at) else { continue };
                    let mut entry = Entry::clone(&statement.entry);
                    if changes.apply(&mut entry, kept).is_err() {
                        continue; // the same
                    }
                    let content = self.content(entry.id, kept, &bytes);
                    take(Waiting { entry, content })?;
                }
            }
        }
        Ok(())
    }

    /// Large contents that belong to no message that could be read. They matter only if some could not be read: else
    /// they are finished, or were never accepted.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn strays(&self) -> Result<Vec<(QueueId, PathBuf)>, SpoolError> {
        let is_all_read = self.problems.is_empty() && !self.links.is_empty();
        if is_all_read || !self.layout.large.is_dir() {
            return Ok(Vec::new());
        }
        let wanted: HashSet<PathBuf> = self.index.messages().filter_map(|(id, kept)| self.large(id, kept)).collect();
        let mut strays = Vec::new();
        for folder in layout::list(&self.layout.large)? {
            if layout::number(&folder, "").is_none() {
                continue;
            }
            let files = layout::list(&folder)?.into_iter().filter(|path| !wanted.contains(path));
            strays.extend(files.filter_map(|path| Some((quarantine::id(&path)?, path))));
        }
        Ok(strays)
    }

    fn large(&self, id: QueueId, kept: &IndexEntry) -> Option<PathBuf> {
        match kept.content {
            ContentPlace::File { folder, .. } => Some(self.layout.large(folder, id)),
            ContentPlace::Segment { .. } => None,
        }
    }

    fn headers(&mut self) -> Result<BTreeMap<u32, Option<Header>>, SpoolError> {
        let mut headers = BTreeMap::new();
        for path in self.layout.list_segments()? {
            let Some(number) = layout::number(&path, ".seg") else { continue };
            let header = File::open(&path).and_then(|file| header_of(&file));
            let problem = match &header {
                Ok(Ok(_)) => None,
                Ok(Err(header::Unreadable::Format(format))) => Some(other_format(layout::in_format(&path, *format))),
                Ok(Err(header::Unreadable::Damaged)) => Some(damage(&path, "has no header that can be read")),
                Err(error) => Some(Problem::Withheld(format!("{} cannot be read: {error}", path.display()))),
            };
            self.problems.extend(problem);
            headers.insert(number, header.ok().and_then(Result::ok));
        }
        Ok(headers)
    }

    /// A segment up to the end of its acknowledged records. `None`: its header cannot be read.
    fn opened(&self, link: &Link) -> Result<Option<Opened>, SpoolError> {
        let Some(header) = link.header else { return Ok(None) };
        let path = self.layout.segment(link.number);
        let (mut bytes, withheld) = reading::whole(&path).map_err(|e| failed("cannot read", &path, &e))?;
        bytes.truncate(end_of(link));
        Ok(Some(Opened { header, bytes, withheld }))
    }

    fn read_segment(&mut self, link: &Link) {
        let path = self.layout.segment(link.number);
        let Opened { header, bytes, withheld } = match self.opened(link) {
            Ok(Some(opened)) => opened,
            Ok(None) => return, // that was told
            Err(error) => return self.problems.push(Problem::Withheld(error.to_string())),
        };
        if link.end.is_some() && bytes.len() < end_of(link) {
            self.problems
                .push(damage(&path, &format!("ends at byte {}, and is to end at {}", bytes.len(), end_of(link))));
        }
        for range in withheld {
            let text = format!("{} is not given by the disk at bytes {range:?}", path.display());
            self.problems.push(Problem::Withheld(text));
        }
        for read in frames(&header, &bytes) {
            let frame = match read {
                Ok(frame) => frame,
                Err(unreadable) if unreadable.is_undecodable => {
                    self.problems.push(other_format(layout::undecodable(&path, unreadable.range.start)));
                    continue;
                }
                // There is nothing, or what was never acknowledged.
                Err(end)
                    if link.end.is_none()
                        && (is_unused(&bytes, &end.range) || is_torn(header.mark, &bytes, &end.range)) =>
                {
                    continue;
                }
                Err(unreadable) => {
                    self.problems.push(damage(&path, &format!("cannot be read at bytes {:?}", unreadable.range)));
                    let Some(frame) = unreadable.frame else { continue };
                    frame
                }
            };
            let spot = Spot { segment: link.number, offset: place(frame.range.start), contents: place(frame.contents) };
            self.index.apply(&frame.logged, spot);
        }
    }

    fn content<'a>(&self, id: QueueId, kept: &IndexEntry, segment: &'a [u8]) -> Content<'a> {
        match kept.content {
            ContentPlace::File { folder, sum } => Content::File { path: self.layout.large(folder, id), sum },
            ContentPlace::Segment { offset, length, sum } => {
                let rest = segment.get(offset as usize..).unwrap_or_default();
                let bytes = rest.get(..length as usize).unwrap_or(rest);
                let is_whole = bytes.len() == length as usize && crc32c::crc32c(bytes) == sum;
                Content::Here { bytes, is_whole }
            }
        }
    }
}

fn frames<'a>(header: &Header, bytes: &'a [u8]) -> Frames<'a> {
    Frames::new(header.mark, header.format, bytes, header::LENGTH)
}

/// A record that is intact, or of which only contents are damaged.
fn read_as_far_as_it_goes(read: Result<Frame, Unreadable>) -> Option<Frame> {
    read.map_or_else(|unreadable| unreadable.frame, Some)
}

fn end_of(link: &Link) -> usize {
    link.end.and_then(|end| usize::try_from(end).ok()).unwrap_or(usize::MAX)
}

fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX) // a segment is never that long
}

fn other_format(error: SpoolError) -> Problem {
    match error {
        SpoolError::Io(text) => Problem::OtherFormat(text),
        error @ SpoolError::Full(_) => Problem::OtherFormat(error.to_string()),
    }
}

fn damage(path: &Path, what: &str) -> Problem {
    Problem::Damage(format!("{} {what}", path.display()))
}
