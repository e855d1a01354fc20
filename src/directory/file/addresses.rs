//! A compact index of addresses: a million of them in a few large blocks of memory, which are returned to the system
//! when the file is read again. Pure.
//!
//! `contents` fills one through a [`Builder`]. An address takes 14 octets and its length, an entry 12; properties that
//! many entries share are stored once.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::fast_map::FastMap;
use crate::lookup::Kind;

/// Properties that many entries share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Meaning {
    pub(super) kind: Kind,
    pub(super) mail_server: Option<Arc<str>>,
    pub(super) send_connector: Option<Arc<str>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    line: u32,
    meaning: u32,
    /// Offset of its target plus one; 0: it has none.
    target: u32,
}

/// An entry as it is returned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) line: u32,
    pub(super) meaning: &'a Meaning,
    pub(super) target: Option<&'a str>,
}

/// The entries that have an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owners<'a> {
    Nobody,
    One(u32),
    /// In the order of the file.
    Several(&'a [u32]),
}

/// The addresses of a file.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    entries: Vec<Entry>,
    meanings: Vec<Meaning>,
    /// For each address of each entry: the entry's number in four octets, and the key as text.
    claims: Vec<u8>,
    /// Texts: length in two octets, then the octets.
    targets: Vec<u8>,
    /// A hash table of addresses: the offset of the first claim plus one; 0: empty. Half of the slots are empty.
    slots: Vec<u32>,
    hashes: RandomState,
    /// Entries of an address that several entries have, by the offset of its first claim.
    ambiguous: FastMap<u32, Vec<u32>>,
}

/// More entries or octets than 32-bit offsets allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge;

impl Addresses {
    /// The entries that have the address with this key.
    pub(super) fn owners(&self, key: &str) -> Owners<'_> {
        match self.place(key) {
            None => Owners::Nobody,
            Some(place) => match self.ambiguous.get(&place) {
                Some(several) => Owners::Several(several),
                None => Owners::One(self.claimant(place)),
            },
        }
    }

    pub(super) fn entry(&self, number: u32) -> Option<Found<'_>> {
        let entry = self.entries.get(number as usize)?;
        let meaning = self.meanings.get(entry.meaning as usize)?;
        let target = entry.target.checked_sub(1).map(|at| text(&self.targets, at as usize));
        Some(Found { line: entry.line, meaning, target })
    }

    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The number of entries of this kind.
    pub(super) fn count(&self, kind: Kind) -> usize {
        let is_of_it: Vec<bool> = self.meanings.iter().map(|meaning| meaning.kind == kind).collect();
        self.entries.iter().filter(|entry| is_of_it[entry.meaning as usize]).count()
    }

    /// The keys of all addresses, without duplicates.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().filter_map(|slot| Some(self.key(slot.checked_sub(1)?)))
    }

    /// The number of addresses that several entries have.
    #[cfg(test)]
    pub(super) fn count_ambiguous(&self) -> usize {
        self.ambiguous.len()
    }

    /// The memory that it takes, octets.
    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + self.claims.len()
            + self.targets.capacity()
            + self.slots.capacity() * size_of::<u32>()
    }

    fn key(&self, place: u32) -> &str {
        text(&self.claims, place as usize + size_of::<u32>())
    }

    fn claimant(&self, place: u32) -> u32 {
        let octets = self.claims.get(place as usize..).and_then(|claim| claim.first_chunk());
        u32::from_le_bytes(octets.copied().unwrap_or_default())
    }

    /// The offset of the first claim to this key.
    fn place(&self, key: &str) -> Option<u32> {
        self.slots.get(self.slot(key)?)?.checked_sub(1)
    }

    /// The slot with this key, or the empty one where it would be; `None`: there are no slots.
    fn slot(&self, key: &str) -> Option<usize> {
        // The high half of the product distributes evenly over any number of slots.
        let first = (u128::from(self.hashes.hash_one(key)) * self.slots.len() as u128) >> 64;
        let mut slot = usize::try_from(first).ok()?;
        while let Some(place) = self.slots.get(slot)?.checked_sub(1) {
            if self.key(place) == key {
                break;
            }
            slot = if slot + 1 == self.slots.len() { 0 } else { slot + 1 };
        }
        Some(slot)
    }
}

/// Collects addresses while the file is read.
#[derive(Debug, Default)]
pub(super) struct Builder {
    addresses: Addresses,
    count: usize,
    meanings: FastMap<Meaning, u32>,
}

