//! What is durable: queued messages, their envelopes and outcomes (DESIGN section 8).
//!
//! A [`Spool`] promises one thing: when [`Spool::commit`] returns `Ok`, the whole record is on stable
//! storage. Sessions and `delivery` write through it; recovery hands every live entry back.

use crate::message::queue_id::QueueId;
use std::fs::File;
use std::pin::Pin;

pub mod entry;
pub mod store;
mod committer;
mod contents;
mod layout;
mod line;
mod live;
mod recover;
mod segment;
mod spares;

use entry::{Entry, Record};

/// A future that a [`Spool`] returns.
pub type Committed<'a> = Pin<Box<dyn Future<Output = Result<(), SpoolError>> + Send + 'a>>;

/// Why something could not be made durable. Nothing of it counts as accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SpoolError {
    /// Writing or syncing failed; the text names the file and the cause.
    #[error("spool: {0}")]
    Io(String),
    /// There is less free space than `min_free`.
    #[error("spool: less than {min_free} bytes free")]
    Full {
        /// The limit, bytes.
        min_free: u64,
    },
}

/// Where accepted mail lives until it is delivered.
pub trait Spool: Send + Sync {
    /// An id that no other message has or will have.
    fn new_id(&self) -> QueueId;

    /// Opens a new message's content for writing, under an id from [`Spool::new_id`]. Dropping the draft discards it.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    fn create_as(&self, id: QueueId) -> Result<Draft, SpoolError>;

    /// The same, under a new id.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    fn create(&self) -> Result<Draft, SpoolError> {
        self.create_as(self.new_id())
    }

    /// Makes a record durable: all of it or nothing. Concurrent callers share one sync. What was written to the
    /// drafts has to be in their files, [`entry::Content::size`] bytes of it. Once polled, the record is on its way:
    /// dropping the future does not take it back, so whoever has to act on its end should not be cancelled.
    ///
    /// A message whose recipients are all [`entry::State::Done`] is finished and its content is removed. A change to a
    /// message that is finished changes nothing.
    fn commit(&self, record: Record) -> Committed<'_>;

    /// Opens the content of a live message for reading from its first byte.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    fn open(&self, id: QueueId) -> Result<File, SpoolError>;

    /// The live entries found at start, once: later calls return nothing.
    fn recovered(&self) -> Vec<Entry>;
}

/// A message's content while it is being written. Not durable, and gone when dropped, until the
/// record it belongs to is committed.
#[derive(Debug)]
pub struct Draft {
    /// The id the message will have.
    pub id: QueueId,
    /// Where to write. Blocking: callers write through buffers of some size.
    pub file: File,
    pub(crate) path: std::path::PathBuf,
    pub(crate) kept: bool,
}

impl Draft {
    /// Its content belongs to a record now.
    fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
