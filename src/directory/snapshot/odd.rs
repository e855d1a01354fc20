//! Tells which entries of a snapshot are odd, and how many.

use std::sync::PoisonError;

use super::Snapshot;
use crate::directory::odd::{self, Groups};

impl Snapshot {
    /// Sets the gauge, and logs what is new. What waits to be accepted counts: it is what the directory says.
    pub(super) fn tell_odd(&self) {
        let served = self.served.load();
        let groups = served.as_deref().map_or_else(Groups::new, |served| served.latest().odd());
        let count = i64::try_from(groups.values().sum::<usize>()).unwrap_or(i64::MAX);
        self.metrics.directory_contradictions.with_label_values(&[&*self.name]).set(count);
        for (group, count) in self.telling.lock().unwrap_or_else(PoisonError::into_inner).news(&groups) {
            tracing::warn!(directory = &*self.name, "{}", odd::told(&group, count, &self.reader));
        }
    }
}
