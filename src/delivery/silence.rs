//! Next hops that take connections and do not answer: a few of ours wait there, and the rest goes to other hosts of the
//! connector, where there are some (DESIGN section 7, "Several next hops").
//!
//! A [`connection`](super::attempt::connection) notes each wait for a reply that is late; nothing is noted of those that are
//! not. [`host`] decides, `attempt::walk` puts silent hosts last. Unlike `health` it is about conversations that hang at
//! any step, also where a test would be answered.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

mod host;

use super::health::Key;
use crate::fast_map::FastMap;
use host::Host;
pub use host::Then;

/// Hosts that are remembered; beyond it those without connections of ours are forgotten.
const REMEMBERED: usize = 10_000;

/// All hosts that we have connections to.
#[derive(Debug, Default)]
pub struct Silence {
    hosts: Mutex<FastMap<Key, Arc<HostEntry>>>,
    /// How many are silent, so that nobody is looked up while none is.
    silent: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct HostEntry {
    /// Transactions that have ended.
    ends: AtomicU64,
    host: Mutex<Host>,
    silent: Arc<AtomicUsize>,
}

/// One host, as its connections know it.
#[derive(Clone)]
pub struct OfHost {
    shared: Arc<HostEntry>,
    few: usize,
}

/// One wait for a reply, and whether it is late.
pub(super) struct Listening {
    of: Option<OfHost>,
    began: Instant,
    /// When it is looked at next.
    next_look: Instant,
    /// Transactions that had ended when it was looked at last.
    ends: u64,
    late: Option<Late>,
}

/// A wait that is late, until it is dropped.
struct Late {
    of: OfHost,
    began: Instant,
    number: u64,
}

impl Silence {
    /// What a connection to this host knows of it; its connector has so many connections.
    pub fn of(&self, key: &Key, connections: usize) -> OfHost {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= REMEMBERED && !hosts.contains_key(key) {
            hosts.retain(|_, shared| Arc::strong_count(shared) > 1 || shared.host().is_silent());
            if hosts.len() >= REMEMBERED {
                hosts.clear();
                self.silent.store(0, Ordering::Relaxed);
            }
        }
        let new = || Arc::new(HostEntry { silent: self.silent.clone(), ..HostEntry::default() });
        let shared = hosts.entry(key.clone()).or_insert_with(new).clone();
        OfHost { shared, few: host::few(connections) }
    }

    /// Whether some host is silent.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.silent.load(Ordering::Relaxed) > 0
    }

    /// Whether this one is, and is not to be tried beside so many who are there, of its connector's connections.
    #[must_use]
    pub fn is_avoided(&self, key: &Key, there: usize, connections: usize) -> bool {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now().into_std();
        hosts.get(key).is_some_and(|shared| !shared.host().is_tried(there, host::few(connections), now))
    }

    /// Whether it is silent.
    #[must_use]
    pub fn is_silent(&self, key: &Key) -> bool {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(key).is_some_and(|shared| shared.host().is_silent())
    }
}

impl HostEntry {
    fn host(&self) -> MutexGuard<'_, Host> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it, and keeps count of those that are silent.
    fn change<T>(&self, change: impl FnOnce(&mut Host, std::time::Instant) -> T) -> T {
        let mut host = self.host();
        let before = host.is_silent();
        let result = change(&mut host, Instant::now().into_std());
        match (before, host.is_silent()) {
            (false, true) => _ = self.silent.fetch_add(1, Ordering::Relaxed),
            // After a time when too many were known the count may have begun anew.
            (true, false) => {
                let less = |count: usize| Some(count.saturating_sub(1));
                let _ = self.silent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            }
            (true, true) | (false, false) => {}
        }
        result
    }
}

impl OfHost {
    fn ends(&self) -> u64 {
        self.shared.ends.load(Ordering::Relaxed)
    }

    /// A transaction has ended there, whatever it said.
    pub(super) fn ends_one(&self) {
        self.shared.ends.fetch_add(1, Ordering::Relaxed);
        if self.shared.silent.load(Ordering::Relaxed) > 0 {
            self.shared.change(|host, _| host.ends_one());
        }
    }
}

impl Listening {
    /// A wait that begins now; `None`: nothing is noted of it.
    pub(super) fn new(of: Option<OfHost>, began: Instant) -> Self {
        let ends = of.as_ref().map_or(0, OfHost::ends);
        Self { of, began, next_look: began + host::LATE, ends, late: None }
    }

    /// When it is to be looked at.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.of.as_ref().map(|_| self.next_look)
    }

    /// Looks at it, if it is time: whether it goes on.
    pub(super) fn look(&mut self, now: Instant) -> Then {
        let Some(of) = self.of.as_ref().filter(|_| now >= self.next_look) else { return Then::Stay };
        self.next_look = now + host::LATE;
        let ends = of.ends();
        if std::mem::replace(&mut self.ends, ends) != ends {
            // The host does its work; it is this one message that takes its time.
            self.late = None;
            return Then::Stay;
        }
        let late = self.began + of.shared.host().late_after(now.into_std());
        if self.late.is_none() && now < late {
            self.next_look = late;
            return Then::Stay;
        }
        let (few, before) = (of.few, self.late.as_ref().map(|late| late.number));
        let (number, then) = of.shared.change(|host, now| host.is_late(before, few, now));
        let of = of.clone();
        self.late.get_or_insert_with(|| Late { of, began: self.began, number });
        then
    }

    /// It has its answer.
    pub(super) fn answered(&self) {
        if let Some(late) = &self.late {
            late.of.shared.change(|host, now| host.answers(late.number, late.began.elapsed(), now));
        }
    }
}

impl Drop for Late {
    /// In vain, unless it was answered: then this changes nothing.
    fn drop(&mut self) {
        let waited = (self.began.elapsed(), self.of.few);
        self.of.shared.change(|host, now| host.in_vain(self.number, waited, now));
    }
}

impl fmt::Debug for OfHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfHost").finish_non_exhaustive()
    }
}
