//! The health of the spool: whether it accepts records, and which segments the disk cannot read. The committer and
//! `compaction` update it; probes, `status`, sessions and `run` read it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::time::UnixTime;

/// Whether the spool accepts records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Takes {
    #[default]
    Records,
    /// Not now, for this reason; new segments are tried with growing pauses.
    Nothing(String),
    /// No more: the program has to end, so that it is restarted.
    NothingMore(String),
}

/// A segment that cannot be read, or not completely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    pub segment: u32,
    pub since: UnixTime,
    /// Live messages in it.
    pub messages: usize,
    pub why: String,
}

/// The health of a spool. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Condition(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    takes: watch::Sender<Takes>,
    unreadable: Mutex<BTreeMap<u32, Unreadable>>,
}

impl Condition {
    /// Whether it accepts records. If not, only messages that may need no storage are accepted.
    #[must_use]
    pub fn takes_records(&self) -> bool {
        *self.0.takes.borrow() == Takes::Records
    }

    #[must_use]
    pub fn takes(&self) -> Takes {
        self.0.takes.borrow().clone()
    }

    /// Completes when it will accept no more records, with the reason.
    pub async fn ended(&self) -> String {
        let mut takes = self.0.takes.subscribe();
        let ended = takes.wait_for(|takes| matches!(takes, Takes::NothingMore(_))).await.map(|takes| takes.clone());
        match ended {
            Ok(Takes::NothingMore(why)) => why,
            // The sender is gone, so it will not change any more.
            Ok(Takes::Records | Takes::Nothing(_)) | Err(_) => std::future::pending().await,
        }
    }

    #[must_use]
    pub fn unreadable(&self) -> Vec<Unreadable> {
        self.0.unreadable.lock().values().cloned().collect()
    }

    /// Sets whether it accepts records; [`Takes::NothingMore`] is final.
    pub fn set_takes(&self, takes: Takes, metrics: &Metrics) {
        self.0.takes.send_if_modified(|before| {
            let changes = *before != takes && !matches!(before, Takes::NothingMore(_));
            if changes {
                metrics.spool_takes_nothing.with_label_values::<&str>(&[]).set((takes != Takes::Records).into());
                *before = takes;
            }
            changes
        });
    }

    pub(super) fn add(&self, unreadable: Unreadable, metrics: &Metrics) {
        self.0.unreadable.lock().insert(unreadable.segment, unreadable);
        self.count(metrics);
    }

    pub(super) fn remove(&self, segment: u32, metrics: &Metrics) {
        self.0.unreadable.lock().remove(&segment);
        self.count(metrics);
    }

    fn count(&self, metrics: &Metrics) {
        let many = i64::try_from(self.0.unreadable.lock().len()).unwrap_or(i64::MAX);
        metrics.spool_unreadable_segments.with_label_values::<&str>(&[]).set(many);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_ends_once_it_takes_nothing_more() {
        let (condition, metrics) = (Condition::default(), Metrics::new());
        assert!(condition.takes_records());
        condition.set_takes(Takes::Nothing("a disk".into()), &metrics);
        assert!(!condition.takes_records());
        let gauge = || metrics.spool_takes_nothing.with_label_values::<&str>(&[]).get();
        assert_eq!(gauge(), 1);
        condition.set_takes(Takes::Records, &metrics);
        assert_eq!((condition.takes(), gauge()), (Takes::Records, 0));
        let mut ended = Box::pin(condition.ended());
        assert!(tokio::time::timeout(std::time::Duration::ZERO, &mut ended).await.is_err());
        condition.set_takes(Takes::NothingMore("gone".into()), &metrics);
        assert_eq!(ended.await, "gone");
        condition.set_takes(Takes::Records, &metrics);
        assert_eq!((condition.takes(), gauge()), (Takes::NothingMore("gone".into()), 1), "and that is the end");
    }

    #[test]
    fn segments_come_and_go() {
        let (condition, metrics) = (Condition::default(), Metrics::new());
        let unreadable = |segment| Unreadable { segment, since: UnixTime(1), messages: 2, why: "EIO".into() };
        for segment in [7, 3, 7] {
            condition.add(unreadable(segment), &metrics);
        }
        let gauge = || metrics.spool_unreadable_segments.with_label_values::<&str>(&[]).get();
        assert_eq!((condition.unreadable(), gauge()), (vec![unreadable(3), unreadable(7)], 2));
        condition.remove(3, &metrics);
        condition.remove(4, &metrics);
        assert_eq!((condition.unreadable(), gauge()), (vec![unreadable(7)], 1));
    }
}
