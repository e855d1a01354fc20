//! Limits log lines about next hops. An alert is logged once an hour for each next hop and row, however much mail it
//! concerns; other lines, which any client's recipients may cause, at most ten times a minute.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::next_hop_error::NextHopError;
use crate::delivery::outcome::Outcome;
use crate::delivery::refusal::Alert;
use crate::delivery::refusal::row::Row;
use crate::fast_map::FastMap;

/// How often the same alert is logged.
const EVERY: Duration = Duration::from_hours(1);
/// The most alerts that are remembered; beyond that all are logged again.
const REMEMBERED: usize = 10_000;

/// A next hop and a row.
type About = (Arc<str>, &'static str);

/// The most lines of one kind about one next hop in a minute.
const IN_A_MINUTE: u32 = 10;
const MINUTE: Duration = Duration::from_mins(1);

/// What was logged, and when.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    last: Mutex<FastMap<About, Instant>>,
    lines: Mutex<FastMap<(Box<str>, &'static str), Lines>>,
}

/// Lines of one kind about one next hop.
#[derive(Debug, Clone, Copy)]
struct Lines {
    since: Instant,
    told: u32,
    /// Lines that were left out since the last one.
    untold: u64,
}

/// The number of lines that were left out since the last of this kind; `None`: none.
pub(super) type Untold = Option<u64>;

impl Alerts {
    pub(super) fn log(&self, send_connector: &str, error: &NextHopError) {
        let reason = &error.reply;
        let row = error.row.map(|row| row.name);
        let look_at = error.row.map_or("", |row| row.look_at);
        match error.alert {
            Alert::Yes if error.row.is_none_or(|row| self.is_due(&error.next_hop, row)) => {
                tracing::error!(alert = true, %send_connector, %reason, row, look_at, "next hop cannot be used");
            }
            Alert::Yes | Alert::No => {
                let about = if error.next_hop.is_empty() { send_connector } else { &error.next_hop };
                let Some(untold) = self.line(about, row.unwrap_or("trouble")) else { return };
                match error.alert {
                    Alert::Yes => tracing::info!(%send_connector, %reason, row, untold, "next hop cannot be used"),
                    Alert::No => tracing::warn!(%send_connector, %reason, row, untold, "next hop cannot be used"),
                }
            }
        }
    }

    /// Whether a line of this kind about this next hop is logged, and how many were left out before it.
    pub(super) fn line(&self, next_hop: &str, kind: &'static str) -> Option<Untold> {
        let mut lines = self.lines.lock();
        if lines.len() >= REMEMBERED {
            lines.clear();
        }
        let now = Instant::now();
        let this = lines.entry((next_hop.into(), kind)).or_insert(Lines { since: now, told: 0, untold: 0 });
        if now - this.since >= MINUTE {
            (this.since, this.told) = (now, 0);
        }
        if this.told >= IN_A_MINUTE {
            this.untold += 1;
            return None;
        }
        this.told += 1;
        Some(Some(std::mem::take(&mut this.untold)).filter(|untold| *untold > 0))
    }

    /// The same for a refusal that is passed on.
    pub(super) fn tell_refusal(&self, send_connector: &str, row: &'static Row, outcome: &Outcome) {
        if self.is_due(&outcome.next_hop, row) {
            let (next_hop, reason, look_at) = (&outcome.next_hop, &outcome.reply, row.look_at);
            let row = row.name;
            tracing::error!(alert = true, %send_connector, %next_hop, %reason, row, look_at, "relayed mail is refused");
        }
    }

    fn is_due(&self, next_hop: &Arc<str>, row: &'static Row) -> bool {
        let mut told = self.last.lock();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lines_about_a_next_hop_come_ten_times_a_minute() {
        let alerts = Alerts::default();
        let told = || (0..1000).filter_map(|_| alerts.line("hop [192.0.2.1]:25", "trouble")).collect::<Vec<_>>();
        assert_eq!(told(), [None; 10]);
        assert_eq!(alerts.line("hop [192.0.2.1]:25", "fewer"), Some(None), "each kind has its own");
        assert_eq!(alerts.line("hop [192.0.2.2]:25", "trouble"), Some(None), "so has each next hop");
        tokio::time::advance(MINUTE).await;
        assert_eq!(told()[..2], [Some(990), None]);
    }
}
