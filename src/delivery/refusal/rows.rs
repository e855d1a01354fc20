//! The table of refusals, in the order in which its rows are tried: unambiguous codes, texts, then codes of RFCs which
//! a text may make more specific. For other refusals `read` chooses a general row.
//!
//! Each file has the rows of one product, or shared ones, each with its source.

use super::row::{Compared, Row};

mod codes;
mod exchange;
pub(super) mod general;
mod others;
mod postfix;
mod us;

static TABLE: [&[Row]; 10] = [
    exchange::CODES,
    codes::CODES,
    postfix::SENDER,
    others::SENDER,
    postfix::WORDS,
    exchange::WORDS,
    us::WORDS,
    others::WORDS,
    us::LAST,
    codes::RELAYED_CODES,
];

/// The first row that matches, without the general ones.
pub(super) fn first(refusal: &Compared<'_>) -> Option<&'static Row> {
    listed().find(|row| row.fits(refusal))
}

fn listed() -> impl Iterator<Item = &'static Row> {
    TABLE.iter().flat_map(|rows| rows.iter())
}

/// Every row, as the manual lists them.
pub fn all() -> impl Iterator<Item = &'static Row> {
    listed().chain(general::GENERAL.iter().copied())
}
