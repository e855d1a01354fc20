//! Waits until the files of a configuration have changed and have been stable for 2 s. `reload` then reads them.
//!
//! Folders are watched, not files: editors write a new file and rename it, Kubernetes swaps a symbolic link. Where the
//! system cannot watch, the files are checked every 10 s.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::config::include;

/// How long the files must be stable (DESIGN section 4, "Reload").
const QUIET: Duration = Duration::from_secs(2);
/// How often they are checked where they cannot be watched.
const POLL: Duration = Duration::from_secs(10);

/// The watched files and patterns.
pub(super) struct Watch {
    shared: Arc<Inner>,
    events: mpsc::Receiver<()>,
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    seen: Vec<Stamp>,
}

/// The state of the watcher's thread.
struct Inner {
    files: Mutex<Vec<PathBuf>>,
    failed: AtomicBool,
}

/// Identifies a version of a file: path, modification time and length.
type Stamp = (PathBuf, Option<SystemTime>, u64);

impl Watch {
    pub(super) fn new() -> Self {
        let (sender, events) = mpsc::channel(1);
        let shared = Arc::new(Inner { files: Mutex::default(), failed: AtomicBool::new(false) });
        let theirs = shared.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.map_or_else(|error| theirs.fail(&error), |event| theirs.concerns(&event)) {
                // A full channel has the message already.
                let _ = sender.try_send(());
            }
        });
        let watcher = match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                shared.fail(&error);
                None
            }
        };
        Self { shared, events, watcher, folders: BTreeSet::new(), seen: Vec::new() }
    }

    /// Watches these files and patterns from now on, as in [`crate::config::Config::files`].
    pub(super) fn follow(&mut self, files: &[PathBuf]) {
        let all = with_targets(files);
        let folders: BTreeSet<_> = all.iter().flat_map(|file| folders(file)).collect();
        *self.shared.files.lock() = all;
        let Some(watcher) = &mut self.watcher else { return };
        for folder in self.folders.difference(&folders) {
            // A folder that is gone is not watched any more, which is no error.
            let _ = watcher.unwatch(folder);
        }
        // Watched folders are watched again, because they may have been replaced.
        for folder in &folders {
            if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                self.shared.fail(&error);
            }
        }
        self.folders = folders;
    }

    /// Records the versions of the files, before they are read.
    pub(super) fn note(&mut self, files: &[PathBuf]) {
        self.seen = stamps(files);
    }

    /// Waits until the files differ from the recorded versions and are stable.
    pub(super) async fn changed(&mut self, files: &[PathBuf]) {
        // Changes before the folders were watched cause no event.
        while stamps(files) == self.seen {
            let failed = self.shared.failed.load(Ordering::Relaxed);
            tokio::select! {
                Some(()) = self.events.recv() => break,
                () = tokio::time::sleep(POLL), if failed => {}
                else => std::future::pending().await,
            }
        }
        loop {
            let before = stamps(files);
            let event = async {
                // Without a watcher there are no events.
                if self.events.recv().await.is_none() {
                    std::future::pending::<()>().await;
                }
            };
            if tokio::time::timeout(QUIET, event).await.is_err() && before == stamps(files) {
                return;
            }
        }
    }
}

impl Inner {
    /// Whether the event may be a change of our files; reading them is not.
    fn concerns(&self, event: &Event) -> bool {
        let reading = matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
        let files = self.files.lock();
        event.need_rescan() || (!reading && event.paths.iter().any(|path| files.iter().any(|file| touches(file, path))))
    }

    /// From now on the files are polled as well. Returns `true`, because something may have changed.
    fn fail(&self, error: &notify::Error) -> bool {
        if !self.failed.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "configuration files cannot be watched; they are looked at every {POLL:?} instead");
        }
        true
    }
}

/// Whether an event about `path` may be a change of `file`, which may be a pattern.
fn touches(file: &Path, path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // Kubernetes swaps the symbolic link `..data` beside the files.
    let swapped = name.starts_with("..") && file.parent() == path.parent();
    swapped || include::fits(file, path) || file.starts_with(path)
}

/// The files, and the targets of symbolic links among them.
fn with_targets(files: &[PathBuf]) -> Vec<PathBuf> {
    let targets = files.iter().filter_map(|file| file.canonicalize().ok());
    files.iter().cloned().chain(targets).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The folder of a file and its parent, in which it may be replaced; or the nearest existing one.
fn folders(file: &Path) -> impl Iterator<Item = PathBuf> {
    file.ancestors()
        .skip(1)
        .filter(|folder| folder.is_dir())
        .take(2)
        .map(Path::to_owned)
        .collect::<Vec<_>>()
        .into_iter()
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: PathBuf| {
        let found = std::fs::metadata(&path).ok();
        let length = found.as_ref().map_or(0, std::fs::Metadata::len);
        (path, found.and_then(|found| found.modified().ok()), length)
    };
    files.iter().flat_map(|file| include::matching(file).unwrap_or_default()).map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_concern_us_are_known() {
        for (file, path, yes) in [
            ("/etc/fp/a.toml", "/etc/fp/a.toml", true),
            ("/etc/fp/a.toml", "/etc/fp/b.toml", false),
            ("/etc/fp/a.toml", "/etc/fp/a.toml~", false),
            ("/etc/fp/a.toml", "/etc/fp", true),
            ("/etc/fp/a.toml", "/etc/passwd", false),
            ("/etc/fp/a.toml", "/etc/fp/..data", true),
            ("/etc/fp/d/*.toml", "/etc/fp/d/x.toml", true),
            ("/etc/fp/d/*.toml", "/etc/fp/d/.x.toml.swp", false),
            ("/etc/fp/d/*.toml", "/etc/fp/d", true),
        ] {
            assert_eq!(touches(Path::new(file), Path::new(path)), yes, "{file} {path}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_looked_at_where_they_cannot_be_watched() {
        let folder = tempfile::tempdir().unwrap();
        let files = [folder.path().join("*.toml")];
        let mut watch = Watch::new();
        watch.shared.fail(&notify::Error::generic("too many watches"));
        watch.watcher = None;
        watch.note(&files);
        let began = tokio::time::Instant::now();
        let waited = tokio::time::timeout(Duration::from_secs(3600), watch.changed(&files)).await;
        assert!(waited.is_err(), "nothing changed");
        let later = async {
            tokio::time::sleep(Duration::from_secs(15)).await;
            std::fs::write(folder.path().join("a.toml"), "x").unwrap();
        };
        tokio::join!(watch.changed(&files), later);
        assert_eq!(began.elapsed().as_secs(), 3600 + 20 + 2);
    }

    #[test]
    fn a_folder_that_is_missing_is_awaited() {
        let folder = tempfile::tempdir().unwrap();
        let missing: Vec<_> = folders(&folder.path().join("a/b/c.toml")).collect();
        assert_eq!(missing.first().map(PathBuf::as_path), Some(folder.path()));
    }
}
