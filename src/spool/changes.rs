//! Reads the changes of a message that were logged after its record. `compaction` and the committer call it for
//! messages that are moved.

use std::collections::HashMap;
use std::collections::hash_map::Entry as ContentPlace;
use std::io;

use super::SpoolError;
use super::entry::{Change, Entry};
use super::index::{Changed, IndexEntry};
use super::layout::Layout;
use super::segment::Readable;

/// Reads changes, keeping segments open between calls.
pub(super) struct Changes<'a> {
    layout: &'a Layout,
    segments: HashMap<u32, Readable>,
}

impl<'a> Changes<'a> {
    pub(super) fn new(layout: &'a Layout) -> Self {
        Self { layout, segments: HashMap::new() }
    }

    /// Applies all later changes to an entry. Applying a change twice does no harm.
    ///
    /// # Errors
    /// One of them cannot be read: the entry is incomplete and must not be used.
    pub(super) fn apply(&mut self, entry: &mut Entry, kept: &IndexEntry) -> Result<(), SpoolError> {
        kept.changes.iter().try_for_each(|changed| self.apply_one(entry, changed))
    }

    fn apply_one(&mut self, entry: &mut Entry, changed: Changed) -> Result<(), SpoolError> {
        let segment = match self.segments.entry(changed.segment) {
            ContentPlace::Occupied(known) => known.into_mut(),
            ContentPlace::Vacant(place) => place.insert(Readable::open(&self.layout.segment(changed.segment))?),
        };
        apply(entry, changed, segment).map_err(|e| {
            let (id, Changed { segment, offset, .. }) = (entry.id, changed);
            SpoolError::Io(format!(
                "what became of a recipient of {id} cannot be read in {segment:08}.seg at {offset}: {e}"
            ))
        })
    }
}

/// Applies one change, which is read in its segment.
///
/// # Errors
/// It cannot be read there.
pub(super) fn apply(entry: &mut Entry, changed: Changed, segment: &Readable) -> io::Result<()> {
    let (logged, _) = segment.logged(changed.offset)?;
    let recipient = usize::try_from(changed.recipient).ok();
    let is_meant = |change: &&Change| change.id == entry.id && Some(change.recipient) == recipient;
    let meant: Vec<&Change> = logged.changes.iter().filter(is_meant).collect();
    meant.into_iter().for_each(|change| entry.apply(change));
    Ok(())
}
