//! The spool's folder: paths, and making names durable. All parts that touch the disk use it.
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
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::SpoolError;
use super::header::{FORMAT, OLDEST};
use crate::message::queue_id::QueueId;
use crate::metrics::Metrics;

/// How often a locked spool is tried again while another process only reads it, and the pauses.
const READ_TRIES: u32 = 20;
const READ_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub root: PathBuf,
    /// Large contents that are being written.
    pub incoming: PathBuf,
    pub large: PathBuf,
    pub segments: PathBuf,
    /// What could not be read.
    pub aside: PathBuf,
    /// The parent of the spare folders for segments, whose names are durable.
    spare: PathBuf,
    /// Segments that are not in the usual folder.
    elsewhere: Arc<Mutex<BTreeMap<u32, PathBuf>>>,
    /// Folders for segments of which a sync has failed.
    unsure: Arc<Mutex<BTreeSet<PathBuf>>>,
}

/// The number of spare folders for segments.
pub(super) const SPARE: u32 = 8;

impl Layout {
    /// Paths only; nothing is created.
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

    /// Creates missing folders durably; refuses a spool of version 1 that has mail.
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

    /// The path of a segment's checkpoint.
    pub(super) fn checkpoint(&self, number: u32) -> PathBuf {
        self.folder_of(number).join(format!("{number:08}.sum"))
    }

    /// The path of a spare folder for segments.
    fn spare(&self, number: u32) -> PathBuf {
        self.spare.join(number.to_string())
    }

    fn folder_of(&self, segment: u32) -> PathBuf {
        self.elsewhere.lock().get(&segment).unwrap_or(&self.segments).clone()
    }

    /// Records that this segment is in that spare folder; 0: in the usual one.
    pub(super) fn put(&self, segment: u32, spare: u32) {
        if spare > 0 {
            self.elsewhere.lock().insert(segment, self.spare(spare));
        }
    }

    /// This segment was removed.
    pub(super) fn forget(&self, segment: u32) {
        self.elsewhere.lock().remove(&segment);
    }

    /// Makes the names in this segment's folder durable. Once a sync has failed this fails for ever, since another sync
    /// may succeed although data of the first is lost.
    pub(super) fn sync_names(&self, segment: u32) -> Result<(), SpoolError> {
        let folder = self.folder_of(segment);
        // One at a time: if it fails, no other thread may sync the folder again.
        let mut unsure = self.unsure.lock();
        if unsure.contains(&folder) {
            let text = format!("cannot sync {}: it failed before, and is not tried again", folder.display());
            return Err(SpoolError::Io(text));
        }
        sync_folder(&folder).inspect_err(|_| _ = unsure.insert(folder))
    }

    /// Whether no sync of this segment's folder has failed.
    pub(super) fn is_sure(&self, segment: u32) -> bool {
        !self.unsure.lock().contains(&self.folder_of(segment))
    }

    /// The paths in all folders for segments, sorted by number.
    pub(super) fn list_segments(&self) -> Result<Vec<PathBuf>, SpoolError> {
        let mut paths = list(&self.segments)?;
        for spare in 1..=SPARE {
            let there = list(&self.spare(spare))?;
            there.iter().filter_map(|path| number(path, ".seg")).for_each(|segment| self.put(segment, spare));
            paths.extend(there);
        }
        Ok(paths)
    }

    /// The path of a folder for large contents.
    pub(super) fn large_folder(&self, number: u32) -> PathBuf {
        self.large.join(format!("{number:08}"))
    }

    /// The path of a large content.
    pub(super) fn large(&self, folder: u32, id: QueueId) -> PathBuf {
        self.large_folder(folder).join(id.to_string())
    }

    /// Refuses a spool of version 1 that has mail: one file for each message, and lines of JSON in `log/`.
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

/// The error for a file that another version wrote; for a format too old to be read, it does not suggest an export.
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

/// The error for an intact record that this version cannot decode.
pub(super) fn undecodable(path: &Path, at: usize) -> SpoolError {
    let text = format!(
        "the record at byte {at} of {} is whole, and this version cannot read it: another version wrote it. Nothing was \
         changed. Start the version that wrote it and let the queue run empty, or have what can be read written to files: \
         fingerpost queue export --offline DIR (docs/spool.md)",
        path.display()
    );
    SpoolError::Io(text)
}

/// The number in a file's or folder's name that ends in `end`.
pub(super) fn number(path: &Path, end: &str) -> Option<u32> {
    path.file_name()?.to_str()?.strip_suffix(end)?.parse().ok()
}

/// Locks the spool for this process until the file is closed. Waits for a `check` that reads it.
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
    // Informative only; the lock is what counts.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// Keeps other processes from opening the spool until the file is closed, without changing anything. `None`: it has
/// never been locked.
///
/// # Errors
/// `Ok(Err(_))`: it is in use. `Err(_)`: whether it is in use cannot be determined.
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

/// Whether the lock is held by readers only.
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

/// A new file with access for this user only. It must not exist.
pub(super) fn new_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    options.open(path)
}

/// Creates a folder with access for this user only, if it does not exist.
pub(super) fn make_folder(path: &Path) -> Result<(), SpoolError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(|e| failed("cannot make", path, &e)),
    }
}

/// Makes the names in a folder durable; syncing a file does not do that (fsync(2)).
pub(super) fn sync_folder(path: &Path) -> Result<(), SpoolError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|e| failed("cannot sync", path, &e))
}

pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>, SpoolError> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let entries = entries.map_err(|e| failed("cannot read", folder, &e))?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

/// Removes a file or an empty folder. If that fails it costs space, and is tried again at the next start.
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

/// Logs and counts a failed sync.
pub(super) fn alert(metrics: &Metrics, error: &SpoolError, consequence: &str) {
    metrics.spool_sync_failures.with_label_values::<&str>(&[]).inc();
    tracing::error!("{error}; check the disk: {consequence}");
}

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
