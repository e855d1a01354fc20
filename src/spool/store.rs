//! The store: a log of segments with group commit, in which small messages are part of their record.
//!
//! `run` opens it, sessions and `delivery` use it through [`Spool`]. One thread, the committer, writes the log; another
//! runs compaction. `layout` has the paths; docs/decisions/0005-segmented-spool.md the reasons for this design.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::blobs::Blobs;
use super::clock::QueueClock;
use super::committer::Committer;
use super::compaction::{Compactor, Task};
use super::condition::Condition;
use super::draft::{BlobDraft, Draft};
use super::entry::outline::Outlines;
use super::entry::{Entry, Record};
use super::index::{ContentPlace, IndexEntry, Sizes};
use super::job::{Job, What, held_here};
use super::layout::{self, Layout, failed};
use super::record::Held;
use super::recover::{Recovered, recover};
use super::reserve::Reserve;
use super::segment::{self, NotBegun, Segment};
use super::shared::{LogState, Parts, SharedLog};
use super::stored::Stored;
use super::{Committed, Spool, SpoolError, quarantine};
use crate::message::queue_id::QueueId;
use crate::metrics::Metrics;
use crate::time::QueueTime;

/// A spool below one folder. Dropping it finishes pending jobs and unlocks the folder.
pub struct LogStore {
    layout: Layout,
    shared: SharedLog,
    large: Arc<Blobs>,
    last_id: AtomicU64,
    clock: QueueClock,
    recovered: Mutex<Outlines>,
    condition: Condition,
    metrics: Metrics,
    jobs: Sender<Job>,
    threads: Vec<JoinHandle<()>>,
    lock: File,
}

impl LogStore {
    /// Opens the spool below `folder`, creates it if it is missing, and recovers its content. The folder is locked: one
    /// process at a time.
    ///
    /// # Errors
    /// [`SpoolError::Io`] naming the file.
    pub fn open(folder: &Path, sizes: Sizes, metrics: Metrics) -> Result<Self, SpoolError> {
        let layout = Layout::make(folder)?;
        let lock = layout::lock(folder)?;
        let mut found = recover(&layout)?;
        let clock = QueueClock::open(folder, found.newest)?;
        let mut reserve = Reserve::set_up(folder, sizes.reserve);
        let segment = put_in_force(&layout, &mut found, &mut reserve, &sizes)?;
        let Recovered { index, outlines, last_id, next_folder, not_whole: damaged, .. } = found;
        let none: &[&str] = &[]; // there at zero
        metrics.spool_sync_failures.with_label_values(none);
        metrics.spool_damaged_contents.with_label_values(none);
        metrics.spool_unreadable_segments.with_label_values(none);
        metrics.spool_takes_nothing.with_label_values(none);
        let growing = (segment.number, segment.readable());
        let shared = SharedLog::new(LogState::new(index, growing, damaged));
        let (jobs, to_commit) = channel();
        let (compaction, to_compact) = channel();
        for task in [Task::GiveBack { newest: 1 }, Task::Complete] {
            let _ = compaction.send(task); // to itself: what was recovered may be long
        }
        let condition = Condition::default();
        let large = Arc::new(Blobs::new(layout.clone(), metrics.clone(), condition.clone(), next_folder));
        let parts = Parts {
            layout: layout.clone(),
            sizes,
            shared: shared.clone(),
            large: large.clone(),
            condition: condition.clone(),
            metrics: metrics.clone(),
        };
        let committer = Committer::new(parts.clone(), compaction, segment, reserve, last_id);
        let compactor = Compactor::new(parts, jobs.clone(), clock.clone());
        let threads = vec![
            spawn("spool-log", move || committer.run(&to_commit))?,
            spawn("spool-compact", move || compactor.run(&to_compact))?,
        ];
        let recovered = Mutex::new(outlines);
        let last_id = AtomicU64::new(last_id.0);
        Ok(Self { layout, shared, large, last_id, clock, recovered, condition, metrics, jobs, threads, lock })
    }
}

/// Begins a segment after the recovered ones, and removes what is no longer needed.
fn put_in_force(
    layout: &Layout,
    found: &mut Recovered,
    reserve: &mut Reserve,
    sizes: &Sizes,
) -> Result<Segment, SpoolError> {
    let (previous, previous_end) = found.last.unwrap_or_default();
    if found.last.is_some() {
        // If the process before was killed, what was read may not have been written to disk yet. Anything after the
        // last record is ignored.
        let path = layout.segment(previous);
        let cut = |file: File| file.set_len(previous_end).and_then(|()| file.sync_data());
        File::options().write(true).open(&path).and_then(cut).map_err(|e| failed("cannot sync", &path, &e))?;
    }
    let number = found.next_segment;
    let first = found.index.segments.first_needed_or(number);
    let next = segment::Next { number, previous, previous_end, first, last_id: found.last_id };
    let begun = match segment::begin(layout, next, Some(reserve), sizes) {
        Err(NotBegun::Full(_)) if reserve.release_last() => segment::begin(layout, next, None, sizes),
        begun => begun,
    };
    let segment = begun.map_err(|e| match e {
        NotBegun::Full(e) | NotBegun::Unwritten(e) | NotBegun::Unnamed(e) => e,
    })?;
    found.index.segments.begin(number, found.last_id);
    found.index.segments.grow(number, segment.size);
    segment::remove(layout, found.index.segments.forget_before(first));
    let folder = |kept: &IndexEntry| match kept.content {
        ContentPlace::File { folder, .. } => Some(layout.large_folder(folder)),
        ContentPlace::Segment { .. } => None,
    };
    let used: HashSet<PathBuf> = found.index.messages().filter_map(|(_, kept)| folder(kept)).collect();
    for path in &found.discard {
        if path.parent() != Some(&layout.large) {
            layout::discard(path);
        } else if !used.contains(path) {
            let _ = std::fs::remove_dir(path); // a stranger's file keeps it
        }
    }
    Ok(segment)
}

