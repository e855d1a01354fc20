//! The queue's time, in a file of its own beside the log: it advances only while a program uses this spool. `store`
//! opens it, `compaction` saves it each minute.
//!
//! It starts from the wall clock, so that mail from before this clock existed keeps its age. A kill loses at most the
//! minute since the last save, so mail is never treated as older than it is.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SpoolError;
use super::layout::{discard, failed, sync_folder};
use crate::time::{QueueTime, UnixTime};

/// How often it has to be saved.
pub(super) const EVERY: Duration = Duration::from_mins(1);

/// What the file begins with; the number is its format.
const MAGIC: &str = "fingerpost queue time 1";

/// The queue's time. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct QueueClock(Arc<Running>);

#[derive(Debug)]
struct Running {
    path: PathBuf,
    at_start: QueueTime,
    start: Instant,
}

impl QueueClock {
    /// Continues from the saved time. `newest`: when the newest message was queued, if there is one.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(super) fn open(folder: &Path, newest: Option<QueueTime>) -> Result<Self, SpoolError> {
        let path = folder.join("clock");
        let saved = match fs::read_to_string(&path) {
            Ok(text) => {
                let saved = parse(&text);
                if saved.is_none() {
                    tracing::warn!(
                        "spool: {} cannot be read: the queue's time is that of its newest mail",
                        path.display()
                    );
                }
                saved.or(newest)
            }
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) if e.kind() == ErrorKind::InvalidData => newest,
            Err(e) => return Err(failed("cannot read", &path, &e)),
        };
        let at_start = saved.unwrap_or(QueueTime(UnixTime::now().0));
        Ok(Self(Arc::new(Running { path, at_start, start: Instant::now() })))
    }

    #[must_use]
    pub(super) fn now(&self) -> QueueTime {
        self.0.at_start.plus(self.0.start.elapsed())
    }

    /// Saves it durably. A failure is harmless: it is saved again later, and mail expires a little later.
    pub(super) fn save(&self) {
        if let Err(error) = self.write() {
            tracing::warn!(
                "{}; after a restart mail is taken for younger than it is",
                failed("cannot write", &self.0.path, &error)
            );
        }
    }

    fn write(&self) -> io::Result<()> {
        let path = &self.0.path;
        let draft = path.with_extension("new");
        discard(&draft);
        let mut file = crate::private::create(&draft)?;
        file.write_all(text(self.now()).as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        path.parent().map_or(Ok(()), |folder| sync_folder(folder).map_err(io::Error::other))
    }
}

fn text(now: QueueTime) -> String {
    format!("{MAGIC}\n{}\n", now.0)
}

fn parse(text: &str) -> Option<QueueTime> {
    let seconds = text.strip_prefix(MAGIC)?.strip_prefix('\n')?.strip_suffix('\n')?;
    seconds.parse().ok().map(QueueTime)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Format;

    fn at_start(text: Option<&str>, newest: Option<u64>) -> u64 {
        let folder = tempfile::tempdir().unwrap();
        if let Some(text) = text {
            fs::write(folder.path().join("clock"), text).unwrap();
        }
        QueueClock::open(folder.path(), newest.map(QueueTime)).unwrap().0.at_start.0
    }

    #[test]
    fn its_format() {
        let format = Format { name: "spool-clock", extension: "txt", oldest: 1, current: 1 };
        format.check(text(QueueTime(5000)).as_bytes(), |_, bytes| {
            assert_eq!(parse(std::str::from_utf8(bytes).unwrap()), Some(QueueTime(5000)));
        });
    }

    #[test]
    fn it_goes_on_where_it_stood() {
        let day = UnixTime::now().0 - 1; // a new one begins as the time of day
        assert_eq!(at_start(Some("fingerpost queue time 1\n5000\n"), Some(7)), 5000);
        for (what, text, newest) in [
            ("cut", "fingerpost queue time 1\n50", 7),
            ("empty", "", 7),
            ("another format", "fingerpost queue time 2\n5000\n", 7),
            ("no number", "fingerpost queue time 1\n-1\n", 7),
        ] {
            assert_eq!(at_start(Some(text), Some(newest)), newest, "{what}");
        }
        assert!(at_start(None, None) > day && at_start(None, Some(7)) > day && at_start(Some("x"), None) > day);
    }

    #[test]
    fn it_stands_still_while_nothing_runs() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("clock"), "fingerpost queue time 1\n5000\n").unwrap();
        for _ in 0..3 {
            let clock = QueueClock::open(folder.path(), None).unwrap();
            assert!((5000..5060).contains(&clock.now().0));
            clock.save();
        }
    }
}
