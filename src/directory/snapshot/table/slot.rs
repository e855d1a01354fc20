//! A slot of the hash table: from an address to its entry.

/// The tag of an empty slot.
pub(super) const EMPTY: u8 = 0;

/// The offset of the entry's record, little-endian, and eight bits of the address's hash, so that few records are read
/// in vain. Both are adjacent, because each cache miss costs a tenth of a microsecond.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot([u8; 5]);

impl Slot {
    pub(super) fn new(place: u32, tag: u8) -> Self {
        let [a, b, c, d] = place.to_le_bytes();
        Self([a, b, c, d, tag])
    }

    pub(super) fn place(self) -> usize {
        let [a, b, c, d, _] = self.0;
        u32::from_le_bytes([a, b, c, d]) as usize
    }

    pub(super) fn tag(self) -> u8 {
        self.0[4]
    }
}
