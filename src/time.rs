//! Points in time as the program compares and writes them: whole seconds since 1970, UTC.
//!
//! Pure code takes a [`UnixTime`] as an argument; [`UnixTime::now`] is for the shell alone.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

/// Seconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// The system's clock, now. Pure code never calls it.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self(since.unwrap_or_default().as_secs())
    }

    /// How long ago `earlier` was; zero if it lies in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }

    /// This time moved on by `by`, in whole seconds.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by.as_secs()))
    }

    /// As RFC 5322 3.3 writes a date, in UTC: `Sat, 21 Nov 2026 04:39:00 +0000`.
    #[must_use]
    pub fn rfc5322(self) -> String {
        self.utc().format(&Rfc2822).unwrap_or_default()
    }

    /// As RFC 3339 writes a date, in UTC: `2026-11-21T04:39:00Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        self.utc().format(&Rfc3339).unwrap_or_default()
    }

    fn utc(self) -> OffsetDateTime {
        let seconds = i64::try_from(self.0).unwrap_or(i64::MAX);
        OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

/// Seconds that a spool has run, counted from the time of day at which it was made: it stands still while we do not run,
/// and never jumps. All ages are counted by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QueueTime(pub u64);

impl QueueTime {
    /// How long ago `earlier` was; zero if it lies in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }

    /// This time moved on by `by`, in whole seconds.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by.as_secs()))
    }
}

/// One moment, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The time of day, for people and for when something is due.
    pub day: UnixTime,
    /// The queue's time, for how old something is.
    pub queue: QueueTime,
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_the_rfcs_ask() {
        let t = UnixTime(1_795_235_940);
        assert_eq!(t.rfc5322(), "Sat, 21 Nov 2026 04:39:00 +0000");
        assert_eq!(t.rfc3339(), "2026-11-21T04:39:00Z");
        assert_eq!(UnixTime(5).since(UnixTime(9)), Duration::ZERO);
    }
}
