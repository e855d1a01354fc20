//! How the spool fares: whether it takes records, and which segments the disk does not give back. The committer and `compaction`
//! say so; probes, `status`, sessions and `run` look.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::time::UnixTime;

/// Whether the spool takes records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Takes {
    #[default]
    Records,
    /// Not now, for this reason: it is opened again with growing pauses.
    Nothing(String),
    /// It could not be opened again: the program is to end, so that it is started again.
    NothingMore(String),
}

/// A segment that cannot be read, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// Its number.
    pub segment: u32,
    /// Since when.
    pub since: UnixTime,
    /// How many live messages are in it.
    pub messages: usize,
    /// What the disk said.
    pub why: String,
}

/// How a spool fares. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Condition(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    takes: watch::Sender<Takes>,
    unreadable: Mutex<BTreeMap<u32, Unreadable>>,
}

impl Default for Condition {
    /// It is well.
    fn default() -> Self {
        Self(Arc::new(Inner { takes: watch::Sender::default(), unreadable: Mutex::default() }))
    }
}

impl Condition {
    /// Whether it takes records. A message that cannot be kept is only begun where nothing of it may have to be kept.
    #[must_use]
    pub fn takes_records(&self) -> bool {
        *self.0.takes.borrow() == Takes::Records
    }

    /// The same with the reason.
    #[must_use]
    pub fn takes(&self) -> Takes {
        self.0.takes.borrow().clone()
    }

    /// Returns when it takes nothing any more, with the reason.
    pub async fn ended(&self) -> String {
        let mut takes = self.0.takes.subscribe();
        let ended = takes.wait_for(|takes| matches!(takes, Takes::NothingMore(_))).await.map(|takes| takes.clone());
        match ended {
            Ok(Takes::NothingMore(why)) => why,
            // Nobody can say so any more; not while we hold it.
            Ok(Takes::Records | Takes::Nothing(_)) | Err(_) => std::future::pending().await,
        }
    }

    /// Segments that cannot be read, or not all of them.
    #[must_use]
    pub fn unreadable(&self) -> Vec<Unreadable> {
        self.segments().values().cloned().collect()
    }

    /// Whether it takes records from now on; what has ended has ended.
    pub(super) fn set_takes(&self, takes: Takes, metrics: &Metrics) {
        self.0.takes.send_if_modified(|before| {
            let changes = *before != takes && !matches!(before, Takes::NothingMore(_));
            if changes {
                metrics.spool_takes_nothing.with_label_values::<&str>(&[]).set((takes != Takes::Records).into());
                *before = takes;
            }
            changes
        });
    }

    /// A segment cannot be read.
    pub(super) fn add(&self, unreadable: Unreadable, metrics: &Metrics) {
        self.segments().insert(unreadable.segment, unreadable);
        self.count(metrics);
    }

    /// A segment can be read, or is not needed any more.
    pub(super) fn remove(&self, segment: u32, metrics: &Metrics) {
        self.segments().remove(&segment);
        self.count(metrics);
    }

    fn count(&self, metrics: &Metrics) {
        let many = i64::try_from(self.segments().len()).unwrap_or(i64::MAX);
        metrics.spool_unreadable_segments.with_label_values::<&str>(&[]).set(many);
    }

    fn segments(&self) -> MutexGuard<'_, BTreeMap<u32, Unreadable>> {
        self.0.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
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
