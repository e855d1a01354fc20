//! Limits each host's connections after it refused further ones (DESIGN section 7, "Next hops"). `host` has the rule.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::applicant::Applicant;
use super::line::{Line, Slot};
use super::queue::Refused;
use crate::delivery::health;
use crate::fast_map::FastMap;

pub type HostKey = health::Key;

/// The most hosts that are remembered; beyond that those that are unused and without a limit are forgotten.
const REMEMBERED: usize = 10_000;

/// Called with a host's number of allowed connections when it changes.
type Observer = Arc<dyn Fn(&HostKey, usize) + Send + Sync>;

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
    /// It has other connections of ours, and allows this many from now on: no failure.
    Fewer(usize),
    /// It has no other connection in use: it accepts none.
    Alone,
}

impl HostLimits {
    /// `observer` is called whenever a host's number of allowed connections changes.
    #[must_use]
    pub fn new(observer: impl Fn(&HostKey, usize) + Send + Sync + 'static) -> Self {
        Self { hosts: Mutex::default(), observer: Arc::new(observer) }
    }

    /// Waits until one more connection to the host may be used; `limit` is its connector's `max_connections`. Dropping
    /// the future has no effect.
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
        let hosts = self.hosts.lock();
        hosts.get(key).map_or(0, |host| host.line.look(|queue| queue.held()))
    }

    fn host(&self, key: &HostKey, limit: usize) -> Arc<Host> {
        let mut hosts = self.hosts.lock();
        if let Some(host) = hosts.get(key) {
            return host.clone();
        }
        if hosts.len() >= REMEMBERED {
            // Holders of a slot, and waiting tasks, have the line; the task that raises the limit has the host.
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

    /// Calls the observer; calls are serialised, so that the last value is current.
    fn report_limit(&self) {
        let _reporting = self.reporting.lock();
        (self.observer)(&self.key, self.allowed());
    }

    /// Fewer are allowed from now on. Returns how many.
    fn lowered(self: Arc<Self>, refused: Refused) -> usize {
        self.report_limit();
        let allowed = self.allowed();
        if refused == Refused::First {
            tokio::spawn(self.rise());
        }
        allowed
    }

    /// Raises the limit step by step, up to the connector's.
    async fn rise(self: Arc<Self>) {
        let mut next = self.line.look(|queue| queue.rises());
        while let Some(at) = next {
            sleep_until(at.into()).await;
            next = self.line.change(|queue| queue.rise(Instant::now().into_std()));
            self.report_limit();
        }
    }
}

/// The use of one connection to a host; dropping it frees the slot.
#[must_use]
pub struct HostSlot {
    slot: Slot,
    host: Arc<Host>,
}

impl HostSlot {
    /// The host replied 421 at its greeting. The slot is freed.
    pub fn refused(self) -> AtGreeting {
        let Self { slot, host } = self;
        let now = Instant::now().into_std();
        let refused = slot.give_back(|queue| match queue.held() {
            0 => None,
            others => Some(queue.refused(others, now)),
        });
        refused.map_or(AtGreeting::Alone, |refused| AtGreeting::Fewer(host.lowered(refused)))
    }

    /// The host replied that we have too many connections, or send too fast, on a connection that continues: one less
    /// than are in use is allowed. Returns how many.
    pub fn throttled(&self) -> usize {
        let now = Instant::now().into_std();
        let refused = self.host.line.change(|queue| queue.refused(queue.held().saturating_sub(1), now));
        self.host.clone().lowered(refused)
    }

    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// See [`Slot::vouch`].
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
