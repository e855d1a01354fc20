//! What is wrong between us and a next hop is told once an hour for each next hop and row, however much mail meets it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::trouble::Trouble;
use crate::delivery::outcome::Outcome;
use crate::delivery::refusal::Alert;
use crate::delivery::refusal::row::Row;
use crate::fast_map::FastMap;

/// How often the same is told.
const EVERY: Duration = Duration::from_hours(1);
/// Alerts that are remembered; beyond it all are told again.
const REMEMBERED: usize = 10_000;

/// Which next hop, and which row.
type About = (Arc<str>, &'static str);

/// When what was told last.
#[derive(Debug, Default)]
pub(super) struct Alerts(Mutex<FastMap<About, Instant>>);

impl Alerts {
    /// Says it where an operator looks.
    pub(super) fn tell(&self, send_connector: &str, trouble: &Trouble) {
        let reason = &trouble.reply;
        let row = trouble.row.map(|row| row.name);
        let look_at = trouble.row.map_or("", |row| row.look_at);
        match trouble.alert {
            Alert::Yes if trouble.row.is_none_or(|row| self.is_due(&trouble.next_hop, row)) => {
                tracing::error!(alert = true, %send_connector, %reason, row, look_at, "next hop cannot be used");
            }
            Alert::Yes => tracing::info!(%send_connector, %reason, row, "next hop cannot be used"),
            Alert::No => tracing::warn!(%send_connector, %reason, row, "next hop cannot be used"),
        }
    }

    /// The same of a refusal that is passed on.
    pub(super) fn tell_refusal(&self, send_connector: &str, row: &'static Row, outcome: &Outcome) {
        if self.is_due(&outcome.next_hop, row) {
            let (next_hop, reason, look_at) = (&outcome.next_hop, &outcome.reply, row.look_at);
            let row = row.name;
            tracing::error!(alert = true, %send_connector, %next_hop, %reason, row, look_at, "relayed mail is refused");
        }
    }

    fn is_due(&self, next_hop: &Arc<str>, row: &'static Row) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= REMEMBERED {
            told.clear();
        }
        let (about, now) = ((next_hop.clone(), row.name), Instant::now());
        if told.get(&about).is_some_and(|last| now - *last < EVERY) {
            return false;
        }
        told.insert(about, now);
        true
    }
}
