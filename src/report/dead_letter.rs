//! The dead-letter folder: reports that could not be delivered are kept there (DESIGN section 7), as many and as long as
//! [`bounds`] says.
//!
//! `state_dir/dead-letters/ID.eml` is the report as it was to be sent, `ID.json` its envelope. Nobody reads them but
//! the administrator, who may delete them. `report::make` and `delivery` call [`keep`]; the gauge asks [`count`].

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::private;
use crate::spool::entry::Entry;

pub mod bounds;

/// The folder below `state_dir`.
#[must_use]
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("dead-letters")
}

/// Keeps a report, durably: it returns when both files and the folder are synced. The same report again replaces them.
///
/// # Errors
/// What the file system said.
pub fn keep(state_dir: &Path, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
    let folder = folder(state_dir);
    private::folder(&folder)?;
    let envelope = entry.to_json()?;
    store(&folder, &format!("{}.json", entry.id), &mut envelope.as_slice())?;
    store(&folder, &format!("{}.eml", entry.id), content)?;
    File::open(&folder)?.sync_all()?;
    File::open(state_dir)?.sync_all()
}

fn store(folder: &Path, name: &str, content: &mut dyn Read) -> io::Result<()> {
    let unfinished = folder.join(format!(".{name}.new"));
    let mut file = private::create(&unfinished)?;
    io::copy(content, &mut file)?;
    file.flush()?;
    file.sync_all()?;
    fs::rename(&unfinished, folder.join(name))
}

/// How many reports are kept.
#[must_use]
pub fn count(state_dir: &Path) -> usize {
    let Ok(files) = fs::read_dir(folder(state_dir)) else { return 0 };
    let is_letter = |name: &Path| name.extension().is_some_and(|extension| extension == "eml");
    files.flatten().filter(|file| is_letter(Path::new(&file.file_name()))).count()
}
