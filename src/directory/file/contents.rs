//! What a directory file says: its entries, checked, and found by address.
//!
//! Kept small, for a million recipients: names of connectors and servers are shared, a [`Recipient`] is made for an
//! answer only.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{read_csv, read_list, read_toml};
use crate::directory::conflicts::Listed;
use crate::directory::known;
use crate::directory::profile::other_kind;
use crate::fast_map::FastMap;
use crate::recipient::{Kind, Lookup, Recipient};
use crate::smtp::address::Address;
use crate::smtp::domain::Domain;

/// The fields of an entry besides its addresses, in either form of the file.
pub(super) const FIELDS: [&str; 4] = ["kind", "target", "mail_server", "send_connector"];

/// An entry as written: texts, each with its line.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) line: usize,
    pub(super) addresses: Vec<(usize, String)>,
    /// By the position of the field's name in [`FIELDS`].
    pub(super) fields: [Option<(usize, String)>; 4],
}

/// Something wrong with one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) line: usize,
    pub(super) message: String,
}

/// The checked contents of one file.
#[derive(Debug, Default)]
pub(super) struct Contents {
    path: PathBuf,
    entries: Vec<Entry>,
    by_key: FastMap<Box<str>, u32>,
    /// Addresses that several entries claim, with all of them.
    ambiguous: FastMap<Box<str>, Vec<u32>>,
}

#[derive(Debug)]
struct Entry {
    line: u32,
    kind: Kind,
    target: Option<Box<Address>>,
    mail_server: Option<Arc<str>>,
    send_connector: Option<Arc<str>>,
}

impl Contents {
    /// Reads and checks a file; `.toml`, `.csv` and `.txt` say its form. What is written without a domain gets the
    /// default one.
    pub(super) fn read(path: &Path, default_domain: Option<&Domain>) -> Result<Self, Vec<String>> {
        let whole = |message: &str| vec![format!("{}: {message}", path.display())];
        let octets = std::fs::read(path)
            .map_err(|error| whole(&format!("cannot be read: {error}; check the path and its rights")))?;
        let text = String::from_utf8(octets).map_err(|error| whole(not_utf8(error.as_bytes())))?;
        // Spreadsheets write a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
        let (written, problems) = match extension.as_deref().and_then(|extension| extension.to_str()) {
            Some("toml") => read_toml::read(text),
            Some("csv") => read_csv::read(text),
            Some("txt") => (read_list::read(text), Vec::new()),
            _ => return Err(whole("is neither .toml, .csv nor .txt; rename it to what it is")),
        };
        Self::check(path, written, problems, default_domain).map_err(|mut problems| {
            problems.sort_by_key(|problem| problem.line);
            problems.into_iter().map(|p| format!("{}:{}: {}", path.display(), p.line, p.message)).collect()
        })
    }

    /// Checks every entry, so that all problems are told at once.
    fn check(
        path: &Path,
        written: Vec<Written>,
        mut problems: Vec<Problem>,
        default_domain: Option<&Domain>,
    ) -> Result<Self, Vec<Problem>> {
        let mut contents = Self { path: path.to_owned(), ..Self::default() };
        let mut names = HashSet::new();
        for entry in written {
            let keys = keys(&entry, default_domain, &mut problems);
            match Entry::check(&entry, &mut names) {
                Ok(entry) => contents.insert(entry, keys),
                Err(wrong) => problems.extend(wrong),
            }
        }
        if problems.is_empty() { Ok(contents) } else { Err(problems) }
    }

    fn insert(&mut self, entry: Entry, keys: Vec<Box<str>>) {
        let Ok(index) = u32::try_from(self.entries.len()) else { return };
        self.entries.push(entry);
        for key in keys {
            match self.by_key.get(&key) {
                None => {
                    self.by_key.insert(key, index);
                }
                // The same address twice in one entry is one claim.
                Some(&first) if first == index => {}
                Some(&first) => {
                    let claims = self.ambiguous.entry(key).or_insert_with(|| vec![first]);
                    if claims.last() != Some(&index) {
                        claims.push(index);
                    }
                }
            }
        }
    }

    /// What the file says of the address.
    pub(super) fn lookup(&self, address: &Address) -> Lookup {
        let owner = match self.ambiguous.get(address.key()).map(|claims| self.owning(claims)).as_deref() {
            Some([one]) => Some(*one),
            Some(owners) => return Lookup::Ambiguous(owners.iter().filter_map(|&index| self.name(index)).collect()),
            None => self.by_key.get(address.key()).copied(),
        };
        let found = owner.and_then(|index| Some((self.entry(index)?, self.name(index)?)));
        match found {
            None => Lookup::NotFound,
            Some((entry, name)) => Lookup::Found(Arc::new(Recipient {
                kind: entry.kind,
                target: entry.target.as_deref().cloned(),
                mail_server: entry.mail_server.clone(),
                send_connector: entry.send_connector.clone(),
                entry: name.into(),
                rule: ["kind = \"", entry.kind.as_str(), "\""].concat().into(),
            })),
        }
    }

    /// Who owns an address of those that claim it.
    fn owning(&self, claims: &[u32]) -> Vec<u32> {
        let is_somebody = |index: &u32| self.entry(*index).is_some_and(|entry| entry.kind != Kind::NoMailbox);
        known::owning(claims.to_vec(), Vec::new(), is_somebody)
    }

