//! All recipients of a directory in memory, found by address: compact, built once, never changed. Pure.
//!
//! A million recipients with two addresses each take some 90 MiB: texts lie one behind the other in one block, what many
//! entries share (domains, parents of distinguished names, rules, mail servers) is kept once and numbered, and everything
//! else is a column of numbers. `snapshot` builds one from what it read, and puts later changes beside it.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::directory::known::{Claim, Id, Known, Meaning, Strength};
use crate::fast_map::FastMap;
use crate::recipient::{Kind, Lookup, Recipient};
use crate::smtp::address::Address;

mod texts;

use texts::index;

/// Of ten slots eight are taken.
const LOAD: (usize, usize) = (5, 4);
/// An empty slot.
const NONE: u32 = u32::MAX;

/// How much will be put in: what is allocated, and no more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Entries.
    pub entries: usize,
    /// Addresses of all entries.
    pub addresses: usize,
    /// Octets of local parts, relative names, targets and causes.
    pub texts: usize,
}

/// Why a directory cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// More texts than four bytes count.
    #[error("more than 4 GiB of addresses and names")]
    Texts,
    /// More different values than two bytes count.
    #[error("more than 65,535 different {0}")]
    Names(&'static str),
}

/// The recipients.
#[derive(Debug, Default)]
pub struct Table {
    texts: Vec<u8>,
    entries: Vec<Entry>,
    addresses: Vec<Claimed>,
    /// Numbers of addresses, by the hash of the address.
    slots: Vec<u32>,
    hashes: RandomState,
    domains: Vec<Arc<str>>,
    parents: Vec<Arc<str>>,
    meanings: Vec<Shared>,
    servers: Vec<Arc<str>>,
}

/// What an entry has, beside each other: whoever looks at one of them looks at all.
#[derive(Debug, Clone, Copy)]
struct Entry {
    id: Id,
    /// Where its relative name begins in the texts; behind it the target, or why it is unclear.
    text: u32,
    parent: u32,
    meaning: u16,
    server: u16,
}

/// What an address has.
#[derive(Debug, Clone, Copy)]
struct Claimed {
    /// Where its local part begins in the texts.
    local: u32,
    /// The entry; the highest bit is set where the claim is a fallback.
    entry: u32,
    domain: u16,
}

const FALLBACK: u32 = 1 << 31;

/// What mail for an entry meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means<'a> {
    /// Nobody knows what the entry means.
    Unclear,
    /// This.
    Clear {
        /// What it is.
        kind: Kind,
        /// Where its mail goes instead.
        target: Option<&'a str>,
        /// The mail server that it names.
        mail_server: Option<&'a str>,
    },
}

/// What entries with the same kind and rule have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Shared {
    Clear { kind: Kind, rule: Arc<str> },
    Unclear,
}

impl Table {
    /// The numbers of the entries that claim the address with that key, each with the claim's strength.
    pub fn claimants(&self, key: &str) -> impl Iterator<Item = (usize, Strength)> {
        let (local, domain) = halves(key);
        let mut slot = if self.slots.is_empty() { 0 } else { self.slot_of(local, domain) };
        std::iter::from_fn(move || {
            loop {
                let at = index(self.slots.get(slot).copied().filter(|taken| *taken != NONE)?);
                slot = (slot + 1) % self.slots.len();
                let claimed = self.addresses[at];
                if *self.domains[usize::from(claimed.domain)] == *domain && self.local(at) == local.as_bytes() {
                    return Some(self.claimant(at));
                }
            }
        })
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id of an entry.
    #[must_use]
    pub fn id(&self, entry: usize) -> Id {
        self.entries[entry].id
    }

    /// What mail for an entry meets, without a copy.
    #[must_use]
    pub fn means(&self, entry: usize) -> Means<'_> {
        match &self.meanings[usize::from(self.entries[entry].meaning)] {
            Shared::Unclear => Means::Unclear,
            Shared::Clear { kind, .. } => Means::Clear {
                kind: *kind,
                target: Some(self.extra(entry)).filter(|target| !target.is_empty()),
                mail_server: self.servers.get(usize::from(self.entries[entry].server)).map(|server| &**server),
            },
        }
    }

    /// The keys of an entry's addresses.
    pub fn keys(&self, entry: usize) -> impl Iterator<Item = String> {
        self.claims(entry).map(|claim| claim.key)
    }

