//! Writes the message trace: batches of events, each a line of JSON, into the file of their day.
//!
//! `run` starts one [`Writer`] and stops it last, so that events during the drain are traced as well. An event reaches
//! the file within half a second; a full or broken disk loses trace lines, never mail.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Trace;
use super::files::{self, DayFile, day};
use super::room::Room;
use super::waiting::{OfDay, Waiting};
use crate::metrics::Metrics;
use crate::private;
use crate::time::UnixTime;

/// How often lost events are logged.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// How long a first event waits for others.
const GATHER: Duration = Duration::from_millis(250);

pub struct Writer {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    room: Arc<Mutex<Room>>,
}

/// Starts writing below `folder`, which is created if it is missing (mode 0700, because a trace contains addresses).
///
/// # Errors
/// The folder cannot be made; the text names it.
pub fn start(folder: PathBuf, room: Room, metrics: Metrics) -> Result<(Trace, Writer), String> {
    private::folder(&folder).map_err(|error| format!("cannot make the folder {}: {error}", folder.display()))?;
    let (waiting, stop) = (Arc::<Waiting>::default(), CancellationToken::new());
    let room = Arc::new(Mutex::new(room));
    let writing = Writing { folder, waiting: waiting.clone(), room: room.clone(), metrics };
    let task = tokio::spawn(writing.write_all(stop.clone()));
    Ok((Trace { waiting: Some(waiting) }, Writer { stop, task, room }))
}

impl Writer {
    /// Its limits, which can be changed.
    #[must_use]
    pub fn room(&self) -> Arc<Mutex<Room>> {
        self.room.clone()
    }

    /// Writes what is waiting and ends.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

/// The writer's state.
struct Writing {
    folder: PathBuf,
    waiting: Arc<Waiting>,
    room: Arc<Mutex<Room>>,
    metrics: Metrics,
}

impl Writing {
    async fn write_all(self, stop: CancellationToken) {
        let mut told = None;
        loop {
            let gathered = async {
                self.waiting.filled.notified().await;
                // Polls: waking this task for each event would cost more than writing it.
                tokio::time::sleep(GATHER).await;
            };
            let stopped = stop.run_until_cancelled(gathered).await.is_none();
            let lost = self.waiting.lost() + self.write(self.waiting.take()).await;
            self.metrics.trace_lost.with_label_values::<&str>(&[]).inc_by(lost);
            // Once a minute: a full disk must not fill the log.
            if lost > 0 && told.is_none_or(|told: Instant| told.elapsed() >= TOLD_EVERY) {
                told = Some(Instant::now());
                warn!(
                    events = lost,
                    "trace events are lost: the disk under state_dir is too slow or too full, or [trace] max_size too \
                     small; see fingerpost_trace_events_lost_total"
                );
            }
            if stopped {
                return;
            }
        }
    }

    /// Writes lines; returns how many were lost.
    async fn write(&self, lines: Vec<OfDay>) -> u64 {
        let events: usize = lines.iter().map(OfDay::events).sum();
        let (folder, room) = (self.folder.clone(), *self.room.lock());
        let written = tokio::task::spawn_blocking(move || lines.iter().map(|day| append(&folder, room, day)).sum());
        written.await.unwrap_or(events as u64)
    }
}

/// Appends lines to the file of their day; returns how many events were lost.
fn append(folder: &Path, room: Room, of_day: &OfDay) -> u64 {
    let append = || -> std::io::Result<bool> {
        let Some(file) = room.make(folder, &day(of_day.at), of_day.lines.len() as u64)? else { return Ok(false) };
        let mut file = private::options().append(true).create(true).open(file.path)?;
        file.write_all(&of_day.lines)?;
        Ok(true)
    };
    match append() {
        Ok(true) => return 0,
        Ok(false) => {}
        Err(error) => warn!(%error, "trace events could not be written"),
    }
    of_day.events() as u64
}

/// Removes files of days that are older than `days` before today. Other files are left alone.
pub fn expire(folder: &Path, days: u32, now: UnixTime) {
    let kept = Duration::from_secs(u64::from(days) * 86_400);
    let oldest = day(UnixTime(now.0.saturating_sub(kept.as_secs())));
    for DayFile { path, .. } in files::all(folder).into_iter().filter(|file| file.day < oldest) {
        if let Err(error) = std::fs::remove_file(&path) {
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
        let (trace, writer) = start(folder.path().join("trace"), Room::default(), Metrics::new()).unwrap();
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
