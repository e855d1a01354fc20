//! Limits the rate of reports about strangers' messages: forged mail decides their recipients and their number. `queue`
//! uses it; no I/O.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::UnixTime;

/// The time over which the rate is counted.
const MINUTE: Duration = Duration::from_secs(60);

/// When attempts began in the last minute.
#[derive(Debug, Default)]
pub(super) struct Pace {
    begun: VecDeque<UnixTime>,
}

impl Pace {
    pub(super) fn begins(&mut self, now: UnixTime) {
        self.begun.push_back(now);
    }

    /// The last one that began was not made.
    pub(super) fn took_back(&mut self) {
        self.begun.pop_back();
    }

    /// Drops times older than a minute. If the clock was put back, all are dropped.
    pub(super) fn forget_old(&mut self, now: UnixTime) {
        if self.begun.back().is_some_and(|last| *last > now) {
            self.begun.clear();
        }
        while self.begun.front().is_some_and(|first| first.plus(MINUTE) <= now) {
            self.begun.pop_front();
        }
    }

    /// Whether another may begin, with this many in any minute.
    pub(super) fn has_room(&self, per_minute: usize) -> bool {
        self.begun.len() < per_minute
    }

    /// When another may begin; where none may, it is not known when.
    pub(super) fn room_at(&self, per_minute: usize) -> UnixTime {
        if per_minute == 0 {
            return UnixTime(u64::MAX);
        }
        let blocking = self.begun.len().checked_sub(per_minute).and_then(|at| self.begun.get(at));
        blocking.map_or(UnixTime(0), |begun| begun.plus(MINUTE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many begin at each of these seconds, if as many as possible do.
    fn begun(pace: &mut Pace, per_minute: usize, seconds: &[u64]) -> Vec<usize> {
        let all = seconds.iter().map(|at| {
            let now = UnixTime(*at);
            pace.forget_old(now);
            let before = pace.begun.len();
            while pace.has_room(per_minute) {
                pace.begins(now);
            }
            pace.begun.len() - before
        });
        all.collect()
    }

    #[test]
    fn no_minute_has_more_than_it_may() {
        let mut pace = Pace::default();
        assert_eq!(pace.room_at(60), UnixTime(0));
        assert_eq!(begun(&mut pace, 60, &[1000, 1000, 1059, 1060, 1119, 1120, 5000]), [60, 0, 0, 60, 0, 60, 60]);
        assert_eq!(pace.room_at(60), UnixTime(5060));
        // Another limit applies at once.
        assert_eq!(begun(&mut pace, 70, &[5030]), [10]);
        assert_eq!(
            (pace.room_at(70), pace.room_at(10), pace.room_at(5)),
            (UnixTime(5060), UnixTime(5090), UnixTime(5090))
        );
        assert_eq!(begun(&mut pace, 5, &[5060, 5089, 5090]), [0, 0, 5]);
    }

    #[test]
    fn none_begins_while_other_nodes_have_the_whole_rate() {
        let mut pace = Pace::default();
        assert_eq!((pace.room_at(0), begun(&mut pace, 0, &[1000])), (UnixTime(u64::MAX), vec![0]));
        assert_eq!(begun(&mut pace, 1, &[1060]), [1]);
    }

    #[test]
    fn a_clock_that_was_put_back_holds_nothing_up() {
        let mut pace = Pace::default();
        assert_eq!(begun(&mut pace, 3, &[9000, 1000, 1001, 1060]), [3, 3, 0, 3]);
    }
}
