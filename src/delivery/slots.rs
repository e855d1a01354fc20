//! Connection slots: limits the connections of a send connector (`max_connections`, or this node's share of it) and of
//! each of its hosts, and decides which transaction gets the next one (DESIGN section 7, "Next hops").
//!
//! `attempt` takes a [`Slot`] of the connector for each transaction and a [`HostSlot`] for the host that it connects
//! to, and keeps both while it uses the connection. `queue` decides which is next, `host` how many a host gets;
//! `line` wakes the waiting tasks.

use std::sync::Arc;

use parking_lot::Mutex;

mod applicant;
mod host;
mod hosts;
mod line;
mod queue;
mod turns;

pub use applicant::{Applicant, Class, Client, Vouched};
pub use hosts::{AtGreeting, HostKey, HostLimits, HostSlot};
pub use line::Slot;

use crate::fast_map::FastMap;
use crate::share::Share;
use line::Line;

#[derive(Debug, Default)]
pub struct Slots {
    connectors: Mutex<Connectors>,
}

#[derive(Debug, Default)]
struct Connectors {
    /// This node's share of each connector's limit.
    share: Share,
    /// By connector's name; names that are no longer configured stay, since there are few.
    by_name: FastMap<Arc<str>, Connector>,
}

#[derive(Debug)]
struct Connector {
    /// Its `max_connections`.
    max: usize,
    line: Arc<Line>,
}

/// A connector whose limit has become lower.
#[derive(Debug, PartialEq, Eq)]
pub struct Lowered {
    pub connector: Arc<str>,
    /// How many of its connections may lie idle, so that they are not too many with those in use.
    pub idle: usize,
}

impl Slots {
    /// Waits for a slot of the connector; `max` is its current `max_connections`, which applies to all from now on.
    /// Dropping the future has no effect.
    pub async fn take(&self, connector: &Arc<str>, max: usize, applicant: Applicant) -> Slot {
        let (line, limit) = self.line(connector, max);
        match line.take(limit, applicant) {
            Ok(slot) => slot,
            Err(waiting) => waiting.await,
        }
    }

    /// A slot, if one is free for this applicant now.
    #[must_use]
    pub fn try_take(&self, connector: &Arc<str>, max: usize, applicant: Applicant) -> Option<Slot> {
        let (line, limit) = self.line(connector, max);
        line.try_take(limit, applicant)
    }

    /// This node's share of all limits.
    #[must_use]
    pub fn share(&self) -> Share {
        self.connectors.lock().share
    }

    /// Applies another share; returns the connectors whose limits are lower with it. Slots that are held are kept.
    #[must_use]
    pub fn divide(&self, share: Share) -> Vec<Lowered> {
        let mut connectors = self.connectors.lock();
        let before = std::mem::replace(&mut connectors.share, share);
        let each = |(name, connector): (&Arc<str>, &Connector)| (name.clone(), connector.max, connector.line.clone());
        let all: Vec<_> = connectors.by_name.iter().map(each).collect();
        drop(connectors);
        let apply = |(connector, max, line): (Arc<str>, usize, Arc<Line>)| {
            let limit = share.of(max);
            line.configure(limit);
            let idle = limit.saturating_sub(line.look(|queue| queue.held()));
            (limit < before.of(max)).then_some(Lowered { connector, idle })
        };
        all.into_iter().filter_map(apply).collect()
    }

    /// How many connections of the connector may lie idle: none while more are in use than its limit.
    #[must_use]
    pub fn idle_limit(&self, connector: &Arc<str>, max: usize) -> usize {
        let (line, limit) = self.line(connector, max);
        if line.look(|queue| queue.held()) > limit { 0 } else { limit }
    }

    /// A connector's slots, and how many there are for this node.
    fn line(&self, connector: &Arc<str>, max: usize) -> (Arc<Line>, usize) {
        let mut connectors = self.connectors.lock();
        let limit = connectors.share.of(max);
        if let Some(known) = connectors.by_name.get_mut(connector) {
            known.max = max;
            return (known.line.clone(), limit);
        }
        let line = Line::new(limit);
        connectors.by_name.insert(connector.clone(), Connector { max, line: line.clone() });
        (line, limit)
    }
}

#[cfg(test)]
mod tests;
