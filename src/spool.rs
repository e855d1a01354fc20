//! Durable storage of queued messages, their envelopes and outcomes (DESIGN section 8).
//!
//! A [`Spool`] promises one thing: when [`Spool::commit`] returns `Ok`, the whole record is on stable storage. Sessions
//! and `delivery` write through it; at start it returns every live message. Another implementation, such as a store for
//! several nodes, could replace it.
//!
//! The parts of the store, in the order in which a record passes them: [`Draft`] (content before it is committed),
//! [`store`], `blobs` (content in a file of its own), `job`, `committer`, `segment`, [`record`] and [`header`] (bytes,
//! pure), [`index`] (pure), [`Stored`] (content being read); `clock`; [`condition`] (its health), `closed` (while
//! nothing can be appended); `compaction`, `stuck`, `changes`, [`rewrite`] (pure) and [`checkpoint`] keep the log short
//! and quick to read; `recover` with [`chain`] and `quarantine` reads it at start; [`offline`] reads it without a
//! server.

use crate::message::queue_id::QueueId;
use crate::time::QueueTime;

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
pub(crate) mod content_cache;
pub mod moved;
mod node_folder;
mod job;
mod blobs;
mod layout;
mod open_recipients;
mod reading;
mod recover;
mod reserve;
#[cfg(test)]
pub(crate) mod sample;
mod segment;
mod shared;
mod stuck;
mod compaction;

pub use draft::{BlobDraft, Draft, IN_RECORD};
pub use index::Sizes;
pub use node_folder::NodeFolder;
pub use stored::{Elsewhere, Pieces, Stored};

use condition::Condition;
use entry::outline::Outlines;
use entry::{Entry, Record};

pub type Committed<'a> = futures_util::future::BoxFuture<'a, Result<(), SpoolError>>;

/// Why something could not be made durable. Nothing of it was accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SpoolError {
    /// Writing or syncing failed; the text has the file and the cause.
    #[error("spool: {0}")]
    Io(String),
    /// There is less free space than `min_free`, or too few inodes; the text says which.
    #[error("spool: {0}")]
    Full(String),
}

/// Stores accepted mail until it is delivered.
///
/// ```
/// # use fingerpost::message::header::examine;
/// # use fingerpost::metrics::Metrics;
/// # use fingerpost::routing::verdict::{Route, RouteKind};
/// # use fingerpost::smtp::address::{Address, ReversePath};
/// # use fingerpost::smtp::envelope::{Body, Origin, RcptTo, Sender};
/// # use fingerpost::spool::entry::{Content, Entry, Queued, RecipientState, Record};
/// # use fingerpost::time::UnixTime;
/// use fingerpost::spool::{Sizes, Spool, store::LogStore};
///
/// # let folder = tempfile::tempdir()?;
/// # let address = Address::parse("alice@contoso.com")?;
/// # let next_hop_domain = address.domain().clone();
/// # let (connector, rcpt_to, way) = ("exchange".into(), address.clone(), RouteKind::Resolved);
/// # let route = Route { connector, rcpt_to, next_hop_domain, way };
/// # let rcpt = RcptTo { address, notify: None, orcpt: None };
/// # let alice = Queued { rcpt, route, state: RecipientState::due(UnixTime(0)) };
/// # let (reverse_path, body) = (ReversePath::Null, Body::SevenBit);
/// # let sender = Sender { reverse_path, size: None, body, smtputf8: false, ret: None, envid: None };
/// # let content = Content {
/// #     size: 18, header_size: 9, ascii_header: true, eight_bit: false, bare_lf: false,
/// #     identity: examine(b"From: a\r\n").identity, message_id: String::new(),
/// # };
/// let spool = LogStore::open(folder.path(), Sizes::default(), Metrics::new())?;
/// let id = spool.new_id();
/// # let entry = Entry {
/// #     id, received_at: UnixTime(0), queued_at: spool.queue_time(), origin: Origin::report(), sender, content,
/// #     stamps: Vec::new(), recipients: vec![alice],
/// # };
/// let draft = spool.draft(id, b"From: a\r\n\r\nhello\r\n".to_vec())?;
/// // `entry` is the envelope, with one recipient that is due.
/// let record = Record { accepted: vec![(draft, entry)], changes: Vec::new() };
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// runtime.block_on(spool.commit(record))?; // durable from here on
/// drop(spool);
///
/// let spool = LogStore::open(folder.path(), Sizes::default(), Metrics::new())?; // as at the next start
/// assert_eq!(spool.ids_after(None, 10), [id]);
/// assert_eq!(spool.open_recipients(id), [0]);
/// assert_eq!(spool.open(id)?.whole()?, b"From: a\r\n\r\nhello\r\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Spool: Send + Sync {
    /// An id that is used for no other message, ever.
    fn new_id(&self) -> QueueId;

    /// The queue's time, which ages are based on.
    fn queue_time(&self) -> QueueTime;

    /// Begins a content that is too large for a record; `id` comes from [`Spool::new_id`]. Blocks.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    fn create_as(&self, id: QueueId) -> Result<BlobDraft, SpoolError>;

    /// Makes a draft of a complete content; `id` comes from [`Spool::new_id`]. Blocks if it is large.
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

    /// Makes a record durable: all of it or nothing. Concurrent callers share one sync. Each draft must have
    /// [`entry::Content::size`] bytes. Once the future has been polled, dropping it does not cancel the commit, so a
    /// caller that has to act on the result should not be cancelled.
    ///
    /// A message whose recipients are all [`entry::RecipientState::Done`] is finished and its content is removed. A
    /// change to a message that is finished, or to a recipient that is done, changes nothing. Records without new mail
    /// may wait a few milliseconds for others.
    fn commit(&self, record: Record) -> Committed<'_>;

    /// A live message with its current state; `None`: there is none with this id. Blocks.
    ///
    /// # Errors
    /// [`SpoolError::Io`]: its record or one of its changes cannot be read.
    fn entry(&self, id: QueueId) -> Result<Option<Entry>, SpoolError>;

    /// The ids of up to `most` live messages after this one, oldest first; `None`: from the oldest.
    fn ids_after(&self, id: Option<QueueId>, most: usize) -> Vec<QueueId>;

    /// The positions of a live message's recipients that are not done, even if the message cannot be read.
    fn open_recipients(&self, id: QueueId) -> Vec<usize>;

    fn live_messages(&self) -> usize;

    /// The content of a live message. It can be read to its end even if the message is finished meanwhile.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    fn open(&self, id: QueueId) -> Result<Stored, SpoolError>;

    /// Whether queued mail may be sent to its end now: no other node can have taken it over.
    fn may_send(&self) -> bool {
        true
    }

    /// Its health.
    fn condition(&self) -> Condition {
        Condition::default()
    }

    /// Reports that a message's content is damaged: keeps a copy for operators and logs it. From now on [`Spool::open`]
    /// marks it as damaged. Blocks.
    fn keep_damaged(&self, entry: &Entry, content: &Stored) {
        let _ = (entry, content);
    }

    /// Keeps a copy of a segment that cannot be read, for operators. Returns the live messages in it, which stay
    /// unchanged; `None`: the segment is not one of those. Blocks.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    fn keep_unreadable(&self, segment: u32) -> Result<Option<Vec<QueueId>>, SpoolError> {
        let _ = segment;
        Ok(None)
    }

    /// The live messages found at start. Only the first call returns them.
    fn recovered(&self) -> Outlines;
}
