//! What the committer, the tidying thread and those who read contents share: the index, contents that were just taken,
//! and the segment that grows.

use std::collections::HashSet;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::SpoolError;
use super::fresh::Fresh;
use super::index::{Index, Place};
use super::layout::{Layout, failed};
use super::stored::Stored;
use crate::message::queue_id::QueueId;

/// What is behind the lock. Nobody waits for a disk while holding it, but to open a file.
#[derive(Debug)]
pub(super) struct State {
    /// Where everything is.
    pub index: Index,
    /// Contents in memory.
    pub fresh: Fresh,
    /// Messages whose content was not what was written when it was read.
    pub damaged: HashSet<QueueId>,
    /// The segment that grows: its number and its file.
    pub growing: (u32, Arc<File>),
    /// Whether the tidying thread was asked to move messages and is not done.
    pub cleaning: bool,
}

/// The lock.
#[derive(Debug, Clone)]
pub(super) struct Shared(Arc<Mutex<State>>);

impl Shared {
    /// A lock around it.
    pub(super) fn new(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    /// Locks it. A thread that panicked has left it whole: records are put in one by one.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The content of a live message.
    pub(super) fn open(&self, layout: &Layout, id: QueueId) -> Result<Stored, SpoolError> {
        let mut state = self.lock();
        if let Some(content) = state.fresh.take(id) {
            return Ok(Stored::memory(content));
        }
        let is_damaged = state.damaged.contains(&id);
        let kept = state.index.get(id).ok_or_else(|| SpoolError::Io(format!("{id} is not in the spool")))?;
        // Opened under the lock: while the index names a segment it is not removed.
        let open = |path: std::path::PathBuf| File::open(&path).map_err(|e| failed("cannot open", &path, &e));
        let stored = match kept.content {
            Place::Segment { offset, length, sum } => {
                let (number, growing) = &state.growing;
                let is_growing = *number == kept.at.segment;
                let file = if is_growing { growing.clone() } else { Arc::new(open(layout.segment(kept.at.segment))?) };
                Stored::range(file, u64::from(offset), length, sum)
            }
            Place::File { folder, sum } => {
                let path = layout.large(folder, id);
                let file = open(path.clone())?;
                let length = file.metadata().map_err(|e| failed("cannot read", &path, &e))?.len();
                Stored::file(Arc::new(file), length, sum)
            }
        };
        Ok(if is_damaged { stored.known_as_damaged() } else { stored })
    }
}
