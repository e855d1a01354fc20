//! A directory in memory that says what a test has told it to.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fingerpost::directory::{AnswerFuture, Directory};
use fingerpost::lookup::{Answer, Fresh, Freshness, Kind, Lookup, Question, Recipient};
use fingerpost::smtp::address::Address;
use parking_lot::Mutex;

/// A directory of the test's making.
#[derive(Default)]
pub struct TestDirectory {
    known: Mutex<HashMap<Address, Lookup>>,
    /// What it says next when it is asked live; then it says what it knows.
    live: Mutex<VecDeque<Lookup>>,
    version: AtomicU64,
    away: AtomicBool,
}

impl TestDirectory {
    /// `address` has a mailbox, on the domain's connector or on this one.
    pub fn add(&self, address: &str, connector: Option<&str>) {
        self.known.lock().insert(Address::parse(address).unwrap(), mailbox(connector));
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// Asked live, it says this first: a mailbox on the domain's connector, or nothing known.
    pub fn live_says(&self, known: &[bool]) {
        let lookup = |known: &bool| if *known { mailbox(None) } else { Lookup::NotFound };
        self.live.lock().extend(known.iter().map(lookup));
    }

    /// `address` has none.
    pub fn remove(&self, address: &str) {
        self.known.lock().remove(&Address::parse(address).unwrap());
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

impl Directory for TestDirectory {
    fn ask<'a>(&'a self, question: &'a Question) -> AnswerFuture<'a> {
        let live = match question.freshness {
            Freshness::Live => self.live.lock().pop_front(),
            Freshness::Any => None,
        };
        let found = live.or_else(|| self.known.lock().get(&question.address).cloned());
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
