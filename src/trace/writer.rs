//! Writes the message trace: batches of events, a JSON line each, into the file of their day.
//!
//! `run` starts one [`Writer`] and stops it last, so that what the drain does is traced too. An event reaches the
//! file within half a second; a full or broken disk loses trace lines, never mail.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Trace;
use super::waiting::{OfDay, Waiting};
use crate::private;
use crate::time::UnixTime;

/// How long a first event waits for company.
const GATHER: Duration = Duration::from_millis(250);

/// The running writer.
pub struct Writer {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// Starts writing below `folder`, which is made when it is missing (mode 0700: a trace holds addresses).
///
/// # Errors
/// The folder cannot be made; the text names it.
pub fn start(folder: PathBuf) -> Result<(Trace, Writer), String> {
    private::folder(&folder).map_err(|error| format!("cannot make the folder {}: {error}", folder.display()))?;
    let (waiting, stop) = (Arc::<Waiting>::default(), CancellationToken::new());
    let task = tokio::spawn(write_all(folder, waiting.clone(), stop.clone()));
    Ok((Trace { waiting: Some(waiting) }, Writer { stop, task }))
}

impl Writer {
    /// Writes what is waiting and ends.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

async fn write_all(folder: PathBuf, waiting: Arc<Waiting>, stop: CancellationToken) {
    loop {
        let gathered = async {
            waiting.filled.notified().await;
            // Nobody waits for them: waking this task for each event would cost more than writing it.
            tokio::time::sleep(GATHER).await;
        };
        let stopped = stop.run_until_cancelled(gathered).await.is_none();
        let (to, lines) = (folder.clone(), waiting.take());
        let written = tokio::task::spawn_blocking(move || lines.iter().try_for_each(|day| append(&to, day))).await;
        if let Ok(Err(error)) = written {
            warn!(%error, "trace events could not be written");
        }
        match waiting.lost() {
            0 => {}
            events => warn!(events, "trace events were lost: the disk under state_dir is too slow"),
        }
        if stopped {
            return;
        }
    }
}

/// Appends lines to the file of their day.
fn append(folder: &Path, of_day: &OfDay) -> std::io::Result<()> {
    let path = folder.join(format!("{}.jsonl", day(of_day.at)));
    private::options().append(true).create(true).open(path)?.write_all(&of_day.lines)
}

/// The date of a point in time, UTC: `2026-11-21`.
pub(super) fn day(at: UnixTime) -> String {
    at.rfc3339().chars().take(10).collect()
}

/// Removes the files of days that are older than `days` before today. Other files are left alone.
pub fn expire(folder: &Path, days: u32, now: UnixTime) {
    let kept = Duration::from_secs(u64::from(days) * 86_400);
    let oldest = day(UnixTime(now.0.saturating_sub(kept.as_secs())));
    for (date, path) in super::read::files(folder) {
        if date < oldest
            && let Err(error) = std::fs::remove_file(&path)
        {
            warn!(file = %path.display(), %error, "an old trace file could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::event;
    use super::super::{Event, What};
    use super::*;

    const DAY: u64 = 86_400;

    #[tokio::test]
    async fn events_go_to_the_file_of_their_day_and_stop_writes_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let (trace, writer) = start(folder.path().join("trace")).unwrap();
        trace.record(&event(DAY - 1, What::Received, "A", ""));
        trace.record(&event(DAY, What::Delivered, "A", "alice@contoso.com"));
        trace.record(&event(DAY + 1, What::Delivered, "A", "bob@contoso.com"));
        writer.stop().await;
        let lines = |name: &str| std::fs::read_to_string(folder.path().join("trace").join(name)).unwrap();
        assert_eq!(lines("1970-01-01.jsonl").lines().count(), 1);
        assert_eq!(lines("1970-01-02.jsonl").lines().count(), 2);
        let read: Event<'_> = serde_json::from_str(lines("1970-01-01.jsonl").trim()).unwrap();
        assert_eq!(read, event(DAY - 1, What::Received, "A", ""));
    }

    #[test]
    fn days_beyond_their_time_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["1970-01-01.jsonl", "1970-01-02.jsonl", "1970-01-03.jsonl", "notes.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        expire(folder.path(), 1, UnixTime(2 * DAY + 5));
        let mut left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["1970-01-02.jsonl", "1970-01-03.jsonl", "notes.txt"]);
    }
}
