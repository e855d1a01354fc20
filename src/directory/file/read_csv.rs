//! The CSV form of a directory file (RFC 4180): a header row, then an entry a row. Columns in any order; `columns` says
//! what they mean. Lines that begin with `#` are comments, such as PowerShell's `#TYPE`.

use std::borrow::Cow;

use csv::{ReaderBuilder, StringRecord, Trim};

use super::columns::Columns;
use super::contents::{Lines, Problem, Written};

/// The rows as written, and what is wrong with the form.
pub(super) fn read(text: &str) -> (Vec<Written>, Vec<Problem>) {
    let text = &*without_spaces(text);
    let mut builder = ReaderBuilder::new();
    builder.flexible(true).trim(Trim::All).comment(Some(b'#')).delimiter(delimiter(text));
    let mut reader = builder.from_reader(text.as_bytes());
    let columns = match reader.headers().map_err(|error| vec![from_csv(&error)]).and_then(Columns::of) {
        Ok(columns) => columns,
        Err(problems) => return (Vec::new(), problems),
    };
    let lines = Lines::of(text);
    let (mut written, mut problems) = (Vec::new(), Vec::new());
    for record in reader.records() {
        match record {
            // One that is swallowed by a quote would be somebody who gets no mail.
            Ok(record) if record.iter().any(|cell| cell.contains('\n')) => problems.push(Problem {
                line: line(text, &lines, &record),
                message:
                    "a quote is not closed here, or a field has several lines; correct it, or leave that column out"
                        .to_owned(),
            }),
            Ok(record) if record.len() == columns.len() => match columns.entry(&record, line(text, &lines, &record)) {
                Ok(entry) => written.extend(entry),
                Err(problem) => problems.push(problem),
            },
            Ok(record) => problems.push(Problem {
                line: line(text, &lines, &record),
                message: format!(
                    "this row has {} fields, the header has {}; write a comma for each empty field",
                    record.len(),
                    columns.len()
                ),
            }),
            Err(error) => problems.push(from_csv(&error)),
        }
    }
    (written, problems)
}

/// MDaemon writes `"MailBox", "Domain"`; a quote behind a space would be none.
fn without_spaces(text: &str) -> Cow<'_, str> {
    if text.lines().next().is_some_and(|header| header.contains("\", \"")) {
        text.replace("\", \"", "\",\"").into()
    } else {
        text.into()
    }
}

/// What separates the header's names: a comma, or a semicolon or tab where there are more of them.
fn delimiter(text: &str) -> u8 {
    let header = text.lines().find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
    let count = |separator: &u8| header.bytes().filter(|octet| octet == separator).count();
    // Of equals `max_by_key` takes the last.
    b"\t;,".iter().copied().max_by_key(count).unwrap_or(b',')
}

/// The library's position of a row is that of what stands before it: line ends, comments.
fn line(text: &str, lines: &Lines, record: &StringRecord) -> usize {
    let start = record.position().and_then(|position| usize::try_from(position.byte()).ok()).unwrap_or(0);
    let mut rest = text.as_bytes().get(start..).unwrap_or_default();
    loop {
        match rest {
            [b'\r' | b'\n', after @ ..] => rest = after,
            [b'#', ..] => rest = &rest[memchr::memchr(b'\n', rest).unwrap_or(rest.len())..],
            _ => break,
        }
    }
    lines.line(text.len() - rest.len())
}

fn from_csv(error: &csv::Error) -> Problem {
    let line = error.position().map_or(0, |position| usize::try_from(position.line()).unwrap_or(usize::MAX));
    Problem { line, message: format!("{error}; write comma-separated values in UTF-8") }
}
