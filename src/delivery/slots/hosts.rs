//! How many connections each host is given, after it said that it has too many of ours (DESIGN section 7,
//! "Next hops"). `host` has the rule.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::{Instant, sleep_until};

use super::applicant::Applicant;
use super::line::{Line, Slot};
use super::queue::Refused;
use crate::delivery::health;
use crate::fast_map::FastMap;

/// One host of one connector.
pub type HostKey = health::Key;

/// Hosts that are remembered; beyond it those that nobody uses and nothing is known of are forgotten.
const REMEMBERED: usize = 10_000;

/// Is told how many connections a host is allowed whenever that changes.
type Observer = Arc<dyn Fn(&HostKey, usize) + Send + Sync>;

/// The connections to all hosts.
pub struct HostLimits {
    hosts: Mutex<FastMap<HostKey, Arc<Host>>>,
    observer: Observer,
}

struct Host {
    key: HostKey,
    line: Arc<Line>,
    observer: Observer,
    reporting: Mutex<()>,
}

/// What a host's refusal at its greeting means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtGreeting {
    /// It has other connections of ours, and so many are allowed from now on: it is no failure.
    Fewer(usize),
    /// It has no other one that is in use: it takes none.
    Alone,
}

impl HostLimits {
    /// `observer` is told whenever the number of connections that a host is allowed changes: how many there may be now.
    #[must_use]
    pub fn new(observer: impl Fn(&HostKey, usize) + Send + Sync + 'static) -> Self {
        Self { hosts: Mutex::default(), observer: Arc::new(observer) }
    }

    /// Waits until one more connection to the host may be used; `limit` is its connector's `max_connections`. Dropped
    /// before it is ready, it leaves nothing behind.
    pub async fn take(&self, key: &HostKey, limit: usize, applicant: Applicant) -> HostSlot {
        let host = self.host(key, limit);
        let slot = match host.line.clone().take(limit, applicant) {
            Ok(slot) => slot,
            Err(waiting) => waiting.await,
        };
        HostSlot { slot, host }
    }

    /// The same, if one more may be used now.
    #[must_use]
    pub fn try_take(&self, key: &HostKey, limit: usize, applicant: Applicant) -> Option<HostSlot> {
        let host = self.host(key, limit);
        let slot = host.line.clone().try_take(limit, applicant)?;
        Some(HostSlot { slot, host })
    }

    /// How many connections to the host are in use.
    #[must_use]
    pub fn in_use(&self, key: &HostKey) -> usize {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(key).map_or(0, |host| host.line.look(|queue| queue.held()))
    }

    /// How many connections the host is allowed; `None`: nothing is known of it.
    #[must_use]
    pub fn allowed(&self, key: &HostKey) -> Option<usize> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(key).map(|host| host.allowed())
    }

    fn host(&self, key: &HostKey, limit: usize) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(key) {
            return host.clone();
        }
        if hosts.len() >= REMEMBERED {
            // Whoever holds or awaits a slot has the line, and whoever watches a limit the host.
            hosts.retain(|_, host| Arc::strong_count(host) > 1 || Arc::strong_count(&host.line) > 1);
        }
        let host = Host {
            key: key.clone(),
            line: Line::new(limit),
            observer: self.observer.clone(),
            reporting: Mutex::default(),
        };
        hosts.entry(key.clone()).or_insert(Arc::new(host)).clone()
    }
}

impl Host {
    fn allowed(&self) -> usize {
        self.line.look(|queue| queue.limit())
    }

    /// One change after another is told, so that the last one stands.
    fn report_limit(&self) {
        let _reporting = self.reporting.lock().unwrap_or_else(PoisonError::into_inner);
        (self.observer)(&self.key, self.allowed());
    }

    /// Fewer are allowed now. Says how many.
    fn lowered(self: Arc<Self>, refused: Refused) -> usize {
        self.report_limit();
        let allowed = self.allowed();
        if refused == Refused::First {
            tokio::spawn(self.rise());
        }
        allowed
    }

    /// Lets more and more connections through, until there may be as many as the connector has.
    async fn rise(self: Arc<Self>) {
        let mut next = self.line.look(|queue| queue.rises());
        while let Some(at) = next {
            sleep_until(at.into()).await;
            next = self.line.change(|queue| queue.rise(Instant::now().into_std()));
            self.report_limit();
        }
    }
}

/// The use of one connection to a host, until it is dropped.
#[must_use]
pub struct HostSlot {
    slot: Slot,
    host: Arc<Host>,
}

impl HostSlot {
    /// The host said 421 at its greeting. Its slot is gone with it.
    pub fn refused(self) -> AtGreeting {
        let Self { slot, host } = self;
        let now = Instant::now().into_std();
        let refused = slot.give_back(|queue| match queue.held() {
            0 => None,
            others => Some(queue.refused(others, now)),
        });
        refused.map_or(AtGreeting::Alone, |refused| AtGreeting::Fewer(host.lowered(refused)))
    }

    /// The host said that we have too many connections, or send too fast, over one that goes on: one less is allowed
    /// than are in use. Says how many.
    pub fn throttled(&self) -> usize {
        let now = Instant::now().into_std();
        let refused = self.host.line.change(|queue| queue.refused(queue.held().saturating_sub(1), now));
        self.host.clone().lowered(refused)
    }

    /// The slot: whether it is wanted.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Somebody is vouched for in its transaction from now on: see [`Slot::vouch`].
    pub fn vouch(&mut self) {
        self.slot.vouch();
    }
}

impl fmt::Debug for HostLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostLimits").finish_non_exhaustive()
    }
}

impl fmt::Debug for HostSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostSlot").field("host", &self.host.key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
