//! Limits log lines during an outage: the first deferrals of a connector are logged individually, the rest as a summary
//! for each minute, so that the log does not grow with the queue. Pure.
//!
//! This applies to deferrals that do not concern the recipient: no next hop can be reached, or the route is unknown
//! because a directory does not answer. A next hop's reply about a recipient is always logged.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::spool::entry::Why;
use crate::time::UnixTime;

/// Deferrals that are logged individually each minute, for each connector and reason.
const SINGLY: u64 = 3;
const MINUTE: u64 = 60;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) connector: Arc<str>,
    pub(super) why: Why,
    /// How many were not logged individually.
    pub(super) times: u64,
    /// The last one's error.
    pub(super) said: String,
}

/// The current minute's deferrals.
#[derive(Debug, Default)]
pub(super) struct Outages {
    minute: u64,
    /// Including those that were logged individually.
    all: BTreeMap<(Arc<str>, bool), Sum>,
    /// Summaries of previous minutes that have not been taken yet.
    over: Vec<Sum>,
}

impl Outages {
    /// Counts a deferral on this connector. Returns whether to log it individually; else it is in a summary.
    pub(super) fn take(&mut self, connector: &Arc<str>, why: Why, said: &str, now: UnixTime) -> bool {
        if !matches!(why, Why::Unreachable | Why::Undecided) {
            return true;
        }
        self.turn(now);
        let new = || Sum { connector: connector.clone(), why, times: 0, said: String::new() };
        let sum = self.all.entry((connector.clone(), why == Why::Undecided)).or_insert_with(new);
        sum.times += 1;
        if sum.times <= SINGLY {
            return true;
        }
        said.clone_into(&mut sum.said);
        false
    }

    /// The summaries of minutes that are over.
    pub(super) fn due(&mut self, now: UnixTime) -> Vec<Sum> {
        self.turn(now);
        std::mem::take(&mut self.over)
    }

    /// All summaries; called at the end.
    pub(super) fn rest(&mut self) -> Vec<Sum> {
        self.end();
        std::mem::take(&mut self.over)
    }

    fn turn(&mut self, now: UnixTime) {
        if now.0 / MINUTE != self.minute {
            self.minute = now.0 / MINUTE;
            self.end();
        }
    }

    fn end(&mut self) {
        let all = std::mem::take(&mut self.all).into_values();
        self.over.extend(all.filter(|sum| sum.times > SINGLY).map(|sum| Sum { times: sum.times - SINGLY, ..sum }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connector_has_a_few_lines_a_minute_and_all_are_counted() {
        let mut outages = Outages::default();
        let (hub, other): (Arc<str>, Arc<str>) = ("hub".into(), "other".into());
        let mut told = 0;
        for minute in 0..30 {
            for message in 0..2000 {
                let now = UnixTime(6000 + minute * 60 + message % 60);
                told += u32::from(outages.take(&hub, Why::Unreachable, &format!("451 {message}"), now));
            }
            assert!(outages.take(&other, Why::Unreachable, "451", UnixTime(6000 + minute * 60 + 59)));
            assert!(outages.take(&hub, Why::Undecided, "451", UnixTime(6000 + minute * 60 + 59)), "another reason");
            for _ in 0..100 {
                assert!(outages.take(&hub, Why::Deferred, "452 4.2.2 full", UnixTime(6000 + minute * 60)));
            }
        }
        let mut sums = outages.due(UnixTime(6000 + 29 * 60 + 59));
        assert_eq!(sums.len(), 29, "a minute each");
        sums.extend(outages.rest());
        assert_eq!((told, sums.len()), (90, 30));
        assert_eq!(sums.iter().map(|sum| sum.times).sum::<u64>() + 90, 60_000);
        let last = Sum { connector: hub, why: Why::Unreachable, times: 1997, said: "451 1999".into() };
        assert_eq!(sums[29], last);
        assert!(outages.rest().is_empty() && outages.due(UnixTime(9000)).is_empty());
    }
}
