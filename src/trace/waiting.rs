//! Events between who records them and the [`writer`](super::writer): lines, ready to be written.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Event;
use crate::time::UnixTime;

/// Octets that may wait for the disk: some seconds of a busy server.
const MOST: usize = 8 << 20;
/// Seconds of a day.
const DAY: u64 = 86_400;

/// Lines that wait.
#[derive(Default)]
pub(super) struct Waiting {
    days: Mutex<Vec<OfDay>>,
    /// There are lines.
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
    /// How many.
    pub(super) fn events(&self) -> usize {
        memchr::memchr_iter(b'\n', &self.lines).count()
    }
}

impl Waiting {
    /// Takes an event, unless too much waits.
    pub(super) fn put(&self, event: &Event<'_>) {
        let mut days = self.days();
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

    /// All that waits.
    pub(super) fn take(&self) -> Vec<OfDay> {
        std::mem::take(&mut self.days())
    }

    /// How many events were lost since this was asked last.
    pub(super) fn lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    fn days(&self) -> MutexGuard<'_, Vec<OfDay>> {
        self.days.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
