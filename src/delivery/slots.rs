//! Connection slots: how many connections a send connector (`max_connections`) and each of its hosts may have, and who
//! gets the next one (DESIGN section 7, "Next hops").
//!
//! `attempt` takes a [`Slot`] of the connector for each transaction and a [`HostSlot`] for the host that it connects
//! to, and keeps both as long as it uses the connection. [`queue`] decides who is next and [`host`] how many a host is
//! given; [`line`] wakes whoever waits.

use std::sync::{Arc, Mutex, PoisonError};

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

/// The slots of all send connectors.
#[derive(Debug, Default)]
pub struct Slots {
    /// One for each name that was ever configured: there are few.
    lines: Mutex<FastMap<Arc<str>, Arc<Line>>>,
}

impl Slots {
    /// Waits for a slot of the connector; `limit` is its `max_connections`, from now on and for all. Dropped before it
    /// is ready, it leaves nothing behind.
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
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(connector) {
            return line.clone();
        }
        lines.entry(connector.clone()).or_insert(Line::new(limit)).clone()
    }
}
