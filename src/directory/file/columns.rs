//! The columns of a CSV file: our own, or those of another system's export.
//!
//! An export is recognised by columns that only it has. Its other columns are ignored, while in a file with our own
//! columns an unknown name is an error. docs/directories/file.md has the commands that write these exports.

use csv::StringRecord;

use super::contents::{FIELDS, Problem, RawEntry};
use crate::directory::profile::{kind_of_recipient_type, other_kind};
use crate::lookup::Kind;

/// The content of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    /// Ours: an address.
    Address,
    /// Ours: the field with this index in [`FIELDS`].
    Field(usize),
    /// Exchange's `PrimarySmtpAddress`.
    Primary,
    /// Exchange's `EmailAddresses`: proxy addresses, joined.
    Proxies,
    /// Exchange's `RecipientTypeDetails`.
    Type,
    /// Exchange's `ExternalEmailAddress` or `RemoteRoutingAddress`: a proxy address.
    External,
    /// Kerio's `Name` and `MailAddress`: local parts, several joined by commas.
    Locals,
    /// MDaemon's `MailBox`: a local part.
    Mailbox,
    /// MDaemon's `Domain`.
    Domain,
    /// A column of an export that is ignored.
    Other,
}

/// Which system's columns they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Ours,
    Exchange,
    Kerio,
    MDaemon,
}

#[derive(Debug)]
pub(super) struct Columns(Vec<Column>);

