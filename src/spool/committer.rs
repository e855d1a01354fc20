//! The thread that makes records durable, several at once: names their content, appends them to the log, syncs, and
//! only then answers. `store` starts it and sends it jobs whose content is synced.
//!
//! The order is what recovery rests on. A record's content is durable under its final name before the log names it,
//! and content is removed only after the log says that its message is finished.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::oneshot;

use super::contents::Contents;
use super::entry::Record;
use super::layout::{alert, discard};
use super::line::{self, Line, Logged};
use super::live::Live;
use super::segment::{self, NotAppended, NotBegun, Segment};
use super::{Draft, SpoolError};
use crate::message::queue_id::QueueId;
use crate::metrics::Metrics;

/// Records in one sync at most.
const BATCH: usize = 1024;
/// A log smaller than this is not worth compacting, bytes.
const COMPACT_ABOVE: u64 = 32 << 20;

/// In which folder each live message's content is: `Spool::open` reads it, the committer writes it.
pub(super) type Places = Arc<RwLock<HashMap<QueueId, u32>>>;

/// A record to be made durable and where to say so.
#[derive(Debug)]
pub(super) struct Job {
    /// What.
    pub record: Record,
    /// Who waits.
    pub answer: oneshot::Sender<Result<(), SpoolError>>,
}

impl Job {
    /// Answers. Nobody may be waiting any more.
    pub(super) fn end(self, result: Result<(), SpoolError>) {
        drop(self.record); // discards the drafts that were not kept before anybody can ask for them
        let _ = self.answer.send(result);
    }
}

/// How the log stands.
#[derive(Debug)]
enum Log {
    /// Records can be appended.
    Open(Segment),
    /// The segment in force must not be synced again; the next one has this number.
    Failed(u64),
    /// No segment can be begun before the next start.
    Stopped(SpoolError),
}

/// The committer's state.
pub(super) struct Committer {
    log: Log,
    folder: PathBuf,
    live: Live,
    last_id: QueueId,
    contents: Contents,
    places: Places,
    /// Content of records that may be in the failed segment: not removed while that one is in force.
    in_doubt: Vec<Draft>,
    /// The log's size at which compaction is thought of.
    compact_at: u64,
    metrics: Metrics,
}

/// What the committer starts with.
pub(super) struct Start {
    /// The folder of the log.
    pub folder: PathBuf,
    /// The segment in force; it holds `live`.
    pub segment: Segment,
    /// All live messages.
    pub live: Live,
    /// Where their content is.
    pub places: Places,
    /// Where new content goes.
    pub contents: Contents,
    /// The highest id that may have been used.
    pub last_id: QueueId,
    /// Where syncs are timed.
    pub metrics: Metrics,
}

impl Committer {
    /// Ready to run.
    pub(super) fn new(start: Start) -> Self {
        let Start { folder, segment, live, places, contents, last_id, metrics } = start;
        Self {
            log: Log::Open(segment),
            folder,
            live,
            last_id,
            contents,
            places,
            in_doubt: Vec::new(),
            compact_at: COMPACT_ABOVE,
            metrics,
        }
    }

