//! Kind `file`: recipients in a TOML or CSV file, or a plain list. Its answers are always live.
//!
//! `directory::build` opens it, `resolve` asks it through [`Directory`]. [`watch`] reloads a changed file once it has
//! not been written to for a while; a file with errors is ignored. `contents` has the entries, `read_toml`, `read_csv`
//! and `read_list` parse the formats.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use self::contents::Contents;
use crate::config::FileDirectoryConfig;
use crate::directory::conflicts::Listed;
use crate::directory::refreshing::Refreshing;
use crate::directory::{AnswerFuture, Directory, result};
use crate::give_back;
use crate::lookup::{Answer, Fresh, Kind, Question};
use crate::metrics::Metrics;

mod addresses;
mod columns;
mod contents;
mod read_csv;
mod read_list;
mod read_toml;

/// How often the file is checked. A change is used once the file has not changed for this long.
pub const POLL: Duration = Duration::from_secs(2);
/// While it is read, a file takes up to this many times its size in memory: its text, its parsed entries and the index.
/// A million lines of CSV take four times; TOML, which is not meant for so many, more than eight.
const IN_MEMORY: usize = 8;

/// A directory that is a file.
pub struct FileDirectory {
    name: Arc<str>,
    config: FileDirectoryConfig,
    contents: ArcSwap<Contents>,
    version: AtomicU64,
    watched: Mutex<Watched>,
    metrics: Metrics,
}

/// Identifies one version of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    size: u64,
    inode: u64,
}

/// The state of watching the file.
#[derive(Debug)]
struct Watched {
    /// The version that was last read, with or without errors; `None`: the file was missing.
    read: Option<Stamp>,
    /// The version at the last check.
    seen: Option<Stamp>,
}

impl FileDirectory {
    /// Opens the file.
    ///
    /// # Errors
    /// All faults, each with file, line and what to do.
    pub fn open(name: &Arc<str>, config: &FileDirectoryConfig, metrics: &Metrics) -> Result<Self, Vec<String>> {
        let stamp = stamp(&config.path);
        // The parsed content takes about as much memory as the file.
        let contents = Contents::read(&config.path, config.default_domain.as_ref())?;
        let directory = Self {
            name: Arc::clone(name),
            config: config.clone(),
            contents: ArcSwap::from_pointee(contents),
            version: AtomicU64::new(1),
            watched: Mutex::new(Watched { read: stamp, seen: stamp }),
            metrics: metrics.clone(),
        };
        directory.measure();
        Ok(directory)
    }

    fn answer(&self, question: &Question) -> Answer {
        let lookup = self.contents.load().lookup(&question.address);
        self.metrics.directory_lookups.with_label_values(&[&*self.name, result(&lookup)]).inc();
        Answer { lookup, fresh: Fresh::Live }
    }

    /// Checks the file, and reads it if it changed and has not changed since the last check. Returns whether the
    /// directory's content changed.
    fn look(&self) -> Looked {
        let now = stamp(&self.config.path);
        {
            let mut watched = self.watched.lock();
            let quiet = watched.seen == now;
            watched.seen = now;
            if !quiet || watched.read == now {
                return Looked::Same;
            }
            watched.read = now;
        }
        let length = now.map_or(0, |stamp| usize::try_from(stamp.size).unwrap_or(usize::MAX));
        let _both = Refreshing::begin(&self.metrics, length.saturating_mul(IN_MEMORY));
        match Contents::read(&self.config.path, self.config.default_domain.as_ref()) {
            Ok(contents) => {
                let recipients = contents.len();
                self.contents.store(Arc::new(contents));
                self.version.fetch_add(1, Ordering::Relaxed);
                self.measure();
                tracing::info!(directory = %self.name, recipients, "directory file taken over");
                Looked::Changed
            }
            Err(problems) => {
                let recipients = self.contents.load().len();
                for problem in problems {
                    tracing::error!(directory = %self.name, recipients, "{problem}; the recipients known before stay");
                }
                Looked::Same
            }
        }
    }

    pub(super) fn listed(&self) -> Arc<dyn Listed> {
        self.contents.load_full()
    }

