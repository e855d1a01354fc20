//! The log while nothing can be appended: when and in which folder a new segment is tried, and when to give up. No I/O
//! except for the segment that it owns; the committer calls it.
//!
//! A segment or a folder is not synced again once a sync of it has failed: a second sync may succeed although data of
//! the first is lost (fsync(2)). So each try uses another file, and after a failed sync of a folder another folder,
//! which was made durable at start.

use std::time::{Duration, Instant};

use super::SpoolError;
use super::layout::SPARE;
use super::segment::{NotBegun, Segment};

/// How long a new segment is tried. Then the program ends, so that it is restarted.
const TRIED_FOR: Duration = Duration::from_mins(5);
/// The pauses between tries; the last one repeats.
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
    /// The last segment in force; its records up to its size count.
    pub old: Segment,
    /// The next segment's number.
    pub next: u32,
    /// The folder of the next try: 0 the usual one, else a spare one.
    pub folder: u32,
    pub error: SpoolError,
    since: Instant,
    again: Instant,
    tries: usize,
    kind: Kind,
}

/// The longest pause while tries cost nothing.
const MOST_WHERE_HARMLESS: Duration = Duration::from_secs(10);

/// What asks whether a try is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Clock,
    /// A record that waits for it.
    Record,
}

/// The result of the last try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// None yet, or nothing was written: each record may trigger a try.
    Harmless,
    /// The disk is full: tries go on for as long as it takes.
    Full,
    /// The folder cannot be used any more: each try costs one.
    Costly,
}

impl Closed {
    /// A sync of `old` failed, or it cannot be written.
    pub(super) fn new(old: Segment, next: u32, folder: u32, error: SpoolError, now: Instant) -> Self {
        Self { old, next, folder, error, since: now, again: now, tries: 0, kind: Kind::Harmless }
    }

    pub(super) fn failed(&mut self, why: NotBegun, now: Instant) {
        let pause = PAUSES[self.tries.min(PAUSES.len() - 1)];
        self.again = now + pause.min(MOST_WHERE_HARMLESS);
        self.tries += 1;
        (self.error, self.kind) = match why {
            NotBegun::Full(error) => (error, Kind::Full),
            NotBegun::Unwritten(error) => (error, Kind::Harmless),
            NotBegun::Unnamed(error) => {
                // The next folder may work at once.
                self.again = if self.tries == 1 { now } else { now + pause };
                self.next += 1;
                self.folder += 1;
                (error, Kind::Costly)
            }
        };
    }

    pub(super) fn is_due(&self, now: Instant, by: By) -> bool {
        self.has_folder() && (self.again <= now || (by == By::Record && self.kind != Kind::Costly))
    }

    /// When the next try is due, or the time to give up.
    pub(super) fn wakes_at(&self) -> Instant {
        match self.kind {
            _ if !self.has_folder() => self.since,
            Kind::Full => self.again,
            Kind::Harmless | Kind::Costly => self.again.min(self.since + TRIED_FOR),
        }
    }

    /// Whether it is time to give up.
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
        (folder, Closed::new(segment, 2, 0, error(), now))
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
