//! The committer's jobs, and their encoding as a batch of records.

use std::borrow::Cow;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::SpoolError;
use super::draft::{BlobDraft, Draft};
use super::entry::{Entry, Record};
use super::index::{IndexEntry, Spot};
use super::record::{self, Held, Logged, Mark, Statement};

/// The most records in one sync, and their bytes.
const BATCH: usize = 1024;
const BATCH_BYTES: usize = 8 << 20;
/// How long outcomes wait for others to share a sync, and how many are enough to stop waiting.
///
/// A crash in that time may cause a second copy of a message that a next hop accepted, which at-least-once delivery
/// allows during a sync as well. A sync for each outcome would cost as much as one for each message.
const OUTCOMES_WAIT: Duration = Duration::from_millis(2);
const OUTCOMES_ENOUGH: usize = 16;
/// Something to be made durable, and who waits for the result.
#[derive(Debug)]
pub(super) struct Job {
    pub what: What,
    pub answer: oneshot::Sender<Result<(), SpoolError>>,
}

#[derive(Debug)]
pub(super) enum What {
    /// A record, and where its new messages' contents are.
    Record(Record, Vec<Held>),
    /// A live message of an old segment that is appended again, in a record of its own, since reading a message reads
    /// its whole record.
    Move(Box<Moved>),
    /// Remove the segments before the first that is needed.
    Release,
    /// The last job.
    Stop,
}

#[derive(Debug)]
pub(super) struct Moved {
    /// With its current state.
    pub entry: Entry,
    /// Its positions when it was found: later changes are added.
    pub found: IndexEntry,
    pub held: Held,
    /// Its content, if that goes into the record.
    pub content: Bytes,
    /// Its content if it is damaged, in a file of its own from now on.
    pub file: Option<BlobDraft>,
}

impl Job {
    /// Sends the result; the receiver may be gone.
    pub(super) fn end(self, result: Result<(), SpoolError>) {
        drop(self.what); // discards the drafts that were not kept before anybody can ask for them
        let _ = self.answer.send(result);
    }

    /// Whether it may wait for others to share a sync: it has no new mail, and no attempt can be repeated before it is
    /// answered.
    pub(super) fn can_wait(&self) -> bool {
        match &self.what {
            What::Record(..) => !self.is_new_mail(),
            What::Move(_) => true,
            What::Release | What::Stop => false,
        }
    }

    /// Whether it has new mail and nothing else: such jobs are refused first when the disk is full.
    pub(super) fn is_new_mail(&self) -> bool {
        matches!(&self.what, What::Record(record, _) if record.changes.is_empty())
    }

    /// Its approximate size in the log, bytes.
    pub(super) fn size(&self) -> usize {
        let contents = |contents: &mut dyn Iterator<Item = &Bytes>| contents.map(Bytes::len).sum();
        match &self.what {
            What::Record(record, _) => contents(&mut record.accepted.iter().filter_map(|(draft, _)| small(draft))),
            What::Move(moved) => moved.content.len(),
            What::Release | What::Stop => 0,
        }
    }

    /// Its record's content.
    pub(super) fn logged(&self) -> Logged<'_> {
        let statement = |(entry, content)| Statement { entry: Cow::Borrowed(entry), content };
        match &self.what {
            What::Record(record, held) => Logged {
                accepted: record
                    .accepted
                    .iter()
                    .map(|(_, entry)| entry)
                    .zip(held.iter().copied())
                    .map(statement)
                    .collect(),
                changes: Cow::Borrowed(&record.changes),
            },
            What::Move(moved) => {
                Logged { accepted: vec![statement((&moved.entry, moved.held))], changes: Cow::Borrowed(&[]) }
            }
            What::Release | What::Stop => Logged { accepted: Vec::new(), changes: Cow::Borrowed(&[]) },
        }
    }

    fn contents(&self) -> Vec<&[u8]> {
        match &self.what {
            What::Record(record, _) => {
                record.accepted.iter().filter_map(|(draft, _)| small(draft)).map(|content| &content[..]).collect()
            }
            What::Move(moved) => vec![&moved.content[..]],
            What::Release | What::Stop => Vec::new(),
        }
    }
}

/// The content, if it goes into the record.
fn small(draft: &Draft) -> Option<&Bytes> {
    match draft {
        Draft::Small { content, .. } => Some(content),
        Draft::Blob(_) => None,
    }
}

/// The place of a small draft's content.
pub(super) fn held_here(content: &[u8]) -> Held {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX); // a record that long is refused
    Held::Here { length, sum: crc32c::crc32c(content) }
}

/// Jobs with their encoded records.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Each job with the position of its record.
    pub jobs: Vec<(Job, Spot)>,
    /// Their records, concatenated.
    pub bytes: Vec<u8>,
}

impl Batch {
    /// Encodes jobs as records for a segment that has `size` bytes. Jobs that cannot be encoded are answered here.
    pub(super) fn encode(jobs: Vec<Job>, mark: Mark, segment: u32, size: u64) -> Self {
        let mut batch = Self::default();
        batch.bytes.reserve(jobs.iter().map(|job| job.size() + 1024).sum());
        for job in jobs {
            let from = batch.bytes.len();
            let written = record::write(mark, &job.logged(), &job.contents(), &mut batch.bytes);
            let at = |at: usize| u32::try_from(size + at as u64);
            match (at(from), written.map(at)) {
                (Ok(offset), Ok(Ok(contents))) => batch.jobs.push((job, Spot { segment, offset, contents })),
                (_, written) => {
                    batch.bytes.truncate(from);
                    let why = written.err().map_or_else(|| "it is too long".to_owned(), |error| error.to_string());
                    job.end(Err(SpoolError::Io(format!("cannot write a record: {why}"))));
                }
            }
        }
        batch
    }

    pub(super) fn into_jobs(self) -> Vec<Job> {
        self.jobs.into_iter().map(|(job, _)| job).collect()
    }
}

#[derive(Debug)]
pub(super) enum Collected {
    Jobs(Vec<Job>),
    /// None until the time to wake.
    None,
    /// All senders are gone.
    Ended,
}

/// Waits for jobs and takes all that have come; or returns at the time to wake.
pub(super) fn collect(jobs: &Receiver<Job>, wakes_at: Option<Instant>) -> Collected {
    let first = match wakes_at {
        None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Some(at) => jobs.recv_timeout(at.saturating_duration_since(Instant::now())),
    };
    let first = match first {
        Ok(first) => first,
        Err(RecvTimeoutError::Timeout) => return Collected::None,
        Err(RecvTimeoutError::Disconnected) => return Collected::Ended,
    };
    let (mut bytes, mut until) = (first.size(), None);
    let mut batch = vec![first];
    while batch.len() < BATCH && bytes < BATCH_BYTES {
        let next = match jobs.try_recv() {
            Ok(job) => job,
            Err(_) if batch.len() >= OUTCOMES_ENOUGH || !batch.iter().all(Job::can_wait) => break,
            Err(_) => {
                let until = *until.get_or_insert_with(|| Instant::now() + OUTCOMES_WAIT);
                match jobs.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(job) => job,
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
        };
        bytes += next.size();
        batch.push(next);
    }
    Collected::Jobs(batch)
}
