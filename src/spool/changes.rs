//! What became of a message since its record, read where it was written. `tidy` and the committer call it for messages
//! that are moved.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::fs::File;

use super::SpoolError;
use super::entry::Entry;
use super::header::Header;
use super::index::{Changed, Kept};
use super::layout::Layout;
use super::segment::{header_of, logged_at};

/// The segments in which changes were looked up.
pub(super) struct Changes<'a> {
    layout: &'a Layout,
    files: HashMap<u32, (File, Header)>,
}

impl<'a> Changes<'a> {
    /// None yet.
    pub(super) fn new(layout: &'a Layout) -> Self {
        Self { layout, files: HashMap::new() }
    }

    /// Brings an entry up to date. Changes that are in it already do no harm.
    ///
    /// # Errors
    /// One of them cannot be read: the entry is not what it should be, and is not to be used.
    pub(super) fn apply(&mut self, entry: &mut Entry, kept: &Kept) -> Result<(), SpoolError> {
        kept.changes.iter().try_for_each(|changed| self.apply_one(entry, changed))
    }

    fn apply_one(&mut self, entry: &mut Entry, changed: Changed) -> Result<(), SpoolError> {
        let Changed { recipient, segment, offset, .. } = changed;
        let id = entry.id;
        let unread = || {
            SpoolError::Io(format!("what became of a recipient of {id} cannot be read in {segment:08}.seg at {offset}"))
        };
        if let Place::Vacant(place) = self.files.entry(segment) {
            let file = File::open(self.layout.segment(segment)).map_err(|_| unread())?;
            let header = header_of(&file).map_err(|_| unread())?.map_err(|_| unread())?;
            place.insert((file, header));
        }
        let file = self.files.get(&segment);
        let logged = file.and_then(|(file, header)| logged_at(file, header, offset)).ok_or_else(unread)?;
        let is_meant = |change: &&super::entry::Change| change.id == id && change.recipient == recipient as usize;
        logged.changes.iter().filter(is_meant).for_each(|change| entry.apply(change));
        Ok(())
    }
}
