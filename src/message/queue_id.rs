//! The id of a message in this program, as logs, the queue, Received and reports show it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::time::UnixTime;

/// A message's id in logs, `queue list`, Received and reports: 13 characters of Crockford's base 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct QueueId(pub u64);

/// Set in the ids that nodes with one queue give out (`cluster::ids`), clear in those of a node's own spool.
pub const CLUSTERED: u64 = 1 << 62;

impl QueueId {
    /// Whether nodes with one queue gave it out. It is higher than every id of a node's own spool, whenever that is made.
    #[must_use]
    pub fn is_clustered(self) -> bool {
        self.0 & CLUSTERED != 0
    }

    /// When it was made, by the wall clock at that time: the id begins with milliseconds since 1970, in 42 bits.
    #[must_use]
    pub fn made_at(self) -> UnixTime {
        UnixTime((self.0 >> 20 & ((1 << 42) - 1)) / 1000)
    }
}

const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 13];
        for (at, to) in text.iter_mut().rev().enumerate() {
            *to = DIGITS[usize::try_from((self.0 >> (at * 5)) & 31).unwrap_or_default()];
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a queue id: 13 characters as `fingerpost queue list` shows them")]
pub struct NotAQueueId(String);

impl FromStr for QueueId {
    type Err = NotAQueueId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || NotAQueueId(text.to_owned());
        if text.len() != 13 {
            return Err(bad());
        }
        let mut value: u128 = 0;
        for b in text.bytes().map(|b| b.to_ascii_uppercase()) {
            let digit = DIGITS.iter().position(|digit| *digit == b).ok_or_else(bad)?;
            value = (value << 5) | digit as u128;
        }
        u64::try_from(value).map(QueueId).map_err(|_| bad())
    }
}

impl Serialize for QueueId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for QueueId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_ids_read_as_they_are_written() {
        for value in [0, 1, 31, 32, u64::MAX, 0x0123_4567_89ab_cdef] {
            let id = QueueId(value);
            assert_eq!(id.to_string().len(), 13);
            assert_eq!(id.to_string().parse::<QueueId>().unwrap(), id);
        }
        assert!("ZZZZZZZZZZZZZ".parse::<QueueId>().is_err());
        assert!("U000000000000".parse::<QueueId>().is_err());
        assert!("".parse::<QueueId>().is_err());
    }
}
