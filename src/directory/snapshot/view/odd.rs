//! Odd entries in a view, and whether the view can be believed at all. Pure.

use super::{Change, View};
use crate::directory::known::{self, Id, Known};
use crate::directory::odd::{self, Groups};
use crate::fast_map::FastMap;
use crate::lookup::{Kind, Lookup};

/// The most entries without a matching address that are looked for by their ids.
const MOST_SOUGHT: usize = 10_000;

impl View {
    /// Restores known addresses of entries whose addresses may not be read any more: they still give no answer. An
    /// address that is still readable (`mail`) leads to the known entry.
    pub fn remember(&self, entries: &mut [Known]) {
        for now in entries.iter_mut().filter(|known| is_unread(known)) {
            if let Some(before) = self.led_to(now) {
                before.claims.iter().for_each(|old| known::claim(&mut now.claims, &old.key, old.strength));
            }
        }
    }

    /// The same after a full read, for entries that have changed their readable address as well. Returns the changes.
    pub fn keep_unread(&mut self, before: &Self) -> Vec<Change> {
        let has_all = |now: &Known, before: Known| {
            before.claims.iter().all(|old| now.claims.iter().any(|claim| claim.key == old.key))
        };
        let is_remembered = |now: &Known| before.led_to(now).is_some_and(|before| has_all(now, before));
        let read = self.table.odd_entries().map(|entry| self.table.known(entry));
        let sought = read.filter(|known| is_unread(known) && !is_remembered(known));
        let sought: Vec<Change> = sought.take(MOST_SOUGHT).map(Change::Put).collect();
        let kept = before.with_kept(sought.clone()).into_iter().zip(sought);
        let changes: Vec<Change> = kept.filter(|(kept, read)| kept != read).map(|(kept, _)| kept).collect();
        changes.iter().for_each(|change| self.apply(change.clone()));
        changes
    }

    /// The known entry, if one of its addresses leads to it.
    fn led_to(&self, known: &Known) -> Option<Known> {
        if let Some(changed) = self.changed.get(&known.id) {
            return changed.as_deref().cloned();
        }
        let mut entries = known.claims.iter().flat_map(|claim| self.table.claimants(&claim.key));
        let entry = entries.find(|(entry, _)| self.table.id(*entry) == known.id);
        entry.map(|(entry, _)| self.table.known(entry))
    }

    /// The changes, with known addresses of entries whose addresses may not be read any more.
    #[must_use]
    pub fn with_kept(&self, mut changes: Vec<Change>) -> Vec<Change> {
        let mut unread: FastMap<Id, &mut Known> = FastMap::default();
        for change in &mut changes {
            if let Change::Put(known) = change
                && is_unread(known)
            {
                unread.insert(known.id, known);
            }
        }
        if !unread.is_empty() {
            let as_read = self.table.entries().filter(|entry| !self.changed.contains_key(&self.table.id(*entry)));
            let known = as_read.filter(|entry| unread.contains_key(&self.table.id(*entry)));
            let known: Vec<Known> = known.map(|entry| self.table.known(entry)).collect();
            for before in known.iter().chain(self.changed.values().flatten().map(|known| &**known)) {
                if let Some(now) = unread.get_mut(&before.id) {
                    before.claims.iter().for_each(|old| known::claim(&mut now.claims, &old.key, old.strength));
                }
            }
        }
        changes
    }

    /// The number of odd entries by their common text.
    #[must_use]
    pub fn odd(&self) -> Groups {
        let is_as_read = |entry: &usize| self.changed.is_empty() || !self.changed.contains_key(&self.table.id(*entry));
        let in_table = self.table.odd_entries().filter(is_as_read).filter_map(|entry| self.table.odd(entry));
        let changed = self.changed.values().flatten().filter_map(|known| known.odd());
        let mut groups = Groups::new();
        for text in in_table.chain(changed) {
            let group = odd::group(text);
            match groups.get_mut(group) {
                Some(count) => *count += 1,
                None => drop(groups.insert(group.to_owned(), 1)),
            }
        }
        groups
    }

    /// Whether the owner of the address with this key lacks attributes that similar entries have.
    #[must_use]
    pub fn lacks(&self, key: &str) -> bool {
        self.owned_by(key).iter().any(|known| known.odd().is_some_and(odd::is_lack))
    }

    /// Whether some entry of the full read shows the attributes that tell recipients from other entries. If none does,
    /// `no-mailbox` is not believed.
    #[must_use]
    pub fn shows_recipients(&self) -> bool {
        let counts = self.table.kinds();
        [Kind::Mailbox, Kind::MailUser, Kind::Contact].iter().any(|kind| counts[kind.number()] > 0)
    }

