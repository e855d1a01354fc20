//! The sizes of a table, counted before it is built.

use super::slot::Slot;
use super::{halves, record};
use crate::directory::known::{Claim, Known};

/// Slots for each address: 80 percent are filled.
const LOAD: (usize, usize) = (5, 4);

/// What has to be allocated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    pub entries: usize,
    pub addresses: usize,
    /// In octets.
    pub records: usize,
}

impl Sizes {
    /// The approximate size of the table, in octets.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.records + self.entries * size_of::<u32>() + self.slots() * size_of::<Slot>()
    }

    /// The number of slots.
    pub(super) fn slots(&self) -> usize {
        if self.addresses == 0 { 0 } else { self.addresses * LOAD.0 / LOAD.1 + 1 }
    }

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
