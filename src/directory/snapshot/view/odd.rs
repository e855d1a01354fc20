//! What is odd about the entries of a view, and whether it can be believed at all. Pure.

use super::View;
use crate::directory::odd::{self, Groups};
use crate::recipient::{Kind, Lookup};

impl View {
    /// The entries that contradict themselves or lack what their like have, by what they have in common.
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

    /// Whether who owns the address with that key lacks what its like have.
    #[must_use]
    pub fn lacks(&self, key: &str) -> bool {
        self.owned_by(key).iter().any(|known| known.odd().is_some_and(odd::is_lack))
    }

    /// Whether some entry shows that recipients can be told from others, as it was read as a whole. Where none does, nobody
    /// is known not to be one.
    #[must_use]
    pub fn shows_recipients(&self) -> bool {
        let counts = self.table.kinds();
        [Kind::Mailbox, Kind::MailUser, Kind::Contact].iter().any(|kind| counts[kind.number()] > 0)
    }

    /// Whether the probe with that key is there, and is somebody who gets mail.
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
