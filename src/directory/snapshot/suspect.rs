//! Entries for which the directory's own answer differed from the snapshot, and which are read again. Pure.

use super::view::Change;
use crate::directory::known::{Id, Known};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Its distinguished name, now or before.
    pub dn: String,
    /// The id that is known for this name.
    pub id: Option<Id>,
}

impl Suspect {
    /// The changes, if `now` is the entry with this name; `None`: there is none.
    #[must_use]
    pub fn compared_with(&self, now: Option<Known>) -> Vec<Change> {
        let gone = self.id.filter(|id| now.as_ref().is_none_or(|known| known.id != *id)).map(Change::Gone);
        gone.into_iter().chain(now.map(Change::of)).collect()
    }
}
