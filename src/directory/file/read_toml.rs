//! The TOML format of a directory file: `[[recipient]]` tables.

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::contents::{FIELDS, Lines, Problem, RawEntry};

/// Calls `see` with each table; returns the faults of form.
pub(super) fn read(text: &str, see: &mut dyn FnMut(RawEntry)) -> Vec<Problem> {
    let lines = Lines::of(text);
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { lines, see, problems: Vec::new() };
    if errors.is_empty() {
        reader.root(root.get_ref());
    }
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        reader.problem(at, error.message().to_owned());
    }
    reader.problems
}

struct Reader<'s> {
    lines: Lines,
    see: &'s mut dyn FnMut(RawEntry),
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn root(&mut self, root: &DeTable<'_>) {
        for (name, value) in root {
            match value.get_ref() {
                DeValue::Array(tables) if name.get_ref() == "recipient" => {
                    for table in tables.iter() {
                        self.table(table);
                    }
                }
                _ if name.get_ref() == "recipient" => {
                    self.problem(name.span().start, "recipient is a list of tables; write [[recipient]]".to_owned());
                }
                _ => {
                    let message = format!("unknown table `{}`; write [[recipient]]", name.get_ref());
                    self.problem(name.span().start, message);
                }
            }
        }
    }

    fn table(&mut self, table: &Spanned<DeValue<'_>>) {
        let at = table.span().start;
        let DeValue::Table(keys) = table.get_ref() else {
            return self.problem(at, "a recipient is a table; write [[recipient]]".to_owned());
        };
        let mut entry = RawEntry { line: self.lines.line(at), ..RawEntry::default() };
        let before = self.problems.len();
        for (name, value) in keys {
            match &**name.get_ref() {
                "address" => entry.addresses.extend(self.text("address", value)),
                "addresses" => self.list(value, &mut entry),
                key => match FIELDS.iter().position(|field| *field == key) {
                    Some(field) => entry.fields[field] = self.text(key, value),
                    None => {
                        let known = FIELDS.join(", ");
                        let message = format!("unknown key `{key}`; known are address, addresses, {known}");
                        self.problem(name.span().start, message);
                    }
                },
            }
        }
        let unreadable = self.problems.len() > before && entry.addresses.is_empty();
        let named = keys.keys().any(|name| name.get_ref().starts_with("address"));
        // A malformed address has been reported already.
        if !(unreadable && named) {
            (self.see)(entry);
        }
    }

    fn list(&mut self, value: &Spanned<DeValue<'_>>, entry: &mut RawEntry) {
        let texts = value.get_ref().as_array().filter(|list| list.iter().all(|item| item.get_ref().is_str()));
        match texts {
            Some(list) => list.iter().for_each(|item| entry.addresses.extend(self.text("addresses", item))),
            None => {
                let message = "addresses is a list of texts; write [\"a@domain\", \"b@domain\"]";
                self.problem(value.span().start, message.to_owned());
            }
        }
    }

    fn text(&mut self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<(usize, String)> {
        let at = value.span().start;
        match value.get_ref().as_str() {
            Some(text) => Some((self.lines.line(at), text.to_owned())),
            None => {
                self.problem(at, format!("{key} is a text; write it in quotes"));
                None
            }
        }
    }

    fn problem(&mut self, at: usize, message: String) {
        self.problems.push(Problem { line: self.lines.line(at), message });
    }
}
