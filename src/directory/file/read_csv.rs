//! The CSV form of a directory file (RFC 4180): a header row, then one entry in each row. Columns may be in any order;
//! `columns` interprets them. Lines that begin with `#` are comments, such as PowerShell's `#TYPE`.

use std::borrow::Cow;

use csv::{ReaderBuilder, StringRecord, Trim};

use super::columns::Columns;
use super::contents::{Problem, RawEntry};

/// Calls `see` with each row; returns the faults of form.
pub(super) fn read(text: &str, see: &mut dyn FnMut(RawEntry)) -> Vec<Problem> {
    let text = &*without_spaces(text);
    let mut builder = ReaderBuilder::new();
    builder.flexible(true).trim(Trim::All).comment(Some(b'#')).delimiter(delimiter(text));
    let mut reader = builder.from_reader(text.as_bytes());
    let columns = match reader.headers().map_err(|error| vec![from_csv(&error)]).and_then(Columns::of) {
        Ok(columns) => columns,
        Err(problems) => return problems,
    };
    let mut lines = Lines { text, at: 0, line: 1 };
    let mut problems = Vec::new();
    for record in reader.records() {
        match record {
            // A row that is swallowed by an open quote would be a recipient without mail.
            Ok(record) if record.iter().any(|cell| cell.contains('\n')) => problems.push(Problem {
                line: lines.of(&record),
                message:
                    "a quote is not closed here, or a field has several lines; correct it, or leave that column out"
                        .to_owned(),
            }),
            Ok(record) if record.len() == columns.len() => match columns.entry(&record, lines.of(&record)) {
                Ok(entry) => entry.into_iter().for_each(&mut *see),
                Err(problem) => problems.push(problem),
            },
            Ok(record) => problems.push(Problem {
                line: lines.of(&record),
                message: format!(
                    "this row has {} fields, the header has {}; write a comma for each empty field",
                    record.len(),
                    columns.len()
                ),
            }),
            Err(error) => problems.push(from_csv(&error)),
        }
    }
    problems
}

/// Counts the lines of rows, in order.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

/// MDaemon writes `"MailBox", "Domain"`; a quote after a space would not be recognised.
fn without_spaces(text: &str) -> Cow<'_, str> {
    if text.lines().next().is_some_and(|header| header.contains("\", \"")) {
        text.replace("\", \"", "\",\"").into()
    } else {
        text.into()
    }
}

/// The separator in the header: a comma, or a semicolon or tab if there are more of them.
fn delimiter(text: &str) -> u8 {
    let header = text.lines().find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
    let count = |separator: &u8| header.bytes().filter(|octet| octet == separator).count();
    // Of equals `max_by_key` returns the last.
    b"\t;,".iter().copied().max_by_key(count).unwrap_or(b',')
}

impl Lines<'_> {
    /// The CSV library gives the position before line ends and comments that precede a row.
    fn of(&mut self, record: &StringRecord) -> usize {
        let start = record.position().and_then(|position| usize::try_from(position.byte()).ok()).unwrap_or(0);
        let mut rest = self.text.as_bytes().get(start..).unwrap_or_default();
        loop {
            match rest {
                [b'\r' | b'\n', after @ ..] => rest = after,
                [b'#', ..] => rest = &rest[memchr::memchr(b'\n', rest).unwrap_or(rest.len())..],
                _ => break,
            }
        }
        let begins = self.text.len() - rest.len();
        let between = self.text.as_bytes().get(self.at..begins).unwrap_or_default();
        self.line += memchr::memchr_iter(b'\n', between).count();
        self.at = begins.max(self.at);
        self.line
    }
}

fn from_csv(error: &csv::Error) -> Problem {
    let line = error.position().map_or(0, |position| usize::try_from(position.line()).unwrap_or(usize::MAX));
    Problem { line, message: format!("{error}; write comma-separated values in UTF-8") }
}