    /// Takes jobs until nobody can send any more.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut batch = vec![first];
            batch.extend(jobs.try_iter().take(BATCH - 1));
            self.commit(batch);
        }
        for draft in &mut self.in_doubt {
            draft.keep(); // the failed segment may name it: recovery decides
        }
    }

    fn commit(&mut self, batch: Vec<Job>) {
        if let Err(error) = self.ready() {
            batch.into_iter().for_each(|job| job.end(Err(error.clone())));
            return;
        }
        let (batch, folder) = self.place(batch);
        let (batch, lines) = encode(batch);
        let Log::Open(segment) = &mut self.log else { return };
        if batch.is_empty() {
            return;
        }
        match segment.append(&lines.bytes, &self.metrics) {
            Ok(()) => self.accept(batch, &lines, folder),
            Err(NotAppended::Unwritten(error)) => {
                tracing::error!("{error}; what was being accepted is turned away for now");
                batch.into_iter().for_each(|job| job.end(Err(error.clone())));
            }
            Err(NotAppended::InDoubt(error)) => self.give_up(batch, &error),
        }
        self.compact();
    }

    /// Sees to it that there is a segment to append to.
    fn ready(&mut self) -> Result<(), SpoolError> {
        match &self.log {
            Log::Open(_) => Ok(()),
            Log::Failed(next) => self.begin(*next),
            Log::Stopped(error) => Err(error.clone()),
        }
    }

    /// Names the content of a batch, durably. Jobs whose content cannot be named are answered here.
    fn place(&mut self, batch: Vec<Job>) -> (Vec<Job>, u32) {
        let mut placed = Vec::with_capacity(batch.len());
        let mut folder = 0;
        for mut job in batch {
            if !job.record.accepted.is_empty() {
                match self.contents.place(job.record.accepted.iter_mut().map(|(draft, _)| draft)) {
                    Ok(number) => folder = number,
                    Err(error) => {
                        job.end(Err(error));
                        continue;
                    }
                }
            }
            placed.push(job);
        }
        if placed.iter().all(|job| job.record.accepted.is_empty()) {
            return (placed, folder);
        }
        if let Err(error) = self.contents.sync() {
            alert(&self.metrics, &error, "new mail goes to another folder");
            let (with, without) = placed.into_iter().partition(|job| !job.record.accepted.is_empty());
            let with: Vec<Job> = with;
            with.into_iter().for_each(|job| job.end(Err(error.clone())));
            placed = without;
        }
        (placed, folder)
    }

    /// The batch is durable: applies it, answers, and removes what is not needed any more.
    fn accept(&mut self, batch: Vec<Job>, lines: &Lines, folder: u32) {
        let mut over = Vec::new();
        for (job, length) in batch.into_iter().zip(&lines.lengths) {
            let Job { record, answer } = job;
            let share = length / record.accepted.len().max(1) as u64;
            let mut finished = Vec::new();
            let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
            for (mut draft, entry) in record.accepted {
                draft.keep();
                self.last_id = self.last_id.max(entry.id);
                self.contents.keep(folder);
                places.insert(entry.id, folder);
                finished.extend(self.live.accept(entry, share));
            }
            finished.extend(record.changes.iter().filter_map(|change| self.live.change(change)));
            over.extend(finished.into_iter().filter_map(|id| Some((places.remove(&id)?, id))));
            drop(places);
            let _ = answer.send(Ok(()));
        }
        for (folder, id) in over {
            self.contents.remove(folder, id);
        }
    }

    /// The batch may or may not be in the log. A new segment without it takes it back before anybody hears that it
    /// was not accepted; where that fails too, its content stays, so that recovery finds it whole or not at all.
    fn give_up(&mut self, batch: Vec<Job>, error: &SpoolError) {
        alert(&self.metrics, error, "a new segment of the log is begun");
        let mut answers = Vec::with_capacity(batch.len());
        for job in batch {
            self.in_doubt.extend(job.record.accepted.into_iter().map(|(draft, _)| draft));
            answers.push(job.answer);
        }
        if let Log::Open(segment) = &self.log {
            let next = segment.number() + 1;
            self.log = Log::Failed(next);
            let _ = self.begin(next); // says so itself, and is tried again with the next batch
        }
        for answer in answers {
            let _ = answer.send(Err(error.clone()));
        }
    }

    /// Puts a new segment in force.
    fn begin(&mut self, number: u64) -> Result<(), SpoolError> {
        let old = match &self.log {
            Log::Open(segment) => segment.number(),
            Log::Failed(_) | Log::Stopped(_) => number - 1,
        };
        match Segment::begin(&self.folder, number, &mut self.live, self.last_id) {
            Ok(segment) => {
                self.compact_at = COMPACT_ABOVE;
                self.log = Log::Open(segment);
                discard(&self.folder.join(segment::name(old)));
                self.in_doubt.clear();
                Ok(())
            }
            Err(NotBegun::Unwritten(error)) => {
                tracing::error!("{error}; the new segment of the log is tried again");
                Err(error)
            }
            Err(NotBegun::Unnamed(error)) => {
                alert(&self.metrics, &error, "no mail is taken until fingerpost is restarted");
                self.log = Log::Stopped(error.clone());
                Err(error)
            }
        }
    }

    /// Begins a new segment when more than half of a large log is about finished messages.
    fn compact(&mut self) {
        let Log::Open(segment) = &self.log else { return };
        let (size, number) = (segment.size(), segment.number());
        if size < self.compact_at || size / 2 < self.live.bytes() {
            return;
        }
        if self.begin(number + 1).is_err() {
            self.compact_at = size + COMPACT_ABOVE; // not at every commit
        }
    }
}

/// A batch as lines of the log.
struct Lines {
    bytes: Vec<u8>,
    /// How long each job's line is.
    lengths: Vec<u64>,
}

/// Jobs that cannot be written are answered here.
fn encode(batch: Vec<Job>) -> (Vec<Job>, Lines) {
    let mut lines = Lines { bytes: Vec::new(), lengths: Vec::with_capacity(batch.len()) };
    let mut encoded = Vec::with_capacity(batch.len());
    for job in batch {
        let from = lines.bytes.len();
        let logged = Logged {
            accepted: job.record.accepted.iter().map(|(_, entry)| Cow::Borrowed(entry)).collect(),
            changes: Cow::Borrowed(&job.record.changes),
        };
        match line::write(&Line::Record(logged), &mut lines.bytes) {
            Ok(()) => {
                lines.lengths.push((lines.bytes.len() - from) as u64);
                encoded.push(job);
            }
            Err(e) => {
                lines.bytes.truncate(from);
                job.end(Err(SpoolError::Io(format!("cannot write JSON: {e}"))));
            }
        }
    }
    (encoded, lines)
}
