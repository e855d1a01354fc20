//! Limits the length of values in log lines, with a note where one was cut.

use std::fmt::{self, Write as _};

use tracing::Level;
use tracing::field::Field;

use crate::printable::Bounded;

/// The octets shown of texts that strangers choose freely: a header field's value, a next hop's or a directory's text,
/// a name from a login or a certificate.
const FOREIGN: usize = 256;
/// Fields with such texts.
const FOREIGN_FIELDS: [&str; 12] =
    ["message_id", "subject", "said", "reply", "reason", "because", "why", "user", "name", "names", "helo", "ended"];
/// The octets shown of other values: addresses have their own limits, and operators' texts should be complete.
pub(super) const MOST: usize = 4096;

/// A line without an event, of the log itself.
pub(super) struct Own<'a> {
    pub(super) level: Level,
    pub(super) target: &'static str,
    pub(super) message: &'a str,
    pub(super) numbers: &'a [(&'static str, u64)],
}

/// The octets of a field that are shown.
pub(super) fn limit(field: &Field) -> usize {
    if FOREIGN_FIELDS.contains(&field.name()) { FOREIGN } else { MOST }
}

/// The part of a text that is shown, and the number of octets that are not.
pub(super) fn cut(text: &str, limit: usize) -> (&str, usize) {
    let kept = &text[..text.floor_char_boundary(limit)];
    (kept, text.len() - kept.len())
}

/// Appends what `write` writes, up to `limit` octets.
pub(super) fn bounded(line: &mut String, limit: usize, write: impl FnOnce(&mut Bounded<'_>) -> fmt::Result) {
    let mut bounded = Bounded::new(line, limit);
    let _ = write(&mut bounded); // writing to memory cannot fail
    let more = bounded.more;
    sign(line, more);
}

/// Appends the note of how many octets are not shown.
pub(super) fn sign(line: &mut String, more: usize) {
    if more > 0 {
        let _ = write!(line, "[+{more} octets]"); // writing to memory cannot fail
    }
}
