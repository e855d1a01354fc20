//! Doubles behind the real traits: a directory that says what it is told to, and a spool that can fail.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use fingerpost::directory::{Asked, Directory};
use fingerpost::lookup::{Answer, Fresh, Kind, Lookup, Recipient};
use fingerpost::lookup::{Freshness, Question};
use fingerpost::message::queue_id::QueueId;
use fingerpost::metrics::Metrics;
use fingerpost::smtp::address::Address;
use fingerpost::spool::entry::outline::Outlines;
use fingerpost::spool::entry::{Entry, RecipientState, Record};
use fingerpost::spool::store::LogStore;
use fingerpost::spool::{BlobDraft, Committed, Sizes, Spool, SpoolError, Stored};
use fingerpost::time::QueueTime;

/// A directory of the test's making.
#[derive(Default)]
pub struct People {
    known: Mutex<HashMap<Address, Lookup>>,
    /// What it says next when it is asked live; then it says what it knows.
    live: Mutex<VecDeque<Lookup>>,
    version: AtomicU64,
    away: AtomicBool,
}

impl People {
    /// `address` has a mailbox, on the domain's connector or on this one.
    pub fn add(&self, address: &str, connector: Option<&str>) {
        self.known.lock().unwrap().insert(Address::parse(address).unwrap(), mailbox(connector));
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// Asked live, it says this first: a mailbox on the domain's connector, or nothing known.
    pub fn live_says(&self, known: &[bool]) {
        let lookup = |known: &bool| if *known { mailbox(None) } else { Lookup::NotFound };
        self.live.lock().unwrap().extend(known.iter().map(lookup));
    }

    /// `address` has none.
    pub fn remove(&self, address: &str) {
        self.known.lock().unwrap().remove(&Address::parse(address).unwrap());
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// It does not answer any more.
    pub fn go_away(&self) {
        self.away.store(true, Ordering::SeqCst);
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// It answers again.
    pub fn come_back(&self) {
        self.away.store(false, Ordering::SeqCst);
        self.version.fetch_add(1, Ordering::SeqCst);
    }
}

fn mailbox(connector: Option<&str>) -> Lookup {
    Lookup::Found(Arc::new(Recipient {
        kind: Kind::Mailbox,
        target: None,
        mail_server: None,
        send_connector: connector.map(Into::into),
        entry: "people:1".into(),
        rule: "written".into(),
    }))
}

impl Directory for People {
    fn ask<'a>(&'a self, question: &'a Question) -> Asked<'a> {
        let live = match question.freshness {
            Freshness::Live => self.live.lock().unwrap().pop_front(),
            Freshness::Any => None,
        };
        let found = live.or_else(|| self.known.lock().unwrap().get(&question.address).cloned());
        let lookup = if self.away.load(Ordering::SeqCst) {
            Lookup::Unavailable("away".into())
        } else {
            found.unwrap_or(Lookup::NotFound)
        };
        Box::pin(std::future::ready(Answer { lookup, fresh: Fresh::Live }))
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }
}

/// The spool, which can be told to fail.
pub struct Faulty {
    store: LogStore,
    /// Nothing can be committed.
    pub full: AtomicBool,
    /// No content can be read.
    pub unreadable: AtomicBool,
    /// How many commits failed.
    pub failures: AtomicU64,
    /// Recipients that are not done.
    unfinished: AtomicI64,
}

impl Faulty {
    /// Opens one below `folder`.
    pub fn open_store(folder: &Path, metrics: Metrics) -> Self {
        let store = LogStore::open(folder, Sizes::default(), metrics).unwrap();
        Self {
            store,
            full: AtomicBool::new(false),
            unreadable: AtomicBool::new(false),
            failures: AtomicU64::new(0),
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

impl Spool for Faulty {
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

    fn live_messages(&self) -> usize {
        self.store.live_messages()
    }

    fn recovered(&self) -> Outlines {
        let recovered = self.store.recovered();
        self.unfinished.fetch_add(i64::try_from(recovered.recipients()).unwrap(), Ordering::SeqCst);
        recovered
    }
}
