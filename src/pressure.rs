//! Back-pressure: mail is refused with 452 4.3.1 while disk space, memory or inodes are short, or too many messages
//! wait. For memory, inodes and the number of messages strangers are refused first, our organisations later.
//!
//! Sessions ask [`Pressure::has_room`] for a message and [`Share::take_room`] for the pieces of one that is coming in;
//! [`Pressure::watch`] checks every few seconds, and `weigh` decides. What incoming messages have written since the
//! last check, and are expected to write, counts as used. Incoming messages are refused first; nothing that was
//! accepted is touched. A message for cut-through may have to be queued as well, so MAIL gets the same answer in both
//! modes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use self::weigh::{Bounds, Figures, Levels, Memory, TurnedAway, Want};
use crate::config::Config;
use crate::in_force::Current;
use crate::metrics::Metrics;
use crate::smtp::envelope::Whose;
use crate::spool::Spool;

pub mod held;
mod machine;
pub mod proc;
mod log;
pub mod weigh;

/// How often the resources are checked.
const EVERY: Duration = Duration::from_secs(3);

/// The state of back-pressure.
#[derive(Debug)]
pub struct Pressure {
    /// By [`Whose`]: whether its mail is refused, as in `levels`.
    on: [AtomicBool; 2],
    /// The shortages.
    levels: Mutex<Levels>,
    /// Free bytes at the last check.
    free: AtomicU64,
    /// As configured at the last check.
    min_free: AtomicU64,
    /// How many files could be created, by the last check, before all mail is refused.
    files_left: AtomicU64,
    /// Files that incoming messages created since the last check.
    files: AtomicU64,
    /// Bytes that incoming messages wrote to the disk since the last check.
    written: AtomicU64,
    /// The number of checks.
    looks: AtomicU64,
    /// Bytes that incoming messages are expected to write.
    to_come: AtomicU64,
    /// Whether it was logged that incoming messages have used up the space.
    told: AtomicBool,
    /// Memory that sessions hold.
    held: AtomicU64,
    /// The limit for all sessions together.
    may_hold: AtomicU64,
}

impl Default for Pressure {
    /// Before the first check.
    fn default() -> Self {
        Self {
            on: Default::default(),
            levels: Mutex::default(),
            free: AtomicU64::new(u64::MAX),
            min_free: AtomicU64::default(),
            files_left: AtomicU64::new(u64::MAX),
            files: AtomicU64::default(),
            written: AtomicU64::default(),
            looks: AtomicU64::default(),
            to_come: AtomicU64::default(),
            told: AtomicBool::default(),
            held: AtomicU64::default(),
            may_hold: AtomicU64::new(held::FOR_ALL),
        }
    }
}

impl Pressure {
    /// Whether mail of such clients is to be refused.
    #[must_use]
    pub fn turns_away(&self, whose: Whose) -> bool {
        self.on[whose as usize].load(Ordering::Relaxed)
    }

    /// Whether there is space for another message of this many bytes, in addition to those that are coming in.
    #[must_use]
    pub fn has_room(&self, whose: Whose, size: u64) -> bool {
        if self.turns_away(whose) {
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

    /// Records a check, and returns whose mail is refused before and after it.
    pub fn look(&self, figures: &Figures, bounds: Bounds) -> (Levels, Levels) {
        self.free.store(figures.free, Ordering::Relaxed);
        self.min_free.store(bounds.min_free, Ordering::Relaxed);
        let files_left = figures.inodes.map_or(u64::MAX, |inodes| inodes.free.saturating_sub(inodes.least()));
        self.files_left.store(files_left, Ordering::Relaxed);
        self.told.store(false, Ordering::Relaxed);
        let mut levels = self.levels.lock();
        let before = *levels;
        *levels = weigh::weigh(figures, bounds, before);
        for whose in [Whose::Known, Whose::Stranger] {
            self.on[whose as usize].store(levels.worst().concerns(whose), Ordering::Relaxed);
        }
        self.may_hold.store(may_hold(figures.memory, levels.of(Want::Memory)), Ordering::Relaxed);
        (before, *levels)
    }

    /// Bytes that may still be written.
    fn left(&self) -> u64 {
        let gone = self.min_free.load(Ordering::Relaxed).saturating_add(self.written.load(Ordering::Relaxed));
        self.free.load(Ordering::Relaxed).saturating_sub(gone)
    }

    /// Reserves this many bytes, and this many new files.
    fn take_room(&self, bytes: u64, files: u64) -> Result<(), String> {
        let min_free = self.min_free.load(Ordering::Relaxed);
        // Counted before the check, because others do the same concurrently.
        let written = self.written.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let made = self.files.fetch_add(files, Ordering::Relaxed).saturating_add(files);
        let is_full = self.levels.lock().of(Want::Disk).concerns(Whose::Known);
        let short = if is_full || self.free.load(Ordering::Relaxed) < min_free.saturating_add(written) {
            format!("less than {min_free} bytes free")
        } else if files > 0 && made > self.files_left.load(Ordering::Relaxed) {
            "too few inodes free".to_owned()
        } else {
            return Ok(());
        };
        take(&self.written, bytes);
        take(&self.files, files);
        Err(short)
    }

    /// Checks repeatedly, with the configuration in force, until `stop`.
    pub async fn watch(
        self: Arc<Self>,
        current: Arc<Current>,
        spool: Arc<dyn Spool>,
        metrics: Metrics,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut memory, mut inodes) = (OurMemory::default(), None);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let config = current.load().config.clone();
            // What was written before is included in the system's figures.
            let (written, files) = (self.written.load(Ordering::Relaxed), self.files.load(Ordering::Relaxed));
            let (spool, counted, refresh) = (spool.clone(), memory, refresh(&metrics));
            let looking = move || {
                let (memory, messages) = (counted.look(&config, refresh), spool.live_messages());
                (machine::disk(&config.server.state_dir), memory, messages, config)
            };
            match tokio::task::spawn_blocking(looking).await {
                Ok((disk, (looked, seen), messages, config)) => {
                    memory = looked;
                    let disk = disk.inspect_err(|error| tracing::warn!(%error, "cannot tell how much space is free"));
                    if let Ok(disk) = &disk {
                        inodes = disk.inodes;
                        take(&self.written, written);
                        take(&self.files, files);
                        self.looks.fetch_add(1, Ordering::Relaxed);
                    }
                    let figures = Figures {
                        free: disk.as_ref().map_or_else(|_| self.free.load(Ordering::Relaxed), |disk| disk.free),
                        inodes,
                        memory: seen,
                        messages: u64::try_from(messages).unwrap_or(u64::MAX),
                    };
                    let bounds = Bounds { min_free: config.min_free, max_messages: config.max_messages };
                    let (before, now) = self.look(&figures, bounds);
                    log::changes(&figures, bounds, before, now);
                    log::measure(&metrics, &figures, now);
                }
                Err(error) => tracing::warn!(%error, "cannot tell how much space is free"),
            }
        }
    }
}

