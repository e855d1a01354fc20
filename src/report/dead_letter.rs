//! The dead-letter folder: reports that could not be delivered are kept there (DESIGN section 7), as many and as long
//! as [`bounds`] says.
//!
//! `state_dir/dead-letters/ID.eml` is the report, `ID.json` its envelope. They are for administrators, who may delete
//! them. `report::make` and `delivery` call [`DeadLetters::keep`]; `known` counts them without listing the folder.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::message::queue_id::QueueId;
use crate::private;
use crate::spool::entry::Entry;
use crate::time::UnixTime;

pub mod bounds;
mod known;

use known::{Known, Letter};

#[must_use]
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("dead-letters")
}

/// The dead letters that are kept. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct DeadLetters(Arc<Mutex<Known>>);

impl DeadLetters {
    /// Stores a report durably: returns when both files and the folder are synced. The same report replaces its files.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn keep(&self, state_dir: &Path, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        let folder = folder(state_dir);
        private::folder(&folder)?;
        let envelope = entry.to_json()?;
        store(&folder, &format!("{}.json", entry.id), &mut envelope.as_slice())?;
        store(&folder, &format!("{}.eml", entry.id), content)?;
        self.0.lock().keep(entry.id, Letter { at: UnixTime::at_least(), is_whole: true });
        File::open(&folder)?.sync_all()?;
        File::open(state_dir)?.sync_all()
    }

    /// How many reports are kept, as far as is known: the folder is listed in the background.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.lock().count()
    }
}

fn store(folder: &Path, name: &str, content: &mut dyn Read) -> io::Result<()> {
    let unfinished = folder.join(format!(".{name}.new"));
    let mut file = private::create(&unfinished)?;
    io::copy(content, &mut file)?;
    file.flush()?;
    file.sync_all()?;
    fs::rename(&unfinished, folder.join(name))
}

/// The names that a letter's files may have: the final ones, and those while they are written.
fn names(id: QueueId) -> [String; 4] {
    [format!("{id}.eml"), format!("{id}.json"), format!(".{id}.eml.new"), format!(".{id}.json.new")]
}

/// Which letter a file belongs to, and whether it is the report itself.
fn letter_of(name: &str) -> Option<(QueueId, bool)> {
    let whole = name.strip_prefix('.').map_or(Some(name), |name| name.strip_suffix(".new"))?;
    let report = whole.strip_suffix(".eml");
    let id = report.or_else(|| whole.strip_suffix(".json"))?.parse().ok()?;
    Some((id, report.is_some() && !name.starts_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letters_files_are_known_by_their_names() {
        let id = QueueId(7);
        for (name, is_whole) in names(id).iter().zip([true, false, false, false]) {
            assert_eq!(letter_of(name), Some((id, is_whole)), "{name}");
        }
        for name in ["notes.txt", "README.eml", "0.eml.new", &format!("{id}.eml.bak"), &format!(".{id}.eml")] {
            assert_eq!(letter_of(name), None, "{name}");
        }
    }
}
