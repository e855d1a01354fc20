//! The plain format of a directory file: one address in each line, each a mailbox. A line that begins with `#` is a
//! comment.

use super::contents::RawEntry;

/// Calls `see` with each line.
pub(super) fn read(text: &str, see: &mut dyn FnMut(RawEntry)) {
    let addresses = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    for (line, text) in addresses.filter(|(_, text)| !text.is_empty() && !text.starts_with('#')) {
        see(RawEntry { line, addresses: vec![(line, text.to_owned())], ..RawEntry::default() });
    }
}
