//! Encodes a commit as a record of a segment, and reads a segment's records. Pure; `committer` writes, `recover` and
//! `compaction` read.
//!
//! ```text
//!  0  the segment's mark
//!  8  length of the head, then of the contents: u32, little-endian
//! 16  CRC-32C of bytes 8 to 16 and of the head
//! 20  head: the record without contents (postcard)
//!     contents: the new messages, byte for byte, concatenated; the head has their lengths and CRC-32C
//!     the mark, inverted
//! ```
//!
//! A record is valid when both checksums are right: all of it or nothing. The mark is random, so that nobody can write
//! a record by sending mail that looks like one.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memmem;
use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

use super::entry::before::{self, LoggedBefore, Versioned};
use super::entry::{Change, Entry};

/// Identifies the records of one segment.
pub type Mark = [u8; 8];

/// Bytes before the head.
pub const BEFORE: usize = 20;
/// This many zeros show that a write was cut short.
const HOLE: usize = 512;

/// The content of a record's head: [`super::entry::Record`] without message contents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Logged<'a> {
    /// New messages, and moved ones with their current state.
    pub accepted: Vec<Statement<'a>>,
    pub changes: Cow<'a, [Change]>,
}

/// A message's state at this position of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statement<'a> {
    pub entry: Cow<'a, Entry>,
    pub content: Held,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Held {
    Here {
        length: u32,
        sum: u32,
    },
    /// A file in this folder.
    File {
        folder: u32,
        /// CRC-32C; formats before 4 do not have it.
        sum: Option<u32>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Its position, with the mark at either end.
    pub range: Range<usize>,
    pub contents: usize,
    pub logged: Logged<'static>,
}

/// A range that cannot be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreadable {
    pub range: Range<usize>,
    /// The record, if only contents are damaged.
    pub frame: Option<Frame>,
    /// Whether it begins with an intact record that cannot be decoded: another version wrote it.
    pub is_undecodable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotRead {
    Damaged,
    /// It is intact, but another version wrote it.
    Undecodable,
}

/// The fields before a record's head.
#[derive(Debug, Clone, Copy)]
pub struct Lengths {
    pub head: usize,
    pub contents: usize,
    sum: u32,
}

/// Appends a record; returns where its contents begin. `contents` are those of messages with [`Held::Here`].
///
/// # Errors
/// The record is larger than 4 GiB; `to` is unchanged then.
pub fn write(mark: Mark, logged: &Logged<'_>, contents: &[&[u8]], to: &mut Vec<u8>) -> Result<usize, postcard::Error> {
    let from = to.len();
    let written = write_head(mark, logged, contents, to);
    match written {
        Ok(()) => {
            let at = to.len();
            contents.iter().for_each(|content| to.extend_from_slice(content));
            to.extend_from_slice(&mark.map(|byte| !byte));
            Ok(at)
        }
        Err(error) => {
            to.truncate(from);
            Err(error)
        }
    }
}

fn write_head(mark: Mark, logged: &Logged<'_>, contents: &[&[u8]], to: &mut Vec<u8>) -> Result<(), postcard::Error> {
    let from = to.len();
    to.extend_from_slice(&mark);
    to.extend_from_slice(&[0; BEFORE - 8]);
    postcard::serialize_with_flavor(logged, Onto(to))?;
    let four = |length: usize| u32::try_from(length).map_err(|_| postcard::Error::SerializeBufferFull);
    let head = four(to.len() - from - BEFORE)?;
    let contents = four(contents.iter().map(|content| content.len()).sum())?;
    to[from + 8..from + 12].copy_from_slice(&head.to_le_bytes());
    to[from + 12..from + 16].copy_from_slice(&contents.to_le_bytes());
    let sum = sum(&to[from + 8..from + 16], &to[from + BEFORE..]);
    to[from + 16..from + BEFORE].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

fn sum(lengths: &[u8], head: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(lengths), head)
}

/// Lets postcard append to a vector.
struct Onto<'a>(&'a mut Vec<u8>);

impl Flavor for Onto<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

impl Lengths {
    /// Reads the first [`BEFORE`] bytes of a record.
    #[must_use]
    pub fn read(mark: Mark, bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        if bytes.get(..8)? != mark {
            return None;
        }
        let length = |at| usize::try_from(word(at)?).ok();
        Some(Self { head: length(8)?, contents: length(12)?, sum: word(16)? })
    }

