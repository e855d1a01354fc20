//! Writes the message trace: batches of events, a JSON line each, into the file of their day.
//!
//! `run` starts one [`Writer`] and stops it last, so that what the drain does is traced too. An event reaches the
//! file within half a second; a full or broken disk loses trace lines, never mail.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Event, Sink, Trace};
use crate::time::UnixTime;

/// Events that may wait for the disk: some seconds of a busy server.
const WAITING: usize = 32_768;
/// Events written at once.
const BATCH: usize = 4_096;
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
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.map_err(|error| format!("cannot make the folder {}: {error}", folder.display()))?;
    let (events, waiting) = mpsc::channel(WAITING);
    let lost = Arc::new(AtomicU64::new(0));
    let stop = CancellationToken::new();
    let task = tokio::spawn(write_all(folder, waiting, lost.clone(), stop.clone()));
    Ok((Trace { sink: Some(Arc::new(Sink { events, lost })) }, Writer { stop, task }))
}

impl Writer {
    /// Writes what is waiting and ends.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

async fn write_all(folder: PathBuf, mut waiting: mpsc::Receiver<Event>, lost: Arc<AtomicU64>, stop: CancellationToken) {
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            () = gather(&mut waiting, &mut batch) => {}
            () = stop.cancelled() => waiting.close(),
        }
        while batch.len() < BATCH
            && let Ok(event) = waiting.try_recv()
        {
            batch.push(event);
        }
        if batch.is_empty() && waiting.is_closed() {
            return;
        }
        let to = folder.clone();
        let written = tokio::task::spawn_blocking(move || append(&to, &batch)).await;
        if let Ok(Err(error)) = written {
            warn!(%error, "trace events could not be written");
        }
        match lost.swap(0, Ordering::Relaxed) {
            0 => {}
            events => warn!(events, "trace events were lost: the disk under state_dir is too slow"),
        }
    }
}

/// Waits for an event, then a little for more.
async fn gather(waiting: &mut mpsc::Receiver<Event>, batch: &mut Vec<Event>) {
    if waiting.recv_many(batch, BATCH).await == 0 {
        return;
    }
    // Nobody waits for them meanwhile: waking this task for each event would cost more than writing it.
    tokio::time::sleep(GATHER).await;
    while batch.len() < BATCH
        && let Ok(event) = waiting.try_recv()
    {
        batch.push(event);
    }
}

/// Appends events to the files of their days: one write a day.
fn append(folder: &Path, events: &[Event]) -> std::io::Result<()> {
    for of_day in events.chunk_by(|a, b| day(a.at) == day(b.at)) {
        let mut lines = Vec::with_capacity(of_day.len() * 256);
        for event in of_day {
            serde_json::to_writer(&mut lines, event)?;
            lines.push(b'\n');
        }
        let Some(first) = of_day.first() else { continue };
        let path = folder.join(format!("{}.jsonl", day(first.at)));
        OpenOptions::new().append(true).create(true).open(path)?.write_all(&lines)?;
    }
    Ok(())
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
    use super::super::What;
    use super::super::tests::event;
    use super::*;

    const DAY: u64 = 86_400;

    #[tokio::test]
    async fn events_go_to_the_file_of_their_day_and_stop_writes_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let (trace, writer) = start(folder.path().join("trace")).unwrap();
        trace.record(event(DAY - 1, What::Received, "A", ""));
        trace.record(event(DAY, What::Delivered, "A", "alice@contoso.com"));
        trace.record(event(DAY + 1, What::Delivered, "A", "bob@contoso.com"));
        writer.stop().await;
        let lines = |name: &str| std::fs::read_to_string(folder.path().join("trace").join(name)).unwrap();
        assert_eq!(lines("1970-01-01.jsonl").lines().count(), 1);
        assert_eq!(lines("1970-01-02.jsonl").lines().count(), 2);
        let read: Event = serde_json::from_str(lines("1970-01-01.jsonl").trim()).unwrap();
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
