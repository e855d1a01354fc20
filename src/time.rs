//! Points in time as the program compares and writes them: whole seconds since 1970, UTC.
//!
//! Code without I/O takes a [`UnixTime`] as an argument; [`UnixTime::now`] and [`UnixTime::steady`] are for the shell alone. What
//! people read, and what other hosts wrote, is by the time of day; what is due, and how long ago something was, by the
//! steady clock; what outlives a restart ages by [`QueueTime`].

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

/// A jump of the time of day by more than this is told.
const JUMP: u64 = 60;

/// When this process looked at its clocks first.
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

/// By how many seconds the time of day has moved away from the steady clock; negative: it was put back.
#[must_use]
pub fn moved() -> i64 {
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let ahead = millis(time_of_day()).saturating_sub(millis(START.steady()));
    ahead.saturating_add(500).div_euclid(1000)
}

/// What was last seen of how the time of day moves away from the steady clock.
#[derive(Debug, Default)]
pub struct Jumps {
    told: i64,
}

impl Jumps {
    /// By how much it has jumped, in seconds, where that is more than a minute and was not told yet. `moved`: as
    /// [`moved`] says.
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
    /// The system's clock, now. Pure code never calls it.
    #[must_use]
    pub fn now() -> Self {
        Self(time_of_day().as_secs())
    }

    /// The steady clock, now: the time of day at the start of this process and what has passed since. It does not jump;
    /// what is due is compared with it. Pure code never calls it.
    #[must_use]
    pub fn steady() -> Self {
        Self(START.steady().as_secs())
    }

    /// Now, by that of the two clocks that is behind: for removing what is old, which a clock that is ahead must not hasten.
    #[must_use]
    pub fn at_least() -> Self {
        Self::now().min(Self::steady())
    }

    /// The time of day at which the steady clock will show this, as far as is known now.
    #[must_use]
    pub fn by_day(self) -> Self {
        Self(self.0.saturating_add_signed(moved()))
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

    /// The other way round: what the steady clock showed at this time of day, as far as is known now.
    #[must_use]
    pub fn of_day(self) -> Self {
        Self(self.0.saturating_add_signed(moved().saturating_neg()))
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

/// One moment, by the clocks that do not jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The steady clock, for when something is due.
    pub day: UnixTime,
    /// The queue's time, for how old something is.
    pub queue: QueueTime,
    /// For how long this process has run.
    pub up: Duration,
}

impl Moment {
    /// This moment; the queue's time is the spool's to say.
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
        // How far the time of day has moved away at each look, and by how much it jumped as far as is told.
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
