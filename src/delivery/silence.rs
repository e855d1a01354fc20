//! Next hops that accept connections and do not answer: a few transactions wait there, and the others use other hosts
//! of the connector, if there are any (DESIGN section 7, "Several next hops").
//!
//! A `connection` records only waits for a late reply. `host` decides, `attempt::walk`
//! puts silent hosts last. Unlike `health` it concerns conversations that hang at any step, even if a test would be
//! answered.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;

mod host;

use super::health::Key;
use crate::fast_map::FastMap;
use host::Host;
pub use host::Then;

/// The most hosts that are remembered; beyond that those without connections are forgotten.
const REMEMBERED: usize = 10_000;

/// All hosts with connections.
#[derive(Debug, Default)]
pub struct Silence {
    hosts: Mutex<FastMap<Key, Arc<HostEntry>>>,
    /// How many are silent, so that no lookup is needed while none is.
    silent: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct HostEntry {
    /// Transactions that have ended.
    ends: AtomicU64,
    host: Mutex<Host>,
    silent: Arc<AtomicUsize>,
}

/// One host, as its connections see it.
#[derive(Clone)]
pub struct OfHost {
    shared: Arc<HostEntry>,
    few: usize,
}

/// One wait for a reply, and whether it is late.
pub(super) struct Listening {
    of: Option<OfHost>,
    began: Instant,
    /// When to check it next.
    next_look: Instant,
    /// The number of ended transactions at the last check.
    ends: u64,
    late: Option<Late>,
}

/// A late wait, until it is dropped.
struct Late {
    of: OfHost,
    began: Instant,
    number: u64,
}

impl Silence {
    /// For a connection to this host, whose connector has this many connections.
    pub fn of(&self, key: &Key, connections: usize) -> OfHost {
        let mut hosts = self.hosts.lock();
        if hosts.len() >= REMEMBERED && !hosts.contains_key(key) {
            hosts.retain(|_, shared| Arc::strong_count(shared) > 1 || shared.host.lock().is_silent());
            if hosts.len() >= REMEMBERED {
                hosts.clear();
                self.silent.store(0, Ordering::Relaxed);
            }
        }
        let new = || Arc::new(HostEntry { silent: self.silent.clone(), ..HostEntry::default() });
        let shared = hosts.entry(key.clone()).or_insert_with(new).clone();
        OfHost { shared, few: host::few(connections) }
    }

    /// Whether any host is silent.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.silent.load(Ordering::Relaxed) > 0
    }

    /// Whether this one is, and should not be tried in addition to the `there` connections that are waiting, out of the
    /// connector's connections.
    #[must_use]
    pub fn is_avoided(&self, key: &Key, there: usize, connections: usize) -> bool {
        let hosts = self.hosts.lock();
        let now = Instant::now().into_std();
        hosts.get(key).is_some_and(|shared| !shared.host.lock().is_tried(there, host::few(connections), now))
    }

    #[must_use]
    pub fn is_silent(&self, key: &Key) -> bool {
        let hosts = self.hosts.lock();
        hosts.get(key).is_some_and(|shared| shared.host.lock().is_silent())
    }
}

impl HostEntry {
    /// Changes its state, and keeps the count of silent hosts.
    fn change<T>(&self, change: impl FnOnce(&mut Host, std::time::Instant) -> T) -> T {
        let mut host = self.host.lock();
        let before = host.is_silent();
        let result = change(&mut host, Instant::now().into_std());
        match (before, host.is_silent()) {
            (false, true) => _ = self.silent.fetch_add(1, Ordering::Relaxed),
            // If too many were known, the count may have been reset.
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

    /// A transaction has ended there, with any result.
    pub(super) fn ends_one(&self) {
        self.shared.ends.fetch_add(1, Ordering::Relaxed);
        if self.shared.silent.load(Ordering::Relaxed) > 0 {
            self.shared.change(|host, _| host.ends_one());
        }
    }
}

impl Listening {
    /// A wait that begins now; `None`: it is not recorded.
    pub(super) fn new(of: Option<OfHost>, began: Instant) -> Self {
        let ends = of.as_ref().map_or(0, OfHost::ends);
        Self { of, began, next_look: began + host::LATE, ends, late: None }
    }

    pub(super) fn next_look(&self) -> Option<Instant> {
        self.of.as_ref().map(|_| self.next_look)
    }

    /// Checks it, if it is time; returns whether to go on waiting.
    pub(super) fn look(&mut self, now: Instant) -> Then {
        let Some(of) = self.of.as_ref().filter(|_| now >= self.next_look) else { return Then::Stay };
        self.next_look = now + host::LATE;
        let ends = of.ends();
        if std::mem::replace(&mut self.ends, ends) != ends {
            // The host is working; only this message takes long.
            self.late = None;
            return Then::Stay;
        }
        let late = self.began + of.shared.host.lock().late_after(now.into_std());
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

    /// The reply came.
    pub(super) fn answered(&self) {
        if let Some(late) = &self.late {
            late.of.shared.change(|host, now| host.answers(late.number, late.began.elapsed(), now));
        }
    }
}

impl Drop for Late {
    /// The wait was in vain, unless the reply came, which makes this ineffective.
    fn drop(&mut self) {
        self.of.shared.change(|host, now| host.in_vain(self.number, self.began.elapsed(), self.of.few, now));
    }
}

impl fmt::Debug for OfHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfHost").finish_non_exhaustive()
    }
}
