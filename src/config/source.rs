//! The files of a configuration, places in them, and problems found there.
//! `file` reads sources and `reader` records places; every problem has a [`Location`]. [`render`] formats problems as
//! compilers do. Problems are shown, logged and kept for `status`, so a line with a password, which should not be
//! there, is cut off before it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A fault of a configuration: where it is, what is wrong, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: PathBuf,
    /// From 1; 0: the whole file.
    pub line: usize,
    pub text: String,
    /// What is wrong and what to do: one line, in lower case.
    pub message: String,
}

/// `FILE:LINE: message`, for a log.
impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.message),
            line => write!(f, "{}:{line}: {}", self.file.display(), self.message),
        }
    }
}

/// Formats problems for people: `FILE:LINE: message`, and the line below it.
#[must_use]
pub fn render(problems: &[Problem]) -> String {
    let mut out = String::new();
    for problem in problems {
        // Writing to a String cannot fail.
        let _ = match problem.line {
            0 => writeln!(out, "{problem}"),
            line => writeln!(out, "{problem}\n{line:>5} | {}", problem.text),
        };
    }
    out
}

/// A file as it was read.
#[derive(Debug)]
pub(super) struct Source {
    /// Its index among the files read.
    pub(super) index: usize,
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl Source {
    /// The folder that relative paths in it are relative to.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }
}

/// A place in a source: an offset, or the whole file.
#[derive(Debug, Clone)]
pub(super) struct Location {
    source: Arc<Source>,
    offset: Option<usize>,
}

impl Location {
    pub(super) fn whole(source: &Arc<Source>) -> Self {
        Self { source: source.clone(), offset: None }
    }

    pub(super) fn new(source: &Arc<Source>, offset: usize) -> Self {
        Self { source: source.clone(), offset: Some(offset) }
    }

    /// From 1; 0: the whole file.
    fn line(&self) -> usize {
        let before = |offset: usize| self.source.text.as_bytes().get(..offset).unwrap_or_default();
        self.offset.map_or(0, |offset| 1 + before(offset).iter().filter(|byte| **byte == b'\n').count())
    }

