//! Jobs of the compaction thread for the committer.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use super::super::index::Index;
use super::super::segment::Segment;
use super::super::shared::{LogState, SharedLog};
use super::*;
use crate::metrics::Metrics;
use crate::spool::blobs::Blobs;
use crate::spool::condition::Condition;
use crate::spool::index::Sizes;
use crate::spool::layout::Layout;

/// Even if the first answer is an error, the other jobs are still being worked on.
#[test]
fn all_answers_are_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::make(folder.path()).unwrap();
    let header = crate::spool::sample::header();
    let segment = Segment::begin(&layout, &header, 0).unwrap();
    let (condition, metrics) = (Condition::default(), Metrics::new());
    let large = Arc::new(Blobs::new(layout.clone(), metrics.clone(), condition.clone(), 1));
    let shared = SharedLog::new(LogState::new(Index::default(), (1, segment.readable()), HashSet::new()));
    let clock = QueueClock::open(folder.path(), None).unwrap();
    let (jobs, asked) = channel();
    let parts = Parts { layout, sizes: Sizes::default(), shared, large, condition, metrics };
    let compaction = Compactor::new(parts, jobs, clock);
    let is_done = Arc::new(AtomicBool::new(false));
    let committer = std::thread::spawn({
        let is_done = is_done.clone();
        move || {
            let (first, second): (Job, Job) = (asked.recv().unwrap(), asked.recv().unwrap());
            first.end(Err(SpoolError::Io("a disk".into())));
            std::thread::sleep(Duration::from_millis(50)); // for whoever does not wait
            is_done.store(true, Ordering::SeqCst);
            second.end(Ok(()));
        }
    });
    let answered = compaction.ask(vec![What::Release, What::Release]);
    assert!(is_done.load(Ordering::SeqCst) && answered.is_err());
    committer.join().unwrap();
}
