//! Reads one table key by key, and collects all faults instead of stopping at the first.
//!
//! The modules of the tables (`server`, `receive_connector`, ...) read their keys with it. A key with a fault is read
//! as if it were absent, so that the rest can be checked as well; a configuration with a fault is never used.

use std::collections::HashSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::schema::{self, When};
use super::source::{Places, Problems};
use super::units;
use super::value_error::ValueError;

/// A path that begins so is in systemd's folder of credentials.
const CREDENTIALS: &str = "$CREDENTIALS_DIRECTORY/";

/// Reads one table, which may be absent.
pub(super) struct Reader<'r> {
    schema: &'static str,
    prefix: String,
    table: Option<&'r DeTable<'r>>,
    places: &'r Places,
    context: &'r mut Context,
}

/// What all readers share.
#[derive(Debug, Default)]
pub(super) struct Context {
    pub(super) problems: Problems,
    /// The value of `$CREDENTIALS_DIRECTORY`.
    pub(super) credentials: Option<PathBuf>,
    /// Looks up a variable of the environment; `None`: there is none.
    pub(super) variables: Option<fn(&str) -> Option<String>>,
    /// Names that many tables may have, each stored once.
    pub(super) names: HashSet<Arc<str>>,
}

impl<'r> Reader<'r> {
    /// Reads a table with the keys of `schema` in [`schema::TABLES`]; `None`: it is absent, which gives the defaults.
    /// Reports unknown keys.
    pub(super) fn new(
        schema: &'static str,
        table: Option<&'r DeTable<'r>>,
        places: &'r Places,
        context: &'r mut Context,
    ) -> Self {
        let mut reader = Self { schema, prefix: String::new(), table, places, context };
        reader.check_keys();
        reader
    }

    /// A table within this one; see [`Reader::new`].
    pub(super) fn inner(&mut self, schema: &'static str) -> Reader<'_> {
        let key = schema.rsplit('.').next().unwrap_or(schema);
        let table = match self.value(key) {
            None => None,
            Some(DeValue::Table(table)) => Some(table),
            Some(other) => {
                self.wrong_type(key, "a table such as { key = value }", other);
                None
            }
        };
        let prefix = format!("{}{key}.", self.prefix);
        let mut reader = Reader { schema, prefix, table, places: self.places, context: self.context };
        reader.check_keys();
        reader
    }

    fn check_keys(&mut self) {
        let Some(table) = self.table else { return };
        let known = schema::keys(self.schema);
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            let message = match known.iter().find(|known| known.name == name).map(|known| known.when) {
                Some(When::Always) => continue,
                Some(When::If { key, values, default }) => {
                    let actual = table.get(key).map_or(Some(default), |value| value.get_ref().as_str());
                    if actual.is_none_or(|actual| values.contains(&actual)) {
                        continue;
                    }
                    let values: Vec<_> = values.iter().map(|value| format!("\"{value}\"")).collect();
                    format!("only for {key} = {}; leave it out", values.join(" or "))
                }
                None => {
                    let what = if self.schema.is_empty() { "table" } else { "key" };
                    let near = nearest(name, known.iter().map(|known| known.name)).unwrap_or_default();
                    format!("unknown {what}; the nearest known {what} is `{near}`")
                }
            };
            self.problem(name, &message);
        }
    }

    /// Reports a fault of a key of this table.
    pub(super) fn problem(&mut self, key: &str, message: &str) {
        let path = format!("{}{key}", self.prefix);
        self.context.problems.add(self.places.at(&path), format!("`{path}`: {message}"));
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.places.has(&format!("{}{key}", self.prefix))
    }

    fn value(&self, key: &str) -> Option<&'r DeValue<'r>> {
        debug_assert!(schema::keys(self.schema).iter().any(|known| known.name == key), "{key} is not in the schema");
        self.table?.get(key).map(Spanned::get_ref)
    }

    fn wrong_type(&mut self, key: &str, expected: &str, found: &DeValue<'_>) {
        let article = if matches!(found.type_str(), "integer" | "array") { "an" } else { "a" };
        self.problem(key, &format!("expected {expected}, found {article} {}", found.type_str()));
    }

