//! A bounded table with entries that expire. Its keys are keyed hashes.

use std::time::Duration;

use super::FastMap;
use crate::time::UnixTime;

/// Values by hash, with the time of their last update.
pub(super) struct Aging<T> {
    lasts: Duration,
    most: usize,
    entries: FastMap<u64, (T, UnixTime)>,
}

impl<T> Aging<T> {
    pub(super) fn new(lasts: Duration, most: usize) -> Self {
        Self { lasts, most, entries: FastMap::default() }
    }

    pub(super) fn get(&self, key: u64, now: UnixTime) -> Option<&T> {
        self.entries.get(&key).filter(|(_, at)| now.since(*at) < self.lasts).map(|(value, _)| value)
    }

    /// The value, of any age.
    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        self.entries.get_mut(&key).map(|(value, _)| value)
    }

    /// The time since its last update.
    pub(super) fn age(&self, key: u64, now: UnixTime) -> Option<Duration> {
        self.entries.get(&key).map(|(_, at)| now.since(*at))
    }

    pub(super) fn insert(&mut self, key: u64, value: T, now: UnixTime) {
        self.make_room(key, now);
        self.entries.insert(key, (value, now));
    }

    /// Entries that have not expired at `now`.
    pub(super) fn iter(&self, now: UnixTime) -> impl Iterator<Item = (u64, UnixTime)> {
        self.entries.iter().filter(move |(_, (_, at))| now.since(*at) < self.lasts).map(|(key, (_, at))| (*key, *at))
    }

    pub(super) fn youngest(&self) -> UnixTime {
        self.entries.values().map(|(_, at)| *at).max().unwrap_or_default()
    }

    /// If there is no room, drops expired entries; if there are none, the older half.
    fn make_room(&mut self, key: u64, now: UnixTime) {
        if self.entries.len() < self.most || self.entries.contains_key(&key) {
            return;
        }
        self.entries.retain(|_, (_, at)| now.since(*at) < self.lasts);
        if self.entries.len() < self.most {
            return;
        }
        let mut times: Vec<UnixTime> = self.entries.values().map(|(_, at)| *at).collect();
        let (_, median, _) = times.select_nth_unstable(self.most / 2);
        let median = *median;
        self.entries.retain(|_, (_, at)| *at > median);
    }
}

impl<T: Default> Aging<T> {
    /// The value, updated now; a new one if there is none.
    pub(super) fn touch(&mut self, key: u64, now: UnixTime) -> &mut T {
        self.make_room(key, now);
        let (value, at) = self.entries.entry(key).or_default();
        *at = now;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_the_youngest_stay() {
        let mut table = Aging::new(Duration::from_secs(100), 10);
        for at in 0..1000 {
            table.insert(at, (), UnixTime(at / 50));
            assert!(table.entries.len() <= 10, "{}", table.entries.len());
            assert!(table.get(at, UnixTime(at / 50)).is_some(), "{at}");
        }
        let mut table = Aging::new(Duration::from_secs(5), 10);
        for at in 0..20 {
            table.insert(at, (), UnixTime(at));
        }
        let alive: Vec<bool> = (10..20).map(|at| table.get(at, UnixTime(19)).is_some()).collect();
        assert_eq!(alive, [false, false, false, false, false, true, true, true, true, true]);
    }

    #[test]
    fn a_key_that_is_there_takes_no_room() {
        let mut table: Aging<Vec<u8>> = Aging::new(Duration::from_secs(100), 2);
        for at in 0..50 {
            table.touch(at % 2, UnixTime(at)).push(0);
        }
        assert_eq!((table.entries.len(), table.get(0, UnixTime(50)).map(Vec::len)), (2, Some(25)));
    }
}
