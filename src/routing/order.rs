//! A list ordered by last renewal. Adding, renewing and replacing the oldest take constant time.
//!
//! A doubly linked ring: the newer neighbour of the newest is the oldest, so the oldest becomes the newest by moving
//! the ring's head.

/// The index of an item; it stays valid as long as the item is there.
pub(super) type Slot = u32;

/// The ring. At most `u32::MAX` items; its users keep far fewer.
#[derive(Debug)]
pub(super) struct Order<T> {
    links: Vec<Link<T>>,
    newest: Slot,
}

#[derive(Debug)]
struct Link<T> {
    thing: T,
    older: Slot,
    newer: Slot,
}

impl<T> Order<T> {
    /// Reserves memory for so many items.
    pub(super) fn with_capacity(things: usize) -> Self {
        Self { links: Vec::with_capacity(things), newest: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    pub(super) fn get(&self, slot: Slot) -> &T {
        &self.links[slot as usize].thing
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut T {
        &mut self.links[slot as usize].thing
    }

    /// Adds an item as the newest.
    pub(super) fn add(&mut self, thing: T) -> Slot {
        let slot = self.links.len() as Slot;
        self.links.push(Link { thing, older: slot, newer: slot });
        if slot > 0 {
            self.link_as_newest(slot);
        }
        self.newest = slot;
        slot
    }

    /// Makes an item the newest.
    pub(super) fn renew(&mut self, slot: Slot) {
        if slot == self.newest {
            return;
        }
        if slot != self.oldest() {
            let Link { older, newer, .. } = self.links[slot as usize];
            self.links[older as usize].newer = newer;
            self.links[newer as usize].older = older;
            self.link_as_newest(slot);
        }
        self.newest = slot;
    }

    /// Replaces the oldest by an item that becomes the newest, and returns the oldest. The ring must not be empty.
    pub(super) fn replace_oldest(&mut self, thing: T) -> (Slot, T) {
        let slot = self.oldest();
        self.newest = slot;
        (slot, std::mem::replace(self.get_mut(slot), thing))
    }

    fn oldest(&self) -> Slot {
        self.links[self.newest as usize].newer
    }

    fn link_as_newest(&mut self, slot: Slot) {
        let (newest, oldest) = (self.newest, self.oldest());
        self.links[newest as usize].newer = slot;
        self.links[oldest as usize].older = slot;
        let link = &mut self.links[slot as usize];
        (link.older, link.newer) = (newest, oldest);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Compared with a list that is searched: the item that is replaced is always the one renewed longest ago.
        #[test]
        fn the_oldest_goes(steps in proptest::collection::vec(0_usize..8, 1..200)) {
            let (mut order, mut list) = (Order::with_capacity(5), Vec::new());
            for (at, step) in steps.into_iter().enumerate() {
                if list.len() < 5 {
                    list.push((order.add(at), at));
                } else if let Some((slot, thing)) = (step < 5).then(|| list.remove(step)) {
                    order.renew(slot);
                    prop_assert_eq!(*order.get(slot), thing);
                    list.push((slot, thing));
                } else {
                    let oldest = list.remove(0);
                    prop_assert_eq!(order.replace_oldest(at), oldest);
                    list.push((oldest.0, at));
                }
            }
            prop_assert_eq!(order.len(), list.len());
        }
    }
}
