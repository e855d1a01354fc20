//! The spool's folder: what lies where, and making names durable. All parts that touch the disk use it.
//!
//! ```text
//! lock                    locked by the process that uses the spool, whose id it holds
//! segments/00000007.seg   envelopes, contents and outcomes, as records; the one with the highest number grows
//! segments/00000007.sum   its checkpoint: the same without contents, so that a start need not read them
//! large/00000003/ID       contents that are too large for a record, synced before the log names them
//! incoming/ID             such a content that is being written; discarded at start
//! spare/1                 more folders for segments, for when a sync of the one before has failed
//! reserve                 space for outcomes and compaction when the disk is full
//! reserve-start           its last bit, for a start
//! aside/                  what could not be read, for a person to look at
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::SpoolError;
use super::header::{FORMAT, OLDEST};
use crate::message::queue_id::QueueId;
use crate::metrics::Metrics;

/// How often, and after which pauses, a spool is tried again that somebody only reads.
const READ_TRIES: u32 = 20;
const READ_PAUSE: Duration = Duration::from_millis(100);

/// The spool's folders.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// The whole.
    pub root: PathBuf,
    /// Large content that is being written.
    pub incoming: PathBuf,
    /// Numbered folders with large contents.
    pub large: PathBuf,
    /// The log.
    pub segments: PathBuf,
    /// What could not be read.
    pub aside: PathBuf,
    /// Folders for segments, made ahead: their names are durable.
    spare: PathBuf,
    /// Segments that are not in the usual folder, and where they are.
    elsewhere: Arc<Mutex<BTreeMap<u32, PathBuf>>>,
    /// Folders for segments of which a sync has failed.
    unsure: Arc<Mutex<BTreeSet<PathBuf>>>,
}

/// How many folders for segments there are beside the usual one.
pub(super) const SPARE: u32 = 8;

impl Layout {
    /// Where everything lies, whether it is there or not.
    pub(super) fn at(folder: &Path) -> Self {
        let at = |name| folder.join(name);
        Self {
            root: folder.to_owned(),
            incoming: at("incoming"),
            large: at("large"),
            segments: at("segments"),
            aside: at("aside"),
            spare: at("spare"),
            elsewhere: Arc::default(),
            unsure: Arc::default(),
        }
    }

    /// Makes the folders where they are missing, durably; but not in a spool of version 1 that holds mail.
    pub(super) fn make(folder: &Path) -> Result<Self, SpoolError> {
        let layout = Self::at(folder);
        layout.refuse_old()?;
        make_folder(folder)?;
        for sub in [&layout.incoming, &layout.large, &layout.segments, &layout.aside, &layout.spare] {
            make_folder(sub)?;
        }
        (1..=SPARE).try_for_each(|number| make_folder(&layout.spare(number)))?;
        sync_folder(&layout.spare)?;
        sync_folder(folder)?;
        if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_folder(parent)?;
        }
        Ok(layout)
    }

    pub(super) fn segment(&self, number: u32) -> PathBuf {
        self.folder_of(number).join(format!("{number:08}.seg"))
    }

    /// A segment's checkpoint, beside it.
    pub(super) fn checkpoint(&self, number: u32) -> PathBuf {
        self.folder_of(number).join(format!("{number:08}.sum"))
    }

    /// A folder for segments beside the usual one.
    fn spare(&self, number: u32) -> PathBuf {
        self.spare.join(number.to_string())
    }

    fn folder_of(&self, segment: u32) -> PathBuf {
        self.elsewhere().get(&segment).unwrap_or(&self.segments).clone()
    }

    fn elsewhere(&self) -> MutexGuard<'_, BTreeMap<u32, PathBuf>> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This segment is, or will be, in that spare folder; 0: in the usual one.
    pub(super) fn put(&self, segment: u32, spare: u32) {
        if spare > 0 {
            self.elsewhere().insert(segment, self.spare(spare));
        }
    }

    /// This segment is gone.
    pub(super) fn forget(&self, segment: u32) {
        self.elsewhere().remove(&segment);
    }

    /// Makes the names in this segment's folder durable. Once that has failed it fails for ever: another sync may succeed
    /// although what the first was to write is lost.
    pub(super) fn sync_names(&self, segment: u32) -> Result<(), SpoolError> {
        let folder = self.folder_of(segment);
        // One at a time: nobody may be on his way to sync it again.
        let mut unsure = self.unsure();
        if unsure.contains(&folder) {
            let text = format!("cannot sync {}: it failed before, and is not tried again", folder.display());
            return Err(SpoolError::Io(text));
        }
        sync_folder(&folder).inspect_err(|_| _ = unsure.insert(folder))
    }

    /// Whether no sync of this segment's folder has failed.
    pub(super) fn is_sure(&self, segment: u32) -> bool {
        !self.unsure().contains(&self.folder_of(segment))
    }

    fn unsure(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.unsure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in all folders for segments, by number where they are segments.
    pub(super) fn list_segments(&self) -> Result<Vec<PathBuf>, SpoolError> {
        let mut paths = list(&self.segments)?;
        for spare in 1..=SPARE {
            let there = list(&self.spare(spare))?;
            there.iter().filter_map(|path| number(path, ".seg")).for_each(|segment| self.put(segment, spare));
            paths.extend(there);
        }
        Ok(paths)
    }

    /// A folder of large contents.
    pub(super) fn large_folder(&self, number: u32) -> PathBuf {
        self.large.join(format!("{number:08}"))
    }

    /// A large content.
    pub(super) fn large(&self, folder: u32, id: QueueId) -> PathBuf {
        self.large_folder(folder).join(id.to_string())
    }

    /// Refuses a spool of version 1 that holds mail: a file a message, and lines of JSON in `log/`.
    pub(super) fn refuse_old(&self) -> Result<(), SpoolError> {
        let (log, messages) = (self.root.join("log"), self.root.join("messages"));
        if !log.is_dir() || !messages.is_dir() {
            return Ok(());
        }
        for folder in list(&messages)?.into_iter().filter(|path| path.is_dir()) {
            if !list(&folder)?.is_empty() {
                return Err(in_format(&messages, 1));
            }
        }
        Ok(())
    }
}

