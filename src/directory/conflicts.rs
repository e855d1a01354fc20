//! Addresses that more than one entry has, as far as directories are known as a whole: files, and those kept in memory
//! (DESIGN section 5, "several directories").

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::recipient::Kind;
use crate::routing::table::DirectoryRules;
use crate::smtp::domain::Domain;

/// An address that more than one entry has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The address.
    pub address: String,
    /// Its entries, in the order in which the directories are asked.
    pub entries: Vec<String>,
    /// The directory that decides; `None`: the first that has it has it twice, so mail for it is answered 451.
    pub decides: Option<String>,
}

/// A directory that is known as a whole, as it is now.
pub trait Listed: Send + Sync {
    /// Shows every address.
    fn each(&self, see: &mut dyn FnMut(&str));

    /// The entries that have the address: what each is, and which.
    fn claims(&self, key: &str) -> Vec<(Kind, String)>;

    /// How many have it: quicker.
    fn owners(&self, key: &str) -> usize;
}

/// The directories that are known as a whole, in the order in which they are asked.
pub type All = [(Arc<str>, Arc<dyn Listed>)];

/// At most so many conflicts, in alphabetical order. `rules` say which domains each directory is asked about.
#[must_use]
pub fn find(all: &All, rules: &[DirectoryRules], most: usize) -> Vec<Conflict> {
    let mut found = Vec::new();
    for at in 0..all.len() {
        each_of(all, at, |key| found.extend(conflict(&all[..=at], rules, key)));
    }
    found.sort_by(|one, other| one.address.cmp(&other.address));
    // One that stands in three directories was found in the second and the third, which knows all of them.
    found.reverse();
    found.dedup_by(|later, kept| later.address == kept.address);
    found.reverse();
    found.truncate(most);
    found
}

/// For each directory, how many of its addresses it has twice, or one before it has too.
#[must_use]
pub fn count(all: &All) -> Vec<usize> {
    let of = |at| {
        let mut count = 0;
        each_of(all, at, |_| count += 1);
        count
    };
    (0..all.len()).map(of).collect()
}

/// Shows the addresses of a directory that it has twice, or that one before it has too; of a million hardly any.
fn each_of(all: &All, at: usize, mut see: impl FnMut(&str)) {
    let (before, own) = (&all[..at], &all[at].1);
    let mut last = String::new();
    own.each(&mut |key| {
        let twice = own.owners(key) > 1;
        if (twice || before.iter().any(|(_, other)| other.owners(key) > 0)) && last != key {
            see(key);
            key.clone_into(&mut last);
        }
    });
}

fn conflict(all: &All, rules: &[DirectoryRules], key: &str) -> Option<Conflict> {
    let (_, domain) = key.rsplit_once('@')?;
    let domain = Domain::parse(domain).ok()?;
    let resolves = |name: &str| rules.iter().any(|rules| *rules.name == *name && rules.domains.covers(&domain));
    if !resolves(&all.last()?.0) {
        return None;
    }
    let claims = all.iter().filter(|(name, _)| resolves(name)).map(|(name, listed)| (name, listed.claims(key)));
    let claims: Vec<_> = claims.filter(|(_, claims)| !claims.is_empty()).collect();
    // As routing passes over an entry without a mailbox.
    let decides = |claims: &[(Kind, String)]| claims.len() > 1 || claims[0].0 != Kind::NoMailbox;
    let (name, deciding) = claims.iter().find(|(_, claims)| decides(claims))?;
    let decides = (deciding.len() == 1).then(|| name.to_string());
    let entries: Vec<String> =
        claims.iter().flat_map(|(_, claims)| claims.iter().map(|(_, entry)| entry.clone())).collect();
    (entries.len() > 1).then(|| Conflict { address: key.to_owned(), entries, decides })
}
