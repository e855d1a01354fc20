//! A segment's header, in two copies at its beginning, so that one may be damaged. Pure; `segment` writes it, `recover`
//! reads it.

use super::record::Mark;
use crate::message::queue_id::QueueId;

/// The format that this version writes. Format 1 was lines of JSON in `log/`; 2 and 3 are read by
/// [`before`](super::entry).
pub const FORMAT: u16 = 4;
/// The oldest format that this version reads. The header is the same in all of them.
pub const OLDEST: u16 = 2;
/// Bytes of both copies; a segment's records begin there.
pub const LENGTH: usize = 2 * COPY;

const COPY: usize = 64;
const MAGIC: &[u8; 8] = b"FPSPOOL\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The format of its records.
    pub format: u16,
    pub number: u32,
    /// The previous segment; zero: none. Segments with numbers in between were never in force.
    pub previous: u32,
    /// Where the previous segment ends: what follows there was never acknowledged.
    pub previous_end: u64,
    /// The first segment that is needed.
    pub first: u32,
    /// The highest id of this spool so far; none up to it is used again, even if the clock goes back. Ids that came
    /// from a cluster do not count.
    pub last_id: QueueId,
    /// Marks its records.
    pub mark: Mark,
    /// Where its records end, if it was [rewritten](super::rewrite): the next header has their end before that. 0: it
    /// was not.
    pub rewritten_end: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// Another version wrote it, in this format.
    Format(u16),
    /// It is damaged, or not a header.
    Damaged,
}

impl Header {
    /// Whether a message may have its record in an earlier segment.
    #[must_use]
    pub fn may_be_before(&self, id: QueueId) -> bool {
        is_known_by(self.last_id, id)
    }

    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(LENGTH);
        copy.extend_from_slice(MAGIC);
        // Next to its complement, so that a flipped bit is not taken for another format.
        copy.extend_from_slice(&self.format.to_le_bytes());
        copy.extend_from_slice(&(!self.format).to_le_bytes());
        for number in [self.number, self.previous, self.first] {
            copy.extend_from_slice(&number.to_le_bytes());
        }
        copy.extend_from_slice(&self.previous_end.to_le_bytes());
        copy.extend_from_slice(&self.last_id.0.to_le_bytes());
        copy.extend_from_slice(&self.mark);
        copy.extend_from_slice(&self.rewritten_end.to_le_bytes());
        copy.resize(COPY - 4, 0);
        let sum = crc32c::crc32c(&copy);
        copy.extend_from_slice(&sum.to_le_bytes());
        copy.repeat(2)
    }

    /// Reads a segment's first [`LENGTH`] bytes.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let copies: Vec<_> = bytes.chunks_exact(COPY).take(2).map(read_copy).collect();
        let good = copies.iter().find(|copy| copy.is_ok());
        let other = copies.iter().find(|copy| matches!(copy, Err(Unreadable::Format(_))));
        *good.or(other).unwrap_or(&Err(Unreadable::Damaged))
    }
}

/// Whether a message with this id may have been there when `last_id` was the highest id. Of those that came from a
/// cluster nothing is known.
#[must_use]
pub fn is_known_by(last_id: QueueId, id: QueueId) -> bool {
    id <= last_id || id.is_clustered()
}

fn read_copy(copy: &[u8]) -> Result<Header, Unreadable> {
    let word = |at: usize| u32::from_le_bytes([copy[at], copy[at + 1], copy[at + 2], copy[at + 3]]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    let format = u16::from_le_bytes([copy[8], copy[9]]);
    if !copy.starts_with(MAGIC) || format != !u16::from_le_bytes([copy[10], copy[11]]) {
        return Err(Unreadable::Damaged);
    }
    if !(OLDEST..=FORMAT).contains(&format) {
        return Err(Unreadable::Format(format));
    }
    if crc32c::crc32c(&copy[..COPY - 4]) != word(COPY - 4) {
        return Err(Unreadable::Damaged);
    }
    Ok(Header {
        format,
        number: word(12),
        previous: word(16),
        first: word(20),
        previous_end: long(24),
        last_id: QueueId(long(32)),
        mark: long(40).to_le_bytes(),
        rewritten_end: long(48),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let (last_id, mark) = (QueueId(u64::MAX - 5), [1, 2, 3, 4, 5, 6, 7, 8]);
        Header {
            format: FORMAT,
            number: 9,
            previous: 7,
            previous_end: 1 << 40,
            first: 3,
            last_id,
            mark,
            rewritten_end: 99,
        }
    }

    #[test]
    fn a_header_reads_as_it_was_written_whichever_bit_is_flipped() {
        let bytes = header().write();
        assert_eq!(bytes.len(), LENGTH);
        assert_eq!(Header::read(&bytes), Ok(header()));
        for at in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            assert_eq!(Header::read(&bytes), Ok(header()), "bit {at}");
        }
    }

    #[test]
    fn another_format_is_told_from_damage() {
        let mut bytes = header().write();
        for at in [8, COPY + 8] {
            bytes[at..at + 4].copy_from_slice(&[5, 0, !5, !0]);
        }
        assert_eq!(Header::read(&bytes), Err(Unreadable::Format(5)));
        for length in 0..COPY {
            assert_eq!(Header::read(&bytes[..length]), Err(Unreadable::Damaged));
        }
    }
}
