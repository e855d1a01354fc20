//! The known content of a directory: a [`Table`] from the last full read, and later changes. Pure.
//!
//! `served` answers from one; while changes are held it has a second one.

use std::fmt;
use std::sync::Arc;

use super::table::{Means, Table};
use crate::directory::known::{self, Id, Known, Strength};
use crate::fast_map::{FastMap, FastSet};
use crate::lookup::{Kind, Lookup};

mod odd;

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Change {
    /// The entry's new state.
    Put(Known),
    /// The entry with this id was deleted, or has no address any more.
    Gone(Id),
}

impl Change {
    /// An entry's new state; without an address it counts as gone.
    #[must_use]
    pub fn of(known: Known) -> Self {
        if known.claims.is_empty() { Self::Gone(known.id) } else { Self::Put(known) }
    }

    #[must_use]
    pub fn id(&self) -> Id {
        match self {
            Self::Put(known) => known.id,
            Self::Gone(id) => *id,
        }
    }
}

#[derive(Debug, Clone)]
pub struct View {
    table: Arc<Table>,
    /// `None`: gone. These ids are not looked for in the table.
    changed: FastMap<Id, Option<Arc<Known>>>,
    /// Changed entries by the keys that they claim.
    claims: FastMap<String, Vec<Id>>,
}

/// An entry in the table, or a changed one.
#[derive(Debug, Clone, Copy)]
enum Owner<'a> {
    InTable(usize),
    Changed(&'a Known),
}

impl Owner<'_> {
    fn is(self, other: Self) -> bool {
        match (self, other) {
            (Self::InTable(one), Self::InTable(other)) => one == other,
            (Self::Changed(one), Self::Changed(other)) => std::ptr::eq(one, other),
            (Self::InTable(_), Self::Changed(_)) | (Self::Changed(_), Self::InTable(_)) => false,
        }
    }
}

/// Where mail for an address goes, by the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination<'a> {
    /// No entry has it, or one with neither mailbox nor target.
    Nowhere,
    /// A mailbox here, on this server.
    Here(Option<&'a str>),
    /// This target address.
    Target(&'a str),
    /// Several entries have it, or its entry is unclear.
    Doubtful,
}

impl fmt::Display for Destination<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => f.write_str("nobody"),
            Self::Here(None) => f.write_str("mailbox"),
            Self::Here(Some(server)) => write!(f, "mailbox on {server}"),
            Self::Target(target) => f.write_str(target),
            Self::Doubtful => f.write_str("unclear"),
        }
    }
}

impl View {
    /// Without changes.
    #[must_use]
    pub fn new(table: Arc<Table>) -> Self {
        Self { table, changed: FastMap::default(), claims: FastMap::default() }
    }

    /// The result of the last full read.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The answer about the address with this key.
    #[must_use]
    pub fn lookup(&self, key: &str) -> Lookup {
        if self.claims.get(key).is_none_or(Vec::is_empty) {
            // The usual case: no changed entry claims it, and one entry at most.
            let mut claimants = self.in_table(key);
            match (claimants.next(), claimants.next()) {
                (None, _) => return Lookup::NotFound,
                (Some((entry, _)), None) => return self.table.answer(entry),
                (Some(_), Some(_)) => {}
            }
        }
        match self.owners(key).as_slice() {
            [] => Lookup::NotFound,
            [Owner::InTable(entry)] => self.table.answer(*entry),
            [Owner::Changed(known)] => known.answer(),
            owners => known::ambiguous(owners.iter().map(|owner| self.dn(*owner)).collect()),
        }
    }

