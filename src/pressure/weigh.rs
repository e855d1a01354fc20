//! Whose mail is turned away, and for want of what (DESIGN section 7, "Back-pressure"): figures in, answers out.
//!
//! What grows turns strangers away first and our organisations a good deal later; what has turned somebody away lets him
//! in again an eighth behind where it began, so that it does not flutter.

use crate::smtp::envelope::Whose;

/// What a waiting message takes in memory, about, at most (octets).
pub const PER_MESSAGE: u64 = 300;
/// What the program takes by itself, and what a start takes for each message that waits, at most (octets): 1,000,000 in
/// 380 MiB, measured. It is more than they take when they have come one by one.
const START: u64 = 48 << 20;
const START_PER_MESSAGE: u64 = 350;
/// Hundredths of the memory there is that are left when everybody is turned away: the kernel ends the process where
/// nothing is, and this is for what comes between two looks.
const LEFT: u64 = 15;
/// At least so much of it is (octets), or half of the memory if that is less: a segment of the log (32 MiB) may be in it
/// while its space is given back, beside what is needed of it.
const LEAST_LEFT: u64 = 64 << 20;
/// So many hundredths earlier strangers are turned away.
const EARLIER: u64 = 10;
/// One part of so many of the memory there is, is the queue's whatever else has taken the rest.
const QUEUE_SHARE: u64 = 16;
/// With fewer free inodes everybody is turned away; of a small file system one part of twenty.
const LEAST_INODES: u64 = 1024;

/// What there may be too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Free space.
    Disk,
    Memory,
    /// Files that can still be made.
    Inodes,
    /// `[spool] max_messages`.
    Messages,
}

impl Want {
    pub const ALL: [Self; 4] = [Self::Disk, Self::Memory, Self::Inodes, Self::Messages];

    /// The label of `back_pressure{reason}`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
            Self::Inodes => "inodes",
            Self::Messages => "messages",
        }
    }

    /// In words for people.
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

/// Whose mail is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum TurnedAway {
    /// Nobody's.
    #[default]
    Nobody,
    Strangers,
    /// That of our organisations, too.
    Everybody,
}

impl TurnedAway {
    /// The values of the label of `back_pressure{turned_away}`, and what each stands for.
    pub const LABELS: [(&'static str, Self); 2] = [("strangers", Self::Strangers), ("everybody", Self::Everybody)];

    /// In words for people.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Nobody => "nobody's mail is turned away",
            Self::Strangers => "strangers' mail is turned away",
            Self::Everybody => "all mail is turned away",
        }
    }

    /// Whether somebody's is.
    #[must_use]
    pub fn concerns(self, whose: Whose) -> bool {
        match whose {
            Whose::Stranger => self >= Self::Strangers,
            Whose::Known => self == Self::Everybody,
        }
    }
}

/// Whose mail is turned away for each reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Levels([TurnedAway; Want::ALL.len()]);

impl Levels {
    #[must_use]
    pub fn of(&self, want: Want) -> TurnedAway {
        self.0[want as usize]
    }

    /// For any of them.
    #[must_use]
    pub fn worst(&self) -> TurnedAway {
        self.0.into_iter().max().unwrap_or_default()
    }
}

/// Inodes of a file system that has a number of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inodes {
    /// Those that we can still have.
    pub free: u64,
    pub total: u64,
}

impl Inodes {
    /// With fewer everybody is turned away.
    #[must_use]
    pub fn least(self) -> u64 {
        LEAST_INODES.min(self.total / 20)
    }
}

/// Memory, octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What we hold that is in no file, what a directory's refresh holds for the moment apart.
    pub anonymous: u64,
    /// How much there is.
    pub limit: u64,
}

impl Memory {
    /// From here on strangers are turned away.
    #[must_use]
    pub fn strangers_at(self) -> u64 {
        self.everybody_at() - hundredths(self.limit, EARLIER)
    }

    /// From here on everybody is.
    #[must_use]
    pub fn everybody_at(self) -> u64 {
        self.limit - hundredths(self.limit, LEFT).max(LEAST_LEFT.min(self.limit / 2))
    }

    /// What counts while so many messages wait: what we hold, or what a start with them would take, if that is more. What
    /// was accepted must start again.
    #[must_use]
    pub fn counted(self, messages: u64) -> u64 {
        self.anonymous.max(START.saturating_add(messages.saturating_mul(START_PER_MESSAGE)))
    }

    /// So many messages may wait whatever memory is taken.
    #[must_use]
    pub fn always(self) -> u64 {
        self.limit / QUEUE_SHARE / PER_MESSAGE
    }
}

/// What a look showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Bytes that can still be written.
    pub free: u64,
    /// `None`: the file system has no number of them, or nobody knows.
    pub inodes: Option<Inodes>,
    /// `None`: nobody knows.
    pub memory: Option<Memory>,
    /// Messages that wait.
    pub messages: u64,
}

/// What was configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// `[spool] min_free`, bytes.
    pub min_free: u64,
    /// `[spool] max_messages`.
    pub max_messages: Option<u64>,
}

/// Whose mail is turned away from now on.
#[must_use]
pub fn weigh(figures: &Figures, bounds: Bounds, before: Levels) -> Levels {
    Levels(Want::ALL.map(|want| {
        let reached = |level: &TurnedAway| {
            let was = if before.of(want) >= *level { Was::On } else { Was::Off };
            is_reached((want, *level), was, figures, bounds)
        };
        [TurnedAway::Everybody, TurnedAway::Strangers].into_iter().find(reached).unwrap_or_default()
    }))
}

/// Whether mail was turned away at the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Was {
    On,
    Off,
}

fn is_reached((want, level): (Want, TurnedAway), was: Was, figures: &Figures, bounds: Bounds) -> bool {
    let everybody = level == TurnedAway::Everybody;
    match want {
        Want::Disk => is_below(figures.free, bounds.min_free, was),
        Want::Inodes => figures.inodes.is_some_and(|inodes| {
            let least = if everybody { inodes.least() } else { inodes.least() * 2 };
            is_below(inodes.free, least, was)
        }),
        // What else takes memory does not take less because mail is turned away, and what the queue took is not always
        // given back to the system (20,000 messages had 44 MB; when all were delivered it was 70): were there no such
        // share, mail could be turned away for ever.
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

/// What we hold without what a directory's refresh holds: `refresh` is what that takes at most, and it takes it little by
/// little. So it is no less than the last look showed (or than there is), else the queue would grow into what is there for
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
