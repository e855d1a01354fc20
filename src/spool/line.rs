//! One record of the log as one line of text, and the reading of many. Pure; `segment` writes, `recover` reads.
//!
//! `CRC-32C LENGTH JSON`, ended by a line feed: eight hexadecimal digits, the JSON's length in bytes, and the
//! JSON in one line. `cut -d' ' -f3- 00000007.log | jq .` shows a log to whoever has to look.

use crate::message::queue_id::QueueId;
use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::entry::{Change, Entry};

/// The format that this version writes and reads.
pub(super) const FORMAT: u32 = 1;

/// What one line says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line<'a> {
    /// The first line of every segment.
    Segment(Header),
    /// What one commit made durable, whole; or, behind the first line, one message that was live at the time.
    Record(Logged<'a>),
}

/// What a segment says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// [`FORMAT`].
    pub format: u32,
    /// No id up to this one is given out again, even if the clock goes back.
    pub last_id: QueueId,
}

/// [`super::entry::Record`] without its content.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Logged<'a> {
    /// New messages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<Cow<'a, Entry>>,
    /// What became of recipients.
    #[serde(default, skip_serializing_if = "no_changes")]
    pub changes: Cow<'a, [Change]>,
}

fn no_changes(changes: &[Change]) -> bool {
    changes.is_empty()
}

/// Appends one line.
///
/// # Errors
/// What cannot be written as JSON; none of our types is such.
pub(super) fn write(line: &Line<'_>, to: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let json = serde_json::to_vec(line)?;
    to.extend_from_slice(format!("{:08x} {} ", crc32c::crc32c(&json), json.len()).as_bytes());
    to.extend_from_slice(&json);
    to.push(b'\n');
    Ok(())
}

/// The lines of a segment, in order. An unreadable stretch ends at the next line feed behind which a line can be
/// read, or at the end of the file.
pub(super) struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// Reads from the first byte.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl Iterator for Lines<'_> {
    type Item = Result<Line<'static>, Range<usize>>;

    fn next(&mut self) -> Option<Self::Item> {
        let from = self.at;
        if from >= self.bytes.len() {
            return None;
        }
        if let Some((line, length)) = parse(&self.bytes[from..]) {
            self.at = from + length;
            return Some(Ok(line));
        }
        loop {
            let rest = &self.bytes[self.at..];
            self.at += memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
            if self.at >= self.bytes.len() || parse(&self.bytes[self.at..]).is_some() {
                return Some(Err(from..self.at));
            }
        }
    }
}

/// One line and its length. The checksum decides, not the line feed behind it.
fn parse(bytes: &[u8]) -> Option<(Line<'static>, usize)> {
    // eight digits, a space, at most ten digits, a space
    let head = &bytes[..bytes.len().min(20)];
    let end = 9 + head.get(9..)?.iter().position(|b| *b == b' ')?;
    let head = std::str::from_utf8(&head[..end]).ok()?;
    let (sum, length) = head.split_once(' ')?;
    if sum.len() != 8 {
        return None;
    }
    let (sum, length) = (u32::from_str_radix(sum, 16).ok()?, length.parse::<usize>().ok()?);
    let json = bytes.get(end + 1..)?.get(..length)?;
    if crc32c::crc32c(json) != sum {
        return None;
    }
    let line = serde_json::from_slice(json).ok()?;
    Some((line, (end + 1 + length + 1).min(bytes.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::entry::State;

    fn line(n: usize) -> Line<'static> {
        let change = Change { id: QueueId(7), recipient: n, state: State::Held("a\nb \u{e9}".into()), route: None };
        Line::Record(Logged { accepted: Vec::new(), changes: vec![change].into() })
    }

    fn three() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for n in 0..3 {
            write(&line(n), &mut bytes).unwrap();
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn a_log_is_text_in_lines() {
        let (bytes, _) = three();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.lines().count(), 3);
        let (sum, rest) = text.lines().next().unwrap().split_once(' ').unwrap();
        let (length, json) = rest.split_once(' ').unwrap();
        assert_eq!(sum.len(), 8);
        assert_eq!(length.parse::<usize>().unwrap(), json.len());
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(json["record"]["changes"][0]["state"]["Held"], "a\nb \u{e9}");
    }

    #[test]
    fn a_log_cut_anywhere_reads_as_its_whole_lines() {
        let (bytes, ends) = three();
        for length in 0..=bytes.len() {
            let read: Vec<_> = Lines::new(&bytes[..length]).collect();
            // the final line feed is not needed
            let whole = ends.iter().filter(|end| **end <= length + 1).count();
            let good: Vec<_> = read.iter().flatten().cloned().collect();
            assert_eq!(good, (0..whole).map(line).collect::<Vec<_>>(), "cut at {length}");
            assert!(read.len() - good.len() <= 1, "one torn tail at most");
        }
    }

    #[test]
    fn a_flipped_bit_costs_at_most_the_line_that_it_is_in() {
        let (bytes, ends) = three();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                let hit = ends.iter().filter(|end| **end <= at).count();
                let good: Vec<_> = Lines::new(&bytes).flatten().collect();
                for n in (0..3).filter(|n| *n != hit) {
                    assert!(good.contains(&line(n)), "line {n} with bit {bit} of byte {at} flipped");
                }
                assert!(good.iter().all(|read| (0..3).any(|n| *read == line(n))), "nothing is made up");
            }
        }
    }

    #[test]
    fn unreadable_stretches_are_told_as_one() {
        let (bytes, ends) = three();
        let mut torn = bytes[..ends[0]].to_vec();
        torn.extend_from_slice(b"\0\0\0\nnoise\n\n");
        let after = torn.len();
        torn.extend_from_slice(&bytes[ends[0]..ends[1]]);
        let read: Vec<_> = Lines::new(&torn).collect();
        assert_eq!(read, [Ok(line(0)), Err(ends[0]..after), Ok(line(1))]);
    }
}
