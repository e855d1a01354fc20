//! A spool on disk that a test can let fail.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use fingerpost::message::queue_id::QueueId;
use fingerpost::metrics::Metrics;
use fingerpost::spool::condition::Condition;
use fingerpost::spool::entry::outline::Outlines;
use fingerpost::spool::entry::{Entry, RecipientState, Record};
use fingerpost::spool::store::LogStore;
use fingerpost::spool::{BlobDraft, Committed, Sizes, Spool, SpoolError, Stored};
use fingerpost::time::QueueTime;

/// The spool, which can be told to fail.
pub struct FaultySpool {
    store: LogStore,
    /// Nothing can be committed.
    pub full: AtomicBool,
    /// No content can be read.
    pub unreadable: AtomicBool,
    /// How many commits failed.
    pub failures: AtomicU64,
    /// Whether it takes records, as it says.
    pub condition: Condition,
    /// Recipients that are not done.
    unfinished: AtomicI64,
}

impl FaultySpool {
    /// Opens one below `folder`.
    pub fn open_store(folder: &Path, metrics: Metrics) -> Self {
        let store = LogStore::open(folder, Sizes::default(), metrics).unwrap();
        Self {
            store,
            full: AtomicBool::new(false),
            unreadable: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            condition: Condition::default(),
            unfinished: AtomicI64::new(0),
        }
    }

    /// How many recipients are not done, durably.
    pub fn unfinished(&self) -> i64 {
        self.unfinished.load(Ordering::SeqCst)
    }

    fn count(&self, record: &Record) -> i64 {
        let unfinished = |state: &RecipientState| i64::from(!matches!(state, RecipientState::Done(_)));
        let recipients = record.accepted.iter().flat_map(|(_, entry)| &entry.recipients);
        let added: i64 = recipients.map(|queued| unfinished(&queued.state)).sum();
        added - record.changes.iter().map(|change| 1 - unfinished(&change.state)).sum::<i64>()
    }
}

impl Spool for FaultySpool {
    fn new_id(&self) -> QueueId {
        self.store.new_id()
    }

    fn queue_time(&self) -> QueueTime {
        self.store.queue_time()
    }

    fn create_as(&self, id: QueueId) -> Result<BlobDraft, SpoolError> {
        self.store.create_as(id)
    }

    fn commit(&self, record: Record) -> Committed<'_> {
        if self.full.load(Ordering::SeqCst) {
            self.failures.fetch_add(1, Ordering::SeqCst);
            return Box::pin(std::future::ready(Err(SpoolError::Io("the disk is on fire".into()))));
        }
        let more = self.count(&record);
        Box::pin(async move {
            self.store.commit(record).await?;
            self.unfinished.fetch_add(more, Ordering::SeqCst);
            Ok(())
        })
    }

    fn open(&self, id: QueueId) -> Result<Stored, SpoolError> {
        if self.unreadable.load(Ordering::SeqCst) {
            return Err(SpoolError::Io("the disk is worn out".into()));
        }
        self.store.open(id)
    }

    fn entry(&self, id: QueueId) -> Result<Option<Entry>, SpoolError> {
        self.store.entry(id)
    }

    fn ids_after(&self, id: Option<QueueId>, most: usize) -> Vec<QueueId> {
        self.store.ids_after(id, most)
    }

    fn open_recipients(&self, id: QueueId) -> Vec<usize> {
        self.store.open_recipients(id)
    }

    fn condition(&self) -> Condition {
        self.condition.clone()
    }

    fn live_messages(&self) -> usize {
        self.store.live_messages()
    }

    fn recovered(&self) -> Outlines {
        let recovered = self.store.recovered();
        self.unfinished.fetch_add(i64::try_from(recovered.recipients()).unwrap(), Ordering::SeqCst);
        recovered
    }
}
