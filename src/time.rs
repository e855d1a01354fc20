//! Points in time as the program compares and writes them: whole seconds since 1970, UTC.
//!
//! Code without I/O takes a [`UnixTime`] as an argument; only other code calls [`UnixTime::now`] and
//! [`UnixTime::steady`]. Times for display, and times from other hosts, are of the wall clock; due times and durations
//! use the steady clock; ages over restarts use [`QueueTime`].

use std::fmt;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

/// Seconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

/// A jump of the wall clock by more than this many seconds is logged.
const JUMP: u64 = 60;

/// When this process first read its clocks.
struct Start {
    day: Duration,
    at: Instant,
}

static START: LazyLock<Start> = LazyLock::new(|| Start { day: time_of_day(), at: Instant::now() });

fn time_of_day() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Start {
    fn steady(&self) -> Duration {
        self.day.saturating_add(self.at.elapsed())
    }
}

/// By how many seconds the wall clock is ahead of the steady clock; negative: it is behind.
#[must_use]
pub fn moved() -> i64 {
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let ahead = millis(time_of_day()).saturating_sub(millis(START.steady()));
    ahead.saturating_add(500).div_euclid(1000)
}

/// Detects jumps of the wall clock against the steady clock.
#[derive(Debug, Default)]
pub struct Jumps {
    told: i64,
}

impl Jumps {
    /// The jump since the last call in seconds, if it is more than a minute. `moved`: the value of [`moved`].
    pub fn look(&mut self, moved: i64) -> Option<i64> {
        let jump = moved.saturating_sub(self.told);
        let told = jump.unsigned_abs() > JUMP;
        if told {
            self.told = moved;
        }
        told.then_some(jump)
    }
}

impl UnixTime {
    /// The wall clock, now. Pure code never calls it.
    #[must_use]
    pub fn now() -> Self {
        Self(time_of_day().as_secs())
    }

    /// The steady clock, now: the wall clock at the start of this process plus the time since. It does not jump; due
    /// times are compared with it. Pure code never calls it.
    #[must_use]
    pub fn steady() -> Self {
        Self(START.steady().as_secs())
    }

    /// The earlier of the two clocks: for removing what is old, which a clock that is ahead must not hasten.
    #[must_use]
    pub fn at_least() -> Self {
        Self::now().min(Self::steady())
    }

    /// The wall-clock time when the steady clock will show this, as far as is known now.
    #[must_use]
    pub fn by_day(self) -> Self {
        Self(self.0.saturating_add_signed(moved()))
    }

    /// The time since `earlier`; zero if that is in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }

    /// This time plus `by`, in whole seconds.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by.as_secs()))
    }

    /// The inverse of `by_day`: what the steady clock showed at this wall-clock time, as far as is known now.
    #[must_use]
    pub fn of_day(self) -> Self {
        Self(self.0.saturating_add_signed(moved().saturating_neg()))
    }

    /// As a date of RFC 5322 3.3, in UTC: `Sat, 21 Nov 2026 04:39:00 +0000`.
    #[must_use]
    pub fn rfc5322(self) -> String {
        self.utc().format(&Rfc2822).unwrap_or_default()
    }

    /// As a date of RFC 3339, in UTC: `2026-11-21T04:39:00Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        self.utc().format(&Rfc3339).unwrap_or_default()
    }

    fn utc(self) -> OffsetDateTime {
        let seconds = i64::try_from(self.0).unwrap_or(i64::MAX);
        OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

/// The clock of a spool, in seconds: it started from the wall clock when the spool was made, advances only while the
/// program runs, and never jumps. All ages are based on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QueueTime(pub u64);

impl QueueTime {
    /// The time since `earlier`; zero if that is in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }

    /// This time plus `by`, in whole seconds.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by.as_secs()))
    }
}

/// The current time by the clocks that do not jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The steady clock, for due times.
    pub day: UnixTime,
    /// The queue's time, for ages.
    pub queue: QueueTime,
    /// How long this process has run.
    pub up: Duration,
}

impl Moment {
    /// Now; the spool provides the queue's time.
    #[must_use]
    pub fn now(queue: QueueTime) -> Self {
        Self { day: UnixTime::steady(), queue, up: START.at.elapsed() }
    }
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

    #[test]
    fn a_jump_of_more_than_a_minute_is_told_once() {
        // How far the wall clock has moved at each check, and the jumps that are reported.
        for (moved, told) in [
            (&[0, 0, 1, -1][..], &[None, None, None, None][..]),
            (&[0, 60, 61, 61], &[None, None, Some(61), None]),
            (&[0, 259_200, 259_200, 0], &[None, Some(259_200), None, Some(-259_200)]),
            (&[-31_536_000, -31_536_000], &[Some(-31_536_000), None]),
            (&[30, 60, 90, 120, 151], &[None, None, Some(90), None, Some(61)]), // in small steps
        ] {
            let mut jumps = Jumps::default();
            let seen: Vec<_> = moved.iter().map(|moved| jumps.look(*moved)).collect();
            assert_eq!(seen, told, "{moved:?}");
        }
    }

    #[test]
    fn where_nothing_jumped_both_clocks_are_one() {
        assert_eq!(moved(), 0);
        assert!(UnixTime::now().since(UnixTime::steady()) <= Duration::from_secs(1));
        assert_eq!(UnixTime(7).by_day(), UnixTime(7));
    }
}