    /// Decodes the head that follows, in this format.
    ///
    /// # Errors
    /// [`NotRead`].
    pub fn logged(&self, format: u16, head: &[u8]) -> Result<Logged<'static>, NotRead> {
        let words = [self.head, self.contents].map(|length| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        if head.len() != self.head || sum(words.as_flattened(), head) != self.sum {
            return Err(NotRead::Damaged);
        }
        before::read(format, head).ok_or(NotRead::Undecodable)
    }
}

impl Versioned for Logged<'static> {
    type Before = LoggedBefore;

    fn now(before: LoggedBefore) -> Self {
        let (accepted, changes) = before.now();
        let statement = |(entry, content)| Statement { entry: Cow::Owned(entry), content };
        Self { accepted: accepted.into_iter().map(statement).collect(), changes: changes.into() }
    }
}

/// The records of a segment, in order. An unreadable range ends where the next head can be read, or at the end.
pub struct Frames<'a> {
    mark: Mark,
    format: u16,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Frames<'a> {
    /// Reads a segment's `bytes` from position `at` on: records with this mark, in this format.
    #[must_use]
    pub fn new(mark: Mark, format: u16, bytes: &'a [u8], at: usize) -> Self {
        Self { mark, format, bytes, at }
    }

    /// The record at `at`; its contents may be damaged or incomplete.
    fn head(&self, at: usize) -> Result<Frame, NotRead> {
        let bytes = self.bytes.get(at..).ok_or(NotRead::Damaged)?;
        let lengths = Lengths::read(self.mark, bytes).ok_or(NotRead::Damaged)?;
        let contents = BEFORE.checked_add(lengths.head).ok_or(NotRead::Damaged)?;
        let logged = lengths.logged(self.format, bytes.get(BEFORE..contents).ok_or(NotRead::Damaged)?)?;
        let end = contents.checked_add(lengths.contents).and_then(|end| at.checked_add(end)?.checked_add(8));
        Ok(Frame { range: at..end.ok_or(NotRead::Damaged)?, contents: at + contents, logged })
    }

    fn is_whole(&self, frame: &Frame) -> bool {
        let mut at = frame.contents;
        let all = frame.logged.accepted.iter().all(|statement| match statement.content {
            Held::File { .. } => true,
            Held::Here { length, sum } => {
                let from = at;
                at = at.saturating_add(length as usize);
                self.bytes.get(from..at).is_some_and(|content| crc32c::crc32c(content) == sum)
            }
        });
        all && at + 8 == frame.range.end && frame.range.end <= self.bytes.len()
    }
}

impl Iterator for Frames<'_> {
    type Item = Result<Frame, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        let from = self.at;
        if from >= self.bytes.len() {
            return None;
        }
        let is_undecodable = match self.head(from) {
            Ok(frame) => {
                self.at = frame.range.end.min(self.bytes.len());
                if self.is_whole(&frame) {
                    return Some(Ok(frame));
                }
                return Some(Err(Unreadable { range: from..self.at, frame: Some(frame), is_undecodable: false }));
            }
            Err(why) => why == NotRead::Undecodable,
        };
        let mut marks = memmem::find_iter(&self.bytes[from + 1..], &self.mark).map(|at| from + 1 + at);
        self.at = marks.find(|at| self.head(*at) != Err(NotRead::Damaged)).unwrap_or(self.bytes.len());
        Some(Err(Unreadable { range: from..self.at, frame: None, is_undecodable }))
    }
}

/// Whether a range is the unused end of a segment, which was never written.
#[must_use]
pub fn is_unused(bytes: &[u8], range: &Range<usize>) -> bool {
    range.end == bytes.len() && bytes[range.clone()].iter().all(|byte| *byte == 0)
}

/// Whether an unreadable range is the rest of an interrupted write: nothing follows it, and it has no record's end, or
/// has a hole of zeros where blocks never reached the disk. Anything else was once written and synced.
#[must_use]
pub fn is_torn(mark: Mark, bytes: &[u8], range: &Range<usize>) -> bool {
    let written = bytes[range.clone()].iter().rposition(|byte| *byte != 0).unwrap_or_default();
    // A mark may end in zeros.
    let stretch = &bytes[range.start..range.end.min(range.start + written + 9)];
    let is_cut = memmem::find(stretch, &mark.map(|byte| !byte)).is_none();
    is_unused(bytes, &(range.end..bytes.len()))
        && (is_cut || stretch.starts_with(&[0; 8]) || memmem::find(stretch, &[0; HOLE]).is_some())
}

#[cfg(test)]
mod tests;
