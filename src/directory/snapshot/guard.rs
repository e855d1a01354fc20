//! `hold_changes`: limits how many recipients' destinations may change within a time before an operator has to accept
//! it (DESIGN section 5, "doubt is temporary"). Pure.

use std::collections::VecDeque;

use crate::config::HoldChanges;
use crate::time::UnixTime;

/// The least value of "a tenth", for the smallest directories.
const SMALLEST_TENTH: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    Take,
    /// Until an operator accepts them.
    Hold,
}

/// Counts recent changes.
#[derive(Debug, Clone)]
pub struct Guard {
    limits: HoldChanges,
    taken: VecDeque<(UnixTime, usize)>,
}

impl Guard {
    /// With the earlier changes that still count.
    #[must_use]
    pub fn after(limits: HoldChanges, taken: impl IntoIterator<Item = (UnixTime, usize)>) -> Self {
        Self { limits, taken: taken.into_iter().collect() }
    }

    /// Recent changes: when, and how many.
    pub fn taken(&self) -> impl Iterator<Item = (UnixTime, usize)> {
        self.taken.iter().copied()
    }

    /// Decides about further changes in a directory with `all` recipients. If they are taken, [`Guard::take`] has to be
    /// called.
    pub fn weigh(&mut self, now: UnixTime, changes: usize, all: usize) -> Ruling {
        while self.taken.front().is_some_and(|(at, _)| now.since(*at) >= self.limits.within) {
            self.taken.pop_front();
        }
        let together = changes + self.taken.iter().map(|(_, count)| count).sum::<usize>();
        if changes > 0 && together > most(&self.limits, all) { Ruling::Hold } else { Ruling::Take }
    }

    /// Counts changes that were taken.
    pub fn take(&mut self, now: UnixTime, changes: usize) {
        if changes > 0 {
            self.taken.push_back((now, changes));
        }
    }

    /// An operator accepted the changes: the count begins again.
    pub fn accept(&mut self) {
        self.taken.clear();
    }
}

/// Whether any number may change.
#[must_use]
pub fn is_unlimited(limits: &HoldChanges) -> bool {
    limits.share_millionths >= 1_000_000
}

/// The number of recipients that may change in a directory with `all`: the larger of `share`, and the smaller of
/// `at_least` and a tenth, which is never less than 5. A share of 1 is no limit.
#[must_use]
pub fn most(limits: &HoldChanges, all: usize) -> usize {
    if is_unlimited(limits) {
        return usize::MAX;
    }
    let share = all.saturating_mul(limits.share_millionths) / 1_000_000;
    share.max(limits.at_least.min((all / 10).max(SMALLEST_TENTH)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn changes_count_together_until_they_are_old_or_accepted() {
        let limits = HoldChanges { share_millionths: 20_000, at_least: 50, within: Duration::from_secs(3600) };
        for (all, changes, expected) in [
            // When, and how many; `None`: accepted.
            (1_000, &[(0, Some(50))][..], vec![Ruling::Take]),
            (1_000, &[(0, Some(51))], vec![Ruling::Hold]),
            (10_000, &[(0, Some(200)), (1, Some(1))], vec![Ruling::Take, Ruling::Hold]),
            (
                10_000,
                &[(0, Some(200)), (3_599, Some(1)), (3_600, Some(1))],
                vec![Ruling::Take, Ruling::Hold, Ruling::Take],
            ),
            // Single changes do not circumvent it, and held changes do not count twice.
            (
                500,
                &[(0, Some(25)), (1, Some(25)), (2, Some(1)), (3, Some(1)), (4, Some(0))],
                vec![Ruling::Take, Ruling::Take, Ruling::Hold, Ruling::Hold, Ruling::Take],
            ),
            (500, &[(0, Some(50)), (1, None), (2, Some(50))], vec![Ruling::Take, Ruling::Take]),
        ] {
            let mut guard = Guard::after(limits, []);
            let mut rulings = Vec::new();
            for (at, count) in changes {
                match count {
                    Some(count) => {
                        let ruling = guard.weigh(UnixTime(*at), *count, all);
                        if ruling == Ruling::Take {
                            guard.take(UnixTime(*at), *count);
                        }
                        rulings.push(ruling);
                    }
                    None => guard.accept(),
                }
            }
            assert_eq!(rulings, expected, "{changes:?}");
        }
    }

    #[test]
    fn small_directories_have_a_small_limit() {
        let usual = HoldChanges { share_millionths: 20_000, at_least: 50, within: Duration::from_secs(3600) };
        for (all, expected) in [
            (0, 5),
            (7, 5),
            (49, 5),
            (68, 6),
            (300, 30),
            (499, 49),
            (500, 50),
            (2_500, 50),
            (2_600, 52),
            (100_000, 2_000),
        ] {
            assert_eq!(most(&usual, all), expected, "{all}");
        }
        for (at_least, all, expected) in [(0, 68, 1), (3, 68, 3), (200, 68, 6), (200, 5_000, 200)] {
            assert_eq!(most(&HoldChanges { at_least, ..usual }, all), expected, "{at_least} of {all}");
        }
        assert_eq!(most(&HoldChanges { share_millionths: 1_000_000, ..usual }, 68), usize::MAX, "nothing is held");
    }
}
