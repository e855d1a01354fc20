//! Finds addresses that more than one entry has, in directories whose whole content is in memory: files and snapshots
//! (DESIGN section 5, "several directories").

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::directory::known::Id;
use crate::lookup::Kind;
use crate::routing::table::{DirectoryRules, DomainSet};
use crate::smtp::domain::Domain;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    pub address: String,
    /// Its entries, in the order of the directories.
    pub entries: Vec<String>,
    /// The directory whose entry is used; `None`: the first directory with the address has it twice, so mail for it is
    /// answered 451.
    pub decides: Option<String>,
}

/// A directory whose whole content is in memory.
pub trait Listed: Send + Sync {
    /// Calls `see` with the key of every address.
    fn each(&self, see: &mut dyn FnMut(&str));

    /// The entries with the address: their kinds and names.
    fn claims(&self, key: &str) -> Vec<(Kind, String)>;

    /// The number of entries with the address; cheaper than [`claims`](Self::claims).
    fn owners(&self, key: &str) -> usize;
}

/// Such directories, in the order in which they are asked.
pub type All = [(Arc<str>, Arc<dyn Listed>)];

/// Up to `most` conflicts, in alphabetical order. `rules` have the domains that each directory is asked about.
#[must_use]
pub fn find(all: &All, rules: &[DirectoryRules], most: usize) -> Vec<Conflict> {
    let mut found: BTreeMap<String, Conflict> = BTreeMap::new();
    each(all, rules, |key, Judged { entries, decides, .. }| {
        // There may be a million of them.
        if found.len() >= most && found.last_key_value().is_none_or(|(last, _)| key > last.as_str()) {
            return;
        }
        found.insert(key.to_owned(), Conflict { address: key.to_owned(), entries, decides });
        if found.len() > most {
            found.pop_last();
        }
    });
    found.into_values().collect()
}

/// The number of conflicts by directory. Each is counted for one: the one that has the address twice, or else the
/// second that has it.
#[must_use]
pub fn count(all: &All, rules: &[DirectoryRules]) -> Vec<usize> {
    let mut counts = vec![0; all.len()];
    each(all, rules, |_, judged| counts[judged.counts_for] += 1);
    counts
}

/// Calls `see` once for each conflict.
fn each(all: &All, rules: &[DirectoryRules], mut see: impl FnMut(&str, Judged)) {
    for (at, (_, own)) in all.iter().enumerate() {
        // An entry may list an address that another entry owns.
        let mut seen = HashSet::new();
        own.each(&mut |key| {
            // Nearly all addresses are done with after this check.
            let twice = own.owners(key) > 1;
            if !twice && !all[..at].iter().any(|(_, before)| before.owners(key) > 0) {
                return;
            }
            let judged = judge(all, rules, key).filter(|judged| judged.counts_for == at);
            if let Some(judged) = judged.filter(|_| seen.insert(Id::of(key.as_bytes()))) {
                see(key, judged);
            }
        });
    }
}

struct Judged {
    /// The index of the directory that it is counted for.
    counts_for: usize,
    entries: Vec<String>,
    decides: Option<String>,
}

/// One directory's entries with an address.
struct Claims {
    at: usize,
    part: Part,
    claims: Vec<(Kind, String)>,
}

/// The role of a directory for a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// It resolves the domain.
    Resolves,
    /// It is a `verify_with` only: asked about recipients that no other directory has.
    Verifies,
}

/// What counts as a conflict: more than one entry in the directories that resolve the address; in a `verify_with`,
/// which is asked only about others, more than one entry of its own.
fn judge(all: &All, rules: &[DirectoryRules], key: &str) -> Option<Judged> {
    let (_, domain) = key.rsplit_once('@')?;
    let domain = Domain::parse(domain).ok()?;
    let part = |name: &str| match &rules.iter().find(|rules| *rules.name == *name)?.domains {
        DomainSet::These(none) if none.is_empty() => Some(Part::Verifies),
        domains => domains.covers(&domain).then_some(Part::Resolves),
    };
    let claims = |(at, (name, listed)): (usize, &(Arc<str>, Arc<dyn Listed>))| {
        Some(Claims { at, part: part(name)?, claims: listed.claims(key) }).filter(|found| !found.claims.is_empty())
    };
    let (resolving, verifying): (Vec<_>, Vec<_>) =
        all.iter().enumerate().filter_map(claims).partition(|found| found.part == Part::Resolves);
    // Routing skips an entry without a mailbox as well.
    let decides = |found: &&Claims| found.claims.len() > 1 || found.claims[0].0 != Kind::NoMailbox;
    let Some(deciding) = resolving.iter().find(decides) else {
        let twice = verifying.into_iter().find(|found| found.claims.len() > 1)?;
        return Some(Judged { counts_for: twice.at, entries: entries(&[twice]), decides: None });
    };
    let counts_for = if deciding.claims.len() > 1 { deciding.at } else { resolving.get(1)?.at };
    let decides = (deciding.claims.len() == 1).then(|| all[deciding.at].0.to_string());
    Some(Judged { counts_for, entries: entries(&resolving), decides })
}

