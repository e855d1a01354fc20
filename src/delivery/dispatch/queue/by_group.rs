//! Hints ordered by time, from which one group's hints can be removed without searching the others: thousands of
//! domains may wait when one of them answers again. No I/O.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::hints::{Due, Hint};

#[derive(Debug, Default)]
pub(super) struct ByGroup {
    groups: BTreeMap<u32, BinaryHeap<Reverse<Hint>>>,
    /// When the first hint of each group is due.
    first: BTreeSet<(Due, u32)>,
}

impl ByGroup {
    pub(super) fn push(&mut self, hint: Hint) {
        let group = self.groups.entry(hint.group).or_default();
        let before = group.peek().map(|Reverse(first)| first.due);
        group.push(Reverse(hint));
        if before.is_none_or(|before| hint.due < before) {
            if let Some(before) = before {
                self.first.remove(&(before, hint.group));
            }
            self.first.insert((hint.due, hint.group));
        }
    }

    /// When the first one is due.
    pub(super) fn next_due(&self) -> Option<Due> {
        self.first.first().map(|(due, _)| *due)
    }

    /// Removes the first one.
    pub(super) fn pop(&mut self) -> Option<Hint> {
        let (_, number) = self.first.pop_first()?;
        let group = self.groups.get_mut(&number)?;
        let Reverse(hint) = group.pop()?;
        match group.peek() {
            Some(Reverse(first)) => _ = self.first.insert((first.due, number)),
            None => _ = self.groups.remove(&number),
        }
        Some(hint)
    }

    /// Removes all hints of one group, or of all groups, in order.
    pub(super) fn take(&mut self, group: Option<u32>) -> Vec<Hint> {
        let taken: Vec<_> = match group {
            Some(group) => self.groups.remove(&group).into_iter().collect(),
            None => std::mem::take(&mut self.groups).into_values().collect(),
        };
        for hints in &taken {
            if let Some(Reverse(first)) = hints.peek() {
                self.first.remove(&(first.due, first.group));
            }
        }
        let mut hints: Vec<Hint> = taken.into_iter().flatten().map(|Reverse(hint)| hint).collect();
        hints.sort_unstable();
        hints
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::queue_id::QueueId;
    use crate::time::UnixTime;

    #[derive(Debug, Clone)]
    enum Step {
        Push(u64, u32),
        Pop,
        Take(Option<u32>),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (4_u64..50, 0_u32..4).prop_map(|(due, group)| Step::Push(due, group)),
            2 => Just(Step::Pop),
            1 => proptest::option::of(0_u32..4).prop_map(Step::Take),
        ]
    }

    proptest! {
        /// It behaves like a sorted list.
        #[test]
        fn hints_come_in_their_order_whatever_is_taken_out(steps in proptest::collection::vec(step(), 0..60)) {
            let (mut hints, mut expected) = (ByGroup::default(), BTreeSet::new());
            for (id, step) in (0..).zip(steps) {
                match step {
                    Step::Push(due, group) => {
                        let hint = Hint { due: Due::at(UnixTime(due)), id: QueueId(id), group, sender: 0 };
                        hints.push(hint);
                        expected.insert(hint);
                    }
                    Step::Pop => {
                        // Of hints with the same time any may be first.
                        let popped = hints.pop();
                        prop_assert_eq!(popped.map(|hint| hint.due), expected.first().map(|hint| hint.due));
                        prop_assert!(popped.is_none_or(|hint| expected.remove(&hint)));
                    }
                    Step::Take(group) => {
                        let (taken, rest): (BTreeSet<_>, BTreeSet<_>) =
                            expected.into_iter().partition(|hint| group.is_none_or(|group| hint.group == group));
                        expected = rest;
                        prop_assert_eq!(hints.take(group), taken.into_iter().collect::<Vec<_>>());
                    }
                }
                prop_assert_eq!(hints.next_due(), expected.first().map(|hint| hint.due));
            }
        }
    }
}
