//! Counts inconsistent entries as they are met where a directory is asked for each recipient, and logs them.

use parking_lot::Mutex;

use super::Asker;
use crate::directory::known::Known;
use crate::directory::odd::{self, Met, Telling};
use crate::time::UnixTime;

/// The entries, and what has been logged.
#[derive(Debug, Default)]
pub(super) struct Oddities(Mutex<(Met, Telling)>);

impl Asker {
    /// Records entries that were returned. A snapshot counts its own.
    pub(super) fn met(&self, entries: &[Known]) {
        if self.snapshot.is_some() {
            return;
        }
        let now = UnixTime::steady();
        let mut oddities = self.oddities.0.lock();
        let (met, telling) = &mut *oddities;
        // Not short-circuited: each one has to be recorded.
        let changed =
            entries.iter().filter(|known| !known.claims.is_empty()).filter(|known| met.note(known, now)).count();
        if changed == 0 {
            return;
        }
        met.forget(now);
        let groups = met.groups();
        let count = i64::try_from(groups.values().sum::<usize>()).unwrap_or(i64::MAX);
        self.metrics.directory_contradictions.with_label_values(&[&*self.name]).set(count);
        for (group, count) in telling.news(&groups) {
            let told = odd::told(&group, count, &self.config.bind_dn);
            tracing::warn!(directory = &*self.name, "met so far: {told}");
        }
    }
}
