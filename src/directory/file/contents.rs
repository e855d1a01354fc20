//! The entries of a directory file, checked and indexed by address.
//!
//! `addresses` keeps a million recipients compact; a [`Recipient`] is made only for an answer.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::addresses::{Addresses, Builder, Found, Meaning, Owners};
use super::{read_csv, read_list, read_toml};
use crate::directory::conflicts::Listed;
use crate::directory::known;
use crate::directory::profile::other_kind;
use crate::lookup::{Kind, Lookup, Recipient};
use crate::smtp::address::Address;
use crate::smtp::domain::Domain;

/// The fields of an entry besides its addresses, in every format.
pub(super) const FIELDS: [&str; 4] = ["kind", "target", "mail_server", "send_connector"];

/// An entry as written: texts with their lines.
#[derive(Debug, Default)]
pub(super) struct RawEntry {
    pub(super) line: usize,
    pub(super) addresses: Vec<(usize, String)>,
    /// By index in [`FIELDS`].
    pub(super) fields: [Option<(usize, String)>; 4],
}

/// A fault in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) line: usize,
    pub(super) message: String,
}

/// The checked content of one file.
#[derive(Debug, Default)]
pub(super) struct Contents {
    path: PathBuf,
    addresses: Addresses,
}

impl Contents {
    /// Reads and checks a file; the extension (`.toml`, `.csv`, `.txt`) tells its format. Addresses without a domain
    /// get the default one.
    pub(super) fn read(path: &Path, default_domain: Option<&Domain>) -> Result<Self, Vec<String>> {
        let whole = |message: &str| vec![format!("{}: {message}", path.display())];
        let octets = std::fs::read(path)
            .map_err(|error| whole(&format!("cannot be read: {error}; check the path and its rights")))?;
        let text = String::from_utf8(octets).map_err(|error| whole(not_utf8(error.as_bytes())))?;
        // Spreadsheets write a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
        let mut reading = Reading::new(text.len(), default_domain);
        // Each entry is indexed as it is read: a million parsed entries would take many times the memory.
        let mut take = |entry| reading.take(&entry);
        let wrong = match extension.as_deref().and_then(|extension| extension.to_str()) {
            Some("toml") => read_toml::read(text, &mut take),
            Some("csv") => read_csv::read(text, &mut take),
            Some("txt") => {
                read_list::read(text, &mut take);
                Vec::new()
            }
            _ => return Err(whole("is neither .toml, .csv nor .txt; rename it to what it is")),
        };
        let Reading { builder, mut problems, too_large, .. } = reading;
        if too_large {
            return Err(whole("has more than 4 GiB of addresses; divide it"));
        }
        problems.extend(wrong);
        if problems.is_empty() {
            return Ok(Self { path: path.to_owned(), addresses: builder.finish() });
        }
        problems.sort_by_key(|problem| problem.line);
        Err(problems.into_iter().map(|p| format!("{}:{}: {}", path.display(), p.line, p.message)).collect())
    }

    pub(super) fn lookup(&self, address: &Address) -> Lookup {
        let number = match self.owning(address.key())[..] {
            [] => return Lookup::NotFound,
            [number] => number,
            ref all => return Lookup::Ambiguous(all.iter().filter_map(|number| self.name(*number)).collect()),
        };
        match (self.addresses.entry(number), self.name(number)) {
            (Some(Found { meaning, target, .. }), Some(name)) => Lookup::Found(Arc::new(Recipient {
                kind: meaning.kind,
                target: target.and_then(|target| Address::parse(target).ok()),
                mail_server: meaning.mail_server.clone(),
                send_connector: meaning.send_connector.clone(),
                entry: name.into(),
                rule: ["kind = \"", meaning.kind.as_str(), "\""].concat().into(),
            })),
            _ => Lookup::NotFound,
        }
    }

