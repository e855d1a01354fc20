//! Counts the octets of waiting reports about strangers' messages. None is dropped; but the more wait, the less of a
//! message is returned, so that strangers cannot fill the disk with them.
//!
//! `delivery` counts those in its queue; [`super::make`] asks how much a report may return.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::spool::entry::outline::{Kind, Outline};

/// Strangers' messages larger than this are never returned in full, octets: 1,000 dead letters may have one each.
const LARGEST: u64 = 1024 * 1024;
/// Below this many waiting octets whole messages are returned (RET=FULL).
const WHOLE: u64 = 16 * 1024 * 1024;
/// Below this many, header sections are.
const HEADERS: u64 = 32 * 1024 * 1024;

/// Above this many, a stranger's message is accepted for one system at a time, so that its refusal at the end of data
/// needs no report.
const MANY: u64 = 128 * 1024 * 1024;

/// How much of a message may be returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Nothing: the report is about 2 KiB.
    Nothing,
    /// Its header section, up to the limit for all reports.
    Headers,
    Whole,
}

/// The waiting reports. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<AtomicU64>);

/// A counted report; dropping it ends the count.
#[derive(Debug)]
pub struct Counted {
    waiting: Waiting,
    octets: u64,
}

impl Waiting {
    /// Counts a message if it is such a report.
    #[must_use]
    pub fn count(&self, outline: &Outline) -> Option<Counted> {
        let octets = (outline.kind == Kind::StrangersReport).then_some(u64::from(outline.size))?;
        self.0.fetch_add(octets, Ordering::Relaxed);
        Some(Counted { waiting: self.clone(), octets })
    }

    /// How much a further report, about a message of this size in octets, may return.
    #[must_use]
    pub fn room(&self, size: u64) -> Room {
        match self.0.load(Ordering::Relaxed) {
            octets if size <= LARGEST && octets.saturating_add(size) <= WHOLE => Room::Whole,
            octets if octets < HEADERS => Room::Headers,
            _ => Room::Nothing,
        }
    }

    /// Whether so many wait that refusals should be given at the end of data instead.
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