/// What is there was written by another version. One that is older than all that are read cannot export.
pub(super) fn in_format(path: &Path, format: u16) -> SpoolError {
    let or = match format < OLDEST {
        true => "",
        false => ", or have what waits written to files by it: fingerpost queue export --offline DIR",
    };
    let text = format!(
        "{} is in format {format}, this version reads {OLDEST} to {FORMAT}: start the version that wrote it and let the queue run \
         empty{or}",
        path.display()
    );
    SpoolError::Io(text)
}

/// A record is as it was written and says what this version does not read.
pub(super) fn undecodable(path: &Path, at: usize) -> SpoolError {
    let text = format!(
        "the record at byte {at} of {} is whole, and this version cannot read it: another version wrote it. Nothing was \
         changed. Start the version that wrote it and let the queue run empty, or have what can be read written to files: \
         fingerpost queue export --offline DIR (docs/spool.md)",
        path.display()
    );
    SpoolError::Io(text)
}

/// The number in a file's or folder's name, which ends in `end`.
pub(super) fn number(path: &Path, end: &str) -> Option<u32> {
    path.file_name()?.to_str()?.strip_suffix(end)?.parse().ok()
}

/// Locks the spool for this process until the file is closed. A `check` that looks at it is waited for.
pub(super) fn lock(folder: &Path) -> Result<File, SpoolError> {
    let path = folder.join("lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(|e| failed("cannot open", &path, &e))?;
    for tries in 0.. {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if !is_only_read(&file) => return Err(in_use(folder, &file)),
            Err(TryLockError::WouldBlock) if tries < READ_TRIES => std::thread::sleep(READ_PAUSE),
            Err(TryLockError::WouldBlock) => {
                let text =
                    format!("{} is being read by `fingerpost queue export`: let that end first", folder.display());
                return Err(SpoolError::Io(text));
            }
            Err(TryLockError::Error(e)) => return Err(failed("cannot lock", &path, &e)),
        }
    }
    // for people only: the lock is what counts
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// Keeps everybody from opening the spool until the file is closed, and changes nothing. `None`: nobody ever locked it.
///
/// # Errors
/// `Ok(Err(_))`: it is in use. `Err(_)`: that cannot be found out.
pub(super) fn lock_for_reading(folder: &Path) -> Result<Result<Option<File>, SpoolError>, SpoolError> {
    let path = folder.join("lock");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Ok(None)),
        Err(e) => return Err(failed("cannot open", &path, &e)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Ok(Some(file))),
        Err(TryLockError::WouldBlock) => Ok(Err(in_use(folder, &file))),
        Err(TryLockError::Error(e)) => Err(failed("cannot lock", &path, &e)),
    }
}

/// Whether those who hold the lock do not hold it for themselves.
fn is_only_read(file: &File) -> bool {
    let is_only_read = file.try_lock_shared().is_ok();
    let _ = file.unlock();
    is_only_read
}

fn in_use(folder: &Path, mut lock: &File) -> SpoolError {
    let mut holder = String::new();
    let _ = lock.read_to_string(&mut holder);
    let text = format!(
        "{} is in use by process {}: stop that one first, or give this one its own state_dir",
        folder.display(),
        holder.trim()
    );
    SpoolError::Io(text)
}

/// A new file that only we can read. It must not exist.
pub(super) fn new_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    options.open(path)
}

/// A folder that only we can read, if it is not there yet.
pub(super) fn make_folder(path: &Path) -> Result<(), SpoolError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(|e| failed("cannot make", path, &e)),
    }
}

/// Makes the names in a folder durable (fsync(2): a file's own sync does not do it).
pub(super) fn sync_folder(path: &Path) -> Result<(), SpoolError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|e| failed("cannot sync", path, &e))
}

/// The paths in a folder, sorted by name.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>, SpoolError> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let entries = entries.map_err(|e| failed("cannot read", folder, &e))?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

/// Removes a file or an empty folder that nobody needs. One that stays behind costs space and is met again at the
/// next start.
pub(super) fn discard(path: &Path) {
    let removed = match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::IsADirectory => fs::remove_dir(path),
        removed => removed,
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("{}", failed("cannot remove", path, &e));
        }
        _ => {}
    }
}

/// A sync failed: says so to the operator, and counts it.
pub(super) fn alert(metrics: &Metrics, error: &SpoolError, consequence: &str) {
    metrics.spool_sync_failures.with_label_values::<&str>(&[]).inc();
    tracing::error!("{error}; check the disk: {consequence}");
}

/// An error that names the file.
pub(super) fn failed(what: &str, path: &Path, error: &io::Error) -> SpoolError {
    SpoolError::Io(format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_whose_sync_failed_is_not_synced_again() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::make(folder.path()).unwrap();
        layout.put(8, 1);
        assert!(layout.sync_names(7).is_ok() && layout.is_sure(7));
        fs::remove_dir(&layout.segments).unwrap();
        assert!(layout.clone().sync_names(7).is_err());
        make_folder(&layout.segments).unwrap();
        assert!(layout.sync_names(7).is_err() && !layout.is_sure(7), "a second sync says nothing");
        assert!(layout.sync_names(8).is_ok() && layout.is_sure(8), "another folder");
    }
}
