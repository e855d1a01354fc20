//! How fresh a snapshot is. Pure: time is an argument.

use std::time::{Duration, Instant};

use super::position::Position;
use crate::time::UnixTime;

/// When the directory was last read, confirmed and followed.
#[derive(Debug, Clone, Default)]
pub(super) struct SnapshotFreshness {
    /// Where following continues.
    pub(super) position: Position,
    /// When the snapshot was last known to be equal to the directory, and when that was recorded.
    confirmed: Option<(UnixTime, Instant)>,
    /// The same, while the directory is being followed.
    followed: Option<Instant>,
    /// When the last full read began; `None`: there was none with this configuration.
    whole: Option<UnixTime>,
}

impl SnapshotFreshness {
    /// As read from a file; `whole` as in [`SnapshotFreshness`].
    pub(super) fn saved(position: Position, at: UnixTime, noticed: Instant, whole: Option<UnixTime>) -> Self {
        Self { position, confirmed: Some((at, noticed)), followed: None, whole }
    }

    /// The directory was read completely; changes during the read are still to come.
    pub(super) fn read(&mut self, position: Position, begun: UnixTime, noticed: Instant) {
        (self.position, self.whole) = (position, Some(begun));
        self.confirmed = Some((begun, noticed));
    }

    /// All changes up to that position are known.
    pub(super) fn followed(&mut self, position: Position, now: UnixTime, instant: Instant) {
        self.position = position;
        (self.confirmed, self.followed) = (Some((now, instant)), Some(instant));
    }

    /// The directory is no longer followed.
    pub(super) fn lost(&mut self) {
        self.followed = None;
    }

    /// The time since it was confirmed, by the clock.
    pub(super) fn age(&self, now: UnixTime) -> Option<Duration> {
        self.confirmed.map(|(at, _)| now.since(at))
    }

    /// Detects that the clock was set back, which must not make the snapshot look fresher. Called every few seconds,
    /// because reading a second clock for each answer would cost a good part of the answer.
    pub(super) fn mind_the_clock(&mut self, now: UnixTime, instant: Instant) {
        if let Some((at, noticed)) = &mut self.confirmed {
            let passed = instant.saturating_duration_since(*noticed);
            if now.since(*at) < passed {
                *at = UnixTime(now.0.saturating_sub(passed.as_secs()));
            }
        }
    }

    /// When it was last confirmed.
    pub(super) fn confirmed(&self) -> Option<UnixTime> {
        self.confirmed.map(|(at, _)| at)
    }

    /// When it was last followed; `None`: it is not being followed.
    pub(super) fn last_followed(&self) -> Option<Instant> {
        self.followed
    }

    /// The time since the last full read began; `None` also while a stream tells everything.
    pub(super) fn whole_read_ago(&self, now: UnixTime) -> Option<Duration> {
        let streams = self.position == Position::Unknown && self.followed.is_some();
        self.whole.filter(|_| !streams).map(|at| now.since(at))
    }

    /// The time until the next full read, at this interval.
    pub(super) fn until_whole_read(&self, interval: Duration, now: UnixTime) -> Duration {
        self.whole.map_or(Duration::ZERO, |at| interval.saturating_sub(now.since(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_fresh() {
        let mut contact = SnapshotFreshness::default();
        assert_eq!(contact.age(UnixTime(5)), None);
        let noticed = Instant::now();
        contact.followed(Position::Unknown, UnixTime(10_000), noticed);
        for (clock, passed, age) in [(10_000, 0, 0), (10_060, 60, 60), (5_000, 90, 90), (5_010, 100, 100)] {
            contact.mind_the_clock(UnixTime(clock), noticed + Duration::from_secs(passed));
            assert_eq!(contact.age(UnixTime(clock)), Some(Duration::from_secs(age)), "{clock}");
        }
    }

    #[test]
    fn the_next_whole_read_is_due_an_interval_after_the_last() {
        let hour = Duration::from_hours(1);
        let now = Instant::now();
        let mut contact = SnapshotFreshness::saved(Position::Unknown, UnixTime(9_000), now, None);
        assert_eq!(contact.until_whole_read(hour, UnixTime(9_001)), Duration::ZERO);
        contact.read(Position::Unknown, UnixTime(10_000), now);
        contact.followed(Position::Unknown, UnixTime(13_000), now);
        assert_eq!(contact.until_whole_read(hour, UnixTime(13_000)), Duration::from_secs(600));
        assert_eq!(contact.until_whole_read(hour, UnixTime(20_000)), Duration::ZERO);
    }
}
