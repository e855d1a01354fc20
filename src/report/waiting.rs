//! Reports that strangers caused and that wait to leave, in octets. None is dropped, and whoever causes many decides neither
//! how large they are nor how much of the disk they take: the more wait, the less of a message comes back.
//!
//! `delivery` counts what is in its queue; [`super::make`] asks what a report may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::spool::entry::outline::{Kind, Outline};

/// No whole message of a stranger's that is larger comes back, octets: 1,000 dead letters may hold one each.
const LARGEST: u64 = 1024 * 1024;
/// Up to this many octets whole messages come back (RET=FULL).
const WHOLE: u64 = 16 * 1024 * 1024;
/// Up to this many header sections do.
const HEADERS: u64 = 32 * 1024 * 1024;

/// Beyond it a stranger's message goes to one system at a time, so that what that one refuses needs no report.
const MANY: u64 = 128 * 1024 * 1024;

/// What of a message may come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Nothing: the report says what became of it, about 2 KiB.
    Nothing,
    /// Its header section, as far as reports have it.
    Headers,
    Whole,
}

/// Those that wait. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<AtomicU64>);

/// One that waits, until it is dropped.
#[derive(Debug)]
pub struct Counted {
    waiting: Waiting,
    octets: u64,
}

impl Waiting {
    /// Counts a message, if it is such a report.
    #[must_use]
    pub fn count(&self, outline: &Outline) -> Option<Counted> {
        let octets = (outline.kind == Kind::StrangersReport).then_some(u64::from(outline.size))?;
        self.0.fetch_add(octets, Ordering::Relaxed);
        Some(Counted { waiting: self.clone(), octets })
    }

    /// What another one, about a message of so many octets, may hold.
    #[must_use]
    pub fn room(&self, size: u64) -> Room {
        match self.0.load(Ordering::Relaxed) {
            octets if size <= LARGEST && octets.saturating_add(size) <= WHOLE => Room::Whole,
            octets if octets < HEADERS => Room::Headers,
            _ => Room::Nothing,
        }
    }

    /// Whether so many wait that whatever can be said at the dot is to be said there.
    #[must_use]
    pub fn are_many(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= MANY
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.waiting.0.fetch_sub(self.octets, Ordering::Relaxed);
    }
}
