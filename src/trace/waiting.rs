//! The queue of recorded events for the [`writer`](super::writer), as complete lines.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Event;
use crate::time::UnixTime;

/// The most octets that may wait for the disk: some seconds of a busy server.
const MOST: usize = 8 << 20;
const DAY: u64 = 86_400;

#[derive(Default)]
pub(super) struct Waiting {
    days: Mutex<Vec<OfDay>>,
    /// Notified when there are lines.
    pub(super) filled: Notify,
    lost: AtomicU64,
}

/// Lines of one day, for its file.
pub(super) struct OfDay {
    /// When the first was recorded.
    pub(super) at: UnixTime,
    pub(super) lines: Vec<u8>,
}

impl OfDay {
    /// The number of events.
    pub(super) fn events(&self) -> usize {
        memchr::memchr_iter(b'\n', &self.lines).count()
    }
}

impl Waiting {
    /// Adds an event, unless too many octets wait.
    pub(super) fn put(&self, event: &Event<'_>) {
        let mut days = self.days.lock();
        let first = days.is_empty();
        if days.last().is_none_or(|last| last.at.0 / DAY != event.at.0 / DAY) {
            days.push(OfDay { at: event.at, lines: Vec::new() });
        }
        let Some(last) = days.last_mut() else { return };
        if last.lines.len() >= MOST {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        event.write(&mut last.lines);
        drop(days);
        if first {
            self.filled.notify_one();
        }
    }

    pub(super) fn take(&self) -> Vec<OfDay> {
        std::mem::take(&mut self.days.lock())
    }

    /// How many events were lost since the last call.
    pub(super) fn lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}
