//! A snapshot's gauges, and the log line about its odd entries.

use super::Snapshot;
use super::served::Served;
use crate::directory::odd::{self, Groups};
use crate::lookup::Kind;

impl Snapshot {
    pub(super) fn measure(&self) {
        let name = &*self.name;
        let served = self.served.load();
        let counts = served.as_deref().map(|served| served.current().count_kinds()).unwrap_or_default();
        for (kind, count) in Kind::ALL.iter().zip(counts) {
            self.metrics.directory_recipients.with_label_values(&[name, kind.as_str()]).set(number(count));
        }
        let held = served.as_deref().map_or(0, Served::held);
        self.metrics.directory_changes_held.with_label_values(&[name]).set(number(held));
        // Held changes are included, because they are the directory's content.
        self.tell_odd(&served.as_deref().map_or_else(Groups::new, |served| served.latest().odd()));
        self.tell_age();
    }

    fn tell_odd(&self, groups: &Groups) {
        let count = number(groups.values().sum());
        self.metrics.directory_contradictions.with_label_values(&[&*self.name]).set(count);
        for (group, count) in self.telling.lock().news(groups) {
            tracing::warn!(directory = &*self.name, "{}", odd::told(&group, count, &self.reader));
        }
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
