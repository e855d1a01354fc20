//! The dead letters, in memory: some tens of octets each, so that storing and counting them need not list a large
//! folder. Changes that an administrator makes are seen when the folder is listed again. Pure.

use std::collections::BTreeMap;

use crate::message::queue_id::QueueId;
use crate::time::UnixTime;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Letter {
    /// When it was stored.
    pub(super) at: UnixTime,
    /// Whether the report itself exists. An envelope without one, and files left by a crash, count as letters as well.
    pub(super) is_whole: bool,
}

#[derive(Debug, Default)]
pub(super) struct Known {
    letters: BTreeMap<QueueId, Letter>,
    whole: usize,
    /// Letters that were stored since a listing began, which may have missed them.
    meanwhile: Option<BTreeMap<QueueId, Letter>>,
}

impl Known {
    /// A letter was stored or replaced.
    pub(super) fn keep(&mut self, id: QueueId, letter: Letter) {
        self.put(id, letter);
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile.insert(id, letter);
        }
    }

    /// A letter was removed.
    pub(super) fn remove(&mut self, id: QueueId) {
        let removed = self.letters.remove(&id);
        self.whole -= usize::from(removed.is_some_and(|letter| letter.is_whole));
    }

    /// The number of complete letters.
    pub(super) fn count(&self) -> usize {
        self.whole
    }

    /// All letters, the oldest first.
    pub(super) fn by_age(&self) -> Vec<(UnixTime, QueueId)> {
        let mut letters: Vec<_> = self.letters.iter().map(|(id, letter)| (letter.at, *id)).collect();
        letters.sort_unstable();
        letters
    }

    /// A listing of the folder begins; returns the letters that are known.
    pub(super) fn listing_begins(&mut self) -> BTreeMap<QueueId, Letter> {
        self.meanwhile = Some(BTreeMap::new());
        self.letters.clone()
    }

    /// A listing ended. `None`: it was incomplete, and changes nothing.
    pub(super) fn listed(&mut self, found: Option<BTreeMap<QueueId, Letter>>) {
        let meanwhile = self.meanwhile.take().unwrap_or_default();
        let Some(found) = found else { return };
        self.whole = found.values().filter(|letter| letter.is_whole).count();
        self.letters = found;
        meanwhile.into_iter().for_each(|(id, letter)| self.put(id, letter));
    }

    fn put(&mut self, id: QueueId, letter: Letter) {
        let before = self.letters.insert(id, letter);
        self.whole += usize::from(letter.is_whole);
        self.whole -= usize::from(before.is_some_and(|before| before.is_whole));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(at: u64) -> Letter {
        Letter { at: UnixTime(at), is_whole: true }
    }

    #[test]
    fn the_count_is_of_reports_and_each_counts_once() {
        let mut known = Known::default();
        known.keep(QueueId(1), letter(5));
        known.keep(QueueId(1), letter(6));
        known.keep(QueueId(2), Letter { is_whole: false, ..letter(3) });
        assert_eq!((known.count(), known.by_age().len()), (1, 2));
        assert_eq!(known.by_age()[0], (UnixTime(3), QueueId(2)), "the oldest first");
        known.remove(QueueId(2));
        known.remove(QueueId(3));
        assert_eq!(known.count(), 1);
        known.remove(QueueId(1));
        assert_eq!((known.count(), known.by_age().len()), (0, 0));
    }

    #[test]
    fn a_listing_is_right_of_all_but_what_came_meanwhile() {
        let mut known = Known::default();
        (1..=3).for_each(|id| known.keep(QueueId(id), letter(id)));
        let mut found = known.listing_begins();
        found.remove(&QueueId(2)); // by hand
        found.insert(QueueId(9), letter(9)); // put there by hand
        known.keep(QueueId(4), letter(4));
        known.listed(Some(found));
        let ids: Vec<u64> = known.by_age().iter().map(|(_, id)| id.0).collect();
        assert_eq!((ids, known.count()), (vec![1, 3, 4, 9], 4));
        known.listing_begins();
        known.keep(QueueId(5), letter(5));
        known.listed(None);
        assert_eq!(known.count(), 5, "one that was broken off changes nothing");
    }
}
