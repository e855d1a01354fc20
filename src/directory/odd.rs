//! Counts and describes odd entries: those that contradict themselves, or lack attributes that similar entries have
//! (DESIGN section 5, "doubt is temporary"). Pure; time is an argument.
//!
//! `profile` describes what is odd about an entry, with the same text for similar entries; `ldap` and `snapshot` count
//! by that text.

use std::collections::BTreeMap;
use std::time::Duration;

use super::known::{Id, Known};
use crate::fast_map::FastMap;
use crate::time::UnixTime;

/// The most odd entries that are remembered where a directory is asked for each recipient.
const MOST: usize = 10_000;
/// An entry that was not met for this long is forgotten.
const COUNTS: Duration = Duration::from_hours(24);
/// The most groups that are logged individually.
const MOST_TOLD: usize = 20;

const ONE: &str = "an entry ";
const LACKS: &str = " without ";
const CURE: &str = ": may the bind account read it?";
/// Separates the common part of a text from what differs between entries.
const OWN: &str = ": `";

/// The number of odd entries by their common text.
pub type Groups = BTreeMap<String, usize>;

/// The text for an entry that lacks an attribute, or whose attribute may not be read: `of type RemoteUserMailbox`,
/// `targetAddress`.
#[must_use]
pub fn lacks(like: &str, attribute: &str) -> String {
    format!("{ONE}{like}{LACKS}{attribute}{CURE}")
}

/// Whether a text is one of [`lacks`].
#[must_use]
pub fn is_lack(text: &str) -> bool {
    text.starts_with(ONE) && text.ends_with(CURE)
}

/// Whether the reason of an unavailable answer is such a text, about the probe or the entry.
#[must_use]
pub fn is_for_a_lack(reason: &str) -> bool {
    reason.ends_with(CURE)
}

/// Whether the entry lacks its addresses.
#[must_use]
pub fn lacks_addresses(text: &str) -> bool {
    is_lack(text) && text.ends_with(&format!("{LACKS}proxyAddresses{CURE}"))
}

/// The common part of an entry's text.
#[must_use]
pub fn group(text: &str) -> &str {
    text.split(OWN).next().unwrap_or(text)
}

/// A group with its number, for the log and `check --connect`. `reader` is the account that reads the directory.
#[must_use]
pub fn told(group: &str, count: usize, reader: &str) -> String {
    let (entries, have) = if count == 1 { ("entry", "has") } else { ("entries", "have") };
    let lack = group.strip_prefix(ONE).and_then(|rest| rest.strip_suffix(CURE)).and_then(|rest| rest.split_once(LACKS));
    match lack {
        Some((like, attribute)) => {
            let reader = if reader.is_empty() { "anonymous" } else { reader };
            format!("{count} {entries} {like} {have} no {attribute}: may {reader} read it?")
        }
        None => format!("{count} {entries}: {group}"),
    }
}

impl Known {
    /// What is odd about it; `None`: nothing.
    #[must_use]
    pub fn odd(&self) -> Option<&str> {
        match &self.meaning {
            Ok(meaning) => meaning.at_odds.as_deref(),
            Err(cause) => Some(cause),
        }
    }
}

/// The odd entries that were met in a directory that is asked for each recipient.
#[derive(Debug, Default)]
pub struct Met(FastMap<Id, (String, UnixTime)>);

impl Met {
    /// An entry was met. Returns whether the counts change.
    pub fn note(&mut self, known: &Known, now: UnixTime) -> bool {
        let Some(odd) = known.odd() else { return self.0.remove(&known.id).is_some() };
        let known_before = self.0.contains_key(&known.id);
        if !known_before && self.0.len() >= MOST {
            self.forget(now);
            if self.0.len() >= MOST {
                return false;
            }
        }
        self.0.insert(known.id, (group(odd).to_owned(), now));
        !known_before
    }

