//! The CSV form of a directory file (RFC 4180): a header row, then an entry a row. Columns in any order.

use csv::{ReaderBuilder, StringRecord, Trim};

use super::contents::{FIELDS, Lines, Problem, Written};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Address,
    Field(usize),
}

/// The rows as written, and what is wrong with the form.
pub(super) fn read(text: &str) -> (Vec<Written>, Vec<Problem>) {
    let mut reader = ReaderBuilder::new().flexible(true).trim(Trim::All).from_reader(text.as_bytes());
    let columns = match reader.headers().map_err(|error| vec![from_csv(&error)]).and_then(columns) {
        Ok(columns) => columns,
        Err(problems) => return (Vec::new(), problems),
    };
    let lines = Lines::of(text);
    let (mut written, mut problems) = (Vec::new(), Vec::new());
    for record in reader.records() {
        match record {
            Ok(record) if record.len() == columns.len() => {
                written.push(entry(&record, &columns, line(text, &lines, &record)));
            }
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

fn columns(header: &StringRecord) -> Result<Vec<Column>, Vec<Problem>> {
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

fn entry(record: &StringRecord, columns: &[Column], line: usize) -> Written {
    let mut entry = Written { line, ..Written::default() };
    for (column, text) in columns.iter().zip(record).filter(|(_, text)| !text.is_empty()) {
        match column {
            Column::Address => entry.addresses.push((line, text.to_owned())),
            Column::Field(field) => entry.fields[*field] = Some((line, text.to_owned())),
        }
    }
    entry
}

/// The library's position of a row is that of the line end before it.
fn line(text: &str, lines: &Lines, record: &StringRecord) -> usize {
    let start = record.position().and_then(|position| usize::try_from(position.byte()).ok()).unwrap_or(0);
    let rest = text.as_bytes().get(start..).unwrap_or_default();
    let ends = rest.iter().take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
    lines.line(start + ends)
}

fn from_csv(error: &csv::Error) -> Problem {
    let line = error.position().map_or(0, |position| usize::try_from(position.line()).unwrap_or(usize::MAX));
    Problem { line, message: format!("{error}; write comma-separated values in UTF-8") }
}
