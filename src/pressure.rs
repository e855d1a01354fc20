//! Back-pressure: mail is turned away with 452 4.3.1 while there is less free space than `[spool] min_free`.
//!
//! Sessions ask [`Pressure::has_room`] for a message and [`Share::take_room`] for the pieces of one that is coming in;
//! [`Pressure::watch`] looks every few seconds. What open messages have written since the last look, and what they are
//! about to, counts as gone. Half-sent messages give way first; nothing already accepted is touched.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::in_force::Current;
use crate::metrics::Metrics;

pub mod held;

/// How often free space is looked at.
const EVERY: Duration = Duration::from_secs(3);

/// Whether there is room for more mail.
#[derive(Debug)]
pub struct Pressure {
    on: AtomicBool,
    /// Bytes that were free at the last look.
    free: AtomicU64,
    /// As configured at the last look.
    min_free: AtomicU64,
    /// Bytes of open messages that went to the disk since the last look.
    written: AtomicU64,
    /// How often free space was looked at.
    looks: AtomicU64,
    /// Bytes of open messages that are still to go there.
    to_come: AtomicU64,
    /// Whether it was told that open messages have taken the room.
    told: AtomicBool,
    /// What sessions hold in memory.
    held: AtomicU64,
}

impl Default for Pressure {
    /// Nobody has looked yet.
    fn default() -> Self {
        Self {
            on: AtomicBool::default(),
            free: AtomicU64::new(u64::MAX),
            min_free: AtomicU64::default(),
            written: AtomicU64::default(),
            looks: AtomicU64::default(),
            to_come: AtomicU64::default(),
            told: AtomicBool::default(),
            held: AtomicU64::default(),
        }
    }
}

impl Pressure {
    /// Whether mail is to be turned away.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Whether there is room for another message of this many bytes beside those that are coming in.
    #[must_use]
    pub fn has_room(&self, size: u64) -> bool {
        if self.is_on() {
            return false;
        }
        let open = self.to_come.load(Ordering::Relaxed);
        let has = self.left().saturating_sub(open) >= size;
        if !has && !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                size,
                open,
                "messages that are coming in take the room there is: others are turned away \
                with 452 4.3.1 until there is more"
            );
        }
        has
    }

    /// A message of at most `limit` bytes begins to come in.
    #[must_use]
    pub fn share(self: &Arc<Self>, limit: u64) -> Share {
        Share { pressure: self.clone(), limit, received: 0, written: 0, lately: (0, 0), to_come: 0 }
    }

    /// Takes note of how many bytes are free. What was turned on by less than `min_free` is turned off by an eighth
    /// more than it, so that it does not flutter.
    pub fn sample(&self, free: u64, min_free: u64) {
        self.free.store(free, Ordering::Relaxed);
        self.min_free.store(min_free, Ordering::Relaxed);
        self.told.store(false, Ordering::Relaxed);
        let enough = if self.is_on() { min_free.saturating_add(min_free / 8) } else { min_free };
        let on = free < enough;
        if self.on.swap(on, Ordering::Relaxed) == on {
            return;
        }
        if on {
            tracing::error!(free, min_free, "the disk is nearly full: new mail is turned away with 452 4.3.1");
        } else {
            tracing::info!(free, min_free, "there is room again: new mail is taken");
        }
    }

    /// Bytes that may still be written.
    fn left(&self) -> u64 {
        let gone = self.min_free.load(Ordering::Relaxed).saturating_add(self.written.load(Ordering::Relaxed));
        self.free.load(Ordering::Relaxed).saturating_sub(gone)
    }

    /// Looks at the free space under `state_dir` of the configuration in force until `stop`.
    pub async fn watch(self: Arc<Self>, current: Arc<Current>, metrics: Metrics, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let config = current.load().config.clone();
            let path = config.server.state_dir.clone();
            let seen = self.written.load(Ordering::Relaxed); // what was written before is in what the system says
            match tokio::task::spawn_blocking(move || free_bytes(&path)).await {
                Ok(Ok(free)) => {
                    take(&self.written, seen);
                    self.looks.fetch_add(1, Ordering::Relaxed);
                    self.sample(free, config.min_free);
                    metrics.spool_free.with_label_values::<&str>(&[]).set(i64::try_from(free).unwrap_or(i64::MAX));
                    metrics.back_pressure.with_label_values::<&str>(&[]).set(self.is_on().into());
                }
                Ok(Err(error)) => tracing::warn!(%error, "cannot tell how much space is free"),
                Err(error) => tracing::warn!(%error, "cannot tell how much space is free"),
            }
        }
    }
}

/// One message that is coming in. When it is dropped, nothing more of it is to come.
#[derive(Debug)]
pub struct Share {
    pressure: Arc<Pressure>,
    /// What it may have in all: what the client said, or what the receive connector allows.
    limit: u64,
    received: u64,
    written: u64,
    /// At which look something was written last, and how much since.
    lately: (u64, u64),
    /// What it adds to [`Pressure::to_come`].
    to_come: u64,
}