impl Columns {
    /// Reads the header row.
    pub(super) fn of(header: &StringRecord) -> Result<Self, Vec<Problem>> {
        let names: Vec<String> = header.iter().map(str::to_ascii_lowercase).collect();
        match form(&names) {
            Form::Ours => ours(header).map(Self),
            form => {
                let columns: Vec<Column> = names.iter().map(|name| exported(form, name)).collect();
                if columns.contains(&Column::External) && !columns.contains(&Column::Type) {
                    let message =
                        "ExternalEmailAddress means nothing without RecipientTypeDetails; export that column too";
                    return Err(vec![Problem { line: 1, message: message.to_owned() }]);
                }
                Ok(Self(columns))
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Reads one row. `None`: it is not a recipient.
    pub(super) fn entry(&self, record: &StringRecord, line: usize) -> Result<Option<RawEntry>, Problem> {
        if self.0.iter().any(|column| matches!(column, Column::Primary | Column::Proxies)) {
            return self.of_exchange(record, line);
        }
        let cells = || self.0.iter().zip(record).filter(|(_, text)| !text.is_empty());
        let mut entry = RawEntry { line, ..RawEntry::default() };
        let domain = cells().find(|(column, _)| **column == Column::Domain).map(|(_, domain)| domain);
        for (column, text) in cells() {
            match column {
                Column::Address => entry.addresses.push((line, text.to_owned())),
                Column::Field(field) => entry.fields[*field] = Some((line, text.to_owned())),
                Column::Locals => {
                    let locals = text.split(',').map(str::trim).filter(|local| !local.is_empty());
                    entry.addresses.extend(locals.map(|local| (line, local.to_owned())));
                }
                Column::Mailbox => {
                    let address = domain.map_or_else(|| text.to_owned(), |domain| format!("{text}@{domain}"));
                    entry.addresses.push((line, address));
                }
                _ => {}
            }
        }
        Ok(Some(entry))
    }

    fn of_exchange(&self, record: &StringRecord, line: usize) -> Result<Option<RawEntry>, Problem> {
        let mut entry = RawEntry { line, ..RawEntry::default() };
        let (mut kind, mut target, mut other) = (Kind::Mailbox, None, None);
        for (column, text) in self.0.iter().zip(record).filter(|(_, text)| !text.is_empty()) {
            match column {
                Column::Primary => entry.addresses.push((line, text.to_owned())),
                Column::Proxies if text.starts_with("Microsoft.") || text.starts_with("System.") => {
                    let message = "EmailAddresses holds the name of a type; export the addresses with -join, as \
                        docs/directories/file.md shows";
                    return Err(Problem { line, message: message.to_owned() });
                }
                Column::Proxies => entry.addresses.extend(proxies(text).map(|address| (line, address.to_owned()))),
                Column::External => {
                    target = target.or_else(|| smtp(text));
                    other = other.or_else(|| other_kind(text).map(|_| text));
                }
                Column::Type => {
                    kind = kind_of_recipient_type(text).ok_or_else(|| Problem {
                        line,
                        message: format!(
                            "`{text}` is no RecipientTypeDetails that is known; remove the row, or write the recipient \
                             into a file of its own with columns address and kind"
                        ),
                    })?;
                }
                _ => {}
            }
        }
        let elsewhere = matches!(kind, Kind::MailUser | Kind::Contact);
        let target = target.or(other);
        if elsewhere && target.is_none() && !self.0.contains(&Column::External) {
            let message = "this recipient's mailbox is elsewhere, and the file does not say where; export \
                           ExternalEmailAddress too";
            return Err(Problem { line, message: message.to_owned() });
        }
        // Without a target it cannot be routed.
        let kind = if elsewhere && target.is_none() { Kind::NoMailbox } else { kind };
        if entry.addresses.is_empty() && kind == Kind::NoMailbox {
            return Ok(None);
        }
        entry.fields[0] = Some((line, kind.as_str().to_owned()));
        entry.fields[1] = target.filter(|_| elsewhere).map(|target| (line, target.to_owned()));
        Ok(Some(entry))
    }
}

fn form(names: &[String]) -> Form {
    let has = |name: &str| names.iter().any(|known| known == name);
    if has("address") {
        Form::Ours
    } else if has("primarysmtpaddress") || has("emailaddresses") {
        Form::Exchange
    } else if has("name") && has("mailaddress") {
        Form::Kerio
    } else if has("mailbox") && has("domain") {
        Form::MDaemon
    } else {
        Form::Ours
    }
}

fn exported(form: Form, name: &str) -> Column {
    match (form, name) {
        (Form::Exchange, "primarysmtpaddress") => Column::Primary,
        (Form::Exchange, "emailaddresses") => Column::Proxies,
        (Form::Exchange, "recipienttypedetails") => Column::Type,
        (Form::Exchange, "externalemailaddress" | "remoteroutingaddress") => Column::External,
        (Form::Kerio, "name" | "mailaddress") => Column::Locals,
        (Form::MDaemon, "mailbox") => Column::Mailbox,
        (Form::MDaemon, "domain") => Column::Domain,
        _ => Column::Other,
    }
}

fn ours(header: &StringRecord) -> Result<Vec<Column>, Vec<Problem>> {
    let known = format!("address, {}", FIELDS.join(", "));
    if header.is_empty() {
        let message = format!("there is no header row; write {}", known.replace(", ", ","));
        return Err(vec![Problem { line: 1, message }]);
    }
    let (mut columns, mut problems) = (Vec::new(), Vec::new());
    let mut problem = |message| problems.push(Problem { line: 1, message });
    for name in header {
        let lower = name.to_ascii_lowercase();
        let column = match FIELDS.iter().position(|field| *field == lower) {
            Some(field) => Column::Field(field),
            None if lower == "address" => Column::Address,
            None => {
                problem(format!("unknown column `{name}`; known are {known}"));
                continue;
            }
        };
        if columns.contains(&column) {
            problem(format!("column `{name}` is there twice; remove one"));
        }
        columns.push(column);
    }
    if !columns.contains(&Column::Address) {
        problem("there is no column `address`; write it in the header row".to_owned());
    }
    if problems.is_empty() { Ok(columns) } else { Err(problems) }
}

/// The SMTP addresses among proxy addresses, joined by semicolons, commas or white space. Addresses of other kinds may
/// contain these separators, so text without a prefix counts only if none has a prefix.
fn proxies(text: &str) -> impl Iterator<Item = &str> {
    let prefixed = text.contains(':');
    let pieces = text.split(|c: char| matches!(c, ';' | ',') || c.is_whitespace());
    pieces
        .filter(|piece| !piece.is_empty())
        .filter_map(move |piece| smtp(piece).filter(|smtp| *smtp != piece || !prefixed))
}

/// The SMTP address of a proxy address with `SMTP:` or without a prefix.
fn smtp(proxy: &str) -> Option<&str> {
    match proxy.split_once(':') {
        Some((prefix, address)) if prefix.eq_ignore_ascii_case("smtp") => Some(address),
        Some(_) => None,
        None => Some(proxy),
    }
}