    /// Whether an entry claims this key.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        !self.owners(key).is_empty()
    }

    /// The destination of mail for the address with this key.
    #[must_use]
    pub fn way(&self, key: &str) -> Destination<'_> {
        let means = match self.owners(key).as_slice() {
            [] => return Destination::Nowhere,
            [Owner::InTable(entry)] => self.table.means(*entry),
            [Owner::Changed(known)] => means(known),
            _ => return Destination::Doubtful,
        };
        match means {
            Means::Unclear => Destination::Doubtful,
            Means::Clear { kind: Kind::NoMailbox, .. } => Destination::Nowhere,
            Means::Clear { target: Some(target), .. } => Destination::Target(target),
            Means::Clear { target: None, mail_server, .. } => Destination::Here(mail_server),
        }
    }

    /// The number of entries.
    #[must_use]
    pub fn count_entries(&self) -> usize {
        self.table.count() - self.hidden().count() + self.changed.values().flatten().count()
    }

    /// The approximate number: that of the last full read. Costs nothing.
    #[must_use]
    pub fn count_roughly(&self) -> usize {
        self.table.count().max(self.changed.len())
    }

    /// The entries of the table that have changed since.
    fn hidden(&self) -> impl Iterator<Item = usize> {
        let any = !self.changed.is_empty();
        let all = any.then(|| self.table.entries()).into_iter().flatten();
        all.filter(|entry| self.changed.contains_key(&self.table.id(*entry)))
    }

    /// How many entries have changed since the full read.
    #[must_use]
    pub fn changed(&self) -> usize {
        self.changed.len()
    }

    /// The number of entries by kind, in the order of [`Kind::ALL`].
    #[must_use]
    pub fn count_kinds(&self) -> [usize; Kind::ALL.len()] {
        let mut counts = self.table.kinds();
        for means in self.hidden().map(|entry| self.table.means(entry)) {
            if let Means::Clear { kind, .. } = means {
                counts[kind.number()] -= 1;
            }
        }
        for meaning in self.changed.values().flatten().filter_map(|known| known.meaning.as_ref().ok()) {
            counts[meaning.kind.number()] += 1;
        }
        counts
    }

    /// Every entry, in no particular order.
    pub fn entries(&self) -> impl Iterator<Item = Known> {
        let in_table = self.table.entries().filter(|entry| !self.changed.contains_key(&self.table.id(*entry)));
        let changed = self.changed.values().flatten().map(|known| Known::clone(known));
        in_table.map(|entry| self.table.known(entry)).chain(changed)
    }

    /// Calls `see` with the key of every address that an entry claims; some come twice.
    pub fn each_key(&self, see: &mut dyn FnMut(&str)) {
        for entry in self.table.entries().filter(|entry| !self.changed.contains_key(&self.table.id(*entry))) {
            self.table.keys(entry).for_each(|key| see(&key));
        }
        for known in self.changed.values().flatten() {
            known.claims.iter().for_each(|claim| see(&claim.key));
        }
    }

    /// The entries with these ids.
    #[must_use]
    pub fn by_id(&self, ids: &FastSet<Id>) -> FastMap<Id, Known> {
        let mut found = FastMap::default();
        let in_table = |id: &Id| ids.contains(id) && !self.changed.contains_key(id);
        if ids.iter().any(in_table) {
            for entry in self.table.entries() {
                let id = self.table.id(entry);
                if in_table(&id) {
                    found.insert(id, self.table.known(entry));
                }
            }
        }
        for id in ids {
            if let Some(Some(known)) = self.changed.get(id) {
                found.insert(*id, Known::clone(known));
            }
        }
        found
    }

    /// Sets the entries with these ids to their state in another view.
    pub fn take_from(&mut self, other: &Self, ids: &FastSet<Id>) -> Vec<Change> {
        let mut now = other.by_id(ids);
        let changes: Vec<Change> = ids.iter().map(|id| now.remove(id).map_or(Change::Gone(*id), Change::Put)).collect();
        changes.iter().for_each(|change| self.apply(change.clone()));
        changes
    }

    /// The changes that have an effect, with the entry's current state. Directories report many changes that do not
    /// concern mail.
    #[must_use]
    pub fn news(&self, changes: Vec<Change>) -> Vec<(Change, Option<Known>)> {
        // The last change of an entry counts.
        let mut last: FastMap<Id, Change> = changes.into_iter().map(|change| (change.id(), change)).collect();
        let mut now = self.by_id(&last.keys().copied().collect());
        last.retain(|id, change| match (change, now.get(id)) {
            (Change::Gone(_), before) => before.is_some(),
            (Change::Put(_), None) => true,
            (Change::Put(known), Some(before)) => {
                (&known.dn, &known.claims, &known.meaning) != (&before.dn, &before.claims, &before.meaning)
            }
        });
        last.into_iter().map(|(id, change)| (change, now.remove(&id))).collect()
    }

    pub fn apply(&mut self, change: Change) {
        let id = change.id();
        if let Some(Some(before)) = self.changed.get(&id) {
            for claim in &before.claims {
                if let Some(ids) = self.claims.get_mut(&claim.key) {
                    ids.retain(|other| *other != id);
                }
            }
        }
        match change {
            Change::Gone(_) => drop(self.changed.insert(id, None)),
            Change::Put(known) => {
                for claim in &known.claims {
                    self.claims.entry(claim.key.clone()).or_default().push(id);
                }
                self.changed.insert(id, Some(Arc::new(known)));
            }
        }
    }

    /// The unchanged entries of the table that claim the address with this key.
    fn in_table(&self, key: &str) -> impl Iterator<Item = (usize, Strength)> {
        let is_as_read = |entry| self.changed.is_empty() || !self.changed.contains_key(&self.table.id(entry));
        self.table.claimants(key).filter(move |(entry, _)| is_as_read(*entry))
    }

    fn owners(&self, key: &str) -> Vec<Owner<'_>> {
        let in_table = self.in_table(key).map(|(entry, strength)| (Owner::InTable(entry), strength));
        let ids = self.claims.get(key).map_or(&[][..], Vec::as_slice);
        let changed = ids.iter().filter_map(|id| self.changed.get(id)?.as_deref()).filter_map(|known| {
            let claim = known.claims.iter().find(|claim| claim.key == key)?;
            Some((Owner::Changed(known), claim.strength))
        });
        let (mut certain, mut fallback) = (Vec::new(), Vec::new());
        for (owner, strength) in in_table.chain(changed) {
            let of_its_strength = match strength {
                Strength::Certain => &mut certain,
                Strength::Fallback => &mut fallback,
            };
            // Two slots of one entry may look alike.
            if !of_its_strength.iter().any(|other: &Owner<'_>| other.is(owner)) {
                of_its_strength.push(owner);
            }
        }
        known::owning(certain, fallback, |owner| self.is_somebody(*owner))
    }

    fn is_somebody(&self, owner: Owner<'_>) -> bool {
        match owner {
            Owner::InTable(entry) => !matches!(self.table.means(entry), Means::Clear { kind: Kind::NoMailbox, .. }),
            Owner::Changed(known) => known.is_somebody(),
        }
    }

    /// The number of entries that own the address with this key.
    #[must_use]
    pub fn count_owners(&self, key: &str) -> usize {
        self.owners(key).len()
    }

    /// The entries that own the address with this key.
    #[must_use]
    pub fn owned_by(&self, key: &str) -> Vec<Known> {
        self.owners(key).iter().map(|owner| self.known(*owner)).collect()
    }

    pub fn owner_ids(&self, key: &str) -> impl Iterator<Item = Id> {
        self.owners(key).into_iter().map(|owner| self.id(owner))
    }

    fn id(&self, owner: Owner<'_>) -> Id {
        match owner {
            Owner::InTable(entry) => self.table.id(entry),
            Owner::Changed(known) => known.id,
        }
    }

    fn dn(&self, owner: Owner<'_>) -> String {
        match owner {
            Owner::InTable(entry) => self.table.dn(entry),
            Owner::Changed(known) => known.dn.clone(),
        }
    }

    fn known(&self, owner: Owner<'_>) -> Known {
        match owner {
            Owner::InTable(entry) => self.table.known(entry),
            Owner::Changed(known) => known.clone(),
        }
    }
}

fn means(known: &Known) -> Means<'_> {
    match &known.meaning {
        Err(_) => Means::Unclear,
        Ok(meaning) => Means::Clear {
            kind: meaning.kind,
            target: meaning.target.as_ref().map(crate::smtp::address::Address::as_str),
            mail_server: meaning.mail_server.as_deref(),
        },
    }
}
