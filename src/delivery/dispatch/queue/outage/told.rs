//! Counts what log and trace would contain during an outage, without writing them.

use crate::delivery::dispatch::outages::{Outages, Sum};
use crate::delivery::dispatch::repeated::{self, Recorded};
use crate::spool::entry::{Queued, RecipientState};
use crate::time::UnixTime;

/// What log and trace contain of deferrals.
#[derive(Default)]
pub(super) struct Told {
    /// Records of the trace.
    pub(super) records: usize,
    /// Lines of the log, including summaries.
    pub(super) lines: usize,
    outages: Outages,
    sums: usize,
    in_sums: u64,
}

impl Told {
    /// Counts a deferral.
    pub(super) fn deferred(&mut self, was: &Queued, is: &Queued, now: UnixTime) {
        self.records += usize::from(repeated::recorded(was, is) != Recorded::No);
        if let RecipientState::Waiting(waiting) = &is.state {
            let told = self.outages.take(&is.route.connector, waiting.why, &waiting.last_error, now);
            self.lines += usize::from(told);
        }
        let sums = self.outages.due(now);
        self.summed(&sums);
    }

    fn summed(&mut self, sums: &[Sum]) {
        self.lines += sums.len();
        self.sums += sums.len();
        self.in_sums += sums.iter().map(|sum| sum.times).sum::<u64>();
    }

    /// A process ends.
    pub(super) fn end(&mut self) {
        let rest = std::mem::take(&mut self.outages).rest();
        self.summed(&rest);
    }

    /// The number of deferrals that the log accounts for.
    pub(super) fn counted(&self) -> u64 {
        (self.lines - self.sums) as u64 + self.in_sums
    }
}
