//! What is due when, for one kind of mail on one connector. `lane` uses it; no I/O. Compact, since there may be a
//! million hints.
//!
//! A hint may be outdated: the message's entry is read when its hint comes up. Hints that are due go to
//! [`Hints::ready`], where senders take turns, and domains where they share slots.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::ops::Bound::{self, Excluded, Unbounded};

use super::by_group::ByGroup;
use crate::delivery::dispatch::branch::Grouping;
use crate::message::queue_id::QueueId;
use crate::spool::entry::Why;
use crate::time::UnixTime;

/// The most hints that become ready in one call, during which others wait for the lock.
const AT_ONCE: usize = 10_000;

/// When something is due: a time, or a reason to be due at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::delivery::dispatch) struct Due(u64);

/// After everything that this sender has in this group.
fn behind(group: u32, sender: u32) -> Ready {
    (group, sender, Due(u64::MAX), QueueId(u64::MAX))
}

impl Due {
    /// An operator requested it.
    pub(in crate::delivery::dispatch) const RETRY: Self = Self(0);
    /// It waits because its next hop could not be reached, which answers again.
    pub(in crate::delivery::dispatch) const BACK: Self = Self(1);
    /// It waits for a connector that is gone: it will be held, or get another route. A recipient that may have arrived
    /// keeps its wait, since another route may produce another copy.
    pub(in crate::delivery::dispatch) const GONE: Self = Self(2);
    /// It is held because its connector is missing.
    pub(in crate::delivery::dispatch) const HELD: Self = Self(3);

    pub(in crate::delivery::dispatch) fn at(time: UnixTime) -> Self {
        Self(time.0.max(4))
    }

    /// The time, if it is one.
    pub(super) fn time(self) -> UnixTime {
        UnixTime(self.0)
    }
}

/// Group, sender, time, message.
type Ready = (u32, u32, Due, QueueId);

/// Something in this message may be due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hint {
    pub(super) due: Due,
    pub(super) id: QueueId,
    /// The domain, as a number.
    pub(super) group: u32,
    /// The reverse-path, as a number.
    pub(super) sender: u32,
}

/// The hints of one kind.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// Due at a later time.
    later: BinaryHeap<Reverse<Hint>>,
    /// The same for mail whose next hop could not be reached.
    unreachable: ByGroup,
    /// Due before their time, a few at a time; by domain, where domains share slots.
    hastened: BTreeMap<u32, VecDeque<Hint>>,
    /// The group from which one last became ready.
    fed: u32,
    /// The reason for which those are due.
    hastened_by: Option<Due>,
    ready: BTreeSet<Ready>,
    /// The group and sender of the last turn.
    last: (u32, u32),
}

impl Hints {
    pub(super) fn push(&mut self, hint: Hint, why: Why) {
        match why {
            Why::Unreachable => self.unreachable.push(hint),
            Why::New | Why::Deferred | Why::Undecided | Why::InDoubt => self.later.push(Reverse(hint)),
        }
    }

    /// Moves hints that are due at `now` to `ready`. Groups are distinguished where domains share slots.
    pub(super) fn ripen(&mut self, now: UnixTime, grouping: Grouping) {
        for _ in 0..AT_ONCE {
            let later = self.later.peek().map(|Reverse(first)| first.due);
            let unreachable = self.unreachable.next_due();
            let first = later.into_iter().chain(unreachable).min().filter(|first| *first <= Due::at(now));
            let hint = match first {
                None => None,
                first if first == later => self.later.pop().map(|Reverse(hint)| hint),
                _ => self.unreachable.pop(),
            };
            let Some(hint) = hint else { break };
            let group = if grouping == Grouping::ByDomain { hint.group } else { 0 };
            self.ready.insert((group, hint.sender, hint.due, hint.id));
        }
    }

    /// Makes up to `most` of the hastened hints ready, of each domain in turn.
    pub(super) fn feed(&mut self, most: usize, grouping: Grouping) {
        let Some(due) = self.hastened_by else { return };
        while self.ready.len() < most {
            let Some(hint) = self.next_hastened(|_| true) else {
                self.hastened_by = None;
                return;
            };
            let group = if grouping == Grouping::ByDomain { hint.group } else { 0 };
            self.ready.insert((group, hint.sender, due, hint.id));
        }
    }

    fn next_hastened(&mut self, has_room: impl Fn(u32) -> bool) -> Option<Hint> {
        let behind = self.hastened.range((Excluded(self.fed), Unbounded)).chain(&self.hastened);
        self.fed = behind.map(|(group, _)| *group).find(|group| has_room(*group))?;
        let its = self.hastened.get_mut(&self.fed)?;
        let hint = its.pop_front();
        if its.is_empty() {
            self.hastened.remove(&self.fed);
        }
        hint
    }

    /// Takes the next hint of a group that has room.
    pub(super) fn take(&mut self, has_room: impl Fn(u32) -> bool) -> Option<Hint> {
        let found = self
            .next(Excluded(behind(self.last.0, self.last.1)), &has_room)
            .or_else(|| self.next(Unbounded, &has_room));
        let Some(found) = found else {
            // All that is ready may be of one slow domain that answers again: the others do not wait for it.
            let due = self.hastened_by.filter(|_| !self.ready.is_empty())?;
            return self.next_hastened(has_room).map(|hint| Hint { due, ..hint });
        };
        self.ready.remove(&found);
        let (group, sender, due, id) = found;
        self.last = (group, sender);
        Some(Hint { due, id, group, sender })
    }

