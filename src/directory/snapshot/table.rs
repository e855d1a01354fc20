//! All recipients of a directory in memory, found by address: compact, built once, never changed. Pure.
//!
//! A million recipients with two addresses each take some 90 MiB: an entry is a record of a hundred octets, texts that
//! many entries share (domains, parents of distinguished names, rules, mail servers) are stored once and numbered, and
//! a slot of five octets leads from each address to the offset of its entry's record. `snapshot` builds one from a full
//! read; later changes are kept beside it.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::RandomState;

use self::record::Reader;
pub use self::sizes::Sizes;
use self::slot::{EMPTY, Slot};
use crate::directory::known::{Claim, Id, Known, Meaning, Strength};
use crate::fast_map::FastMap;
use crate::lookup::{Kind, Lookup, Recipient};
use crate::smtp::address::Address;

mod record;
mod sizes;
mod slot;

/// Why a table cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// The records exceed 32-bit offsets.
    #[error("more than 4 GiB of addresses and names")]
    Records,
    /// There are more addresses than [`Sizes`] has.
    #[error("more addresses than were counted")]
    Addresses,
}

#[derive(Debug, Default)]
pub struct Table {
    /// [`Head`]s, each followed by its claims.
    records: Vec<u8>,
    /// The offset of each entry's record.
    places: Vec<u32>,
    /// A hash table from addresses to records.
    slots: Vec<Slot>,
    hashes: RandomState,
    domains: Vec<Arc<str>>,
    parents: Vec<Arc<str>>,
    meanings: Vec<SharedFields>,
    servers: Vec<Arc<str>>,
    /// The number of entries by kind, in the order of [`Kind::ALL`].
    kinds: [usize; Kind::ALL.len()],
    /// The offsets of odd entries' records.
    odd: Vec<u32>,
}

/// The beginning of an entry's record. The claims follow: twice the domain's number, plus one for a fallback; then the
/// local part.
#[derive(Debug, Clone, Copy)]
struct Head<'a> {
    id: Id,
    parent: usize,
    meaning: usize,
    /// The mail server's number plus one; 0: none.
    server: usize,
    /// The relative distinguished name.
    name: &'a [u8],
    /// The target, or why the entry is unclear, or empty.
    extra: &'a [u8],
    claims: Claims<'a>,
}

#[derive(Debug, Clone, Copy)]
struct Claims<'a> {
    left: usize,
    reader: Reader<'a>,
}

impl<'a> Iterator for Claims<'a> {
    /// Domain, strength, local part.
    type Item = (usize, Strength, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let domain = self.reader.number();
        let strength = if domain & 1 == 0 { Strength::Certain } else { Strength::Fallback };
        Some((domain >> 1, strength, self.reader.octets()))
    }
}

/// The kind and target of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means<'a> {
    Unclear,
    Clear { kind: Kind, target: Option<&'a str>, mail_server: Option<&'a str> },
}

/// Properties that many entries share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum SharedFields {
    Clear { kind: Kind, rule: Arc<str>, at_odds: Option<Arc<str>> },
    Unclear,
}

impl Table {
    /// The entries that claim the address with this key, with the strength of the claim.
    pub fn claimants(&self, key: &str) -> impl Iterator<Item = (usize, Strength)> {
        let (local, domain) = halves(key);
        let (mut slot, wanted) = self.slot_of(local, domain);
        std::iter::from_fn(move || {
            loop {
                let found = self.slots.get(slot).filter(|slot| slot.tag() != EMPTY)?;
                slot = if slot + 1 == self.slots.len() { 0 } else { slot + 1 };
                if found.tag() == wanted
                    && let Some(strength) = self.claim(found.place(), local, domain)
                {
                    return Some((found.place(), strength));
                }
            }
        })
    }

    /// How an entry claims an address; `None`: it does not.
    fn claim(&self, entry: usize, local: &str, domain: &str) -> Option<Strength> {
        let is = |(at, _, of): &(usize, Strength, &[u8])| *of == local.as_bytes() && *self.domains[*at] == *domain;
        self.head(entry).claims.find(is).map(|(_, strength, _)| strength)
    }

    pub fn entries(&self) -> impl Iterator<Item = usize> {
        self.places.iter().map(|place| *place as usize)
    }

    /// The number of entries.
    #[must_use]
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// The number of entries by kind, in the order of [`Kind::ALL`].
    #[must_use]
    pub fn kinds(&self) -> [usize; Kind::ALL.len()] {
        self.kinds
    }