    /// Whether the probe with this key is there and is a recipient.
    ///
    /// # Errors
    /// Why not.
    pub fn vouched_for(&self, probe: &str) -> Result<(), String> {
        match self.lookup(probe) {
            Lookup::Found(recipient) if recipient.kind == Kind::NoMailbox => Err(format!(
                "the probe {probe} is found, but not as a recipient ({}): check the rights on its attributes",
                recipient.rule
            )),
            Lookup::Found(_) | Lookup::Ambiguous(_) => Ok(()),
            Lookup::NotFound => Err(format!(
                "the probe {probe} is not a recipient among {} entries: check base and rights",
                self.count_entries()
            )),
            Lookup::AcceptsEverything(cause) | Lookup::Held(cause) | Lookup::Unavailable(cause) => {
                Err(format!("the probe {probe}: {cause}"))
            }
        }
    }
}

fn is_unread(known: &Known) -> bool {
    known.odd().is_some_and(odd::lacks_addresses)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::directory::known::{Claim, Strength};
    use crate::directory::snapshot::table::{Builder, Sizes};

    fn entry(id: u64, addresses: &[&str]) -> Known {
        let claim = |key: &&str| Claim { key: (*key).to_owned(), strength: Strength::Certain };
        let meaning = Ok(known::tests::mailbox());
        Known { id: Id(id), dn: format!("CN={id}"), claims: addresses.iter().map(claim).collect(), meaning }
    }

    fn unread(id: u64, address: &str) -> Known {
        let meaning = Err(odd::lacks("of type UserMailbox", "proxyAddresses"));
        Known { meaning, ..entry(id, &[address]) }
    }

    fn view(entries: &[Known]) -> View {
        let mut sizes = Sizes::default();
        entries.iter().for_each(|known| sizes.add(known));
        let mut builder = Builder::new(sizes);
        entries.iter().for_each(|known| builder.add(known).unwrap());
        View::new(Arc::new(builder.finish()))
    }

    #[test]
    fn addresses_that_may_not_be_read_any_more_are_no_answer_and_not_unknown() {
        let before = view(&[entry(1, &["a@b.c", "alias@b.c"]), entry(2, &["d@b.c", "gone@b.c"])]);
        let is_doubtful = |view: &View, key: &str| matches!(view.lookup(key), Lookup::Unavailable(_));
        let mut after = view(&[unread(1, "a@b.c"), entry(2, &["d@b.c"]), unread(3, "e@b.c")]);
        assert_eq!(after.lookup("alias@b.c"), Lookup::NotFound);
        assert_eq!(after.keep_unread(&before).len(), 1);
        assert!(["a@b.c", "alias@b.c", "e@b.c"].iter().all(|key| is_doubtful(&after, key)));
        assert_eq!(after.lookup("gone@b.c"), Lookup::NotFound);
        assert_eq!((after.count_entries(), after.odd().values().sum::<usize>()), (3, 2));
        // The next read knows it still, and so does a change.
        let mut next = view(&[unread(1, "a@b.c")]);
        next.keep_unread(&after);
        assert!(is_doubtful(&next, "alias@b.c"));
        let changes = before.with_kept(vec![Change::Put(unread(1, "a@b.c")), Change::Gone(Id(2))]);
        assert!(matches!(&changes[0], Change::Put(known) if known.claims.len() == 2));
        // Page by page, if an address leads to it: for an entry that has changed since, and for one that has not.
        let mut page = [unread(1, "a@b.c"), unread(2, "d@b.c"), unread(3, "f@b.c"), entry(2, &["d@b.c"])];
        after.remember(&mut page);
        assert_eq!(page.each_ref().map(|known| known.claims.len()), [2, 1, 1, 1]);
        before.remember(&mut page);
        assert_eq!(page.each_ref().map(|known| known.claims.len()), [2, 2, 1, 1]);
        // `mail` has changed as well: the id leads to it.
        let mut other = view(&[unread(1, "x@b.c")]);
        assert_eq!((other.keep_unread(&before).len(), is_doubtful(&other, "alias@b.c")), (1, true));
        // An entry that can be read again has its current addresses.
        let mut well = view(&[entry(1, &["a@b.c"])]);
        assert_eq!(well.keep_unread(&next), []);
        assert_eq!(well.lookup("alias@b.c"), Lookup::NotFound);
    }
}
