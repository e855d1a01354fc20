//! The file format of successful logins: fixed-width numbers, little-endian, with a checksum over everything before it.
//!
//! ```text
//! "fingerpost known logins 1\n"  key: 16 bytes
//! logins: u32, then for each     hash of client and user: u64, when: u64
//! checksum: u32 (CRC-32C)
//! ```

use super::Guesses;
use crate::keyed_hash::HashKey;
use crate::time::UnixTime;

const MAGIC: &[u8] = b"fingerpost known logins 1\n";

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

impl Guesses {
    /// Successful logins. Failures are not saved.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let known: Vec<_> = self.known.iter(self.known.youngest()).collect();
        let mut bytes = Vec::with_capacity(MAGIC.len() + 24 + known.len() * 16);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.key);
        bytes.extend_from_slice(&(known.len() as u32).to_le_bytes());
        for (hash, at) in known {
            bytes.extend_from_slice(&hash.to_le_bytes());
            bytes.extend_from_slice(&at.0.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// Reads what was saved.
    ///
    /// # Errors
    /// [`Malformed`]: the bytes cannot be read.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let content = bytes.strip_prefix(MAGIC).ok_or(Malformed::Kind)?;
        let (_, checksum) = bytes.split_last_chunk::<4>().ok_or(Malformed::Checksum)?;
        let (content, _) = content.split_last_chunk::<4>().ok_or(Malformed::Checksum)?;
        if crc32c::crc32c(&bytes[..bytes.len() - 4]) != u32::from_le_bytes(*checksum) {
            return Err(Malformed::Checksum);
        }
        let (key, content) = content.split_first_chunk::<16>().ok_or(Malformed::Form)?;
        let (count, content) = content.split_first_chunk::<4>().ok_or(Malformed::Form)?;
        let (logins, rest) = content.as_chunks::<16>();
        if !rest.is_empty() || logins.len() != u32::from_le_bytes(*count) as usize {
            return Err(Malformed::Form);
        }
        let mut guesses = Self::new(HashKey::from(*key));
        for login in logins {
            let number = |half: &[u8]| half.iter().rev().fold(0, |all, octet| all << 8 | u64::from(*octet));
            let (hash, at) = login.split_at(8);
            guesses.known.insert(number(hash), (), UnixTime(number(at)));
        }
        Ok(guesses)
    }
}