    /// What an entry says of an address that it owns.
    #[must_use]
    pub fn answer(&self, entry: usize) -> Lookup {
        match &self.meanings[usize::from(self.entries[entry].meaning)] {
            Shared::Unclear => Lookup::Unavailable(format!("`{}`: {}", self.dn(entry), self.extra(entry)).into()),
            Shared::Clear { kind, rule } => Lookup::Found(Arc::new(Recipient {
                kind: *kind,
                target: Some(self.extra(entry)).filter(|extra| !extra.is_empty()).and_then(|t| Address::parse(t).ok()),
                mail_server: self.servers.get(usize::from(self.entries[entry].server)).cloned(),
                send_connector: None,
                entry: self.dn(entry).into(),
                rule: rule.clone(),
            })),
        }
    }

    /// An entry as it was put in.
    #[must_use]
    pub fn known(&self, entry: usize) -> Known {
        let meaning = match &self.meanings[usize::from(self.entries[entry].meaning)] {
            Shared::Unclear => Err(self.extra(entry).to_owned()),
            Shared::Clear { kind, rule } => Ok(Meaning {
                kind: *kind,
                target: Address::parse(self.extra(entry)).ok(),
                mail_server: self.servers.get(usize::from(self.entries[entry].server)).map(|server| server.to_string()),
                rule: rule.to_string(),
                at_odds: None,
            }),
        };
        Known { id: self.entries[entry].id, dn: self.dn(entry), claims: self.claims(entry).collect(), meaning }
    }

    /// An entry's addresses lie one behind the other, in the order of the entries.
    fn claims(&self, entry: usize) -> impl Iterator<Item = Claim> {
        let of = |at: usize| self.claimant(at).0;
        let all = &self.addresses;
        let first = all.partition_point(|claimed| index(claimed.entry & !FALLBACK) < entry);
        (first..all.len()).take_while(move |at| of(*at) == entry).map(|at| {
            let local = std::str::from_utf8(self.local(at)).unwrap_or_default();
            let domain = &*self.domains[usize::from(self.addresses[at].domain)];
            let key = if domain.is_empty() { local.to_owned() } else { [local, "@", domain].concat() };
            Claim { key, strength: self.claimant(at).1 }
        })
    }

    fn claimant(&self, address: usize) -> (usize, Strength) {
        let claim = self.addresses[address].entry;
        let strength = if claim & FALLBACK == 0 { Strength::Certain } else { Strength::Fallback };
        (index(claim & !FALLBACK), strength)
    }

    /// The target; why it is unclear; nothing.
    fn extra(&self, entry: usize) -> &str {
        let (_, behind) = self.text(self.entries[entry].text);
        std::str::from_utf8(self.text(behind).0).unwrap_or_default()
    }

    /// Its distinguished name.
    #[must_use]
    pub fn dn(&self, entry: usize) -> String {
        let (name, _) = self.text(self.entries[entry].text);
        let name = std::str::from_utf8(name).unwrap_or_default();
        [name, &self.parents[index(self.entries[entry].parent)]].concat()
    }

    fn local(&self, at: usize) -> &[u8] {
        self.text(self.addresses[at].local).0
    }

    /// The text that begins there, and where the next one does.
    fn text(&self, at: u32) -> (&[u8], u32) {
        texts::read(&self.texts, at)
    }

    fn slot_of(&self, local: &str, domain: &str) -> usize {
        slot_of(&self.hashes, self.slots.len(), local, domain)
    }
}

/// A key's local part and domain; a name without `@` has no domain.
fn halves(key: &str) -> (&str, &str) {
    key.rsplit_once('@').unwrap_or((key, ""))
}

fn slot_of(hashes: &RandomState, slots: usize, local: &str, domain: &str) -> usize {
    let hash = hashes.hash_one((local, domain));
    // The high half of the product: evenly over any number of slots.
    usize::try_from((u128::from(hash) * (slots as u128)) >> 64).unwrap_or_default()
}

/// A table that is being filled.
#[derive(Debug)]
pub struct Builder {
    table: Table,
    domains: Numbers,
    parents: Numbers,
    meanings: FastMap<Shared, u16>,
    servers: Numbers,
}

/// Numbers for texts that many have.
#[derive(Debug, Default)]
struct Numbers(FastMap<Arc<str>, u32>);

