//! What became of a message since its record, read where it was written. `tidy` and the committer call it for messages
//! that are moved.

use std::collections::HashMap;
use std::fs::File;

use super::entry::Entry;
use super::header::Header;
use super::index::{Changed, Kept};
use super::layout::Layout;
use super::segment::{header_of, logged_at};

/// The segments in which changes were looked up.
pub(super) struct Changes<'a> {
    layout: &'a Layout,
    files: HashMap<u32, Option<(File, Header)>>,
}

impl<'a> Changes<'a> {
    /// None yet.
    pub(super) fn new(layout: &'a Layout) -> Self {
        Self { layout, files: HashMap::new() }
    }

    /// Brings an entry up to date. Changes that are in it already do no harm.
    pub(super) fn apply(&mut self, entry: &mut Entry, kept: &Kept) {
        kept.changes.iter().for_each(|changed| self.apply_one(entry, changed));
    }

    fn apply_one(&mut self, entry: &mut Entry, changed: Changed) {
        let Changed { recipient, segment, offset, .. } = changed;
        let open = || {
            let file = File::open(self.layout.segment(segment)).ok()?;
            let header = header_of(&file).ok()?;
            Some((file, header))
        };
        let file = self.files.entry(segment).or_insert_with(open).as_ref();
        let Some(logged) = file.and_then(|(file, header)| logged_at(file, header, offset)) else {
            tracing::error!(id = %entry.id, "spool: what became of a recipient cannot be read in segment {segment}");
            return;
        };
        let id = entry.id;
        let is_meant = |change: &&super::entry::Change| change.id == id && change.recipient == recipient as usize;
        logged.changes.iter().filter(is_meant).for_each(|change| entry.apply(change));
    }
}