    /// A text, parsed by `parse`.
    pub(super) fn text<T, E: Display>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, E>) -> Option<T> {
        match self.value(key)? {
            DeValue::String(text) => parse(text).map_err(|error| self.problem(key, &error.to_string())).ok(),
            other => {
                self.wrong_type(key, "a text in quotes", other);
                None
            }
        }
    }

    /// A name that many tables may have, stored once.
    pub(super) fn shared_name(&mut self, key: &str) -> Option<Arc<str>> {
        let name = self.text(key, name)?;
        Some(self.context.names.get(&name).cloned().unwrap_or(name))
            .inspect(|name| _ = self.context.names.insert(name.clone()))
    }

    /// Like [`Reader::text`]; an empty text counts as absent.
    pub(super) fn optional<T, E: Display>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, E>) -> Option<T> {
        self.text(key, |text| if text.is_empty() { Ok(None) } else { parse(text).map(Some) }).flatten()
    }

    /// A name of our own, or a variable of the environment that has it: `$POD_NAME`. An empty text counts as absent.
    pub(super) fn name_or_variable(&mut self, key: &str) -> Option<Arc<str>> {
        let variables = self.context.variables;
        self.optional(key, |text| {
            let Some(variable) = text.strip_prefix('$') else { return name(text) };
            let value = variables.and_then(|value| value(variable));
            name(&value.ok_or_else(|| format!("the environment has no {variable}: set it, or write the name"))?)
        })
    }

    /// Reports a key that is required and absent.
    pub(super) fn require(&mut self, key: &str, why: &str) {
        if !self.has(key) {
            let missing = format!("missing; {why}");
            self.problem(key, &missing);
        }
    }

    /// Reports a list that is empty.
    pub(super) fn require_some(&mut self, key: &str, why: &str) {
        if self.has(key) && !self.has(&format!("{key}[0]")) {
            self.problem(key, &format!("empty; {why}"));
        }
    }

    /// One of several words.
    pub(super) fn choice<T: Clone>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        self.text(key, |text| match words.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(meaning.clone()),
            None => {
                let known: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                Err(format!("expected {}, found \"{text}\"", known.join(" or ")))
            }
        })
    }

    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        match self.value(key)? {
            DeValue::Boolean(flag) => Some(*flag),
            other => {
                self.wrong_type(key, "true or false", other);
                None
            }
        }
    }

    /// A whole number, at least `least`.
    pub(super) fn number<T: TryFrom<u64>>(&mut self, key: &str, least: u64) -> Option<T> {
        let expected = format!("a whole number from {least} up");
        let value = self.value(key)?;
        let DeValue::Integer(written) = value else {
            self.wrong_type(key, &expected, value);
            return None;
        };
        let number = u64::from_str_radix(written.as_str(), written.radix()).ok().filter(|number| *number >= least);
        let number = number.and_then(|number| T::try_from(number).ok());
        if number.is_none() {
            self.problem(key, &format!("expected {expected}, found {}", written.as_str()));
        }
        number
    }

    /// A number with or without a fraction, at least `least`.
    pub(super) fn fraction(&mut self, key: &str, least: f64) -> Option<f64> {
        let expected = format!("a number from {least:.1} up");
        let value = self.value(key)?;
        let written = match value {
            DeValue::Integer(number) => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            other => {
                self.wrong_type(key, &expected, other);
                return None;
            }
        };
        let number = written.parse().ok().filter(|number: &f64| number.is_finite() && *number >= least);
        if number.is_none() {
            self.problem(key, &format!("expected {expected}, found {written}"));
        }
        number
    }

    /// A duration, which may be 0; else [`Reader::positive`].
    pub(super) fn duration(&mut self, key: &str) -> Option<Duration> {
        self.unit(key, "a duration in quotes, such as \"30s\"", units::duration)
    }

    pub(super) fn positive(&mut self, key: &str) -> Option<Duration> {
        let above_zero = |duration: Duration| (!duration.is_zero()).then_some(duration);
        let parse = |text: &str| units::duration(text).and_then(|d| above_zero(d).ok_or("must be above zero".into()));
        self.unit(key, "a duration in quotes, such as \"30s\"", parse)
    }

    pub(super) fn size(&mut self, key: &str) -> Option<u64> {
        let parse = |text: &str| match units::size(text)? {
            0 => Err("must be above zero".into()),
            bytes => Ok(bytes),
        };
        self.unit(key, "a size in quotes, such as \"35MiB\"", parse)
    }

    fn unit<T>(&mut self, key: &str, expected: &str, parse: impl Fn(&str) -> Result<T, ValueError>) -> Option<T> {
        match self.value(key)? {
            DeValue::String(_) => self.text(key, parse),
            DeValue::Integer(_) | DeValue::Float(_) => {
                self.problem(key, &format!("expected {expected}, found a bare number"));
                None
            }
            other => {
                self.wrong_type(key, expected, other);
                None
            }
        }
    }

    /// A list of texts; each fault is reported at its own line.
    pub(super) fn list<T, E: Display>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, E>) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let DeValue::Array(array) = value else {
            self.wrong_type(key, "a list of texts such as [\"a\", \"b\"]", value);
            return None;
        };
        let mut items = Vec::with_capacity(array.len());
        for (at, element) in array.iter().enumerate() {
            let key = format!("{key}[{at}]");
            match element.get_ref() {
                DeValue::String(text) => match parse(text) {
                    Ok(item) => items.push(item),
                    Err(error) => self.problem(&key, &error.to_string()),
                },
                other => self.wrong_type(&key, "a text in quotes", other),
            }
        }
        Some(items)
    }

    /// A list of tables.
    pub(super) fn tables<T>(&mut self, schema: &'static str, read: impl Fn(&mut Reader<'_>) -> Option<T>) -> Vec<T> {
        let key = schema.rsplit('.').next().unwrap_or(schema);
        let Some(value) = self.value(key) else { return Vec::new() };
        let expected = "a list of tables such as [{ key = value }]";
        let DeValue::Array(array) = value else {
            self.wrong_type(key, expected, value);
            return Vec::new();
        };
        let mut items = Vec::new();
        for (at, element) in array.iter().enumerate() {
            let key = format!("{key}[{at}]");
            let DeValue::Table(table) = element.get_ref() else {
                self.wrong_type(&key, "a table such as { key = value }", element.get_ref());
                continue;
            };
            let prefix = format!("{}{key}.", self.prefix);
            let places = self.places;
            let mut reader = Reader { schema, prefix, table: Some(table), places, context: self.context };
            reader.check_keys();
            items.extend(read(&mut reader));
        }
        items
    }

    /// A table of texts with keys that the operator chooses.
    pub(super) fn map(&mut self, key: &str) -> Vec<(String, Arc<str>)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Table(table) = value else {
            self.wrong_type(key, "a table such as { \"EX1\" = \"exchange\" }", value);
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (name, value) in table {
            let name = name.get_ref().to_string();
            match value.get_ref() {
                DeValue::String(text) => pairs.push((name, text.as_ref().into())),
                other => self.wrong_type(&format!("{key}.{name}"), "a text in quotes", other),
            }
        }
        pairs
    }

    /// A path; a relative one is relative to the file that it is written in. An empty text counts as absent.
    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let folder = self.folder();
        self.path_below(key, &folder)
    }

    /// The folder of the file that the table is in.
    pub(super) fn folder(&self) -> PathBuf {
        self.places.source().folder().to_owned()
    }

    /// A path; a relative one is relative to `folder`. An empty text counts as absent.
    pub(super) fn path_below(&mut self, key: &str, folder: &Path) -> Option<PathBuf> {
        let credentials = self.context.credentials.clone();
        self.optional(key, |text| path(text, folder, credentials.as_deref()))
    }

    /// A text that may contain a path: `parse` gets a function that resolves it as [`Reader::path`] does.
    pub(super) fn text_with_path<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str, &dyn Fn(&str) -> Result<PathBuf, ValueError>) -> Result<T, ValueError>,
    ) -> Option<T> {
        let (folder, credentials) = (self.places.source().folder(), self.context.credentials.clone());
        self.text(key, |text| parse(text, &|text| path(text, folder, credentials.as_deref())))
    }

    /// Paths; relative ones are relative to `folder`.
    pub(super) fn paths_below(&mut self, key: &str, folder: &Path) -> Option<Vec<PathBuf>> {
        let credentials = self.context.credentials.clone();
        self.list(key, |text| match text {
            "" => Err("an empty path".into()),
            text => path(text, folder, credentials.as_deref()),
        })
    }
}

fn path(text: &str, folder: &Path, credentials: Option<&Path>) -> Result<PathBuf, ValueError> {
    match (text.strip_prefix(CREDENTIALS), credentials) {
        (None, _) => Ok(folder.join(text)),
        (Some(name), Some(credentials)) => Ok(credentials.join(name)),
        (Some(_), None) => Err("CREDENTIALS_DIRECTORY is not set; it is where systemd's LoadCredential= works".into()),
    }
}

/// The word of `known` most similar to `word`.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known.min_by_key(|candidate| strsim::damerau_levenshtein(word, candidate))
}

/// A text without control characters.
pub(super) fn plain(text: &str) -> Result<Arc<str>, ValueError> {
    if text.chars().any(char::is_control) { Err("has a control character".into()) } else { Ok(text.into()) }
}

/// A name that can be part of stamps, metrics and commands.
pub(super) fn name(text: &str) -> Result<Arc<str>, ValueError> {
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if (1..=64).contains(&text.len()) && text.chars().all(known) {
        return Ok(text.into());
    }
    Err(format!("`{text}` is not a name; a name has 1 to 64 letters, digits and -_.").into())
}

#[cfg(test)]
mod tests;