    #[must_use]
    pub fn id(&self, entry: usize) -> Id {
        let record = self.records.get(entry..).and_then(|record| record.first_chunk());
        Id(u64::from_le_bytes(record.copied().unwrap_or_default()))
    }

    /// The kind and target of an entry, without copying.
    #[must_use]
    pub fn means(&self, entry: usize) -> Means<'_> {
        let head = self.head(entry);
        match &self.meanings[head.meaning] {
            SharedFields::Unclear => Means::Unclear,
            SharedFields::Clear { kind, .. } => Means::Clear {
                kind: *kind,
                target: Some(text(head.extra)).filter(|target| !target.is_empty()),
                mail_server: self.server(&head).map(|server| &**server),
            },
        }
    }

    /// The keys of an entry's addresses.
    pub fn keys(&self, entry: usize) -> impl Iterator<Item = String> {
        self.claims(self.head(entry).claims).map(|claim| claim.key)
    }

    /// An entry's answer about an address that it owns.
    #[must_use]
    pub fn answer(&self, entry: usize) -> Lookup {
        let head = self.head(entry);
        let dn = [text(head.name), &self.parents[head.parent]].concat();
        match &self.meanings[head.meaning] {
            SharedFields::Unclear => Lookup::Unavailable(format!("`{dn}`: {}", text(head.extra)).into()),
            SharedFields::Clear { kind, rule, .. } => Lookup::Found(Arc::new(Recipient {
                kind: *kind,
                target: Some(text(head.extra)).filter(|extra| !extra.is_empty()).and_then(|t| Address::parse(t).ok()),
                mail_server: self.server(&head).cloned(),
                send_connector: None,
                entry: dn.into(),
                rule: rule.clone(),
            })),
        }
    }

    /// The entry as it was added.
    #[must_use]
    pub fn known(&self, entry: usize) -> Known {
        let head = self.head(entry);
        let meaning = match &self.meanings[head.meaning] {
            SharedFields::Unclear => Err(text(head.extra).to_owned()),
            SharedFields::Clear { kind, rule, at_odds } => Ok(Meaning {
                kind: *kind,
                target: Address::parse(text(head.extra)).ok(),
                mail_server: self.server(&head).map(ToString::to_string),
                rule: rule.to_string(),
                at_odds: at_odds.as_ref().map(ToString::to_string),
            }),
        };
        Known { id: head.id, dn: self.dn(entry), claims: self.claims(head.claims).collect(), meaning }
    }

    pub fn odd_entries(&self) -> impl Iterator<Item = usize> {
        self.odd.iter().map(|place| *place as usize)
    }

    /// What is odd about an entry; `None`: nothing.
    #[must_use]
    pub fn odd(&self, entry: usize) -> Option<&str> {
        let head = self.head(entry);
        match &self.meanings[head.meaning] {
            SharedFields::Unclear => Some(text(head.extra)),
            SharedFields::Clear { at_odds, .. } => at_odds.as_deref(),
        }
    }

    #[must_use]
    pub fn dn(&self, entry: usize) -> String {
        let head = self.head(entry);
        [text(head.name), &self.parents[head.parent]].concat()
    }

    fn claims<'a>(&'a self, claims: Claims<'a>) -> impl Iterator<Item = Claim> + 'a {
        claims.map(|(domain, strength, local)| {
            let (local, domain) = (text(local), &*self.domains[domain]);
            let key = if domain.is_empty() { local.to_owned() } else { [local, "@", domain].concat() };
            Claim { key, strength }
        })
    }

    fn server(&self, head: &Head<'_>) -> Option<&Arc<str>> {
        self.servers.get(head.server.checked_sub(1)?)
    }

    fn head(&self, entry: usize) -> Head<'_> {
        let record = self.records.get(entry..).unwrap_or_default();
        let (id, rest) = record.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let mut reader = Reader(rest);
        let (parent, meaning, server) = (reader.number(), reader.number(), reader.number());
        let (name, extra) = (reader.octets(), reader.octets());
        let left = reader.number();
        let claims = Claims { left, reader };
        Head { id: Id(u64::from_le_bytes(*id)), parent, meaning, server, name, extra, claims }
    }

    /// The first slot for an address, and its tag.
    fn slot_of(&self, local: &str, domain: &str) -> (usize, u8) {
        let hash = self.hashes.hash_one((local, domain));
        // The high half of the product distributes evenly over any number of slots. The tag is from the low half.
        let slot = (u128::from(hash) * (self.slots.len() as u128)) >> 64;
        let tag = u8::try_from(hash & 0xff).unwrap_or_default().max(EMPTY + 1);
        (usize::try_from(slot).unwrap_or_default(), tag)
    }
}

