//! A checkpoint: a complete segment's records without contents, in a file beside it, which a start reads instead of the
//! segment. Pure; `compaction` writes them, `recover` reads them.
//!
//! It is not synced; its checksum shows whether it is complete, and if not the segment is read. It has all changes,
//! since they may belong to messages of earlier segments; finished messages are left out.

use std::borrow::Borrow;
use std::ops::Range;

use super::header::{FORMAT, Header};
use super::index::{At, Index};
use super::record::{Frame, Logged};

const MAGIC: &[u8; 8] = b"FPCHECK\n";
/// Bytes that identify it: the segment's mark, where it ends, and the format.
const ABOUT: Range<usize> = 8..28;
/// The checksum of all that follows, and of the identification.
const SUM: Range<usize> = 28..32;

/// The checkpoint of a segment with this header, which ends at `end`, from the records that are needed.
///
/// # Errors
/// A value that cannot be serialised; none of our types is such.
pub fn write(
    header: &Header,
    end: u64,
    frames: impl IntoIterator<Item = impl Borrow<Frame>>,
) -> Result<Vec<u8>, postcard::Error> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&about(header, end));
    bytes.extend_from_slice(&[0; 4]);
    for frame in frames {
        let frame: &Frame = frame.borrow();
        let item = (frame.range.start, frame.contents, &frame.logged);
        bytes.extend_from_slice(&postcard::to_allocvec(&item)?);
    }
    let sum = sum(&bytes);
    bytes[SUM].copy_from_slice(&sum);
    Ok(bytes)
}

/// The records in a checkpoint, one after the other (all at once would take several times the file's size); `None` if
/// it is incomplete or of another segment. A record that is `None` was written by another version; those after it are
/// unknown.
#[must_use]
pub fn read<'a>(header: &Header, end: u64, bytes: &'a [u8]) -> Option<impl Iterator<Item = Option<Frame>> + use<'a>> {
    let is_right = bytes.starts_with(MAGIC) && bytes.get(ABOUT)? == about(header, end) && bytes.get(SUM)? == sum(bytes);
    let mut rest = bytes.get(SUM.end..).filter(|_| is_right)?;
    Some(std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let read = postcard::take_from_bytes::<(usize, usize, Logged<'static>)>(rest).ok();
        rest = read.as_ref().map_or(&[], |(_, behind)| behind);
        Some(read.map(|((at, contents, logged), _)| Frame { range: at..contents, contents, logged }))
    }))
}

/// Whether a file that [`read`] does not read to its end is complete and of this segment: then another version wrote
/// it.
#[must_use]
pub fn is_foreign(header: &Header, end: u64, bytes: &[u8]) -> bool {
    let about = about(header, end);
    let segment = ABOUT.start..ABOUT.end - 4;
    bytes.starts_with(MAGIC)
        && bytes.get(segment) == about.get(..about.len() - 4)
        && bytes.len() >= SUM.end
        && bytes[SUM] == sum(bytes)
        && read(header, end, bytes).is_none_or(|mut frames| frames.any(|frame| frame.is_none()))
}

fn about(header: &Header, end: u64) -> Vec<u8> {
    [&header.mark[..], &end.to_le_bytes(), &u32::from(FORMAT).to_le_bytes()].concat()
}

fn sum(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[ABOUT]), &bytes[SUM.end..]).to_le_bytes()
}

