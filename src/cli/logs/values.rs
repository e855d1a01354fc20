//! How long a value in a log line may be, and the sign that it was longer.

use std::fmt::{self, Write as _};

use tracing::Level;
use tracing::field::Field;

use crate::printable::Bounded;

/// What strangers choose at will: a header field's value, a next hop's or a directory's words, a name given at login or
/// in a certificate. Octets of it that are shown.
const FOREIGN: usize = 256;
/// Fields that hold such text.
const FOREIGN_FIELDS: [&str; 12] =
    ["message_id", "subject", "said", "reply", "reason", "because", "why", "user", "name", "names", "helo", "ended"];
/// Octets of any other value: addresses have their own bounds, and what an operator wrote should be whole.
pub(super) const MOST: usize = 4096;

/// A line that no event stands behind: of the log itself.
pub(super) struct Own<'a> {
    pub(super) level: Level,
    pub(super) target: &'static str,
    pub(super) message: &'a str,
    pub(super) numbers: &'a [(&'static str, u64)],
}

/// Octets of a field that are shown.
pub(super) fn limit(field: &Field) -> usize {
    if FOREIGN_FIELDS.contains(&field.name()) { FOREIGN } else { MOST }
}

/// What is shown of a text, and how many octets are not.
pub(super) fn cut(text: &str, limit: usize) -> (&str, usize) {
    let kept = &text[..text.floor_char_boundary(limit)];
    (kept, text.len() - kept.len())
}

/// Appends what is written, at most `limit` octets of it.
pub(super) fn bounded(line: &mut String, limit: usize, write: impl FnOnce(&mut Bounded<'_>) -> fmt::Result) {
    let mut bounded = Bounded::new(line, limit);
    let _ = write(&mut bounded); // writing to memory cannot fail
    let more = bounded.more;
    sign(line, more);
}

/// Says how many octets are not shown.
pub(super) fn sign(line: &mut String, more: usize) {
    if more > 0 {
        let _ = write!(line, "[+{more} octets]"); // writing to memory cannot fail
    }
}
