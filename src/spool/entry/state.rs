//! The state of one recipient of a queued message. Pure.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::smtp::reply::Reply;
use crate::time::{QueueTime, UnixTime};

/// The state of one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecipientState {
    /// For an attempt.
    Waiting(Waiting),
    /// It is neither tried nor expires until the reason is gone.
    Held(HeldFor),
    Done(Outcome),
}

/// A recipient that waits for an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Waiting {
    pub attempts: u32,
    /// Those attempts that count towards its expiry: before each, a next hop of its connector had really been tried
    /// since the one before.
    pub tried: u32,
    /// The value of [`Outbound::tries`](crate::delivery::attempt::Outbound::tries) at the end of the last attempt.
    pub tries: u32,
    pub next_attempt: UnixTime,
    pub why: Why,
    /// The error of the last attempt; empty before the first.
    pub last_error: String,
    /// Whether the sender got a report of the delay.
    pub warned: bool,
    /// How often it was sent with an unknown outcome.
    pub in_doubt: u32,
    /// Whether its route is a changed answer, followed after a next hop refused it as unknown; that is done once.
    pub followed: bool,
    /// The start of its age, if that is not when it was queued: a report that had to wait for its turn counts from its
    /// first attempt.
    pub ages_from: Option<QueueTime>,
}

/// Why a recipient waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Why {
    #[default]
    New,
    /// No next hop was reachable, or none accepts mail now.
    Unreachable,
    /// A next hop deferred this recipient or message: greylisting, a full mailbox.
    Deferred,
    /// Its route is unknown now: a directory is unavailable or in doubt.
    Undecided,
    /// It may have arrived: the connection broke between the end of data and the reply.
    InDoubt,
}

/// Why a recipient is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeldFor {
    /// Its send connector is not in the configuration any more. It is released when the connector exists again, or
    /// another route does.
    NoConnector,
    /// An operator dropped it during an attempt: if the process ends before the attempt, it is dropped at the next
    /// start.
    Drop,
}

/// How delivery to a recipient ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// A next hop accepted it.
    Delivered {
        /// Its name.
        next_hop: Arc<str>,
        reply: Reply,
    },
    /// It failed for good; a report was made if one was due.
    Failed {
        /// Its name; empty: the failure is our own.
        next_hop: Arc<str>,
        /// The next hop's reply, or ours.
        reply: Reply,
    },
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

    /// Due at once, without attempts so far.
    #[must_use]
    pub fn due(now: UnixTime) -> Self {
        Self::Waiting(Waiting { next_attempt: now, ..Waiting::default() })
    }
}

impl Why {
    /// Whether it becomes due when its next hop is reachable again. A recipient that may have arrived keeps its wait,
    /// since each attempt may produce another copy; only an operator makes it due earlier.
    #[must_use]
    pub fn ends_with_the_outage(self) -> bool {
        match self {
            Self::Unreachable => true,
            Self::New | Self::Deferred | Self::Undecided | Self::InDoubt => false,
        }
    }
}

impl HeldFor {
    /// For display; `connector` is the recipient's.
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
