//! The thread that makes records durable: it appends several at once to the log, syncs, and only then answers. `store`
//! starts it and sends it jobs, whose large contents are durable already.
//!
//! For a batch it writes, syncs, updates the index, answers, and begins the next segment if it is time. Contents and
//! segments are removed only when the log says durably that they are not needed.

use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use super::SpoolError;
use super::changes::Changes;
use super::closed::{By, Closed};
use super::compaction::Task;
use super::condition::Takes;
use super::draft::{BlobDraft, Draft};
use super::index::{ContentPlace, Finished};
use super::job::{Batch, Collected, Job, Moved, What, collect};
use super::layout::alert;
use super::reserve::Reserve;
use super::segment::{self, NotAppended, NotBegun, Segment};
use super::shared::Parts;
use crate::message::queue_id::QueueId;

/// When a segment is complete, compaction waits this long: messages on their way are likely to be finished by then.
const SOON_OVER: Duration = Duration::from_secs(1);
/// How long the current segment goes on after the next one could not be begun.
const BEGIN_AGAIN: Duration = Duration::from_secs(5);

/// The state of the log.
#[derive(Debug)]
enum Log {
    Open(Segment),
    /// Records cannot be appended now; new segments are being tried.
    Closed(Box<Closed>),
    /// Records cannot be appended until the next start.
    Ended(SpoolError),
}

/// Which space a new segment may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Disk,
    /// Also the reserve, which is not for new mail.
    Reserve,
}

pub(super) struct Committer {
    log: Log,
    parts: Parts,
    compaction: Sender<Task>,
    reserve: Reserve,
    /// The folder of the current segment: 0 the usual one, else a spare one.
    folder: u32,
    last_id: QueueId,
    /// Jobs whose records may or may not be in a failed segment: their large contents are kept while that segment is in
    /// force.
    in_doubt: Vec<What>,
    begun: Instant,
    /// When to try again after a segment could not be begun.
    begin_again: Instant,
}

impl Committer {
    /// A committer that appends to `segment`, which is in force and empty.
    pub(super) fn new(
        parts: Parts,
        compaction: Sender<Task>,
        segment: Segment,
        reserve: Reserve,
        last_id: QueueId,
    ) -> Self {
        let now = Instant::now();
        let (log, in_doubt) = (Log::Open(segment), Vec::new());
        Self { log, parts, compaction, reserve, folder: 0, last_id, in_doubt, begun: now, begin_again: now }
    }

