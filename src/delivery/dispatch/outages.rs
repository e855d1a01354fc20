//! What an outage causes again and again: the first deferrals of a connector are told one by one, the rest as a sum for each
//! minute, so that the log does not grow with what waits. Pure.
//!
//! So are told only those that say nothing of their recipient: that no next hop can be reached, or that the way is not
//! known because a directory does not answer. What a next hop says of somebody is told each time.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::spool::entry::Why;
use crate::time::UnixTime;

/// Told one by one each minute, of each connector and reason.
const SINGLY: u64 = 3;
/// Seconds.
const MINUTE: u64 = 60;

/// Many deferrals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) connector: Arc<str>,
    pub(super) why: Why,
    /// How many, beyond those that were told one by one.
    pub(super) times: u64,
    /// What the last of them ended with.
    pub(super) said: String,
}

/// This minute's.
#[derive(Debug, Default)]
pub(super) struct Outages {
    minute: u64,
    /// With those that were told one by one.
    all: BTreeMap<(Arc<str>, bool), Sum>,
    /// Those of the minutes before, which nobody has taken yet.
    over: Vec<Sum>,
}

impl Outages {
    /// Takes a deferral on this connector. Whether it is to be told by itself; if not it is in a sum.
    pub(super) fn take(&mut self, connector: &Arc<str>, (why, said): (Why, &str), now: UnixTime) -> bool {
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

    /// The sums whose minute is over.
    pub(super) fn due(&mut self, now: UnixTime) -> Vec<Sum> {
        self.turn(now);
        std::mem::take(&mut self.over)
    }

    /// All of them: there will be no more.
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
                told += u32::from(outages.take(&hub, (Why::Unreachable, &format!("451 {message}")), now));
            }
            assert!(outages.take(&other, (Why::Unreachable, "451"), UnixTime(6000 + minute * 60 + 59)));
            assert!(outages.take(&hub, (Why::Undecided, "451"), UnixTime(6000 + minute * 60 + 59)), "another reason");
            for _ in 0..100 {
                assert!(outages.take(&hub, (Why::Deferred, "452 4.2.2 full"), UnixTime(6000 + minute * 60)));
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