    /// The entries that own an address, of those that have it.
    fn owning(&self, key: &str) -> Vec<u32> {
        let kind = |number: u32| self.addresses.entry(number).map(|entry| entry.meaning.kind);
        match self.addresses.owners(key) {
            Owners::Nobody => Vec::new(),
            Owners::One(number) => vec![number],
            Owners::Several(all) => {
                known::owning(all.to_vec(), Vec::new(), |number| kind(*number) != Some(Kind::NoMailbox))
            }
        }
    }

    fn name(&self, number: u32) -> Option<String> {
        Some(format!("{}:{}", self.path.display(), self.addresses.entry(number)?.line))
    }

    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.addresses.len()
    }

    /// The number of entries of this kind.
    pub(super) fn count(&self, kind: Kind) -> usize {
        self.addresses.count(kind)
    }
}

impl Listed for Contents {
    fn each(&self, see: &mut dyn FnMut(&str)) {
        self.addresses.keys().for_each(see);
    }

    fn claims(&self, key: &str) -> Vec<(Kind, String)> {
        let one = |number: u32| Some((self.addresses.entry(number)?.meaning.kind, self.name(number)?));
        self.owning(key).into_iter().filter_map(one).collect()
    }

    fn owners(&self, key: &str) -> usize {
        self.owning(key).len()
    }
}

/// A file that is being read. Every entry is checked, so that all faults are reported together.
struct Reading<'a> {
    builder: Builder,
    default_domain: Option<&'a Domain>,
    /// Names of servers and connectors so far.
    names: HashSet<Arc<str>>,
    problems: Vec<Problem>,
    too_large: bool,
}

impl<'a> Reading<'a> {
    fn new(octets: usize, default_domain: Option<&'a Domain>) -> Self {
        let builder = Builder::with_room(octets);
        Self { builder, default_domain, names: HashSet::new(), problems: Vec::new(), too_large: false }
    }

    fn take(&mut self, written: &RawEntry) {
        let keys = keys(written, self.default_domain, &mut self.problems);
        match checked(written, &mut self.names) {
            // If there is a fault, nothing of the file is used.
            Ok(_) if !self.problems.is_empty() => {}
            Ok((meaning, target)) => {
                let line = u32::try_from(written.line).unwrap_or(u32::MAX);
                let target = target.as_ref().map(Address::as_str);
                self.too_large |= self.builder.add(line, meaning, target, &keys).is_err();
            }
            Err(wrong) => self.problems.extend(wrong),
        }
    }
}

/// Windows tools write UTF-16 by default.
fn not_utf8(octets: &[u8]) -> &'static str {
    match octets {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "is UTF-16; write it in UTF-8, in PowerShell by -Encoding UTF8",
        _ => "is not UTF-8; write it in UTF-8",
    }
}

/// The keys of an entry's addresses.
fn keys(entry: &RawEntry, default_domain: Option<&Domain>, problems: &mut Vec<Problem>) -> Vec<Box<str>> {
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

/// Checks everything but the addresses; returns the entry's properties and target. `names` are the names of servers and
/// connectors so far.
fn checked(written: &RawEntry, names: &mut HashSet<Arc<str>>) -> Result<(Meaning, Option<Address>), Vec<Problem>> {
    let mut problems = Vec::new();
    let [kind, target, mail_server, send_connector] = &written.fields;
    let kind = kind.as_ref().map_or(Ok(Kind::Mailbox), |(line, text)| parse_kind(text, *line));
    let target = target.as_ref().map(|(line, text)| match Address::parse(text) {
        // The organisation's own system has a connector for it.
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
            Ok((Meaning { kind, mail_server, send_connector }, target.and_then(|(_, target)| target)))
        }
        (kind, target) => {
            problems.extend(kind.err().into_iter().chain(target.err()));
            Err(problems)
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

/// The offsets of a text's lines.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// The line, from 1, with the octet at `at`.
    pub(super) fn line(&self, at: usize) -> usize {
        self.0.partition_point(|start| *start <= at)
    }
}

#[cfg(test)]
mod export_tests;
#[cfg(test)]
mod tests;