    /// The first one from there on whose group has room. Groups without room are skipped.
    fn next(&self, mut from: Bound<Ready>, has_room: impl Fn(u32) -> bool) -> Option<Ready> {
        loop {
            let first = *self.ready.range((from, Unbounded)).next()?;
            if has_room(first.0) {
                return Some(first);
            }
            from = Excluded(behind(first.0, u32::MAX));
        }
    }

    /// When the next hint is due that is not ready.
    pub(super) fn next_due(&self) -> Option<UnixTime> {
        let later = self.later.peek().map(|Reverse(hint)| hint.due);
        later.into_iter().chain(self.unreachable.next_due()).min().map(Due::time)
    }

    /// Whether something is ready, or will be as soon as there is room.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty() || !self.hastened.is_empty()
    }

    /// The next hop answers again: what waits because it did not is due, a few at a time; returns how many. `group`:
    /// for this domain only.
    pub(super) fn hop_is_back(&mut self, group: Option<u32>) -> usize {
        let meant = self.unreachable.take(group);
        let number = meant.len();
        self.hasten(meant, Due::BACK, |_| group.unwrap_or_default());
        number
    }

    /// Everything is due for this reason. Returns the messages.
    pub(super) fn retry(&mut self, due: Due) -> Vec<QueueId> {
        let later = std::mem::take(&mut self.later).into_iter().map(|Reverse(hint)| hint);
        let mut all: Vec<Hint> = later.chain(self.unreachable.take(None)).collect();
        all.sort_unstable();
        let hints = all.iter().chain(self.hastened.values().flatten());
        let ids = hints.map(|hint| hint.id).chain(self.ready.iter().map(|ready| ready.3)).collect();
        self.hasten(all, due, |hint| hint.group);
        ids
    }

    fn hasten(&mut self, hints: Vec<Hint>, due: Due, group: impl Fn(&Hint) -> u32) {
        if hints.is_empty() {
            return;
        }
        for hint in hints {
            self.hastened.entry(group(&hint)).or_default().push_back(hint);
        }
        self.hastened_by = Some(self.hastened_by.map_or(due, |by| by.min(due)));
    }

    /// The next hop is unreachable again: what was hastened waits for its time. `group`: for this domain only.
    pub(super) fn hop_is_gone(&mut self, group: Option<u32>) {
        if self.hastened_by == Some(Due::BACK) {
            let meant = match group {
                Some(group) => self.hastened.remove(&group).into_iter().collect(),
                None => std::mem::take(&mut self.hastened).into_values().collect::<Vec<_>>(),
            };
            meant.into_iter().flatten().for_each(|hint| self.unreachable.push(hint));
        }
    }

    /// Whether any hint is hastened.
    pub(super) fn hastens(&self) -> bool {
        !self.hastened.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(id: u64, due: u64, group: u32, sender: u32) -> Hint {
        Hint { due: Due::at(UnixTime(due)), id: QueueId(id), group, sender }
    }

    fn all(hints: &mut Hints, has_room: impl Fn(u32) -> bool) -> Vec<u64> {
        std::iter::from_fn(|| hints.take(&has_room)).map(|hint| hint.id.0).collect()
    }

    #[test]
    fn senders_take_turns() {
        let mut hints = Hints::default();
        (0..6).for_each(|id| hints.push(hint(id, 10, 0, 7), Why::New));
        hints.push(hint(100, 20, 0, 3), Why::New);
        hints.push(hint(101, 20, 0, 9), Why::Deferred);
        hints.push(hint(102, 99, 0, 9), Why::Deferred);
        hints.ripen(UnixTime(20), Grouping::Together);
        assert_eq!(all(&mut hints, |_| true), [100, 0, 101, 1, 2, 3, 4, 5]);
        assert_eq!(hints.next_due(), Some(UnixTime(99)));
    }

    #[test]
    fn a_group_without_room_is_passed_over() {
        let mut hints = Hints::default();
        for (id, group) in [(1, 1), (2, 2), (3, 2), (4, 3)] {
            hints.push(hint(id, 10, group, 0), Why::New);
        }
        hints.ripen(UnixTime(10), Grouping::ByDomain);
        assert_eq!(all(&mut hints, |group| group != 2), [1, 4]);
        assert_eq!(all(&mut hints, |_| true), [2, 3]);
    }

    #[test]
    fn what_waited_for_a_hop_comes_when_it_is_back_and_goes_when_it_is_gone() {
        let mut hints = Hints::default();
        for id in 0..10 {
            hints.push(hint(id, 1000 + id, 1 + u32::try_from(id % 2).unwrap(), 0), Why::Unreachable);
        }
        hints.push(hint(50, 1000, 1, 0), Why::Deferred);
        hints.push(hint(51, 1000, 1, 0), Why::InDoubt);
        hints.hop_is_back(Some(1));
        hints.feed(3, Grouping::Together);
        assert_eq!(all(&mut hints, |_| true), [0, 2, 4], "a few, the oldest first");
        hints.hop_is_gone(None);
        hints.feed(3, Grouping::Together);
        assert!(all(&mut hints, |_| true).is_empty());
        hints.ripen(UnixTime(1006), Grouping::Together);
        assert_eq!(all(&mut hints, |_| true).len(), 6, "at their own times");
    }
}