    /// Sets the gauges that depend on the content only.
    fn measure(&self) {
        let contents = self.contents.load();
        for kind in Kind::ALL {
            let count = i64::try_from(contents.count(kind)).unwrap_or(i64::MAX);
            self.metrics.directory_recipients.with_label_values(&[&*self.name, kind.as_str()]).set(count);
        }
        self.metrics.directory_up.with_label_values(&[&*self.name]).set(1);
    }
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    Same,
    Changed,
}

impl Directory for FileDirectory {
    fn known(&self, question: &Question) -> Option<Answer> {
        Some(self.answer(question))
    }

    fn ask<'a>(&'a self, question: &'a Question) -> AnswerFuture<'a> {
        Box::pin(std::future::ready(self.answer(question)))
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }
}

/// Checks the files of these directories for ever.
pub async fn watch(directories: Vec<Arc<FileDirectory>>) {
    loop {
        tokio::time::sleep(POLL).await;
        let looked = directories.clone();
        // Reading and counting a million recipients takes a while.
        let done = tokio::task::spawn_blocking(move || {
            for directory in &looked {
                if directory.look() == Looked::Changed {
                    give_back::soon();
                }
            }
        });
        if let Err(error) = done.await {
            tracing::error!("looking at the directory files failed: {error}");
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp { modified: (metadata.mtime(), metadata.mtime_nsec()), size: metadata.size(), inode: metadata.ino() })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::lookup::{Freshness, Lookup};
    use crate::smtp::address::Address;

    struct Fixture {
        directory: FileDirectory,
        path: PathBuf,
        _folder: tempfile::TempDir,
    }

    fn fixture(name: &str, text: &str) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let config = FileDirectoryConfig { path: path.clone(), default_domain: None };
        let directory = FileDirectory::open(&"people".into(), &config, &Metrics::new()).unwrap();
        Fixture { directory, path, _folder: folder }
    }

    async fn ask(directory: &FileDirectory, address: &str) -> Answer {
        let question = Question {
            directory: "people".into(),
            address: Address::parse(address).unwrap(),
            freshness: Freshness::Live,
        };
        directory.ask(&question).await
    }

    #[tokio::test]
    async fn a_changed_file_is_taken_once_it_is_quiet() {
        let Fixture { directory, path, _folder } = fixture("people.csv", "address\na@contoso.com\n");
        assert_eq!(directory.look(), Looked::Same);
        std::fs::write(&path, "address\na@contoso.com\nb@contoso.com\n").unwrap();
        assert_eq!(directory.look(), Looked::Same, "it may still be being written");
        assert_eq!(ask(&directory, "b@contoso.com").await.lookup, Lookup::NotFound);
        assert_eq!(directory.look(), Looked::Changed);
        assert_eq!(directory.look(), Looked::Same);
        let answer = ask(&directory, "b@contoso.com").await;
        assert!(matches!(answer, Answer { lookup: Lookup::Found(_), fresh: Fresh::Live }));
        assert_eq!(directory.version(), 2);
    }

    #[tokio::test]
    async fn a_bad_or_missing_file_changes_nothing() {
        let Fixture { directory, path, _folder } = fixture("people.csv", "address\na@contoso.com\n");
        std::fs::write(&path, "address\nnobody\n").unwrap();
        (0..3).for_each(|_| assert_eq!(directory.look(), Looked::Same));
        std::fs::remove_file(&path).unwrap();
        (0..3).for_each(|_| assert_eq!(directory.look(), Looked::Same));
        assert!(matches!(ask(&directory, "a@contoso.com").await.lookup, Lookup::Found(_)));
        assert_eq!(directory.version(), 1);
        std::fs::write(&path, "address\nc@contoso.com\n").unwrap();
        directory.look();
        assert_eq!(directory.look(), Looked::Changed);
        assert_eq!(ask(&directory, "a@contoso.com").await.lookup, Lookup::NotFound);
    }

    #[test]
    fn what_it_knows_is_counted() {
        let text = "address,kind,target\na@contoso.com,,\nA@contoso.com,group,\nc@contoso.com,contact,c@x.y\n";
        let second = fixture("second.csv", text);
        let metrics = &second.directory.metrics;
        for (kind, count) in [("mailbox", 1), ("group", 1), ("contact", 1), ("mail-user", 0)] {
            assert_eq!(metrics.directory_recipients.with_label_values(&["people", kind]).get(), count, "{kind}");
        }
    }
}
