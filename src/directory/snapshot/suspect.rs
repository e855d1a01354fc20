//! Entries of which the directory, asked itself, said something else than is served: they are read again. Pure.

use super::view::Change;
use crate::directory::known::{Id, Known};

/// An entry of which the directory, asked itself, said something else than is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Where it stands, or stood.
    pub dn: String,
    /// Who stands there as far as is known.
    pub id: Option<Id>,
}

impl Suspect {
    /// What has changed, where now that entry stands there, or none.
    #[must_use]
    pub fn compared_with(&self, now: Option<Known>) -> Vec<Change> {
        let gone = self.id.filter(|id| now.as_ref().is_none_or(|known| known.id != *id)).map(Change::Gone);
        gone.into_iter().chain(now.map(Change::of)).collect()
    }
}