fn entries(found: &[Claims]) -> Vec<String> {
    found.iter().flat_map(|found| found.claims.iter().map(|(_, entry)| entry.clone())).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::routing::table::{DomainPattern, PlusAddressing, Proof};

    /// Entries with their address; `-` before the name marks one without a mailbox.
    struct Plain(Vec<(&'static str, &'static str)>);

    impl Listed for Plain {
        fn each(&self, see: &mut dyn FnMut(&str)) {
            self.0.iter().for_each(|(address, _)| see(address));
        }

        fn claims(&self, key: &str) -> Vec<(Kind, String)> {
            let kind = |name: &str| if name.starts_with('-') { Kind::NoMailbox } else { Kind::Mailbox };
            let own = self.0.iter().filter(|(address, _)| *address == key);
            own.map(|(_, name)| (kind(name), (*name).to_owned())).collect()
        }

        fn owners(&self, key: &str) -> usize {
            self.claims(key).len()
        }
    }

    /// `*`: all domains; empty: a `verify_with`.
    fn rules(name: &str, domains: &str) -> DirectoryRules {
        let exact = |text| DomainPattern::Exact(Domain::parse(text).unwrap());
        let these = domains.split_whitespace().filter(|text| *text != "*").map(exact).collect();
        DirectoryRules {
            name: name.into(),
            domains: if domains == "*" { DomainSet::All } else { DomainSet::These(these) },
            deliver_to: None,
            mailbox_servers: HashMap::new(),
            plus_addressing: PlusAddressing::Off,
            proof: Proof::Entry,
        }
    }

    type Entries = &'static [(&'static str, &'static str)];
    /// Domains and entries of each directory.
    type Directories = &'static [(&'static str, Entries)];
    /// Entries, the deciding directory, and the directory that it is counted for.
    type Conflicts = &'static [(&'static str, Option<&'static str>, usize)];

    #[test]
    fn what_is_found_is_what_is_counted() {
        let cases: [(&str, Directories, Conflicts); 10] = [
            ("in AD and in the file of verify_with", &[("*", &[("a@x.y", "ad")]), ("", &[("a@x.y", "theirs")])], &[]),
            ("the same the other way round", &[("", &[("a@x.y", "theirs")]), ("*", &[("a@x.y", "ad")])], &[]),
            ("twice in verify_with", &[("*", &[]), ("", &[("a@x.y", "1"), ("a@x.y", "2")])], &[("1 2", None, 1)]),
            ("but ours", &[("", &[("a@x.y", "1"), ("a@x.y", "2")]), ("*", &[("a@x.y", "ad")])], &[]),
            ("asked about another domain", &[("*", &[("a@x.y", "1")]), ("z.y", &[("a@x.y", "2")])], &[]),
            (
                "in three",
                &[("*", &[("a@x.y", "1")]), ("*", &[("a@x.y", "2")]), ("*", &[("a@x.y", "3")])],
                &[("1 2 3", Some("0"), 1)],
            ),
            (
                "twice in the second",
                &[("*", &[("a@x.y", "1")]), ("*", &[("a@x.y", "2"), ("a@x.y", "3")])],
                &[("1 2 3", Some("0"), 1)],
            ),
            (
                "without a mailbox in the first",
                &[("*", &[("a@x.y", "-1")]), ("*", &[("a@x.y", "2")])],
                &[("-1 2", Some("1"), 1)],
            ),
            ("without any", &[("*", &[("a@x.y", "-1")]), ("*", &[("a@x.y", "-2")])], &[]),
            // Keys that are not addresses, and an entry that lists one twice.
            (
                "twice in one",
                &[("*", &[("/o=x", "1"), ("/o=x", "2"), ("a@x.y", "3"), ("b@x.y", "4"), ("a@x.y", "5")])],
                &[("3 5", None, 0)],
            ),
        ];
        for (what, directories, expected) in cases {
            let named = |(at, (domains, entries)): (usize, &(&str, Entries))| {
                let listed: Arc<dyn Listed> = Arc::new(Plain(entries.to_vec()));
                ((Arc::from(at.to_string()), listed), rules(&at.to_string(), domains))
            };
            let (all, rules): (Vec<_>, Vec<_>) = directories.iter().enumerate().map(named).unzip();
            let found = find(&all, &rules, 10);
            let told: Vec<_> = found.iter().map(|one| (one.entries.join(" "), one.decides.as_deref())).collect();
            let expects: Vec<_> =
                expected.iter().map(|(entries, decides, _)| ((*entries).to_owned(), *decides)).collect();
            assert_eq!(told, expects, "{what}");
            let counts = count(&all, &rules);
            assert_eq!(counts.iter().sum::<usize>(), found.len(), "{what}");
            expected.iter().for_each(|(_, _, at)| assert_eq!(counts[*at], 1, "{what}"));
        }
    }

    #[test]
    fn the_first_in_the_alphabet_are_listed() {
        let twice: Vec<_> =
            ["c@x.y", "a@x.y", "d@x.y", "b@x.y"].iter().flat_map(|key| [(*key, "1"), (*key, "2")]).collect();
        let all: Vec<(Arc<str>, Arc<dyn Listed>)> = vec![("0".into(), Arc::new(Plain(twice)))];
        for (most, listed) in [(0, &[][..]), (2, &["a@x.y", "b@x.y"]), (9, &["a@x.y", "b@x.y", "c@x.y", "d@x.y"])] {
            let found = find(&all, &[rules("0", "*")], most);
            assert_eq!(found.iter().map(|one| &*one.address).collect::<Vec<_>>(), listed, "{most}");
        }
    }
}