/// Whether any part of a segment's record is needed.
#[must_use]
pub fn is_needed(segment: u32, frame: &Frame, index: &Index) -> bool {
    let offset = u32::try_from(frame.range.start).unwrap_or(u32::MAX);
    let mut statements = (0..).zip(&frame.logged.accepted);
    !frame.logged.changes.is_empty()
        || statements.any(|(nth, statement)| {
            index.get(statement.entry.id).is_some_and(|kept| kept.at == At { segment, offset, nth })
        })
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::message::queue_id::QueueId;
    use crate::spool::entry::{Change, Outcome, RecipientState};
    use crate::spool::index::Spot;
    use crate::spool::record::{Held, Statement};
    use crate::spool::sample::entry;

    const HEADER: Header = Header {
        format: FORMAT,
        number: 3,
        previous: 0,
        previous_end: 0,
        first: 1,
        last_id: QueueId(0),
        mark: *b"12345678",
        rewritten_end: 0,
    };

    fn frame(at: usize, id: Option<u64>, changed: Option<u64>) -> Frame {
        let content = Held::Here { length: 7, sum: 0 };
        let statement = |id| Statement { entry: Cow::Owned(entry(QueueId(id), 7)), content };
        let change =
            |id| Change { id: QueueId(id), recipient: 0, state: RecipientState::Done(Outcome::Dropped), route: None };
        let logged = Logged {
            accepted: id.map(statement).into_iter().collect(),
            changes: changed.map(change).into_iter().collect::<Vec<_>>().into(),
        };
        Frame { range: at..at + 5, contents: at + 5, logged }
    }

    fn sample() -> (Vec<Frame>, Vec<u8>) {
        let frames = vec![
            frame(10, Some(1), None),
            frame(50, Some(2), None),
            frame(90, None, Some(99)),
            frame(99, Some(3), Some(1)),
        ];
        let mut index = Index::default();
        for frame in &frames {
            let [offset, contents] = [frame.range.start, frame.contents].map(|at| u32::try_from(at).unwrap());
            index.apply(&frame.logged, Spot { segment: 3, offset, contents });
        }
        index.remove(QueueId(2));
        index.remove(QueueId(3));
        let mut needed = frames.clone();
        needed.retain(|frame| is_needed(3, frame, &index));
        let bytes = write(&HEADER, 500, &needed).unwrap();
        (frames, bytes)
    }

    fn all(header: &Header, end: u64, bytes: &[u8]) -> Option<Vec<Frame>> {
        read(header, end, bytes)?.collect()
    }

    #[test]
    fn what_is_live_is_in_it_and_all_that_became_of_recipients() {
        let (frames, bytes) = sample();
        assert_eq!(all(&HEADER, 500, &bytes), Some(vec![frames[0].clone(), frames[2].clone(), frames[3].clone()]));
    }

    #[test]
    fn one_that_is_damaged_or_about_something_else_is_not_read() {
        let (_, bytes) = sample();
        for length in 0..bytes.len() {
            assert_eq!(all(&HEADER, 500, &bytes[..length]), None, "cut at {length}");
        }
        for at in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            assert_eq!(all(&HEADER, 500, &bytes), None, "bit {at}");
        }
        assert_eq!(all(&HEADER, 501, &bytes), None);
        assert_eq!(all(&Header { mark: *b"another!", ..HEADER }, 500, &bytes), None);
    }

    #[test]
    fn one_of_another_version_is_told_from_damage() {
        let (_, whole) = sample();
        let summed = |mut bytes: Vec<u8>| {
            let sum = sum(&bytes);
            bytes[SUM].copy_from_slice(&sum);
            bytes
        };
        let mut later = whole.clone();
        later[ABOUT.end - 4] += 1;
        let (later, cut, longer) = (summed(later), summed(whole[..whole.len() - 1].to_vec()), {
            let mut longer = whole.clone();
            longer.push(0);
            summed(longer)
        });
        for (what, bytes, is_expected) in [
            ("as it is", &whole, false),
            ("a later number", &later, true),
            ("a field less", &cut, true),
            ("an octet more", &longer, true),
            ("nothing", &Vec::new(), false),
            ("cut", &whole[..40].to_vec(), false),
        ] {
            assert_eq!(is_foreign(&HEADER, 500, bytes), is_expected, "{what}");
            assert_eq!(all(&HEADER, 500, bytes).is_some(), what == "as it is", "{what}");
        }
        assert!(!is_foreign(&HEADER, 501, &later), "it is about another segment");
    }
}
