//! docs/refusals.md shows every row as it is.

use std::path::Path;

use fingerpost::delivery::refusal::rows;

/// The table as the page has to have it.
fn table() -> String {
    let line = |row: &fingerpost::delivery::refusal::row::Row| {
        format!("| `{}` | {} | {} | {} |\n", row.name, row.says, row.subject.makes(), row.look_at)
    };
    let head = "| row | the server says | we make of it | look at |\n|---|---|---|---|\n";
    rows::all().fold(head.to_owned(), |table, row| table + &line(row))
}

#[test]
fn the_manual_has_every_row() {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/refusals.md")).expect("readable");
    let table = table();
    assert!(!rows::all().any(|row| row.says.contains('|') || row.look_at.contains('|')));
    assert!(page.contains(&table), "docs/refusals.md has another table than this:\n{table}");
}
