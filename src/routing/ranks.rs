//! Items in ranks, each rank ordered by last renewal, so that the oldest of a rank can be replaced. All operations take
//! constant time.
//!
//! Each rank is a doubly linked ring: the newer neighbour of the newest is the oldest.

use super::order::Slot;

/// The order in which items are replaced: lower ranks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Beyond the share of the client that brought it.
    Surplus,
    /// Seen once, or for a short time.
    Newcomer,
    /// Confirmed by a directory, or seen repeatedly.
    Proven,
}

impl Rank {
    pub(super) const ALL: [Self; 3] = [Self::Surplus, Self::Newcomer, Self::Proven];
}

#[derive(Debug)]
pub(super) struct Ranks<T> {
    links: Vec<Link<T>>,
    rings: [Ring; 3],
}

#[derive(Debug, Clone, Copy, Default)]
struct Ring {
    newest: Slot,
    len: usize,
}

#[derive(Debug)]
struct Link<T> {
    thing: T,
    rank: Rank,
    older: Slot,
    newer: Slot,
}

impl<T> Ranks<T> {
    /// Reserves memory for so many items.
    pub(super) fn with_capacity(things: usize) -> Self {
        Self { links: Vec::with_capacity(things), rings: Default::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    /// The number of items of this rank.
    pub(super) fn len_of(&self, rank: Rank) -> usize {
        self.rings[rank as usize].len
    }

    pub(super) fn get(&self, slot: Slot) -> &T {
        &self.links[slot as usize].thing
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut T {
        &mut self.links[slot as usize].thing
    }

    pub(super) fn rank(&self, slot: Slot) -> Rank {
        self.links[slot as usize].rank
    }

    /// All of them, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Rank, &T)> {
        self.links.iter().map(|link| (link.rank, &link.thing))
    }

    /// Adds an item as the newest of its rank.
    pub(super) fn add(&mut self, rank: Rank, thing: T) -> Slot {
        let slot = self.links.len() as Slot;
        self.links.push(Link { thing, rank, older: slot, newer: slot });
        self.link(slot, rank);
        slot
    }

    /// Makes an item the newest of this rank.
    pub(super) fn renew(&mut self, slot: Slot, rank: Rank) {
        self.unlink(slot);
        self.link(slot, rank);
    }

    pub(super) fn oldest(&self, rank: Rank) -> Option<&T> {
        self.oldest_slot(rank).map(|slot| self.get(slot))
    }

    /// Replaces the oldest of rank `from` by an item that becomes the newest of its own rank, and returns the oldest.
    /// `None`: rank `from` is empty.
    pub(super) fn replace_oldest(&mut self, from: Rank, rank: Rank, thing: T) -> Option<(Slot, T)> {
        let slot = self.oldest_slot(from)?;
        self.renew(slot, rank);
        Some((slot, std::mem::replace(self.get_mut(slot), thing)))
    }

    fn oldest_slot(&self, rank: Rank) -> Option<Slot> {
        let ring = self.rings[rank as usize];
        (ring.len > 0).then(|| self.links[ring.newest as usize].newer)
    }

    fn unlink(&mut self, slot: Slot) {
        let Link { rank, older, newer, .. } = self.links[slot as usize];
        self.links[older as usize].newer = newer;
        self.links[newer as usize].older = older;
        let ring = &mut self.rings[rank as usize];
        ring.len -= 1;
        if ring.newest == slot {
            ring.newest = older;
        }
    }

    fn link(&mut self, slot: Slot, rank: Rank) {
        let ring = &mut self.rings[rank as usize];
        let newest = if ring.len == 0 { slot } else { ring.newest };
        ring.newest = slot;
        ring.len += 1;
        let oldest = if newest == slot { slot } else { self.links[newest as usize].newer };
        self.links[newest as usize].newer = slot;
        self.links[oldest as usize].older = slot;
        let link = &mut self.links[slot as usize];
        (link.rank, link.older, link.newer) = (rank, newest, oldest);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Compared with lists that are searched.
        #[test]
        fn the_oldest_of_each_rank_goes(steps in proptest::collection::vec((0_usize..6, 0_usize..3), 1..300)) {
            let (mut ranks, mut lists) = (Ranks::with_capacity(6), [Vec::new(), Vec::new(), Vec::new()]);
            for (at, (step, to)) in steps.into_iter().enumerate() {
                let rank = Rank::ALL[to];
                if ranks.len() < 6 {
                    lists[to].push((ranks.add(rank, at), at));
                } else if step < 3 {
                    let Some((slot, thing)) = (!lists[step].is_empty()).then(|| lists[step].remove(at % lists[step].len()))
                    else {
                        prop_assert_eq!(ranks.replace_oldest(Rank::ALL[step], rank, at), None);
                        continue;
                    };
                    ranks.renew(slot, rank);
                    prop_assert_eq!((*ranks.get(slot), ranks.rank(slot)), (thing, rank));
                    lists[to].push((slot, thing));
                } else if !lists[step - 3].is_empty() {
                    let oldest = lists[step - 3].remove(0);
                    prop_assert_eq!(ranks.oldest(Rank::ALL[step - 3]), Some(&oldest.1));
                    prop_assert_eq!(ranks.replace_oldest(Rank::ALL[step - 3], rank, at), Some(oldest));
                    lists[to].push((oldest.0, at));
                }
                for (rank, list) in Rank::ALL.into_iter().zip(&lists) {
                    prop_assert_eq!(ranks.len_of(rank), list.len());
                }
                prop_assert_eq!(ranks.iter().count(), ranks.len());
            }
        }
    }
}
