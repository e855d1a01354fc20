//! How one recipient of a queued message stands. Pure.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::smtp::reply::Reply;
use crate::time::{QueueTime, UnixTime};

/// How one recipient of a queued message stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecipientState {
    /// To be tried.
    Waiting(Waiting),
    /// Not tried and not expiring until what it is held for is over.
    Held(HeldFor),
    /// Over.
    Done(Outcome),
}

/// One that is to be tried.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Waiting {
    /// Attempts so far.
    pub attempts: u32,
    /// Of these, those that count towards its expiry: a next hop of its connector was really tried since the one before.
    pub tried: u32,
    /// What [`Outbound::tries`](crate::delivery::attempt::Outbound::tries) was at the end of the last one.
    pub tries: u32,
    /// When it is due.
    pub next_attempt: UnixTime,
    /// Why it waits.
    pub why: Why,
    /// What the last attempt ended with; empty before the first.
    pub last_error: String,
    /// Whether the sender was told of the delay.
    pub warned: bool,
    /// How often a next hop may have taken it without our hearing of it.
    pub in_doubt: u32,
    /// Whether a next hop's "unknown recipient" led to this way; it does so once.
    pub followed: bool,
    /// From when its age counts, where that is not when it was queued: the first attempt of a report that had to wait for
    /// its turn.
    pub ages_from: Option<QueueTime>,
}

/// Why a recipient waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Why {
    /// For its first attempt.
    #[default]
    New,
    /// No next hop could be reached, or none that takes mail now.
    Unreachable,
    /// A next hop said: not now. Only this recipient or this message is meant: greylisting, a full mailbox.
    Deferred,
    /// Its way is not known now: a directory does not answer, or is doubted.
    Undecided,
    /// It may have arrived: the connection broke after the end of data, before the answer.
    InDoubt,
}

/// What a recipient is held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeldFor {
    /// Its send connector is not in the configuration any more. It is released by itself when there is one again, or
    /// another way.
    NoConnector,
    /// An operator dropped it while it was being tried: if we end before the attempt does, it is dropped at the next
    /// start.
    Drop,
}

/// How a recipient's delivery ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The next hop (named) took it.
    Delivered {
        /// Which next hop.
        next_hop: Arc<str>,
        /// What it said.
        reply: Reply,
    },
    /// It failed for good; a report was made where one was due.
    Failed {
        /// Which next hop; empty: ourselves.
        next_hop: Arc<str>,
        /// What it, or we, said.
        reply: Reply,
    },
    /// An operator dropped it.
    Dropped,
}

impl RecipientState {
    /// [`Waiting::tries`]; zero where it does not wait.
    #[must_use]
    pub fn tries(&self) -> u32 {
        match self {
            Self::Waiting(waiting) => waiting.tries,
            Self::Held(_) | Self::Done(_) => 0,
        }
    }

    /// [`Waiting::attempts`]; zero where it does not wait.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        match self {
            Self::Waiting(waiting) => waiting.attempts,
            Self::Held(_) | Self::Done(_) => 0,
        }
    }

    /// Due at once, never tried.
    #[must_use]
    pub fn due(now: UnixTime) -> Self {
        Self::Waiting(Waiting { next_attempt: now, ..Waiting::default() })
    }
}

impl Why {
    /// Whether it is over when its next hop answers again: such a recipient is due then. What may have arrived keeps its
    /// wait, for each attempt may be another copy; only an operator makes it due earlier.
    #[must_use]
    pub fn ends_with_the_outage(self) -> bool {
        match self {
            Self::Unreachable => true,
            Self::New | Self::Deferred | Self::Undecided | Self::InDoubt => false,
        }
    }
}

impl HeldFor {
    /// For people; `connector` is the recipient's.
    #[must_use]
    pub fn words(self, connector: &str) -> impl fmt::Display {
        fmt::from_fn(move |f| match self {
            Self::NoConnector => write!(
                f,
                "send connector `{connector}` no longer exists; write it again, or move the recipients to another one"
            ),
            Self::Drop => f.write_str("dropped by an operator while it was being tried"),
        })
    }
}
