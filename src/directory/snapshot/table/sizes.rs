//! How large a table will be, counted before it is built.

use super::slot::Slot;
use super::{halves, record};
use crate::directory::known::{Claim, Known};

/// Of ten slots eight are taken.
const LOAD: (usize, usize) = (5, 4);

/// How much will be put in: what is allocated, and no more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    pub entries: usize,
    /// Addresses of all entries.
    pub addresses: usize,
    /// Octets of their records.
    pub records: usize,
}

impl Sizes {
    /// Octets that a table of these sizes takes, about.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.records + self.entries * size_of::<u32>() + self.slots() * size_of::<Slot>()
    }

    /// How many slots it has.
    pub(super) fn slots(&self) -> usize {
        if self.addresses == 0 { 0 } else { self.addresses * LOAD.0 / LOAD.1 + 1 }
    }

    /// Counts an entry in.
    pub fn add(&mut self, known: &Known) {
        let extra = match &known.meaning {
            Ok(meaning) => meaning.target.as_ref().map_or(0, |target| target.as_str().len()),
            Err(cause) => cause.len(),
        };
        self.entries += 1;
        self.addresses += known.claims.len();
        self.records += 8 + 4 * record::NUMBER + record::room(known.relative_name().0.len()) + record::room(extra);
        let claim = |claim: &Claim| record::NUMBER + record::room(halves(&claim.key).0.len());
        self.records += known.claims.iter().map(claim).sum::<usize>();
    }
}