/// The octets as text; only text was added.
fn text(octets: &[u8]) -> &str {
    std::str::from_utf8(octets).unwrap_or_default()
}

/// A key's local part and domain; a name without `@` has no domain.
fn halves(key: &str) -> (&str, &str) {
    // Keys are short, so a plain loop is faster than a search.
    match key.bytes().rposition(|octet| octet == b'@') {
        Some(at) => (&key[..at], &key[at + 1..]),
        None => (key, ""),
    }
}

/// A table that is being built.
#[derive(Debug)]
pub struct Builder {
    table: Table,
    /// How many addresses may still be added.
    left: usize,
    domains: Numbers,
    parents: Numbers,
    meanings: FastMap<SharedFields, usize>,
    servers: Numbers,
}

/// Numbers for texts that many entries share.
#[derive(Debug, Default)]
struct Numbers(FastMap<Arc<str>, usize>);

impl Numbers {
    fn of(&mut self, text: &str, all: &mut Vec<Arc<str>>) -> usize {
        if let Some(number) = self.0.get(text) {
            return *number;
        }
        let number = all.len();
        let text: Arc<str> = text.into();
        all.push(text.clone());
        self.0.insert(text, number);
        number
    }
}

impl Builder {
    /// An empty table with memory for these sizes.
    #[must_use]
    pub fn new(sizes: Sizes) -> Self {
        let table = Table {
            records: Vec::with_capacity(sizes.records),
            places: Vec::with_capacity(sizes.entries),
            slots: vec![Slot::new(0, EMPTY); sizes.slots()],
            hashes: RandomState::default(),
            domains: Vec::new(),
            parents: Vec::new(),
            meanings: Vec::new(),
            servers: Vec::new(),
            kinds: Default::default(),
            odd: Vec::new(),
        };
        Self {
            table,
            left: sizes.addresses,
            domains: Numbers::default(),
            parents: Numbers::default(),
            meanings: FastMap::default(),
            servers: Numbers::default(),
        }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// It does not fit.
    pub fn add(&mut self, known: &Known) -> Result<(), TooLarge> {
        self.left = self.left.checked_sub(known.claims.len()).ok_or(TooLarge::Addresses)?;
        let table = &mut self.table;
        let place = u32::try_from(table.records.len()).map_err(|_| TooLarge::Records)?;
        let (shared, extra, server) = match &known.meaning {
            Ok(Meaning { kind, target, mail_server, rule, at_odds }) => {
                table.kinds[kind.number()] += 1;
                let extra = target.as_ref().map_or("", Address::as_str);
                let (rule, at_odds) = (rule.as_str().into(), at_odds.as_deref().map(Arc::from));
                (SharedFields::Clear { kind: *kind, rule, at_odds }, extra, mail_server.as_deref())
            }
            Err(cause) => (SharedFields::Unclear, cause.as_str(), None),
        };
        let meaning = *self.meanings.entry(shared).or_insert_with_key(|shared| {
            table.meanings.push(shared.clone());
            table.meanings.len() - 1
        });
        let (name, parent) = known.relative_name();
        let parent = self.parents.of(parent, &mut table.parents);
        let server = server.map_or(0, |server| 1 + self.servers.of(server, &mut table.servers));
        table.places.push(place);
        if known.odd().is_some() {
            table.odd.push(place);
        }
        table.records.extend_from_slice(&known.id.0.to_le_bytes());
        [parent, meaning, server].into_iter().for_each(|number| record::put_number(&mut table.records, number));
        record::put_text(&mut table.records, name);
        record::put_text(&mut table.records, extra);
        record::put_number(&mut table.records, known.claims.len());
        for Claim { key, strength } in &known.claims {
            let (local, domain) = halves(key);
            let number = self.domains.of(domain, &mut table.domains) << 1;
            record::put_number(&mut table.records, number | usize::from(*strength == Strength::Fallback));
            record::put_text(&mut table.records, local);
            let (mut slot, tag) = table.slot_of(local, domain);
            while table.slots[slot].tag() != EMPTY {
                slot = (slot + 1) % table.slots.len();
            }
            table.slots[slot] = Slot::new(place, tag);
        }
        Ok(())
    }

    #[must_use]
    pub fn finish(self) -> Table {
        self.table
    }
}

#[cfg(test)]
mod tests;
