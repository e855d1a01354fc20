//! Recently good addresses as a file has them: fixed-width numbers, little-endian, with a checksum over all before it.
//!
//! ```text
//! "fingerpost recently good 1\n"  key: 16 bytes
//! connectors: u32, then for each  length: u16, name: UTF-8
//! addresses: u32, then for each   hash: u64, connector: u32, last success: u64, first refusal: u64 (0: none)
//! checksum: u32 (CRC-32C)
//! ```

use super::{ENTRIES, Good, RecentlyGood};
use crate::time::UnixTime;

const MAGIC: &[u8] = b"fingerpost recently good 1\n";

/// Bytes that were not written by [`RecentlyGood::to_bytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They begin otherwise.
    #[error("it does not begin as such a file does")]
    Kind,
    /// They were cut off or changed.
    #[error("it was cut off or changed")]
    Checksum,
    /// The checksum is right and the content is not: another version wrote them.
    #[error("it has another form")]
    Form,
}

impl RecentlyGood {
    /// Everything, to be saved.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + self.order.len() * 28);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.key);
        bytes.extend_from_slice(&(self.connectors.len() as u32).to_le_bytes());
        for name in &self.connectors {
            let name = &name.as_bytes()[..name.len().min(usize::from(u16::MAX))];
            bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
            bytes.extend_from_slice(name);
        }
        bytes.extend_from_slice(&(self.order.len() as u32).to_le_bytes());
        for good in self.order.iter() {
            bytes.extend_from_slice(&good.hash.to_le_bytes());
            bytes.extend_from_slice(&good.connector.to_le_bytes());
            bytes.extend_from_slice(&good.last_success.0.to_le_bytes());
            bytes.extend_from_slice(&good.first_refusal.unwrap_or_default().0.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// What was saved.
    ///
    /// # Errors
    /// [`Malformed`]: it is of no use.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if !bytes.starts_with(MAGIC) {
            return Err(Malformed::Kind);
        }
        let (content, checksum) = bytes.split_last_chunk::<4>().ok_or(Malformed::Checksum)?;
        if crc32c::crc32c(content) != u32::from_le_bytes(*checksum) {
            return Err(Malformed::Checksum);
        }
        read(&content[MAGIC.len()..]).ok_or(Malformed::Form)
    }
}

fn read(mut bytes: &[u8]) -> Option<RecentlyGood> {
    let from = &mut bytes;
    let mut read = RecentlyGood::new(*take(from)?);
    for _ in 0..u32::from_le_bytes(*take(from)?) {
        let length = usize::from(u16::from_le_bytes(*take(from)?));
        let (name, rest) = from.split_at_checked(length)?;
        *from = rest;
        read.connectors.push(std::str::from_utf8(name).ok()?.into());
    }
    let mut all = Vec::new();
    for _ in 0..u32::from_le_bytes(*take(from)?) {
        let hash = u64::from_le_bytes(*take(from)?);
        let connector = u32::from_le_bytes(*take(from)?);
        let last_success = UnixTime(u64::from_le_bytes(*take(from)?));
        let first_refusal = Some(UnixTime(u64::from_le_bytes(*take(from)?))).filter(|at| at.0 != 0);
        all.push(Good { hash, connector, last_success, first_refusal, since: last_success });
    }
    all.sort_by_key(|good| good.last_success);
    let surplus = all.len().saturating_sub(ENTRIES);
    all.drain(surplus..).for_each(|good| read.note(good));
    read.changes = 0;
    from.is_empty().then_some(read)
}

/// The next so many bytes.
fn take<'a, const N: usize>(from: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(taken)
}