    fn problem(&self, message: String) -> Problem {
        let line = self.line();
        let text = line.checked_sub(1).and_then(|at| self.source.text.lines().nth(at)).unwrap_or_default();
        Problem { file: self.source.path.clone(), line, text: without_secrets(text), message }
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = self.source.path.display();
        match self.line() {
            0 => write!(f, "{file}"),
            line => write!(f, "{file}:{line}"),
        }
    }
}

/// The line without the value of a key that looks like a secret's.
fn without_secrets(line: &str) -> String {
    let line = line.trim_end();
    for (at, _) in line.match_indices('=') {
        let key = line[..at].trim_end().trim_end_matches(['"', '\'']).to_ascii_lowercase();
        if ["password", "passwd", "pass", "pw", "secret", "token"].iter().any(|secret| key.ends_with(secret)) {
            return format!("{} [hidden]", &line[..=at]);
        }
    }
    line.to_owned()
}

/// Problems in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<(Location, String)>);

impl Problems {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Drops the problems after the first `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    pub(super) fn add(&mut self, place: impl std::borrow::Borrow<Location>, message: impl Into<String>) {
        self.0.push((place.borrow().clone(), message.into()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, sorted by file and line.
    pub(super) fn into_sorted(mut self) -> Vec<Problem> {
        self.0.sort_by_key(|(place, _)| (place.source.index, place.offset));
        self.0.into_iter().map(|(place, message)| place.problem(message)).collect()
    }
}

/// Where a table and its keys are written. Compact, since there may be a hundred thousand.
#[derive(Debug)]
pub(super) struct Places {
    table: Location,
    /// Offsets of keys, sorted by key.
    keys: Box<[(Box<str>, usize)]>,
}

impl Places {
    /// For an absent table.
    pub(super) fn none(source: &Arc<Source>) -> Self {
        Self { table: Location::whole(source), keys: Box::default() }
    }

    /// For a table at `place`.
    pub(super) fn new(place: Location, table: &DeTable<'_>) -> Self {
        Self::in_part(place, 0, table)
    }

    /// For a table that was read from a part of the source that begins at `start`.
    pub(super) fn in_part(place: Location, start: usize, table: &DeTable<'_>) -> Self {
        let mut keys = Vec::new();
        note_table(&mut keys, start, "", table);
        keys.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Self { table: place, keys: keys.into() }
    }

    /// The table's own keys only.
    pub(super) fn of_keys(place: Location, table: &DeTable<'_>) -> Self {
        let mut keys: Vec<_> = table.keys().map(|key| (Box::from(&**key.get_ref()), key.span().start)).collect();
        keys.sort_unstable_by(|(one, _): &(Box<str>, usize), (other, _)| one.cmp(other));
        Self { table: place, keys: keys.into() }
    }

    fn get(&self, key: &str) -> Option<Location> {
        let at = self.keys.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
        Some(Location::new(&self.table.source, self.keys.get(at)?.1))
    }

    /// Whether the key is written: `tls`, `tls.mode`, `smart_hosts[1]`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Like [`Places::at`], for a key in any case.
    pub(super) fn at_any_case(&self, key: &str) -> Location {
        let same = |(written, _): &&(Box<str>, usize)| written.to_lowercase() == key.to_lowercase();
        let found = self.keys.iter().find(same);
        found.map_or_else(|| self.at(key), |(_, offset)| Location::new(&self.table.source, *offset))
    }

    /// Where the key is written; if it is not, where its table is.
    pub(super) fn at(&self, key: &str) -> Location {
        let mut key = key;
        loop {
            if let Some(place) = self.get(key) {
                return place;
            }
            let Some(end) = key.rfind(['.', '[']) else { return self.table.clone() };
            key = &key[..end];
        }
    }

    pub(super) fn source(&self) -> &Arc<Source> {
        &self.table.source
    }
}

fn note_table(keys: &mut Vec<(Box<str>, usize)>, start: usize, prefix: &str, table: &DeTable<'_>) {
    for (key, value) in table {
        let path = format!("{prefix}{}", key.get_ref());
        keys.push((path.as_str().into(), start + key.span().start));
        note_value(keys, start, &path, value);
    }
}

fn note_value(keys: &mut Vec<(Box<str>, usize)>, start: usize, path: &str, value: &Spanned<DeValue<'_>>) {
    match value.get_ref() {
        DeValue::Table(table) => note_table(keys, start, &format!("{path}."), table),
        DeValue::Array(array) => {
            for (at, element) in array.iter().enumerate() {
                let path = format!("{path}[{at}]");
                keys.push((path.as_str().into(), start + element.span().start));
                note_value(keys, start, &path, element);
            }
        }
        _ => {}
    }
}

/// A table and its places.
#[derive(Debug)]
pub(super) struct Item<T> {
    pub(super) used: T,
    pub(super) places: Places,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (line, shown) in [
            ("password = \"hunter2\"", "password = [hidden]"),
            ("auth = { username = \"u\", \"Password\"=\"x\" }", "auth = { username = \"u\", \"Password\"= [hidden]"),
            ("password_file = \"pw\"", "password_file = \"pw\""),
            ("bind_pw=hunter2", "bind_pw= [hidden]"),
        ] {
            assert_eq!(without_secrets(line), shown);
        }
    }

    #[test]
    fn places_fall_back_to_what_holds_them() {
        let text = "a = 1\nb = { c = 2, d = [\n  3,\n  4,\n] }\n".to_owned();
        let source = Arc::new(Source { index: 0, path: "/x/y.toml".into(), text });
        let table = DeTable::parse(&source.text).unwrap();
        let places = Places::new(Location::whole(&source), table.get_ref());
        for (key, line) in [("a", 1), ("b.c", 2), ("b.d[1]", 4), ("b.d[7]", 2), ("b.x", 2), ("x", 0)] {
            assert_eq!(places.at(key).line(), line, "{key}");
        }
        assert!(places.has("b.d[0]") && !places.has("b.d[2]"));
        assert_eq!(source.folder(), Path::new("/x"));
    }

    /// docs/performance.md: 100,000 accepted domains are reloaded within 200 MiB.
    #[test]
    fn a_domain_takes_little_more_than_its_keys() {
        let text = "domain = \"a.example\"\ntype = \"authoritative\"\ndeliver_to = \"exchange\"\n".to_owned();
        let source = Arc::new(Source { index: 0, path: "/x/y.toml".into(), text });
        let table = DeTable::parse(&source.text).unwrap();
        let places = Places::new(Location::whole(&source), table.get_ref());
        let keys = places.keys.iter().map(|(key, _)| size_of::<(Box<str>, usize)>() + key.len());
        let octets = size_of::<Places>() + keys.sum::<usize>();
        assert!(octets <= 160, "{octets}");
    }

    #[test]
    fn problems_are_sorted_and_rendered() {
        let source = Arc::new(Source { index: 0, path: "/x.toml".into(), text: "a = 1\nb = 2\n".into() });
        let mut problems = Problems::default();
        problems.add(Location::new(&source, 6), "`b` is wrong");
        problems.add(Location::whole(&source), "there is no `c`");
        problems.add(Location::new(&source, 0), "`a` is wrong");
        let expected = "/x.toml: there is no `c`\n/x.toml:1: `a` is wrong\n    1 | a = 1\n\
                        /x.toml:2: `b` is wrong\n    2 | b = 2\n";
        assert_eq!(render(&problems.into_sorted()), expected);
    }
}
