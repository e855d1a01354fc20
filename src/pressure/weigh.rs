//! Decides whose mail is refused, and for which shortage (DESIGN section 7, "Back-pressure"). No I/O: takes figures and
//! returns levels.
//!
//! A growing shortage refuses strangers first and our organisations much later; a refusal ends only when the figure is
//! an eighth below the threshold, so that it does not flutter.

use crate::smtp::envelope::Whose;

/// The most memory for a waiting message, approximately (octets).
pub const PER_MESSAGE: u64 = 300;
/// The memory of the program itself, and the most that a start takes for each waiting message (octets): 1,000,000 in
/// 380 MiB, measured. Messages that come one by one take less.
const START: u64 = 48 << 20;
const START_PER_MESSAGE: u64 = 350;
/// All mail is refused when this percentage of the memory is left, for use between two checks: the kernel kills the
/// process when nothing is left.
const LEFT: u64 = 15;
/// At least this much is left (octets), or half of the memory if that is less: a log segment (32 MiB) may be in memory
/// during compaction, beside what is needed of it.
const LEAST_LEFT: u64 = 64 << 20;
/// Strangers are refused this many percent earlier.
const EARLIER: u64 = 10;
/// This part of the memory is the queue's, whatever else uses the rest.
const QUEUE_SHARE: u64 = 16;
/// With fewer free inodes all mail is refused; on a small file system with less than a twentieth.
const LEAST_INODES: u64 = 1024;

/// A resource that may be short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    Disk,
    Memory,
    /// Files that can still be created.
    Inodes,
    /// `[spool] max_messages`.
    Messages,
}

impl Want {
    pub const ALL: [Self; 4] = [Self::Disk, Self::Memory, Self::Inodes, Self::Messages];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
            Self::Inodes => "inodes",
            Self::Messages => "messages",
        }
    }

    /// As text for people.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Disk => "free space",
            Self::Memory => "memory",
            Self::Inodes => "inodes",
            Self::Messages => "room in the queue ([spool] max_messages)",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum TurnedAway {
    #[default]
    Nobody,
    Strangers,
    /// Our organisations' as well.
    Everybody,
}

impl TurnedAway {
    /// The values of `back_pressure{turned_away}`, and what each stands for.
    pub const LABELS: [(&'static str, Self); 2] = [("strangers", Self::Strangers), ("everybody", Self::Everybody)];

    /// As text for people.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Nobody => "nobody's mail is turned away",
            Self::Strangers => "strangers' mail is turned away",
            Self::Everybody => "all mail is turned away",
        }
    }

    /// Whether mail of such clients is refused.
    #[must_use]
    pub fn concerns(self, whose: Whose) -> bool {
        match whose {
            Whose::Stranger => self >= Self::Strangers,
            Whose::Known => self == Self::Everybody,
        }
    }
}

/// Whose mail is refused, for each resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Levels([TurnedAway; Want::ALL.len()]);

impl Levels {
    #[must_use]
    pub fn of(&self, want: Want) -> TurnedAway {
        self.0[want as usize]
    }

    /// The highest level of all.
    #[must_use]
    pub fn worst(&self) -> TurnedAway {
        self.0.into_iter().max().unwrap_or_default()
    }
}

/// Inodes of a file system with a fixed number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inodes {
    /// Those available to us.
    pub free: u64,
    pub total: u64,
}

impl Inodes {
    /// With fewer all mail is refused.
    #[must_use]
    pub fn least(self) -> u64 {
        LEAST_INODES.min(self.total / 20)
    }
}

/// In octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Our memory without mapped files, and without what a directory's refresh uses temporarily.
    pub anonymous: u64,
    pub limit: u64,
}

impl Memory {
    /// From here on strangers are refused.
    #[must_use]
    pub fn strangers_at(self) -> u64 {
        self.everybody_at() - hundredths(self.limit, EARLIER)
    }

    /// From here on all mail is refused.
    #[must_use]
    pub fn everybody_at(self) -> u64 {
        self.limit - hundredths(self.limit, LEFT).max(LEAST_LEFT.min(self.limit / 2))
    }

    /// The memory that counts while this many messages wait: what we use, or what a restart would take if that is more,
    /// since it must be possible to restart with what was accepted.
    #[must_use]
    pub fn counted(self, messages: u64) -> u64 {
        self.anonymous.max(START.saturating_add(messages.saturating_mul(START_PER_MESSAGE)))
    }

    /// This many messages may wait whatever else uses memory.
    #[must_use]
    pub fn always(self) -> u64 {
        self.limit / QUEUE_SHARE / PER_MESSAGE
    }
}

/// The figures of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Bytes that can still be written.
    pub free: u64,
    /// `None`: the file system has no fixed number, or it is unknown.
    pub inodes: Option<Inodes>,
    /// `None`: unknown.
    pub memory: Option<Memory>,
    pub messages: u64,
}

/// The configured limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// `[spool] min_free`, bytes.
    pub min_free: u64,
    pub max_messages: Option<u64>,
}

/// Decides whose mail is refused from now on.
#[must_use]
pub fn weigh(figures: &Figures, bounds: Bounds, before: Levels) -> Levels {
    Levels(Want::ALL.map(|want| {
        let reached = |level: &TurnedAway| {
            let was = if before.of(want) >= *level { Was::On } else { Was::Off };
            is_reached(want, *level, was, figures, bounds)
        };
        [TurnedAway::Everybody, TurnedAway::Strangers].into_iter().find(reached).unwrap_or_default()
    }))
}

/// Whether mail was refused at the last check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Was {
    On,
    Off,
}

fn is_reached(want: Want, level: TurnedAway, was: Was, figures: &Figures, bounds: Bounds) -> bool {
    let everybody = level == TurnedAway::Everybody;
    match want {
        Want::Disk => is_below(figures.free, bounds.min_free, was),
        Want::Inodes => figures.inodes.is_some_and(|inodes| {
            let least = if everybody { inodes.least() } else { inodes.least() * 2 };
            is_below(inodes.free, least, was)
        }),
        // Refusing mail does not reduce other uses of memory, and the allocator does not always return what the queue
        // used (20,000 messages took 44 MB; after delivery of all it was 70): without this share, mail could be refused
        // for ever.
        Want::Memory => figures.memory.is_some_and(|memory| {
            let most = if everybody { memory.everybody_at() } else { memory.strangers_at() };
            is_above(memory.counted(figures.messages), most, was) && is_above(figures.messages, memory.always(), was)
        }),
        Want::Messages => bounds.max_messages.is_some_and(|most| {
            let most = if everybody { most.saturating_add(most / 8) } else { most };
            is_above(figures.messages, most, was)
        }),
    }
}

/// Our memory without that of a directory's refresh; `refresh` is the most that it takes, which grows gradually. So the
/// result is not less than at the last check (or than what there is): otherwise the queue would grow into the space for
/// the refresh, and back-pressure would end and begin again.
#[must_use]
pub fn without_refresh(anonymous: u64, refresh: u64, last: u64) -> u64 {
    anonymous.saturating_sub(refresh).max(anonymous.min(last))
}

fn is_above(value: u64, most: u64, was: Was) -> bool {
    value >= if was == Was::On { most - most / 8 } else { most }
}

fn is_below(value: u64, least: u64, was: Was) -> bool {
    value < if was == Was::On { least.saturating_add(least / 8) } else { least }
}

fn hundredths(of: u64, parts: u64) -> u64 {
    of / 100 * parts
}

#[cfg(test)]
mod tests;
