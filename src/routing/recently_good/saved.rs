//! The file format of [`RecentlyGood`]: fixed-width numbers, little-endian, with a checksum over everything before it.
//!
//! ```text
//! "fingerpost recently good 3\n"  key: 16 bytes
//! connectors: u32, then for each  length: u16, name: UTF-8
//! addresses: u32, then for each   hash: u64, connector: u32, last success: u64, good since: u64
//! refused: u32, then for each     hash: u64, first: u64, last: u64
//! checksum: u32 (CRC-32C)
//! ```
//!
//! Times are [`QueueTime`]s. Versions 1 and 2 are still read. They have wall-clock times; version 1 has `first refusal:
//! u64` (0: none) instead of `good since`, and no `refused`.

use super::{ENTRIES, Good, REFUSED, RecentlyGood};
use crate::routing::first_refused::Refusals;
use crate::routing::ranks::Rank;
use crate::time::{Moment, QueueTime, UnixTime};

const MAGIC: &[u8] = b"fingerpost recently good 3\n";
const MAGIC_2: &[u8] = b"fingerpost recently good 2\n";
const MAGIC_1: &[u8] = b"fingerpost recently good 1\n";

/// Why bytes cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They begin with another header.
    #[error("it does not begin as such a file does")]
    Kind,
    /// They are cut off or changed.
    #[error("it was cut off or changed")]
    Checksum,
    /// The checksum is right, but the content is malformed.
    #[error("it has another form")]
    Form,
}

impl RecentlyGood {
    /// The bytes to save: without refusals at the end of data, and without addresses beyond a client's share.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + self.order.len() * 28 + self.refused.len() * 24);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.key);
        bytes.extend_from_slice(&(self.connectors.len() as u32).to_le_bytes());
        for name in &self.connectors {
            let name = &name.as_bytes()[..name.len().min(usize::from(u16::MAX))];
            bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
            bytes.extend_from_slice(name);
        }
        let surplus = self.order.len_of(Rank::Surplus);
        bytes.extend_from_slice(&((self.order.len() - surplus) as u32).to_le_bytes());
        for (_, good) in self.order.iter().filter(|(rank, _)| *rank != Rank::Surplus) {
            bytes.extend_from_slice(&good.hash.to_le_bytes());
            bytes.extend_from_slice(&good.connector.to_le_bytes());
            bytes.extend_from_slice(&good.last_success.0.to_le_bytes());
            bytes.extend_from_slice(&good.since.0.to_le_bytes());
        }
        bytes.extend_from_slice(&(self.refused.len() as u32).to_le_bytes());
        for refusals in self.refused.iter() {
            for number in [refusals.hash, refusals.first.0, refusals.last.0] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// Reads what was saved. `now` is the time of reading, shortly after a start.
    ///
    /// # Errors
    /// [`Malformed`]: the bytes cannot be read.
    pub fn from_bytes(bytes: &[u8], now: Moment) -> Result<Self, Malformed> {
        let (read, times): (fn(&mut Reader<'_>) -> Option<Self>, _) = match bytes {
            bytes if bytes.starts_with(MAGIC) => (read_3, Times::Queue),
            bytes if bytes.starts_with(MAGIC_2) => (read_3, Times::Day),
            bytes if bytes.starts_with(MAGIC_1) => (read_1, Times::Day),
            _ => return Err(Malformed::Kind),
        };
        let (content, checksum) = bytes.split_last_chunk::<4>().ok_or(Malformed::Checksum)?;
        if crc32c::crc32c(content) != u32::from_le_bytes(*checksum) {
            return Err(Malformed::Checksum);
        }
        let rest = content.get(MAGIC.len()..).ok_or(Malformed::Form)?;
        let mut reader = Reader { rest, times, now };
        let mut read = read(&mut reader).filter(|_| reader.rest.is_empty()).ok_or(Malformed::Form)?;
        read.changes = 0;
        Ok(read)
    }

    fn restore(&mut self, mut all: Vec<Good>) {
        all.sort_by_key(|good| good.last_success);
        let surplus = all.len().saturating_sub(ENTRIES);
        all.drain(surplus..).for_each(|good| self.note(good, good.rank(), good.last_success));
    }

    fn restore_refused(&mut self, mut all: Vec<Refusals>) {
        all.sort_by_key(|refusals| refusals.last);
        let surplus = all.len().saturating_sub(REFUSED);
        all.drain(surplus..).for_each(|refusals| self.refused.note(refusals.hash, refusals.first, refusals.last));
    }
}

/// The clock of a file's times.
#[derive(Debug, Clone, Copy)]
enum Times {
    Queue,
    Day,
}

/// The unread rest of a file.
struct Reader<'a> {
    rest: &'a [u8],
    times: Times,
    now: Moment,
}

impl Reader<'_> {
    /// The next so many bytes.
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// The next time, converted to the queue's clock. A time in the future becomes now: the clock may have been wrong.
    fn time(&mut self) -> Option<QueueTime> {
        let (time, now) = (self.u64()?, self.now);
        Some(match self.times {
            Times::Queue => QueueTime(time).min(now.queue),
            Times::Day if time == 0 => QueueTime::default(),
            Times::Day => QueueTime(now.queue.0.saturating_sub(now.day.since(UnixTime(time)).as_secs())),
        })
    }
}

fn read_3(from: &mut Reader<'_>) -> Option<RecentlyGood> {
    let mut read = key_and_connectors(from)?;
    let mut all = Vec::new();
    for _ in 0..from.u32()? {
        let (hash, connector) = (from.u64()?, from.u32()?);
        let (last_success, since) = (from.time()?, from.time()?);
        all.push(Good { hash, connector, last_success, since });
    }
    read.restore(all);
    let mut refused = Vec::new();
    for _ in 0..from.u32()? {
        let hash = from.u64()?;
        let (first, last) = (from.time()?, from.time()?);
        refused.push(Refusals { hash, first, last });
    }
    read.restore_refused(refused);
    Some(read)
}

fn read_1(from: &mut Reader<'_>) -> Option<RecentlyGood> {
    let mut read = key_and_connectors(from)?;
    let (mut all, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..from.u32()? {
        let (hash, connector) = (from.u64()?, from.u32()?);
        let (last_success, first) = (from.time()?, from.time()?);
        if first.0 != 0 {
            refused.push(Refusals { hash, first, last: first });
        }
        all.push(Good { hash, connector, last_success, since: last_success });
    }
    read.restore(all);
    read.restore_refused(refused);
    Some(read)
}

fn key_and_connectors(from: &mut Reader<'_>) -> Option<RecentlyGood> {
    let mut read = RecentlyGood::new(from.take()?);
    for _ in 0..from.u32()? {
        let length = usize::from(from.u16()?);
        let (name, rest) = from.rest.split_at_checked(length)?;
        from.rest = rest;
        read.connectors.push(std::str::from_utf8(name).ok()?.into());
    }
    Some(read)
}
