//! What the committer is asked to make durable, and a batch of it as bytes of the log.

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

/// Records in one sync at most, and their bytes.
const BATCH: usize = 1024;
const BATCH_BYTES: usize = 8 << 20;
/// How long outcomes wait for others to share their sync, and how many of them are enough.
///
/// At worst a crash in that time costs one more copy of what a next hop took, which at-least-once allows for the time
/// of the sync anyway; a sync for each outcome would cost as much as one for each message.
const OUTCOMES_WAIT: Duration = Duration::from_millis(2);
const OUTCOMES_ENOUGH: usize = 16;
/// Something to be made durable and where to say so.
#[derive(Debug)]
pub(super) struct Job {
    pub what: What,
    /// Who waits.
    pub answer: oneshot::Sender<Result<(), SpoolError>>,
}

/// What is asked of the committer.
#[derive(Debug)]
pub(super) enum What {
    /// A record, and where its new messages' contents are.
    Record(Record, Vec<Held>),
    /// A live message of an old segment, to be put at the end of the log: in a record of its own, for whoever reads it
    /// reads the whole record.
    Move(Box<Moved>),
    /// Segments before the first that is needed can go.
    Release,
    /// Nothing comes after this.
    Stop,
}

/// A message that is to be moved.
#[derive(Debug)]
pub(super) struct Moved {
    /// As it stands.
    pub entry: Entry,
    /// How it was found: what has become of it since is added.
    pub found: IndexEntry,
    /// Where its content will be.
    pub held: Held,
    /// Its content, if that is in the record.
    pub content: Bytes,
    /// Its content, if it is damaged: in a file of its own from now on.
    pub file: Option<BlobDraft>,
}

impl Job {
    /// Answers. Nobody may be waiting any more.
    pub(super) fn end(self, result: Result<(), SpoolError>) {
        drop(self.what); // discards the drafts that were not kept before anybody can ask for them
        let _ = self.answer.send(result);
    }

    /// Whether it may wait a moment for others: nobody's mail is being taken, and no attempt can be made again before it
    /// is answered.
    pub(super) fn can_wait(&self) -> bool {
        match &self.what {
            What::Record(..) => !self.is_new_mail(),
            What::Move(_) => true,
            What::Release | What::Stop => false,
        }
    }

    /// Whether it is somebody's new mail and nothing else: what is turned away first when the disk is full.
    pub(super) fn is_new_mail(&self) -> bool {
        matches!(&self.what, What::Record(record, _) if record.changes.is_empty())
    }

    /// About how many bytes it will take.
    pub(super) fn size(&self) -> usize {
        let contents = |contents: &mut dyn Iterator<Item = &Bytes>| contents.map(Bytes::len).sum();
        match &self.what {
            What::Record(record, _) => contents(&mut record.accepted.iter().filter_map(|(draft, _)| small(draft))),
            What::Move(moved) => moved.content.len(),
            What::Release | What::Stop => 0,
        }
    }

    /// What its record says.
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

/// The content that is part of the record.
fn small(draft: &Draft) -> Option<&Bytes> {
    match draft {
        Draft::Small { content, .. } => Some(content),
        Draft::Blob(_) => None,
    }
}

/// Where the content of a small draft will be.
pub(super) fn held_here(content: &[u8]) -> Held {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX); // a record that long is refused
    Held::Here { length, sum: crc32c::crc32c(content) }
}

/// Jobs and what they are in the log.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Each job with where its record will be.
    pub jobs: Vec<(Job, Spot)>,
    /// Their records, one behind the other.
    pub bytes: Vec<u8>,
}

impl Batch {
    /// Writes jobs as records for a segment that has `size` bytes. Those that cannot be written are answered here.
    pub(super) fn encode(jobs: Vec<Job>, mark: Mark, (segment, size): (u32, u64)) -> Self {
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

    /// The jobs alone.
    pub(super) fn into_jobs(self) -> Vec<Job> {
        self.jobs.into_iter().map(|(job, _)| job).collect()
    }
}

/// What has come.
#[derive(Debug)]
pub(super) enum Collected {
    /// The next jobs.
    Jobs(Vec<Job>),
    /// None until it was time.
    None,
    /// Nobody can send any more.
    Ended,
}

/// The next jobs: what has come while the last ones were synced; or none until it is time to wake.
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