impl Numbers {
    fn of(&mut self, text: &str, all: &mut Vec<Arc<str>>) -> u32 {
        if let Some(number) = self.0.get(text) {
            return *number;
        }
        let number = u32::try_from(all.len()).unwrap_or(NONE);
        let text: Arc<str> = text.into();
        all.push(text.clone());
        self.0.insert(text, number);
        number
    }
}

impl Sizes {
    /// Counts an entry in.
    pub fn add(&mut self, known: &Known) {
        let extra = match &known.meaning {
            Ok(meaning) => meaning.target.as_ref().map_or(0, |target| target.as_str().len()),
            Err(cause) => cause.len(),
        };
        self.entries += 1;
        self.addresses += known.claims.len();
        self.texts += texts::room(known.relative_name().0.len()) + texts::room(extra);
        self.texts += known.claims.iter().map(|claim| texts::room(halves(&claim.key).0.len())).sum::<usize>();
    }
}

impl Builder {
    /// An empty one with room for so much.
    #[must_use]
    pub fn new(sizes: Sizes) -> Self {
        let slots = if sizes.addresses == 0 { 0 } else { sizes.addresses * LOAD.0 / LOAD.1 + 1 };
        let table = Table {
            texts: Vec::with_capacity(sizes.texts),
            entries: Vec::with_capacity(sizes.entries),
            addresses: Vec::with_capacity(sizes.addresses),
            slots: vec![NONE; slots],
            hashes: RandomState::default(),
            domains: Vec::new(),
            parents: Vec::new(),
            meanings: Vec::new(),
            servers: Vec::new(),
        };
        Self {
            table,
            domains: Numbers::default(),
            parents: Numbers::default(),
            meanings: FastMap::default(),
            servers: Numbers::default(),
        }
    }

    /// Puts an entry in. More than [`Sizes`] said must not come.
    ///
    /// # Errors
    /// It does not fit.
    pub fn add(&mut self, known: &Known) -> Result<(), TooLarge> {
        let table = &mut self.table;
        let entry = u32::try_from(table.entries.len()).map_err(|_| TooLarge::Texts)?;
        let (name, parent) = known.relative_name();
        let text = texts::write(&mut table.texts, name)?;
        let (shared, extra, server) = match &known.meaning {
            Ok(Meaning { kind, target, mail_server, rule, .. }) => {
                let extra = target.as_ref().map_or("", Address::as_str);
                (Shared::Clear { kind: *kind, rule: rule.as_str().into() }, extra, mail_server.as_deref())
            }
            Err(cause) => (Shared::Unclear, cause.as_str(), None),
        };
        texts::write(&mut table.texts, extra)?;
        let meaning = match self.meanings.get(&shared) {
            Some(number) => *number,
            None => {
                let number = u16::try_from(table.meanings.len()).map_err(|_| TooLarge::Names("rules"))?;
                table.meanings.push(shared.clone());
                self.meanings.insert(shared, number);
                number
            }
        };
        let server = match server {
            Some(server) => self.servers.of(server, &mut table.servers),
            None => u32::from(u16::MAX),
        };
        let parent = self.parents.of(parent, &mut table.parents);
        let server = u16::try_from(server).map_err(|_| TooLarge::Names("mail servers"))?;
        table.entries.push(Entry { id: known.id, text, parent, meaning, server });
        for Claim { key, strength } in &known.claims {
            let claim = match strength {
                Strength::Certain => entry,
                Strength::Fallback => entry | FALLBACK,
            };
            let (local, domain_name) = halves(key);
            let domain = self.domains.of(domain_name, &mut table.domains);
            let at = u32::try_from(table.addresses.len()).map_err(|_| TooLarge::Texts)?;
            let domain = u16::try_from(domain).map_err(|_| TooLarge::Names("domains"))?;
            let local_at = texts::write(&mut table.texts, local)?;
            table.addresses.push(Claimed { local: local_at, entry: claim, domain });
            let mut slot = table.slot_of(local, domain_name);
            while table.slots[slot] != NONE {
                slot = (slot + 1) % table.slots.len();
            }
            table.slots[slot] = at;
        }
        Ok(())
    }

    /// The table.
    #[must_use]
    pub fn finish(self) -> Table {
        self.table
    }
}

#[cfg(test)]
mod tests;