/// The limit for all sessions together: that much may be added between two checks, and must not lead from normal
/// operation to being killed for lack of memory. While mail is refused for lack of memory, each session has its own
/// share only; but not if something other than the queue uses the memory, since that may not end by itself, and long
/// header sections could never be received.
fn may_hold(memory: Option<Memory>, turned_away: TurnedAway) -> u64 {
    match memory {
        Some(_) if turned_away != TurnedAway::Nobody => 0,
        Some(memory) => held::FOR_ALL.min(memory.limit / 8).min(memory.limit.saturating_sub(memory.anonymous) / 2),
        None => held::FOR_ALL,
    }
}

/// Memory that directories use temporarily for a refresh.
fn refresh(metrics: &Metrics) -> u64 {
    u64::try_from(metrics.directory_refresh.with_label_values::<&str>(&[]).get()).unwrap_or_default()
}

/// Our memory at the last check, without what directories used temporarily.
#[derive(Debug, Clone, Copy, Default)]
struct OurMemory {
    counted: u64,
    refresh: u64,
}

impl OurMemory {
    /// Measures. Memory of a refresh at the last check may not have been returned yet.
    fn look(self, config: &Config, refresh: u64) -> (Self, Option<Memory>) {
        let Some(anonymous) = machine::anonymous() else { return (self, None) };
        let counted = weigh::without_refresh(anonymous, refresh.max(self.refresh), self.counted);
        let memory = Memory { anonymous: counted, limit: machine::limit(config.server.memory_limit) };
        (Self { counted, refresh }, Some(memory))
    }
}

/// A message that is coming in. When it is dropped, no more of it is expected.
#[derive(Debug)]
pub struct Share {
    pressure: Arc<Pressure>,
    /// Its largest size: the client's SIZE, or the receive connector's limit.
    limit: u64,
    received: u64,
    written: u64,
    /// The number of the last check before something was written, and how much was written since.
    lately: (u64, u64),
    /// Its contribution to [`Pressure::to_come`].
    to_come: u64,
}

impl Share {
    /// Octets were received. As many again are expected, up to the limit: a client that only announces much does not
    /// reserve space.
    pub fn received(&mut self, octets: usize) {
        self.received += octets as u64;
        let expected = self.received.saturating_mul(2).min(self.limit).max(self.received);
        // Our own field is written, too, and was not received.
        self.set_to_come(expected.saturating_sub(self.written));
    }

    /// Reserves this many bytes on the disk, which are written next.
    ///
    /// # Errors
    /// It would go below `min_free`, or no file can be created; the text says which.
    pub fn take_room(&mut self, bytes: usize) -> Result<(), String> {
        let (pressure, bytes) = (&self.pressure, bytes as u64);
        pressure.take_room(bytes, u64::from(self.written == 0))?;
        let look = pressure.looks.load(Ordering::Relaxed);
        self.lately = (look, if self.lately.0 == look { self.lately.1 + bytes } else { bytes });
        self.written += bytes;
        self.set_to_come(self.to_come.saturating_sub(bytes));
        Ok(())
    }

    /// What was written has been deleted, and no more is expected.
    pub fn thrown_away(&mut self) {
        self.set_to_come(0);
        let (look, bytes) = std::mem::take(&mut self.lately);
        if look == self.pressure.looks.load(Ordering::Relaxed) {
            take(&self.pressure.written, bytes);
        }
    }

    /// Whether content should be written to the disk rather than kept in memory.
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

/// Subtracts from a count, down to zero: a check may have reset it in between.
fn take(count: &AtomicU64, many: u64) {
    let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| Some(all.saturating_sub(many)));
}

#[cfg(test)]
mod tests;
