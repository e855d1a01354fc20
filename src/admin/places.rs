//! Who has a place at an HTTP server: each kind of connection has so many, and none takes a place of another kind. One
//! that waits, or reads, goes when a newer one of its kind wants its place, the oldest first: whoever says nothing, or
//! reads a long answer slowly, keeps nobody from a short question. [`http`](super::http) asks here and obeys.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// How many of each kind there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// It is the client's turn: he has asked nothing yet, or half, or has had a short answer.
    pub(super) waiting: usize,
    /// We make a long answer.
    pub(super) working: usize,
    /// He reads a long answer.
    pub(super) reading: usize,
}

impl Limits {
    /// What a server gives away.
    pub(super) const DEFAULT: Self = Self { waiting: 96, working: 64, reading: 32 };

    /// Connections at once.
    pub(super) const fn sum(&self) -> usize {
        self.waiting + self.working + self.reading
    }
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Waiting,
    Working,
    Reading,
}

/// All places of a server.
#[derive(Clone)]
pub(super) struct Places(Arc<(Limits, Mutex<Table>)>);

#[derive(Default)]
struct Table {
    /// How often a place was taken or changed its kind: the least is the oldest.
    turn: u64,
    connections: BTreeMap<u64, Held>,
}

struct Held {
    kind: Kind,
    since: u64,
    cut: CancellationToken,
}

/// A connection's place; dropping it leaves it.
pub(super) struct Place {
    places: Places,
    id: u64,
    cut: CancellationToken,
}

impl Places {
    /// All of them free.
    pub(super) fn new(limits: Limits) -> Self {
        Self(Arc::new((limits, Mutex::default())))
    }

    /// A place for a new connection; where all are taken the one that has waited longest is cut.
    pub(super) fn enter(&self) -> Place {
        let mut table = self.table();
        table.make_room(Kind::Waiting, self.0.0.waiting);
        let (id, cut) = (table.next(), CancellationToken::new());
        table.connections.insert(id, Held { kind: Kind::Waiting, since: id, cut: cut.clone() });
        Place { places: self.clone(), id, cut }
    }

    /// Cuts the connection that has waited longest: its descriptor is needed.
    pub(super) fn cut_oldest(&self) {
        self.table().make_room(Kind::Waiting, 1);
    }

    /// Cuts all for which we do nothing.
    pub(super) fn cut_waiting(&self) {
        let mut table = self.table();
        while table.cut_oldest(Kind::Waiting) {}
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn next(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    fn count(&self, kind: Kind) -> usize {
        self.connections.values().filter(|held| held.kind == kind).count()
    }

    /// So that there is room for one more.
    fn make_room(&mut self, kind: Kind, limit: usize) {
        while self.count(kind) >= limit && self.cut_oldest(kind) {}
    }

    /// Whether there was one.
    fn cut_oldest(&mut self, kind: Kind) -> bool {
        let of_kind = self.connections.iter().filter(|(_, held)| held.kind == kind);
        let Some(id) = of_kind.min_by_key(|(_, held)| held.since).map(|(id, _)| *id) else { return false };
        if let Some(held) = self.connections.remove(&id) {
            held.cut.cancel();
        }
        true
    }
}

impl Place {
    /// Once it has been given to somebody else.
    pub(super) async fn cut(&self) {
        self.cut.cancelled().await;
    }

    /// A long answer is to be made for it. Whether it may.
    pub(super) fn work(&self) -> bool {
        let may = self.places.table().count(Kind::Working) < self.places.0.0.working;
        if may {
            self.turn_to(Kind::Working, usize::MAX);
        }
        may
    }

    /// A long answer was made: the client reads it.
    pub(super) fn read(&self) {
        self.turn_to(Kind::Reading, self.places.0.0.reading);
    }

    /// A short answer was made: it is as good as read.
    pub(super) fn wait(&self) {
        self.turn_to(Kind::Waiting, self.places.0.0.waiting);
    }

    fn turn_to(&self, kind: Kind, limit: usize) {
        let mut table = self.places.table();
        let Some(held) = table.connections.remove(&self.id) else { return }; // it was cut
        table.make_room(kind, limit);
        let since = table.next();
        table.connections.insert(self.id, Held { kind, since, ..held });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.table().connections.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(places: &[Place]) -> Vec<bool> {
        places.iter().map(|place| place.cut.is_cancelled()).collect()
    }

    #[test]
    fn the_oldest_of_a_kind_goes_and_no_other() {
        let places = Places::new(Limits { waiting: 2, working: 1, reading: 1 });
        let mut all = vec![places.enter(), places.enter()];
        all[0].wait(); // it has asked something short, and is the younger one now
        all.push(places.enter());
        assert_eq!(cut(&all), [false, true, false]);
        assert!(all[0].work());
        assert!(!all[2].work(), "there is one at work already");
        all.push(places.enter()); // one is at work, there is room
        assert_eq!(cut(&all), [false, true, false, false]);
        all[0].read();
        assert!(all[2].work());
        all[2].read();
        assert_eq!(cut(&all), [true, true, false, false], "one reads at once");
        all[0].wait(); // too late
        all.push(places.enter());
        all.push(places.enter());
        assert_eq!(cut(&all), [true, true, false, true, false, false], "who reads is not asked to go by who waits");
        all.remove(4);
        assert_eq!(places.table().count(Kind::Waiting), 1, "a place that is left is free");
        places.cut_oldest();
        places.cut_waiting();
        assert_eq!(cut(&all), [true, true, false, true, true]);
        assert_eq!(places.table().connections.len(), 1);
    }

    #[test]
    fn the_last_that_waits_goes_too_where_its_descriptor_is_needed() {
        let places = Places::new(Limits::DEFAULT);
        let place = places.enter();
        places.cut_oldest();
        assert!(place.cut.is_cancelled());
        assert!(!places.table().cut_oldest(Kind::Waiting));
    }
}
