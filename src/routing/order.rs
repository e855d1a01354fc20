//! Things in the order in which they were renewed last. Adding, renewing and reusing the oldest one's place cost the
//! same however many there are.
//!
//! A ring: the newest one's newer neighbour is the oldest, so that the oldest becomes the newest by turning the ring.

/// Where a thing stands, for as long as it is there.
pub(super) type Slot = u32;

/// The ring. At most `u32::MAX` things; its owners keep far fewer.
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
    /// Room for so many things without moving those that are there.
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

    /// Adds a thing as the newest.
    pub(super) fn add(&mut self, thing: T) -> Slot {
        let slot = self.links.len() as Slot;
        self.links.push(Link { thing, older: slot, newer: slot });
        if slot > 0 {
            self.link_as_newest(slot);
        }
        self.newest = slot;
        slot
    }

    /// Makes a thing the newest.
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

    /// Puts a thing in the place of the oldest, as the newest. There has to be one. Returns the oldest.
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
        /// Against a list that is searched: what is pushed out is always what was renewed longest ago.
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
