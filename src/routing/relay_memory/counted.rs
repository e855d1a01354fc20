//! Counts how often a hash was noted within the last 30 minutes, in bounded memory.

use std::collections::VecDeque;
use std::time::Duration;

use crate::fast_map::FastMap;
use crate::time::UnixTime;

/// How long a message is remembered.
pub const KEPT: Duration = Duration::from_mins(30);
pub(super) const ENTRIES: usize = 100_000;

/// A hash with a secret key: among 100,000 notes a collision is expected once in some thousand million half hours.
pub(super) type Hash = u64;

/// At most 100,000 notes; the oldest are forgotten first.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// Every note, oldest first.
    order: VecDeque<(UnixTime, Hash)>,
    /// How often each hash is in `order`.
    counts: FastMap<Hash, u32>,
}

impl Counted {
    /// Notes it once.
    pub(super) fn note(&mut self, hash: Hash, now: UnixTime) {
        self.forget(now);
        if self.order.len() >= ENTRIES {
            self.forget_oldest();
        }
        self.order.push_back((now, hash));
        *self.counts.entry(hash).or_default() += 1;
    }

    /// How often it is noted.
    pub(super) fn count(&mut self, hash: Hash, now: UnixTime) -> usize {
        self.forget(now);
        self.counts.get(&hash).map_or(0, |count| *count as usize)
    }

    /// Drops notes that are too old, and those so far in the future that the clock must have been put back.
    fn forget(&mut self, now: UnixTime) {
        while let Some((at, _)) = self.order.front()
            && (now.since(*at) >= KEPT || at.since(now) >= KEPT)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, hash)) = self.order.pop_front() else { return };
        if let Some(count) = self.counts.get_mut(&hash) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&hash);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_and_forgets_after_half_an_hour() {
        let mut counted = Counted::default();
        for now in [100, 1000, 1000] {
            counted.note(12, UnixTime(now));
        }
        counted.note(13, UnixTime(1000));
        for (now, count) in [(1000, 3), (1899, 3), (1900, 2), (2799, 2), (2800, 0)] {
            assert_eq!(counted.count(12, UnixTime(now)), count, "{now}");
        }
        assert_eq!((counted.order.len(), counted.counts.len()), (0, 0));
        assert_eq!(counted.count(22, UnixTime(1000)), 0);
    }

    #[test]
    fn a_clock_that_is_put_back_keeps_nothing_for_ever() {
        let mut counted = Counted::default();
        counted.note(12, UnixTime(100_000));
        assert_eq!(counted.count(12, UnixTime(99_000)), 1);
        assert_eq!(counted.count(12, UnixTime(50_000)), 0);
    }

    #[test]
    fn it_is_bounded_and_the_oldest_go() {
        let mut counted = Counted::default();
        counted.note(0, UnixTime(1));
        for number in 0..=ENTRIES as u64 {
            counted.note(number, UnixTime(1));
        }
        assert_eq!((counted.order.len(), counted.counts.len()), (ENTRIES, ENTRIES));
        for (number, count) in [(0, 0), (1, 1), (ENTRIES as u64, 1)] {
            assert_eq!(counted.count(number, UnixTime(1)), count, "{number}");
        }
    }
}