impl Builder {
    /// Reserves memory for this many octets of addresses.
    pub(super) fn with_room(octets: usize) -> Self {
        let addresses = Addresses { claims: Vec::with_capacity(octets), ..Addresses::default() };
        Self { addresses, ..Self::default() }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// There are too many entries or octets.
    pub(super) fn add(
        &mut self,
        line: u32,
        meaning: Meaning,
        target: Option<&str>,
        keys: &[Box<str>],
    ) -> Result<(), TooLarge> {
        let Addresses { entries, meanings, claims, targets, .. } = &mut self.addresses;
        let number = place(entries.len())?;
        let meaning = match self.meanings.get(&meaning) {
            Some(known) => *known,
            None => {
                let new = place(meanings.len())?;
                meanings.push(meaning.clone());
                self.meanings.insert(meaning, new);
                new
            }
        };
        let target = match target {
            Some(target) => {
                let at = place(targets.len())? + 1;
                put(targets, target)?;
                at
            }
            None => 0,
        };
        entries.push(Entry { line, meaning, target });
        for key in keys {
            place(claims.len() + 1)?;
            claims.extend_from_slice(&number.to_le_bytes());
            put(claims, key)?;
        }
        self.count += keys.len();
        Ok(())
    }

    /// Builds the index.
    pub(super) fn finish(self) -> Addresses {
        let mut addresses = self.addresses;
        addresses.entries.shrink_to_fit();
        addresses.targets.shrink_to_fit();
        addresses.slots = vec![0; self.count * 2];
        let mut at = 0;
        while at < addresses.claims.len() {
            let Ok(claim) = u32::try_from(at) else { break };
            at += size_of::<u32>() + size_of::<u16>() + addresses.key(claim).len();
            addresses.enter(claim);
        }
        addresses
    }
}

impl Addresses {
    /// Enters a claim under its key, or adds it to those that are there.
    fn enter(&mut self, claim: u32) {
        let Some(slot) = self.slot(self.key(claim)) else { return };
        let Some(first) = self.slots[slot].checked_sub(1) else {
            self.slots[slot] = claim + 1;
            return;
        };
        let (owner, number) = (self.claimant(first), self.claimant(claim));
        // The same address twice in one entry counts once.
        if owner == number {
            return;
        }
        let all = self.ambiguous.entry(first).or_insert_with(|| vec![owner]);
        if all.last() != Some(&number) {
            all.push(number);
        }
    }
}

fn place(at: usize) -> Result<u32, TooLarge> {
    u32::try_from(at).map_err(|_| TooLarge)
}

fn put(texts: &mut Vec<u8>, text: &str) -> Result<(), TooLarge> {
    let length = u16::try_from(text.len()).map_err(|_| TooLarge)?;
    texts.extend_from_slice(&length.to_le_bytes());
    texts.extend_from_slice(text.as_bytes());
    Ok(())
}

/// The text at this offset.
fn text(texts: &[u8], at: usize) -> &str {
    let (length, rest) = texts.get(at..).and_then(<[u8]>::split_first_chunk).unwrap_or((&[0, 0], &[]));
    let octets = rest.get(..usize::from(u16::from_le_bytes(*length))).unwrap_or_default();
    std::str::from_utf8(octets).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn meaning(kind: Kind) -> Meaning {
        Meaning { kind, mail_server: None, send_connector: None }
    }

    proptest! {
        #[test]
        fn they_say_what_looking_at_every_entry_says(all in vec((vec(0..30_u8, 0..4), any::<bool>()), 0..40)) {
            let mut builder = Builder::with_room(10);
            let mut plain: BTreeMap<String, Vec<u32>> = BTreeMap::new();
            for (number, (keys, group)) in (0..).zip(&all) {
                let keys: Vec<Box<str>> = keys.iter().map(|key| format!("user{key}@a.example").into()).collect();
                let (kind, target) = if *group { (Kind::Group, None) } else { (Kind::Contact, Some(format!("{number}@b.c"))) };
                builder.add(number + 2, meaning(kind), target.as_deref(), &keys).unwrap();
                for key in keys {
                    let owners = plain.entry(key.into()).or_default();
                    if owners.last() != Some(&number) {
                        owners.push(number);
                    }
                }
            }
            let addresses = builder.finish();
            for key in (0..31).map(|key| format!("user{key}@a.example")) {
                match (addresses.owners(&key), plain.get(&key).map(Vec::as_slice)) {
                    (Owners::Nobody, None) => {}
                    (Owners::One(one), Some([only])) => prop_assert_eq!(one, *only),
                    (Owners::Several(several), Some(owners)) => prop_assert_eq!(several, owners),
                    (said, owners) => prop_assert!(false, "{key}: {said:?}, not {owners:?}"),
                }
            }
            let mut keys: Vec<&str> = addresses.keys().collect();
            keys.sort_unstable();
            prop_assert_eq!(keys, plain.keys().map(String::as_str).collect::<Vec<_>>());
            for (number, (_, group)) in (0..).zip(&all) {
                let found = addresses.entry(number).unwrap();
                let target = (!group).then(|| format!("{number}@b.c"));
                prop_assert_eq!((found.line, found.target), (number + 2, target.as_deref()));
            }
            let groups = all.iter().filter(|(_, group)| *group).count();
            prop_assert_eq!((addresses.len(), addresses.count(Kind::Group)), (all.len(), groups));
        }
    }

    /// docs/performance.md: a million take less than 200 MiB; with two addresses of 30 octets each it is 100.
    #[test]
    fn an_address_takes_little_more_than_its_octets() {
        let mut builder = Builder::with_room(60 * 10_000);
        for number in 0..10_000 {
            let keys = [format!("first{number:05}.last@contoso.example"), format!("user{number:05}@contoso.example")];
            builder.add(number, meaning(Kind::Mailbox), None, &keys.map(Box::from)).unwrap();
        }
        let octets = builder.finish().octets();
        assert!(octets <= 10_000 * (12 + 2 * 14 + 31 + 25 + 1), "{octets}");
    }
}