impl Spool for LogStore {
    /// Milliseconds since 1970 and a counter; never repeated, even if the clock went back.
    fn new_id(&self) -> QueueId {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since.as_millis()).unwrap_or_default() << 20;
        let next = |last: u64| Some(now.max(last + 1));
        let last = self.last_id.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
        QueueId(now.max(last + 1))
    }

    fn queue_time(&self) -> QueueTime {
        self.clock.now()
    }

    fn create_as(&self, id: QueueId) -> Result<BlobDraft, SpoolError> {
        self.large.create(id)
    }

    fn commit(&self, record: Record) -> Committed<'_> {
        Box::pin(async move {
            if record.accepted.is_empty() && record.changes.is_empty() {
                return Ok(());
            }
            record.accepted.iter().try_for_each(|(draft, entry)| draft.is_content_of(entry))?;
            let (answer, answered) = oneshot::channel();
            if record.accepted.iter().any(|(draft, _)| matches!(draft, Draft::Blob(_))) {
                let (large, jobs) = (self.large.clone(), self.jobs.clone());
                tokio::task::spawn_blocking(move || submit(&jobs, Some(&large), record, answer));
            } else {
                submit(&self.jobs, None, record, answer);
            }
            answered.await.map_err(|_| ended())?
        })
    }

    fn open(&self, id: QueueId) -> Result<Stored, SpoolError> {
        self.shared.open(&self.layout, id)
    }

    fn entry(&self, id: QueueId) -> Result<Option<Entry>, SpoolError> {
        let entry = self.shared.entry(&self.layout, id)?;
        Ok(entry.map(|entry| Entry { queued_at: entry.queued_at.min(self.clock.now()), ..entry }))
    }

    fn open_recipients(&self, id: QueueId) -> Vec<usize> {
        self.shared.lock().index.open_of(id)
    }

    fn live_messages(&self) -> usize {
        self.shared.lock().index.len()
    }

    fn ids_after(&self, id: Option<QueueId>, most: usize) -> Vec<QueueId> {
        self.shared.lock().index.ids_after(id, most)
    }

    fn condition(&self) -> Condition {
        self.condition.clone()
    }

    fn keep_damaged(&self, entry: &Entry, content: &Stored) {
        let mut state = self.shared.lock();
        let Some(kept) = state.index.get(entry.id).cloned() else { return };
        if state.damaged.insert(entry.id) {
            drop(state);
            self.metrics.spool_damaged_contents.with_label_values::<&str>(&[]).inc();
            quarantine::keep_stored(&self.layout, entry, content, &kept);
        }
    }

    fn keep_unreadable(&self, segment: u32) -> Result<Option<Vec<QueueId>>, SpoolError> {
        if !self.condition.unreadable().iter().any(|unreadable| unreadable.segment == segment) {
            return Ok(None);
        }
        let why = format!("an operator lets segment {segment} go, which cannot be read");
        quarantine::keep_segment(&self.layout, segment, &why)?;
        let open = self.shared.lock().index.open_in(segment);
        let messages: BTreeSet<QueueId> = open.into_iter().map(|(id, _)| id).collect();
        Ok(Some(messages.into_iter().collect()))
    }

    fn recovered(&self) -> Outlines {
        std::mem::take(&mut *self.recovered.lock())
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        let (answer, _) = oneshot::channel();
        let _ = self.jobs.send(Job { what: What::Stop, answer });
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        // Closing is not enough while a process that is being forked still has a copy of the descriptor.
        let _ = self.lock.unlock();
    }
}

/// Makes large contents durable, which blocks, and sends the record to the committer.
fn submit(
    jobs: &Sender<Job>,
    large: Option<&Blobs>,
    mut record: Record,
    answer: oneshot::Sender<Result<(), SpoolError>>,
) {
    let mut held = Vec::with_capacity(record.accepted.len());
    for (draft, _) in &mut record.accepted {
        let placed = match (draft, large) {
            (Draft::Small { content, .. }, _) => Ok(held_here(content)),
            (Draft::Blob(draft), Some(large)) => {
                large.place(draft).map(|folder| Held::File { folder, sum: Some(draft.sum()) })
            }
            (Draft::Blob(_), None) => Err(ended()),
        };
        match placed {
            Ok(place) => held.push(place),
            Err(error) => return Job { what: What::Record(record, held), answer }.end(Err(error)),
        }
    }
    if let Err(unsent) = jobs.send(Job { what: What::Record(record, held), answer }) {
        unsent.0.end(Err(ended()));
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, SpoolError> {
    Builder::new().name(name.into()).spawn(body).map_err(|e| SpoolError::Io(format!("cannot start a thread: {e}")))
}

fn ended() -> SpoolError {
    SpoolError::Io("the spool has stopped: see the log, and restart fingerpost".into())
}
