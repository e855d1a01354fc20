//! Connection slots: limits the connections of a send connector (`max_connections`) and of each of its hosts, and
//! decides which transaction gets the next one (DESIGN section 7, "Next hops").
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
use line::Line;

#[derive(Debug, Default)]
pub struct Slots {
    /// By connector's name; names that are no longer configured stay, since there are few.
    lines: Mutex<FastMap<Arc<str>, Arc<Line>>>,
}

impl Slots {
    /// Waits for a slot of the connector; `limit` is its current `max_connections`, which applies to all from now on.
    /// Dropping the future has no effect.
    pub async fn take(&self, connector: &Arc<str>, limit: usize, applicant: Applicant) -> Slot {
        match self.line(connector, limit).take(limit, applicant) {
            Ok(slot) => slot,
            Err(waiting) => waiting.await,
        }
    }

    /// A slot, if one is free for this applicant now.
    #[must_use]
    pub fn try_take(&self, connector: &Arc<str>, limit: usize, applicant: Applicant) -> Option<Slot> {
        self.line(connector, limit).try_take(limit, applicant)
    }

    fn line(&self, connector: &Arc<str>, limit: usize) -> Arc<Line> {
        let mut lines = self.lines.lock();
        if let Some(line) = lines.get(connector) {
            return line.clone();
        }
        lines.entry(connector.clone()).or_insert(Line::new(limit)).clone()
    }
}