    fn entry(&self, index: u32) -> Option<&Entry> {
        self.entries.get(usize::try_from(index).ok()?)
    }

    fn name(&self, index: u32) -> Option<String> {
        Some(format!("{}:{}", self.path.display(), self.entry(index)?.line))
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many entries of that kind there are.
    pub(super) fn count(&self, kind: Kind) -> usize {
        self.entries.iter().filter(|entry| entry.kind == kind).count()
    }
}

impl Listed for Contents {
    fn each(&self, see: &mut dyn FnMut(&str)) {
        self.by_key.keys().for_each(|key| see(key));
    }

    fn claims(&self, key: &str) -> Vec<(Kind, String)> {
        let claims = self.ambiguous.get(key).map(|claims| self.owning(claims));
        let only = || self.by_key.get(key).map(|only| vec![*only]);
        claims
            .or_else(only)
            .unwrap_or_default()
            .iter()
            .filter_map(|&at| Some((self.entry(at)?.kind, self.name(at)?)))
            .collect()
    }

    fn owners(&self, key: &str) -> usize {
        let only = || usize::from(self.by_key.contains_key(key));
        self.ambiguous.get(key).map_or_else(only, |claims| self.owning(claims).len())
    }
}

/// Windows writes UTF-16 where it is not told otherwise.
fn not_utf8(octets: &[u8]) -> &'static str {
    match octets {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "is UTF-16; write it in UTF-8, in PowerShell by -Encoding UTF8",
        _ => "is not UTF-8; write it in UTF-8",
    }
}

/// The keys of an entry's addresses.
fn keys(entry: &Written, default_domain: Option<&Domain>, problems: &mut Vec<Problem>) -> Vec<Box<str>> {
    let mut keys = Vec::with_capacity(entry.addresses.len());
    for (line, text) in &entry.addresses {
        let parsed = match default_domain.filter(|_| !text.contains('@')) {
            Some(domain) => Address::parse(&format!("{text}@{domain}")),
            None => Address::parse(text),
        };
        match parsed {
            Ok(address) => keys.push(address.key().into()),
            Err(error) => {
                let advice = if text.contains('@') { "" } else { ", or `default_domain` in the directory" };
                let message = format!("`{text}` is not an address: {error}; write local@domain{advice}");
                problems.push(Problem { line: *line, message });
            }
        }
    }
    if entry.addresses.is_empty() {
        problems.push(Problem { line: entry.line, message: "an entry without an address; write address".to_owned() });
    }
    keys
}

impl Entry {
    /// Checks all but the addresses. `names` are the names of servers and connectors seen so far.
    fn check(written: &Written, names: &mut HashSet<Arc<str>>) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let [kind, target, mail_server, send_connector] = &written.fields;
        let kind = kind.as_ref().map_or(Ok(Kind::Mailbox), |(line, text)| parse_kind(text, *line));
        let target = target.as_ref().map(|(line, text)| match Address::parse(text) {
            // Its own system has the connector for it.
            _ if other_kind(text).is_some() => Ok((*line, None)),
            Ok(target) => Ok((*line, Some(target))),
            Err(error) => Err(Problem {
                line: *line,
                message: format!("target `{text}` is not an address: {error}; write local@domain"),
            }),
        });
        match (&kind, &target) {
            (Ok(kind @ (Kind::MailUser | Kind::Contact)), None) => problems.push(Problem {
                line: written.line,
                message: format!("a {} without a target; write target", kind.as_str()),
            }),
            (Ok(Kind::Mailbox | Kind::Group | Kind::PublicFolder | Kind::NoMailbox), Some(Ok((line, _)))) => {
                let message = "only a mail-user or a contact has a target; write kind, or remove target";
                problems.push(Problem { line: *line, message: message.to_owned() });
            }
            _ => {}
        }
        let mut name = |field: &Option<(usize, String)>| field.as_ref().map(|(_, text)| shared(names, text));
        let server = mail_server.as_ref().map(|(line, text)| (*line, text.to_lowercase()));
        let (mail_server, send_connector) = (name(&server), name(send_connector));
        match (kind, target.transpose()) {
            (Ok(kind), Ok(target)) if problems.is_empty() => {
                let target = target.and_then(|(_, target)| target).map(Box::new);
                let line = u32::try_from(written.line).unwrap_or(u32::MAX);
                Ok(Self { line, kind, target, mail_server, send_connector })
            }
            (kind, target) => {
                problems.extend(kind.err().into_iter().chain(target.err()));
                Err(problems)
            }
        }
    }
}

fn parse_kind(text: &str, line: usize) -> Result<Kind, Problem> {
    let known = Kind::ALL.into_iter().find(|kind| kind.as_str() == text);
    known.ok_or_else(|| {
        let known = Kind::ALL.map(Kind::as_str).join(", ");
        Problem { line, message: format!("`{text}` is not a kind; write one of {known}") }
    })
}

fn shared(names: &mut HashSet<Arc<str>>, text: &str) -> Arc<str> {
    if let Some(known) = names.get(text) {
        return Arc::clone(known);
    }
    let name: Arc<str> = text.into();
    names.insert(Arc::clone(&name));
    name
}

/// Where the lines of a text begin.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// The line, from 1, that holds the octet at `at`.
    pub(super) fn line(&self, at: usize) -> usize {
        self.0.partition_point(|start| *start <= at)
    }
}

#[cfg(test)]
mod export_tests;
#[cfg(test)]
mod tests;
