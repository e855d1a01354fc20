//! Changes that an operator has announced (`fingerpost directory expect`): they do not count for `hold_changes` and are
//! not held. Pure; time is an argument.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::QueueTime;

/// The announcements for one directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Expected {
    /// Addresses by key, and when the announcement ends.
    only: BTreeMap<String, QueueTime>,
    /// This many recipients, whichever they are, and when the announcement ends.
    any: Option<(usize, QueueTime)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announced {
    /// Addresses with these keys.
    Only(Vec<String>),
    /// This many recipients; 0 cancels an earlier announcement of this kind.
    Any(usize),
}

impl Expected {
    /// Adds an announcement that is valid until then.
    pub fn announce(&mut self, announced: Announced, until: QueueTime) {
        match announced {
            Announced::Only(keys) => self.only.extend(keys.into_iter().map(|key| (key, until))),
            Announced::Any(count) => self.any = (count > 0).then_some((count, until)),
        }
    }

    /// Drops announcements that have ended.
    pub fn forget(&mut self, now: QueueTime) {
        self.only.retain(|_, until| now < *until);
        self.any = self.any.filter(|(_, until)| now < *until);
    }

    /// Whether a change of the address with this key is announced.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.only.contains_key(key)
    }

    /// The keys of announced addresses.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.only.keys().map(String::as_str)
    }

    /// How many recipients, whichever they are, may change.
    #[must_use]
    pub fn any(&self) -> usize {
        self.any.map_or(0, |(count, _)| count)
    }

    /// The number of announced addresses, and of recipients whichever they are.
    #[must_use]
    pub fn counted(&self, now: QueueTime) -> (usize, usize) {
        let any = self.any.filter(|(_, until)| now < *until).map_or(0, |(count, _)| count);
        (self.only.values().filter(|until| now < **until).count(), any)
    }

    /// This many of those recipients have changed.
    pub fn use_up(&mut self, count: usize) {
        self.any = self.any.map(|(left, until)| (left.saturating_sub(count), until)).filter(|(left, _)| *left > 0);
    }

    /// One announcement of each kind.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        Self { only: [("a@b.c".to_owned(), QueueTime(9))].into(), any: Some((300, QueueTime(10))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_by_time_and_by_use() {
        let mut expected = Expected::default();
        expected.announce(Announced::Only(vec!["a@b.c".into()]), QueueTime(10));
        expected.announce(Announced::Only(vec!["d@e.f".into()]), QueueTime(20));
        expected.announce(Announced::Any(3), QueueTime(15));
        expected.use_up(2);
        for (now, keys, any) in [(9, vec!["a@b.c", "d@e.f"], 1), (10, vec!["d@e.f"], 1), (15, vec!["d@e.f"], 0)] {
            expected.forget(QueueTime(now));
            assert_eq!((expected.keys().collect::<Vec<_>>(), expected.any()), (keys, any), "{now}");
        }
        expected.announce(Announced::Any(3), QueueTime(30));
        expected.use_up(3);
        assert_eq!(expected.any(), 0);
        expected.announce(Announced::Any(3), QueueTime(30));
        expected.announce(Announced::Any(0), QueueTime(30));
        assert_eq!(expected.any(), 0, "withdrawn");
    }
}