    /// Handles jobs until it is told to stop.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let wakes_at = match &self.log {
                Log::Closed(closed) => Some(closed.wakes_at()),
                Log::Open(_) | Log::Ended(_) => None,
            };
            let batch = match collect(jobs, wakes_at) {
                Collected::Jobs(batch) => batch,
                Collected::None => {
                    let _ = self.ready(&[]); // says so itself
                    continue;
                }
                Collected::Ended => break,
            };
            let (stop, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(|job| matches!(job.what, What::Stop));
            if !batch.is_empty() {
                self.commit(batch);
            }
            if !stop.is_empty() {
                break;
            }
        }
        if let Log::Open(segment) = &self.log {
            segment.cut();
        }
        for what in &mut self.in_doubt {
            keep(what); // the failed segment may name them: recovery decides
        }
    }

    fn commit(&mut self, batch: Vec<Job>) {
        if let Err(error) = self.ready(&batch) {
            batch.into_iter().for_each(|job| job.end(Err(error.clone())));
            return;
        }
        let (asked, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(|job| matches!(job.what, What::Release));
        let batch = self.turn_away(batch);
        self.append(batch);
        self.roll(if asked.is_empty() { self.parts.sizes.segment / 2 } else { self.parts.sizes.worth_it() });
        asked.into_iter().for_each(|job| job.end(Ok(())));
        let mut state = self.parts.shared.lock();
        let is_over = self.begun.elapsed() > SOON_OVER;
        let newest = if is_over { 1 } else { 2 };
        let (segments, sizes) = (&state.index.segments, &self.parts.sizes);
        let is_to_clean = || (segments.needed() > 2 || is_over) && segments.to_clean(sizes).is_some();
        if !state.giving_back && (segments.to_rewrite(sizes, newest).is_some() || is_to_clean()) {
            state.giving_back = true;
            let _ = self.compaction.send(Task::GiveBack { newest });
        }
    }

    /// Makes sure that there is a segment to append to, for these jobs if there are any.
    fn ready(&mut self, batch: &[Job]) -> Result<(), SpoolError> {
        if let Log::Closed(closed) = &self.log
            && closed.is_due(Instant::now(), if batch.is_empty() { By::Clock } else { By::Record })
        {
            let (next, only_mail) = (closed.next, batch.iter().all(Job::is_new_mail));
            let _ = self.begin(next, if only_mail { From::Disk } else { From::Reserve });
        }
        let now = Instant::now();
        let over = match &self.log {
            Log::Open(_) => return Ok(()),
            Log::Ended(error) => return Err(error.clone()),
            Log::Closed(closed) if !closed.is_over(now) => return Err(closed.error.clone()),
            Log::Closed(closed) => closed.error.clone(),
        };
        tracing::error!(alert = true, "{over}; no mail can be taken any more: fingerpost ends, to be started again");
        self.says(Takes::NothingMore(over.to_string()));
        // The last segment and its contents stay as they are.
        self.log = Log::Ended(over.clone());
        Err(over)
    }

    fn says(&self, takes: Takes) {
        let Parts { condition, metrics, .. } = &self.parts;
        condition.set_takes(takes, metrics);
    }

    /// Begins a new segment if the current one is full, or if that frees at least `worth_it` bytes.
    fn roll(&mut self, worth_it: u64) {
        let (_, spent) = self.parts.shared.lock().index.segments.first_needed();
        if let Log::Open(segment) = &self.log
            && (segment.size >= self.parts.sizes.segment || spent.bytes >= worth_it || spent.segments > 16)
            && self.begin_again <= Instant::now()
            && self.begin(segment.number + 1, if spent.segments > 0 { From::Reserve } else { From::Disk }).is_err()
        {
            self.begin_again = Instant::now() + BEGIN_AGAIN;
        }
    }

    /// Refuses new mail while there is no reserve, and updates messages that are to be moved.
    fn turn_away(&mut self, batch: Vec<Job>) -> Vec<Job> {
        let is_room = !batch.iter().any(Job::is_new_mail) || self.reserve.restore();
        let full = || SpoolError::Io("No space left on device: the spool's reserve is gone".into());
        let (refused, mut batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(|job| !is_room && job.is_new_mail());
        refused.into_iter().for_each(|job| job.end(Err(full())));
        let mut changes = Changes::new(&self.parts.layout);
        let mut is_to_go_on = |job: &mut Job| match &mut job.what {
            What::Move(moved) => self.is_still_to_move(moved, &mut changes),
            What::Record(..) | What::Release | What::Stop => true,
        };
        let gone: Vec<Job> = batch.extract_if(.., |job| !is_to_go_on(job)).collect();
        gone.into_iter().for_each(|job| job.end(Ok(())));
        // Moves come first, so that changes in this batch follow them.
        batch.sort_by_key(|job| !matches!(job.what, What::Move(_)));
        batch
    }

    /// Whether a message still has to be moved; it is updated with later changes.
    fn is_still_to_move(&self, moved: &mut Moved, changes: &mut Changes<'_>) -> bool {
        let now = self.parts.shared.lock().index.get(moved.entry.id).cloned();
        let Some(now) = now.filter(|now| now.at == moved.found.at) else { return false };
        // If its changes cannot be read, it stays where it is.
        now == moved.found || changes.apply(&mut moved.entry, &now).is_ok()
    }

    fn append(&mut self, batch: Vec<Job>) {
        let Log::Open(segment) = &mut self.log else { return };
        let batch = Batch::encode(batch, segment.mark, segment.number, segment.size);
        if batch.jobs.is_empty() {
            return;
        }
        match segment.append(&batch.bytes, &self.parts.metrics) {
            Ok(()) => self.accept(batch),
            Err(NotAppended::Full(error)) => self.append_from_reserve(batch, &error),
            // What cannot be written here may be written elsewhere.
            Err(NotAppended::Unwritten(error) | NotAppended::InDoubt(error)) => self.give_up(batch.into_jobs(), &error),
        }
    }

    /// The disk is full: refuses new mail, and writes the rest with the help of the reserve if necessary.
    fn append_from_reserve(&mut self, batch: Batch, error: &SpoolError) {
        let (mail, mut rest): (Vec<_>, Vec<_>) = batch.into_jobs().into_iter().partition(Job::is_new_mail);
        let may_fit = !mail.is_empty() || self.reserve.release();
        let refused = if may_fit { mail } else { std::mem::take(&mut rest) };
        if !refused.is_empty() {
            tracing::error!("{error}; what was being accepted is turned away for now");
            refused.into_iter().for_each(|job| job.end(Err(error.clone())));
        }
        self.append(rest);
    }

    /// The batch is durable: updates the index, answers, and removes what is no longer needed.
    fn accept(&mut self, batch: Batch) {
        let mut over = Vec::new();
        let mut answers = Vec::with_capacity(batch.jobs.len());
        let now = Instant::now();
        let mut state = self.parts.shared.lock();
        let length = batch.bytes.len() as u64;
        for (mut job, spot) in batch.jobs {
            over.extend(state.index.apply(&job.logged(), spot));
            keep(&mut job.what);
            if let What::Record(record, _) = job.what {
                for (draft, entry) in record.accepted {
                    if !entry.id.is_clustered() {
                        self.last_id = self.last_id.max(entry.id);
                    }
                    if let Draft::Small { id, content } = draft {
                        state.fresh.keep(id, content, now);
                    }
                }
            }
            answers.push(job.answer);
        }
        if let Log::Open(segment) = &self.log {
            state.index.segments.grow(segment.number, length);
        }
        over.iter().for_each(|Finished { id, .. }| {
            state.fresh.take(*id);
            state.damaged.remove(id);
        });
        drop(state);
        for answer in answers {
            let _ = answer.send(Ok(()));
        }
        for Finished { id, content: place } in over {
            if let ContentPlace::File { folder, .. } = place {
                self.parts.large.remove(folder, id);
            }
        }
    }

    /// The batch may or may not be in the log. A new segment revokes it before anybody gets an error; if that fails
    /// too, its contents are kept, so that recovery finds all of it or nothing.
    fn give_up(&mut self, batch: Vec<Job>, error: &SpoolError) {
        alert(&self.parts.metrics, error, "a new segment of the log is begun");
        let Log::Open(segment) = std::mem::replace(&mut self.log, Log::Ended(error.clone())) else { return };
        segment.cut();
        let next = segment.number + 1;
        let from = if batch.iter().all(Job::is_new_mail) { From::Disk } else { From::Reserve };
        self.log = Log::Closed(Box::new(Closed::new(segment, next, self.folder, error.clone(), Instant::now())));
        let (whats, answers): (Vec<_>, Vec<_>) = batch.into_iter().map(|job| (job.what, job.answer)).unzip();
        self.in_doubt.extend(whats);
        let _ = self.begin(next, from); // says so itself, and is tried again with the next batch
        for answer in answers {
            let _ = answer.send(Err(error.clone()));
        }
    }

    /// Puts a new segment in force, and removes those before the first that is needed.
    fn begin(&mut self, number: u32, from: From) -> Result<(), SpoolError> {
        let (previous, previous_end, folder) = match &self.log {
            Log::Open(old) => (old.number, old.size, self.folder),
            Log::Closed(closed) => (closed.old.number, closed.old.size, closed.folder),
            Log::Ended(error) => return Err(error.clone()),
        };
        let first = self.parts.shared.lock().index.segments.first_needed_or(number);
        let reserve = Some(&mut self.reserve).filter(|_| from == From::Reserve);
        self.parts.layout.put(number, folder);
        let next = segment::Next { number, previous, previous_end, first, last_id: self.last_id };
        match segment::begin(&self.parts.layout, next, reserve, &self.parts.sizes) {
            Ok(segment) => {
                self.folder = folder;
                let mut state = self.parts.shared.lock();
                state.begin(number, segment.readable());
                state.index.segments.begin(number, self.last_id);
                state.index.segments.grow(number, segment.size);
                let spent = state.forget_before(first);
                drop(state);
                segment::remove(&self.parts.layout, spent);
                self.in_doubt.clear();
                self.begun = Instant::now();
                match std::mem::replace(&mut self.log, Log::Open(segment)) {
                    Log::Open(old) => old.cut(),
                    Log::Closed(_) => tracing::warn!("a new segment of the log is begun: records are taken again"),
                    Log::Ended(_) => {}
                }
                self.says(Takes::Records);
                let _ = self.compaction.send(Task::Complete);
                Ok(())
            }
            Err(not_begun) => {
                self.parts.layout.forget(number);
                self.not_begun(not_begun, number)
            }
        }
    }

    /// Handles a failure to begin the next segment.
    fn not_begun(&mut self, why: NotBegun, number: u32) -> Result<(), SpoolError> {
        let error = match &why {
            NotBegun::Unwritten(error) | NotBegun::Full(error) => {
                tracing::error!("{error}; the new segment of the log is tried again");
                error.clone()
            }
            NotBegun::Unnamed(error) => {
                alert(&self.parts.metrics, error, "no mail is taken until a segment is begun in another folder");
                error.clone()
            }
        };
        let now = Instant::now();
        self.log = match std::mem::replace(&mut self.log, Log::Ended(error.clone())) {
            // The current segment goes on: its end is in doubt only once another segment has its name.
            Log::Open(old) if !matches!(why, NotBegun::Unnamed(_)) => Log::Open(old),
            Log::Open(old) => {
                let mut closed = Closed::new(old, number, self.folder, error.clone(), now);
                closed.failed(why, now);
                Log::Closed(Box::new(closed))
            }
            Log::Closed(mut closed) => {
                closed.failed(why, now);
                Log::Closed(closed)
            }
            ended @ Log::Ended(_) => ended,
        };
        if let Log::Closed(closed) = &self.log {
            if closed.is_due(now, By::Clock) {
                return self.begin(closed.next, From::Disk);
            }
            self.says(Takes::Nothing(error.to_string()));
        }
        Err(error)
    }
}

/// Keeps the files of its large contents.
fn keep(what: &mut What) {
    match what {
        What::Record(record, _) => {
            for (draft, _) in &mut record.accepted {
                if let Draft::Blob(draft) = draft {
                    draft.keep();
                }
            }
        }
        What::Move(moved) => moved.file.iter_mut().for_each(BlobDraft::keep),
        What::Release | What::Stop => {}
    }
}
