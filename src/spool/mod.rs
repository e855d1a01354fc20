//! What is durable: queued messages, their envelopes and outcomes (DESIGN section 8).
//!
//! A [`Spool`] promises one thing: when [`Spool::commit`] returns `Ok`, the whole record is on stable storage. Sessions
//! and `delivery` write through it; recovery hands every live entry back. A store for several nodes fits behind it too.
//!
//! The store's parts, as a record meets them: [`Draft`] (content before it is committed), [`store`], `blobs` (content
//! in a file of its own), `job`, `committer`, `segment`, [`record`] and [`header`] (bytes, pure), [`index`] (pure),
//! [`Stored`] (content being read); `clock`; [`condition`] (how it fares), `closed` (while nothing can be appended); `compaction`,
//! `stuck`, `changes`, [`rewrite`] (pure) and [`checkpoint`] keep the log short and quick to read; `recover` with
//! [`chain`] and `quarantine` reads it at start; [`offline`] reads it without a server.

use crate::message::queue_id::QueueId;
use crate::time::QueueTime;
use std::pin::Pin;

pub mod chain;
pub mod checkpoint;
mod draft;
pub mod entry;
pub mod header;
pub mod index;
pub mod offline;
pub mod record;
pub mod release;
pub mod rewrite;
pub mod store;
mod stored;
mod quarantine;
mod changes;
mod closed;
mod clock;
pub mod condition;
mod committer;
#[cfg(test)]
pub(crate) mod formats;
mod content_cache;
mod job;
mod blobs;
mod layout;
mod open_recipients;
mod reading;
mod recover;
mod reserve;
#[cfg(test)]
mod sample;
mod segment;
mod shared;
mod stuck;
mod compaction;

pub use draft::{BlobDraft, Draft, IN_RECORD};
pub use index::Sizes;
pub use stored::{Pieces, Stored};

use condition::Condition;
use entry::outline::Outlines;
use entry::{Entry, Record};

/// A future that a [`Spool`] returns.
pub type Committed<'a> = Pin<Box<dyn Future<Output = Result<(), SpoolError>> + Send + 'a>>;

/// Why something could not be made durable. Nothing of it counts as accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SpoolError {
    /// Writing or syncing failed; the text names the file and the cause.
    #[error("spool: {0}")]
    Io(String),
    /// There is less free space than `min_free`, or there are too few inodes: which, in words.
    #[error("spool: {0}")]
    Full(String),
}

/// Where accepted mail lives until it is delivered.
pub trait Spool: Send + Sync {
    /// An id that no other message has or will have.
    fn new_id(&self) -> QueueId;

    /// The queue's time: what ages are counted by.
    fn queue_time(&self) -> QueueTime;

    /// Begins a content that is too large for a record, under an id from [`Spool::new_id`]. It blocks.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    fn create_as(&self, id: QueueId) -> Result<BlobDraft, SpoolError>;

    /// A content that is there already, under an id from [`Spool::new_id`]. It blocks if that is large.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    fn draft(&self, id: QueueId, content: Vec<u8>) -> Result<Draft, SpoolError> {
        if content.len() <= IN_RECORD {
            return Ok(Draft::Small { id, content: content.into() });
        }
        let mut draft = self.create_as(id)?;
        draft.append(&content)?;
        Ok(Draft::Blob(draft))
    }

    /// Makes a record durable: all of it or nothing. Concurrent callers share one sync. Each draft is to have
    /// [`entry::Content::size`] bytes. Once polled, the record is on its way: dropping the future does not take it back,
    /// so whoever has to act on its end should not be cancelled.
    ///
    /// A message whose recipients are all [`entry::RecipientState::Done`] is finished and its content is removed. A change to a
    /// message that is finished, or to a recipient that is done, changes nothing. Records without new mail may wait a
    /// few milliseconds for others.
    fn commit(&self, record: Record) -> Committed<'_>;

    /// A live message as it stands; `None`: there is none with this id. It blocks.
    ///
    /// # Errors
    /// [`SpoolError::Io`]: its record, or one of what became of it, cannot be read.
    fn entry(&self, id: QueueId) -> Result<Option<Entry>, SpoolError>;

    /// The ids of the first live messages behind this one, by age; `None`: of the oldest.
    fn ids_after(&self, id: Option<QueueId>, most: usize) -> Vec<QueueId>;

    /// The recipients of a live message that are not over, by position, whether it can be read or not.
    fn open_recipients(&self, id: QueueId) -> Vec<usize>;

    /// How many live messages there are.
    fn live_messages(&self) -> usize;

    /// The content of a live message. What it returns can be read to its end whatever becomes of the message.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    fn open(&self, id: QueueId) -> Result<Stored, SpoolError>;

    /// How it fares.
    fn condition(&self) -> Condition {
        Condition::default()
    }

    /// A message's content is not what was written: keeps a copy of what there is for a person to look at, and says so.
    /// From now on [`Spool::open`] knows it as damaged. It blocks.
    fn keep_damaged(&self, entry: &Entry, content: &Stored) {
        let _ = (entry, content);
    }

    /// Keeps a segment that cannot be read for a person to look at, if it is one. Returns the live messages in it; they
    /// stay as they are. It blocks.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    fn keep_unreadable(&self, segment: u32) -> Result<Option<Vec<QueueId>>, SpoolError> {
        let _ = segment;
        Ok(None)
    }

    /// The live messages found at start, once: later calls return nothing.
    fn recovered(&self) -> Outlines;
}
