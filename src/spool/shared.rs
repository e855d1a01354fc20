//! What the committer, the compaction thread and readers share: the index, cached contents, and open segments.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::blobs::Blobs;
use super::condition::Condition;
use super::content_cache::ContentCache;
use super::entry::Entry;
use super::index::{ContentPlace, Index, Sizes, Sparse};
use super::layout::{Layout, failed};
use super::rewrite::Rewritten;
use super::segment::Readable;
use super::stored::Stored;
use super::{SpoolError, changes};
use crate::message::queue_id::QueueId;
use crate::metrics::Metrics;

/// The most complete segments that are kept open for reading.
const OPEN: usize = 64;

/// The state behind the lock. While it is held, the only I/O is opening or renaming a file.
#[derive(Debug)]
pub(super) struct LogState {
    pub index: Index,
    /// Recently accepted contents.
    pub fresh: ContentCache,
    /// Messages whose content was found damaged when it was read.
    pub damaged: HashSet<QueueId>,
    /// Whether the compaction thread has been asked to free space and has not finished.
    pub giving_back: bool,
    /// The segment that grows.
    growing: (u32, Readable),
    /// Other open segments; only those in the index, since an open file keeps its space.
    open: HashMap<u32, Readable>,
}

impl LogState {
    pub(super) fn new(index: Index, growing: (u32, Readable), damaged: HashSet<QueueId>) -> Self {
        Self { index, fresh: ContentCache::default(), damaged, giving_back: true, growing, open: HashMap::new() }
    }

    /// Another segment grows from now on.
    pub(super) fn begin(&mut self, number: u32, readable: Readable) {
        self.growing = (number, readable);
    }

    /// Forgets the segments before this one and returns them.
    pub(super) fn forget_before(&mut self, first: u32) -> Vec<u32> {
        self.open.retain(|number, _| *number >= first);
        self.index.segments.forget_before(first)
    }

    /// A segment was rewritten; it includes the one before if that is named.
    pub(super) fn rewritten(&mut self, sparse: Sparse, rewritten: &Rewritten) {
        self.open.remove(&sparse.number);
        if let Some(before) = sparse.before {
            self.open.remove(&before);
        }
        self.index.rewritten(sparse, rewritten.bytes.len() as u64, &rewritten.moves);
    }

    /// Opens a segment for reading. It exists while the index names it; once open, it can be read to its end.
    fn readable(&mut self, layout: &Layout, number: u32) -> Result<Readable, SpoolError> {
        if self.growing.0 == number {
            return Ok(self.growing.1.clone());
        }
        if let Some(open) = self.open.get(&number) {
            return Ok(open.clone());
        }
        if self.open.len() >= OPEN {
            self.open.clear();
        }
        let opened = Readable::open(&layout.segment(number))?;
        self.open.insert(number, opened.clone());
        Ok(opened)
    }
}

#[derive(Debug, Clone)]
pub(super) struct SharedLog(Arc<Mutex<LogState>>);

impl SharedLog {
    pub(super) fn new(state: LogState) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    /// Takes the lock. The state is consistent even if a thread panicked, since records are applied one by one.
    pub(super) fn lock(&self) -> MutexGuard<'_, LogState> {
        self.0.lock()
    }

    /// A live message with its current state.
    pub(super) fn entry(&self, layout: &Layout, id: QueueId) -> Result<Option<Entry>, SpoolError> {
        let mut state = self.lock();
        let Some(kept) = state.index.get(id) else { return Ok(None) };
        let (at, changes) = (kept.at, kept.changes.clone());
        let segment = state.readable(layout, at.segment)?;
        let changes: Result<Vec<_>, SpoolError> =
            changes.iter().map(|changed| Ok((changed, state.readable(layout, changed.segment)?))).collect();
        drop(state);
        let unread = |number: u32| move |e: std::io::Error| failed("cannot read", &layout.segment(number), &e);
        let (logged, _) = segment.logged(at.offset).map_err(unread(at.segment))?;
        let statement = logged.accepted.into_iter().nth(at.nth as usize);
        let mut entry = statement.map(|statement| statement.entry.into_owned()).filter(|entry| entry.id == id);
        for (changed, segment) in changes? {
            if let Some(entry) = &mut entry {
                changes::apply(entry, changed, &segment).map_err(unread(changed.segment))?;
            }
        }
        Ok(entry)
    }

    pub(super) fn open(&self, layout: &Layout, id: QueueId) -> Result<Stored, SpoolError> {
        let mut state = self.lock();
        if let Some(content) = state.fresh.take(id) {
            return Ok(Stored::memory(content));
        }
        let is_damaged = state.damaged.contains(&id);
        let kept = state.index.get(id).ok_or_else(|| SpoolError::Io(format!("{id} is not in the spool")))?;
        let stored = match kept.content {
            ContentPlace::Segment { offset, length, sum } => {
                let segment = kept.at.segment;
                let file = state.readable(layout, segment)?.file;
                Stored::range(file, u64::from(offset), length, sum)
            }
            ContentPlace::File { folder, sum } => {
                let path = layout.large(folder, id);
                let file = File::open(&path).map_err(|e| failed("cannot open", &path, &e))?;
                let length = file.metadata().map_err(|e| failed("cannot read", &path, &e))?.len();
                Stored::file(Arc::new(file), length, sum)
            }
        };
        Ok(if is_damaged { stored.known_as_damaged() } else { stored })
    }
}

/// What the threads share with the rest of the store.
#[derive(Clone)]
pub(super) struct Parts {
    pub layout: Layout,
    /// Limits on the use of the disk.
    pub sizes: Sizes,
    pub shared: SharedLog,
    pub large: Arc<Blobs>,
    /// Where failures are reported.
    pub condition: Condition,
    pub metrics: Metrics,
}
