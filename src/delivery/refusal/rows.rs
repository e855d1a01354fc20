//! The table of refusals, in the order in which its rows are tried: codes that leave no doubt, words, codes of RFCs
//! that words may tell more about. What none of them fits, `read` puts into a general row.
//!
//! Each file has one product's rows or those that products share, each with its source.

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

/// The first row that fits, the general ones apart.
pub(super) fn first(refusal: &Compared<'_>) -> Option<&'static Row> {
    listed().find(|row| row.fits(refusal))
}

fn listed() -> impl Iterator<Item = &'static Row> {
    TABLE.iter().flat_map(|rows| rows.iter())
}

/// Every row, as the manual shows them.
pub fn all() -> impl Iterator<Item = &'static Row> {
    listed().chain(general::GENERAL.iter().copied())
}
