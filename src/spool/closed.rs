//! The log while nothing can be appended to it: when a new segment is tried, where, and when that is given up. Pure but for
//! the segment that it holds; the committer asks.
//!
//! A segment or a folder is not synced again once a sync of it has failed: the second sync may succeed although what the
//! first was to write is lost (fsync(2)). So each try is another file, and after the sync of a folder failed in another
//! folder, whose own name was made durable at the start.

use std::time::{Duration, Instant};

use super::SpoolError;
use super::layout::SPARE;
use super::segment::{NotBegun, Segment};

/// How long it is tried. Then the program ends, so that it is started again.
const TRIED_FOR: Duration = Duration::from_mins(5);
/// The pauses between tries, the last one again and again.
const PAUSES: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(40),
    Duration::from_secs(80),
];

/// A log without a segment to append to.
#[derive(Debug)]
pub(super) struct Closed {
    /// The last one that was in force: what is in it up to its size counts.
    pub old: Segment,
    /// What the next one's number is.
    pub next: u32,
    /// The folder that it is tried in: 0 the usual one, else a spare one.
    pub folder: u32,
    pub error: SpoolError,
    since: Instant,
    again: Instant,
    tries: usize,
    kind: Kind,
}

/// The longest pause where a try costs nothing.
const MOST_WHERE_HARMLESS: Duration = Duration::from_secs(10);

/// What makes a try due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// Time alone.
    Clock,
    /// A record waits for it.
    Record,
}

/// What became of the last try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing was tried yet, or nothing was written: it can be tried with each record.
    Harmless,
    /// The disk is full: it waits for room, however long that takes.
    Full,
    /// The folder is of no more use: each try costs one.
    Costly,
}

impl Closed {
    /// A sync of `old` failed, or it cannot be written.
    pub(super) fn new(old: Segment, (next, folder): (u32, u32), error: SpoolError, now: Instant) -> Self {
        Self { old, next, folder, error, since: now, again: now, tries: 0, kind: Kind::Harmless }
    }

    /// The next segment could not be begun at `now`.
    pub(super) fn failed(&mut self, why: NotBegun, now: Instant) {
        let pause = PAUSES[self.tries.min(PAUSES.len() - 1)];
        self.again = now + pause.min(MOST_WHERE_HARMLESS);
        self.tries += 1;
        (self.error, self.kind) = match why {
            NotBegun::Full(error) => (error, Kind::Full),
            NotBegun::Unwritten(error) => (error, Kind::Harmless),
            NotBegun::Unnamed(error) => {
                // The next folder may do at once.
                self.again = if self.tries == 1 { now } else { now + pause };
                self.next += 1;
                self.folder += 1;
                (error, Kind::Costly)
            }
        };
    }

    /// Whether a try is to be made at `now`.
    pub(super) fn is_due(&self, now: Instant, by: By) -> bool {
        self.has_folder() && (self.again <= now || (by == By::Record && self.kind != Kind::Costly))
    }

    /// When it is to be tried, or given up.
    pub(super) fn wakes_at(&self) -> Instant {
        match self.kind {
            _ if !self.has_folder() => self.since,
            Kind::Full => self.again,
            Kind::Harmless | Kind::Costly => self.again.min(self.since + TRIED_FOR),
        }
    }

    /// Whether it is given up at `now`.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        !self.has_folder() || (self.kind != Kind::Full && now >= self.since + TRIED_FOR)
    }

    fn has_folder(&self) -> bool {
        self.folder <= SPARE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::layout::Layout;

    fn closed(now: Instant) -> (tempfile::TempDir, Closed) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::make(folder.path()).unwrap();
        let header = crate::spool::sample::header();
        let segment = Segment::begin(&layout, &header, 0).unwrap();
        (folder, Closed::new(segment, (2, 0), error(), now))
    }

    fn error() -> SpoolError {
        SpoolError::Io("a disk".into())
    }

    #[test]
    fn another_folder_is_tried_with_growing_pauses_for_five_minutes() {
        let start = Instant::now();
        let (_folder, mut closed) = closed(start);
        let (mut now, mut tried) = (start, Vec::new());
        while !closed.is_over(now) {
            if closed.is_due(now, By::Clock) {
                tried.push((now - start).as_secs());
                let number = (closed.next, closed.folder);
                closed.failed(NotBegun::Unnamed(error()), now);
                assert_eq!((closed.next, closed.folder), (number.0 + 1, number.1 + 1), "a folder is used once");
                assert!(!closed.is_due(now, By::Record) || tried.len() == 1, "records do not hasten it");
            }
            now = closed.wakes_at().max(now);
        }
        assert_eq!(tried, [0, 0, 5, 15, 35, 75, 155, 235], "at once in the next folder, then with pauses");
        assert_eq!((now - start).as_secs(), 300);
    }

    #[test]
    fn what_costs_nothing_is_tried_with_each_record_and_a_full_disk_is_waited_for() {
        let start = Instant::now();
        let (_folder, mut closed) = closed(start);
        closed.failed(NotBegun::Unwritten(error()), start);
        assert!(closed.is_due(start, By::Record) && !closed.is_due(start, By::Clock));
        assert!(closed.is_due(start + Duration::from_secs(1), By::Clock));
        assert!(closed.is_over(start + TRIED_FOR) && (closed.next, closed.folder) == (2, 0));
        closed.failed(NotBegun::Full(error()), start);
        assert!(closed.is_due(start, By::Record) && !closed.is_over(start + TRIED_FOR * 10));
    }
}
