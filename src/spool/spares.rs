//! Files of finished messages that are written again, because some file systems make new files slowly after many
//! removals: ext4 passes over every inode that was freed within the last five seconds.
//!
//! A file comes here only after the log says durably that its message is finished; nobody reads it any more. Spare
//! files lie in `incoming`, which is swept at start. A name that a power cut brings back in `messages` belongs to a
//! finished message and is discarded then, whatever its file holds by that time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::SpoolError;
use super::layout::{discard, new_file};

/// How many spare files are kept: as many as sessions are likely to want at once.
const MOST: usize = 128;
/// Larger files are removed at once, so that spare ones take at most 2 MiB of disk.
const LARGEST: u64 = 16 * 1024;

/// The spare files.
#[derive(Debug)]
pub(super) struct Spares {
    incoming: PathBuf,
    names: Mutex<Names>,
}

#[derive(Debug, Default)]
struct Names {
    kept: Vec<PathBuf>,
    made: u64,
}

impl Spares {
    /// None yet.
    pub(super) fn new(incoming: PathBuf) -> Self {
        Self { incoming, names: Mutex::default() }
    }

    /// Takes the file of a finished message out of the way: keeps it, or removes it.
    pub(super) fn put(&self, path: &Path) {
        let small = fs::metadata(path).is_ok_and(|file| file.len() <= LARGEST);
        let Some(spare) = self.name().filter(|_| small) else { return discard(path) };
        match fs::rename(path, &spare) {
            Ok(()) => self.names().kept.push(spare),
            Err(_) => discard(path),
        }
    }

    /// An empty file of that name in `incoming`: a spare one, or a new one.
    pub(super) fn take(&self, path: &Path) -> Result<File, SpoolError> {
        let spare = self.names().kept.pop();
        let Some(spare) = spare else { return new_file(path) };
        let emptied = || {
            fs::rename(&spare, path)?;
            let file = File::options().read(true).write(true).open(path)?;
            file.set_len(0).map(|()| file)
        };
        emptied().or_else(|_| {
            discard(&spare);
            discard(path);
            new_file(path)
        })
    }

    /// The next spare file's name; none while there are enough.
    fn name(&self) -> Option<PathBuf> {
        let mut names = self.names();
        names.made += 1;
        (names.kept.len() < MOST).then(|| self.incoming.join(format!("spare-{}", names.made)))
    }

    fn names(&self) -> std::sync::MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_file_is_written_again_from_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let spares = Spares::new(folder.path().to_owned());
        let finished = folder.path().join("finished");
        fs::write(&finished, "another's content").unwrap();
        spares.put(&finished);
        assert!(!finished.exists());
        let path = folder.path().join("new");
        let file = spares.take(&path).unwrap();
        assert_eq!((file.metadata().unwrap().len(), fs::read(&path).unwrap().len()), (0, 0));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the same file");
        assert!(spares.take(&path).is_err(), "a name is given once");
    }

    #[test]
    fn large_files_and_too_many_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let spares = Spares::new(folder.path().to_owned());
        for number in 0..MOST + 3 {
            let path = folder.path().join(number.to_string());
            fs::write(&path, "x").unwrap();
            spares.put(&path);
        }
        let large = folder.path().join("large");
        fs::write(&large, vec![0; 20_000]).unwrap();
        let taken = spares.take(&folder.path().join("one")).unwrap();
        spares.put(&large);
        drop(taken);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), MOST);
    }
}