impl Share {
    /// Octets have come in. As many again are expected, at most those that may be: who only says that he will send much
    /// takes no room from others.
    pub fn received(&mut self, octets: usize) {
        self.received += octets as u64;
        let expected = self.received.saturating_mul(2).min(self.limit).max(self.received);
        // Our own field is written, too, and was not received.
        self.set_to_come(expected.saturating_sub(self.written));
    }

    /// Takes room for this many bytes on the disk, which are written next.
    ///
    /// # Errors
    /// There is none without going below `min_free`, which this is.
    pub fn take_room(&mut self, bytes: usize) -> Result<(), u64> {
        let (pressure, bytes) = (&self.pressure, bytes as u64);
        let min_free = pressure.min_free.load(Ordering::Relaxed);
        // First of all: others do the same at this moment.
        let written = pressure.written.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if pressure.is_on() || pressure.free.load(Ordering::Relaxed) < min_free.saturating_add(written) {
            take(&pressure.written, bytes);
            return Err(min_free);
        }
        let look = pressure.looks.load(Ordering::Relaxed);
        self.lately = (look, if self.lately.0 == look { self.lately.1 + bytes } else { bytes });
        self.written += bytes;
        self.set_to_come(self.to_come.saturating_sub(bytes));
        Ok(())
    }

    /// What was written is gone again, and nothing more is to come.
    pub fn thrown_away(&mut self) {
        self.set_to_come(0);
        let (look, bytes) = std::mem::take(&mut self.lately);
        if look == self.pressure.looks.load(Ordering::Relaxed) {
            take(&self.pressure.written, bytes);
        }
    }

    /// Whether what can be on the disk is to be there.
    #[must_use]
    pub fn is_short_of_memory(&self) -> bool {
        self.pressure.is_short_of_memory(0)
    }

    fn set_to_come(&mut self, bytes: u64) {
        let all = &self.pressure.to_come;
        match bytes.checked_sub(self.to_come) {
            Some(more) => all.fetch_add(more, Ordering::Relaxed),
            None => all.fetch_sub(self.to_come - bytes, Ordering::Relaxed),
        };
        self.to_come = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set_to_come(0);
    }
}

/// Takes so many from a count, at most all: a look may come between.
fn take(count: &AtomicU64, many: u64) {
    let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| Some(all.saturating_sub(many)));
}

/// Bytes that an ordinary process may still write below `path`.
fn free_bytes(path: &PathBuf) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_does_not_flutter() {
        let pressure = Pressure::default();
        for (free, on) in
            [(1000, false), (800, false), (799, true), (800, true), (899, true), (900, false), (800, false)]
        {
            pressure.sample(free, 800);
            assert_eq!(pressure.is_on(), on, "{free} bytes free");
        }
    }

    #[test]
    fn messages_that_are_coming_in_count() {
        let pressure = Arc::new(Pressure::default());
        assert!(pressure.has_room(u64::MAX), "nobody has looked yet");
        pressure.sample(1000, 800);
        let room = |size| pressure.has_room(size);
        assert!(room(200) && !room(201));
        let mut small = pressure.share(10_000);
        assert!(room(200), "who has only said that he will send much takes nothing");
        small.received(50);
        assert!(room(100) && !room(101), "as much again is expected");
        let mut announced = pressure.share(60);
        announced.received(50);
        assert!(room(40) && !room(41), "no more than was announced");
        announced.received(20);
        assert!(room(30) && !room(31), "but what has come has come");
        drop(small);
        assert!(room(130) && !room(131));
        assert_eq!(announced.take_room(70), Ok(()));
        assert!(room(130) && !room(131), "it is on the disk, and nobody has looked since");
        assert_eq!(announced.take_room(131), Err(800));
        assert!(room(130) && !room(131), "what was not written takes nothing");
        drop(announced);
        assert!(room(130) && !room(131), "what was written is there until somebody has looked");
        let mut failed = pressure.share(100);
        failed.received(100);
        assert_eq!(failed.take_room(100), Ok(()));
        assert!(room(30) && !room(31));
        failed.thrown_away();
        assert!(room(130) && !room(131));
        pressure.sample(799, 800);
        assert!(!room(0));
        assert_eq!(pressure.share(10).take_room(0), Err(800));
    }

    #[test]
    fn what_is_written_may_be_more_than_what_came() {
        let pressure = Arc::new(Pressure::default());
        pressure.sample(10_000_000, 1000);
        let mut share = pressure.share(1);
        share.received(300_000);
        assert_eq!(share.take_room(300_200), Ok(()));
        share.received(1);
        assert!(pressure.has_room(1), "nothing more is to come, and much is free");
    }

    #[test]
    fn free_space_is_known() {
        assert!(free_bytes(&std::env::temp_dir()).unwrap() > 0);
    }
}
