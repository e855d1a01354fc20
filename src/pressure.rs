//! Back-pressure: mail is turned away with 452 4.3.1 while free space, memory or inodes are short, or too many messages
//! wait. By memory, inodes and number strangers are the first, our organisations come later.
//!
//! Sessions ask [`Pressure::has_room`] for a message and [`Share::take_room`] for the pieces of one that is coming in;
//! [`Pressure::watch`] looks every few seconds, and `weigh` judges what it saw. What open messages have written since the
//! last look, and what they are about to, counts as gone. Half-sent messages give way first; nothing already accepted is
//! touched. As a message that goes to its next hop at once may have to be queued all the same, MAIL is answered alike in
//! both modes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(3);

/// Whether there is room for more mail.
#[derive(Debug)]
pub struct Pressure {
    /// By [`Whose`]: whether his mail is turned away, as `levels` has it.
    on: [AtomicBool; 2],
    /// For want of what.
    levels: Mutex<Levels>,
    /// Bytes that were free at the last look.
    free: AtomicU64,
    /// As configured at the last look.
    min_free: AtomicU64,
    /// Files that could be made at the last look before everybody is turned away.
    files_left: AtomicU64,
    /// Files of open messages that were made since the last look.
    files: AtomicU64,
    /// Bytes of open messages that went to the disk since the last look.
    written: AtomicU64,
    /// How often it was looked at.
    looks: AtomicU64,
    /// Bytes of open messages that are still to go there.
    to_come: AtomicU64,
    /// Whether it was told that open messages have taken the room.
    told: AtomicBool,
    /// What sessions hold in memory.
    held: AtomicU64,
    /// What they may hold all together.
    may_hold: AtomicU64,
}

impl Default for Pressure {
    /// Nobody has looked yet.
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
    /// Whether mail of these is to be turned away.
    #[must_use]
    pub fn turns_away(&self, whose: Whose) -> bool {
        self.on[whose as usize].load(Ordering::Relaxed)
    }

    /// Whether there is room for another message of this many bytes beside those that are coming in.
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

    /// Takes note of what a look showed, and returns whose mail is turned away before and after it.
    pub fn look(&self, figures: &Figures, bounds: Bounds) -> (Levels, Levels) {
        self.free.store(figures.free, Ordering::Relaxed);
        self.min_free.store(bounds.min_free, Ordering::Relaxed);
        let files_left = figures.inodes.map_or(u64::MAX, |inodes| inodes.free.saturating_sub(inodes.least()));
        self.files_left.store(files_left, Ordering::Relaxed);
        self.told.store(false, Ordering::Relaxed);
        let mut levels = self.levels();
        let before = *levels;
        *levels = weigh::weigh(figures, bounds, before);
        for whose in [Whose::Known, Whose::Stranger] {
            self.on[whose as usize].store(levels.worst().concerns(whose), Ordering::Relaxed);
        }
        self.may_hold.store(may_hold(figures.memory, levels.of(Want::Memory)), Ordering::Relaxed);
        (before, *levels)
    }

    fn levels(&self) -> MutexGuard<'_, Levels> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that may still be written.
    fn left(&self) -> u64 {
        let gone = self.min_free.load(Ordering::Relaxed).saturating_add(self.written.load(Ordering::Relaxed));
        self.free.load(Ordering::Relaxed).saturating_sub(gone)
    }

    /// Takes so many bytes, and so many new files.
    fn take_room(&self, bytes: u64, files: u64) -> Result<(), String> {
        let min_free = self.min_free.load(Ordering::Relaxed);
        // First of all: others do the same at this moment.
        let written = self.written.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let made = self.files.fetch_add(files, Ordering::Relaxed).saturating_add(files);
        let is_full = self.levels().of(Want::Disk).concerns(Whose::Known);
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

    /// Looks, with the configuration in force, until `stop`.
    pub async fn watch(
        self: Arc<Self>,
        (current, spool): (Arc<Current>, Arc<dyn Spool>),
        metrics: Metrics,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut memory, mut inodes) = (OurMemory::default(), None);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let config = current.load().config.clone();
            // What was written before is in what the system says.
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
                    let changed = self.look(&figures, bounds);
                    log::changes(&figures, bounds, changed);
                    log::measure(&metrics, &figures, changed.1);
                }
                Err(error) => tracing::warn!(%error, "cannot tell how much space is free"),
            }
        }
    }
}

/// What all sessions together may hold: between two looks that much may come, and must not lead from where nobody is
/// turned away to where the kernel ends us. Once mail is turned away for want of memory each has his share only; not where
/// something else than the queue has it, for that does not end by itself, and long headers would never come in.
fn may_hold(memory: Option<Memory>, turned_away: TurnedAway) -> u64 {
    match memory {
        Some(_) if turned_away != TurnedAway::Nobody => 0,
        Some(memory) => held::FOR_ALL.min(memory.limit / 8).min(memory.limit.saturating_sub(memory.anonymous) / 2),
        None => held::FOR_ALL,
    }
}

/// What directories hold for the moment, because they are being read anew.
fn refresh(metrics: &Metrics) -> u64 {
    u64::try_from(metrics.directory_refresh.with_label_values::<&str>(&[]).get()).unwrap_or_default()
}

/// What of our memory counted at the last look, and what directories held then for the moment.
#[derive(Debug, Clone, Copy, Default)]
struct OurMemory {
    counted: u64,
    refresh: u64,
}

impl OurMemory {
    /// Looks. What a refresh held at the last look may not be given back yet.
    fn look(self, config: &Config, refresh: u64) -> (Self, Option<Memory>) {
        let Some(anonymous) = machine::anonymous() else { return (self, None) };
        let counted = weigh::without_refresh(anonymous, refresh.max(self.refresh), self.counted);
        let memory = Memory { anonymous: counted, limit: machine::limit(config.server.memory_limit) };
        (Self { counted, refresh }, Some(memory))
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
    /// There is none without going below `min_free`, or no file for them: which, in words.
    pub fn take_room(&mut self, bytes: usize) -> Result<(), String> {
        let (pressure, bytes) = (&self.pressure, bytes as u64);
        pressure.take_room(bytes, u64::from(self.written == 0))?;
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

#[cfg(test)]
mod tests;
