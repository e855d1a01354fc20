//! Segments that the disk cannot read: when each is tried again, and when that is logged. Pure.
//!
//! Such a segment stays until it can be read, until all its messages are finished, or until an operator gives it up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_mins(10);

#[derive(Debug, Default)]
pub(super) struct Stuck(BTreeMap<u32, One>);

#[derive(Debug)]
struct One {
    tries: u32,
    again: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tell {
    /// Log it: the first time, and at growing intervals.
    Now,
    Later,
}

impl Stuck {
    /// A segment could not be read at `now`.
    pub(super) fn failed(&mut self, segment: u32, now: Instant) -> Tell {
        let one = self.0.entry(segment).or_insert(One { tries: 0, again: now });
        let pause = FIRST.saturating_mul(1_u32.checked_shl(one.tries).unwrap_or(u32::MAX)).min(LONGEST);
        one.tries = one.tries.saturating_add(1);
        one.again = now + pause;
        if one.tries.is_power_of_two() { Tell::Now } else { Tell::Later }
    }

    /// The segment can be read, or is not needed any more. Returns whether it was listed.
    pub(super) fn remove(&mut self, segment: u32) -> bool {
        self.0.remove(&segment).is_some()
    }

    /// Whether its pause is not over.
    pub(super) fn waits(&self, segment: u32, now: Instant) -> bool {
        self.0.get(&segment).is_some_and(|one| one.again > now)
    }

    /// Segments whose pause is over.
    pub(super) fn due(&self, now: Instant) -> Vec<u32> {
        self.0.iter().filter(|(_, one)| one.again <= now).map(|(segment, _)| *segment).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Segments before this one.
    pub(super) fn before(&self, segment: u32) -> Vec<u32> {
        self.0.range(..segment).map(|(segment, _)| *segment).collect()
    }

    /// When the next pause is over.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|one| one.again).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_seconds_to_ten_minutes_and_it_is_told_ever_less() {
        let start = Instant::now();
        let mut stuck = Stuck::default();
        let (mut pauses, mut told, mut now) = (Vec::new(), Vec::new(), start);
        for _ in 0..70 {
            assert!(!stuck.waits(3, now));
            if stuck.failed(3, now) == Tell::Now {
                told.push((now - start).as_secs());
            }
            let next = stuck.next().unwrap();
            assert!(stuck.waits(3, now) && stuck.due(now).is_empty());
            pauses.push((next - now).as_secs());
            now = next;
            assert_eq!(stuck.due(now), [3]);
        }
        assert_eq!(pauses[..9], [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(told, [0, 5, 35, 635, 5435, 15035, 34235]);
        assert!(stuck.before(3).is_empty() && stuck.before(4) == [3]);
        assert!(stuck.remove(3) && stuck.is_empty() && !stuck.remove(3) && stuck.next().is_none());
    }
}
