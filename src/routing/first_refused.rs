//! When addresses were refused first: a bounded table of hashes and times. Pure.
//!
//! [`RecentlyGood`](super::recently_good::RecentlyGood) has two: addresses that are in doubt, which ends an hour after
//! the first refusal (DESIGN section 5), and addresses that a next hop refused at the end of data within the last
//! minutes (section 7).

use std::time::Duration;

use super::order::{Order, Slot};
use crate::fast_map::FastMap;
use crate::time::QueueTime;

/// The table. The address whose last refusal is the oldest is forgotten first; any is forgotten after a quiet time
/// without a refusal.
#[derive(Debug)]
pub(super) struct FirstRefused {
    entries: usize,
    quiet: Duration,
    known: FastMap<u64, Slot>,
    /// Ordered by the last refusal.
    order: Order<Refusals>,
    /// Slots of addresses that were cleared.
    free: Vec<Slot>,
}

/// The first and the last refusal of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusals {
    pub(super) hash: u64,
    pub(super) first: QueueTime,
    pub(super) last: QueueTime,
}

impl Refusals {
    /// The first refusal, if it is not forgotten.
    fn first(&self, now: QueueTime, quiet: Duration) -> Option<QueueTime> {
        // If the clock was ahead and has been corrected, the hour is not prolonged.
        (now.since(self.last) < quiet).then(|| self.first.min(now))
    }
}

impl FirstRefused {
    /// An empty table for so many entries, each forgotten after so long without a refusal.
    pub(super) fn new(entries: usize, quiet: Duration) -> Self {
        Self {
            entries,
            quiet,
            // Growing later would block the caller.
            known: FastMap::with_capacity_and_hasher(entries, Default::default()),
            order: Order::with_capacity(entries),
            free: Vec::new(),
        }
    }

    /// When this address was refused first, if that is not forgotten.
    pub(super) fn first(&self, hash: u64, now: QueueTime) -> Option<QueueTime> {
        self.order.get(*self.known.get(&hash)?).first(now, self.quiet)
    }

    pub(super) fn get(&self, hash: u64) -> Option<&Refusals> {
        Some(self.order.get(*self.known.get(&hash)?))
    }

    /// Notes a refusal now. The first one was at `first`, or earlier if that is known.
    pub(super) fn note(&mut self, hash: u64, first: QueueTime, now: QueueTime) {
        let Some(slot) = self.known.get(&hash).copied() else {
            return self.add(Refusals { hash, first, last: now });
        };
        let first = self.order.get(slot).first(now, self.quiet).map_or(first, |known| known.min(first));
        *self.order.get_mut(slot) = Refusals { hash, first, last: now };
        self.order.renew(slot);
    }

    /// Adds a new address as the newest.
    fn add(&mut self, refusals: Refusals) {
        let hash = refusals.hash;
        let slot = if let Some(slot) = self.free.pop() {
            *self.order.get_mut(slot) = refusals;
            self.order.renew(slot);
            slot
        } else if self.order.len() < self.entries {
            self.order.add(refusals)
        } else {
            let (slot, oldest) = self.order.replace_oldest(refusals);
            self.known.remove(&oldest.hash);
            slot
        };
        self.known.insert(hash, slot);
    }

    pub(super) fn clear(&mut self, hash: u64) {
        if let Some(slot) = self.known.remove(&hash) {
            self.free.push(slot);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// All of them, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Refusals> {
        self.known.values().map(|slot| self.order.get(*slot))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const QUIET: u64 = 100;

    fn table(entries: usize) -> FirstRefused {
        FirstRefused::new(entries, Duration::from_secs(QUIET))
    }

    #[test]
    fn the_first_counts_until_it_is_quiet_or_cleared() {
        // Each case: when it is refused, and the expected first refusal at that time and later.
        for (name, refused, asked, expected) in [
            ("never", &[][..], 5, None),
            ("once", &[10], 10, Some(10)),
            ("once, a while ago", &[10], 109, Some(10)),
            ("once, long ago", &[10], 110, None),
            ("again and again", &[10, 100, 190, 280], 379, Some(10)),
            ("again and again, then quiet", &[10, 100, 190, 280], 380, None),
            ("again after a quiet time", &[10, 110], 110, Some(110)),
            ("by a clock that was ahead", &[1000], 50, Some(50)),
            ("by a clock that was ahead, and again", &[1000, 50], 120, Some(50)),
        ] {
            let mut table = table(5);
            for at in refused {
                table.note(7, QueueTime(*at), QueueTime(*at));
            }
            assert_eq!(table.first(7, QueueTime(asked)), expected.map(QueueTime), "{name}");
            assert_eq!(table.first(8, QueueTime(asked)), None, "{name}: somebody else");
            table.clear(7);
            assert_eq!((table.first(7, QueueTime(asked)), table.len()), (None, 0), "{name}: cleared");
        }
    }

    proptest! {
        /// Compared with a list that is searched: the table is bounded, the oldest go first, and cleared entries make
        /// room.
        #[test]
        fn it_is_bounded_and_the_oldest_go(steps in proptest::collection::vec((0_u64..9, 0_u8..4, 0_u64..40), 1..300)) {
            // By the number of the step that renewed it: hash, first and last refusal.
            let (mut table, mut model) = (table(5), BTreeMap::<usize, (u64, u64, u64)>::new());
            let mut now = 1000;
            for (at, (hash, what, passes)) in steps.into_iter().enumerate() {
                now += passes;
                let known = model.iter().find(|(_, (known, ..))| *known == hash).map(|(at, known)| (*at, *known));
                if let Some((at, _)) = known {
                    model.remove(&at);
                }
                if what == 0 {
                    table.clear(hash);
                } else {
                    let first = known.filter(|(_, (.., last))| now - last < QUIET).map_or(now, |(_, (_, first, _))| first);
                    if model.len() == 5 {
                        model.pop_first();
                    }
                    model.insert(at, (hash, first, now));
                    table.note(hash, QueueTime(now), QueueTime(now));
                }
                let mut all: Vec<_> = table.iter().map(|one| (one.hash, one.first.0, one.last.0)).collect();
                let mut expected: Vec<_> = model.values().copied().collect();
                all.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(all, expected);
                prop_assert!(table.order.len() <= 5);
            }
        }
    }
}