    /// Forgets entries that were not met lately. Returns whether there were some.
    pub fn forget(&mut self, now: UnixTime) -> bool {
        let before = self.0.len();
        self.0.retain(|_, (_, at)| now.since(*at) < COUNTS);
        before != self.0.len()
    }

    /// The number of entries by their common text.
    #[must_use]
    pub fn groups(&self) -> Groups {
        let mut groups = Groups::new();
        self.0.values().for_each(|(group, _)| *groups.entry(group.clone()).or_default() += 1);
        groups
    }
}

/// The groups that were logged, so that they are logged again only when they have grown.
#[derive(Debug, Default)]
pub struct Telling(Groups);

impl Telling {
    /// The groups that are new, or at least twice as large as when they were last logged.
    pub fn news(&mut self, now: &Groups) -> Vec<(String, usize)> {
        self.0.retain(|group, _| now.contains_key(group));
        let told = |(group, count): &(&String, &usize)| self.0.get(*group).is_none_or(|told| **count >= told * 2);
        let news: Vec<(String, usize)> =
            now.iter().filter(told).take(MOST_TOLD).map(|(group, count)| (group.clone(), *count)).collect();
        self.0.extend(news.iter().cloned());
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(id: u64, cause: &str) -> Known {
        let meaning =
            if cause.is_empty() { Ok(crate::directory::known::tests::mailbox()) } else { Err(cause.to_owned()) };
        Known { id: Id(id), dn: format!("CN={id}"), claims: Vec::new(), meaning }
    }

    #[test]
    fn a_lack_is_told_with_attribute_number_and_account() {
        let remote = lacks("of type RemoteUserMailbox", "targetAddress");
        assert!(is_lack(&remote));
        for (text, count, expected) in [
            (&*remote, 37, "37 entries of type RemoteUserMailbox have no targetAddress: may CN=fingerpost read it?"),
            (&remote, 1, "1 entry of type RemoteUserMailbox has no targetAddress: may CN=fingerpost read it?"),
            ("type UserMailbox with a targetAddress", 2, "2 entries: type UserMailbox with a targetAddress"),
            ("targetAddress is no SMTP address: `x`: why", 1, "1 entry: targetAddress is no SMTP address"),
        ] {
            assert_eq!(told(group(text), count, "CN=fingerpost"), expected);
        }
        assert!(told(&remote, 1, "").ends_with("may anonymous read it?"));
    }

    #[test]
    fn those_that_were_met_count_once_until_they_are_well_or_forgotten() {
        let (mut met, start) = (Met::default(), UnixTime(1_000_000));
        let bad = |value: &str| format!("targetAddress is no SMTP address: `{value}`: why");
        assert!(met.note(&known(1, &bad("x")), start));
        assert!(!met.note(&known(1, &bad("y")), start));
        assert!(met.note(&known(2, &bad("z")), start));
        assert_eq!(met.groups(), Groups::from([("targetAddress is no SMTP address".to_owned(), 2)]));
        assert!(met.note(&known(1, ""), start) && !met.note(&known(1, ""), start));
        assert!(!met.forget(start) && met.forget(UnixTime(1_000_000 + 86_400)));
        assert_eq!(met.groups(), Groups::new());
        for id in 0..20_000 {
            met.note(&known(id, "odd"), start);
        }
        assert_eq!(met.groups()["odd"], MOST);
    }

    #[test]
    fn what_was_told_is_told_again_when_it_has_doubled() {
        let mut telling = Telling::default();
        let now = |count: usize| Groups::from([("odd".to_owned(), count)]);
        for (count, told) in [(3, true), (3, false), (5, false), (6, true), (2, false), (11, false), (12, true)] {
            assert_eq!(telling.news(&now(count)).len(), usize::from(told), "{count}");
        }
        assert_eq!(telling.news(&Groups::new()), []);
        assert_eq!(telling.news(&now(1)).len(), 1, "it had gone");
    }
}
