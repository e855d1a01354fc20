//! A queued message's envelope and state, and the records that change them. Pure; `store` writes them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Draft;
use crate::message::envelope::{Origin, RcptTo, Sender};
use crate::message::header::Identity;
use crate::message::queue_id::QueueId;
use crate::message::stamp::Stamp;
use crate::routing::verdict::Route;
use crate::smtp::reply::Reply;
use crate::time::UnixTime;

/// One queued message: all that `decide`, delivery and reports need, without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its id.
    pub id: QueueId,
    /// When we took it.
    pub received_at: UnixTime,
    /// Where it came from.
    pub origin: Origin,
    /// What MAIL said.
    pub sender: Sender,
    /// What is known of its content.
    pub content: Content,
    /// The stamps it came with that verified: a way decided again must not be one of theirs.
    pub stamps: Vec<Stamp>,
    /// Its recipients; their position is their name in [`Change`].
    pub recipients: Vec<Queued>,
}

impl Entry {
    /// Whether every recipient is over: nothing of the message is needed any more.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.recipients.iter().all(|recipient| matches!(recipient.state, State::Done(_)))
    }

    /// Puts a change of this message in. One for a recipient that it has not, or that is over, is left out.
    pub fn apply(&mut self, change: &Change) {
        let recipient = self.recipients.get_mut(change.recipient);
        if let Some(recipient) = recipient.filter(|recipient| !matches!(recipient.state, State::Done(_))) {
            recipient.state = change.state.clone();
            if let Some(route) = &change.route {
                recipient.route = route.clone();
            }
        }
    }
}

/// What is known of a message's content without reading it. The content itself, as stored, begins with
/// our Received field; stamps are added when it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Bytes as stored (CRLF line ends, no dot-stuffing).
    pub size: u64,
    /// Bytes of the header section as stored, without the empty line that ends it.
    pub header_size: u64,
    /// Whether the header section is ASCII (DESIGN section 7, SMTPUTF8).
    pub ascii_header: bool,
    /// Whether there is an 8-bit byte anywhere.
    pub eight_bit: bool,
    /// Whether there is a bare LF or CR (BDAT only).
    pub bare_lf: bool,
    /// What stamps and the relay memory know it by.
    pub identity: Identity,
    /// Message-ID as logs and the trace show it, at most 256 octets; empty where there is none.
    pub message_id: String,
}

/// One recipient of a queued message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// What RCPT said.
    pub rcpt: RcptTo,
    /// The way it is to go.
    pub route: Route,
    /// How it stands.
    pub state: State,
}

/// How one recipient of a queued message stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredState", into = "StoredState")]
pub enum State {
    /// To be tried.
    Waiting {
        /// Attempts so far.
        attempts: u32,
        /// When it is due.
        next_attempt: UnixTime,
        /// What the last attempt ended with; empty before the first.
        last_error: String,
        /// Whether the sender was told of the delay.
        warned: bool,
        /// From when its age counts, where that is not when we took the message: the first attempt of a report that
        /// had to wait for its turn.
        ages_from: Option<UnixTime>,
    },
    /// Not tried and not expiring until somebody releases it; the text says why.
    Held(String),
    /// Over.
    Done(Outcome),
}

impl State {
    /// Due at once, never tried.
    #[must_use]
    pub fn due(now: UnixTime) -> Self {
        Self::Waiting { attempts: 0, next_attempt: now, last_error: String::new(), warned: false, ages_from: None }
    }
}

/// [`State`] as it is stored. Variants are known by their position: new ones come last, with a new
/// [`FORMAT`](super::header::FORMAT), and what older versions wrote is read as it was.
#[derive(Serialize, Deserialize)]
#[serde(rename = "State")]
enum StoredState {
    Waiting {
        attempts: u32,
        next_attempt: UnixTime,
        last_error: String,
        warned: bool,
    },
    Held(String),
    Done(Outcome),
    /// Since format 3: one that waits and whose age counts from its first attempt.
    WaitingSince {
        ages_from: UnixTime,
        attempts: u32,
        next_attempt: UnixTime,
        last_error: String,
        warned: bool,
    },
}

impl From<State> for StoredState {
    fn from(state: State) -> Self {
        match state {
            State::Waiting { attempts, next_attempt, last_error, warned, ages_from: None } => {
                Self::Waiting { attempts, next_attempt, last_error, warned }
            }
            State::Waiting { attempts, next_attempt, last_error, warned, ages_from: Some(ages_from) } => {
                Self::WaitingSince { ages_from, attempts, next_attempt, last_error, warned }
            }
            State::Held(why) => Self::Held(why),
            State::Done(outcome) => Self::Done(outcome),
        }
    }
}

impl From<StoredState> for State {
    fn from(stored: StoredState) -> Self {
        match stored {
            StoredState::Waiting { attempts, next_attempt, last_error, warned } => {
                Self::Waiting { attempts, next_attempt, last_error, warned, ages_from: None }
            }
            StoredState::WaitingSince { ages_from, attempts, next_attempt, last_error, warned } => {
                Self::Waiting { attempts, next_attempt, last_error, warned, ages_from: Some(ages_from) }
            }
            StoredState::Held(why) => Self::Held(why),
            StoredState::Done(outcome) => Self::Done(outcome),
        }
    }
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

/// What is made durable in one step.
#[derive(Debug, Default)]
pub struct Record {
    /// New messages with their content: a client's, or reports.
    pub accepted: Vec<(Draft, Entry)>,
    /// What became of recipients.
    pub changes: Vec<Change>,
}

/// What became of one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The message.
    pub id: QueueId,
    /// The recipient's position in [`Entry::recipients`].
    pub recipient: usize,
    /// Its new state.
    pub state: State,
    /// Its new way, where it was decided again.
    pub route: Option<Route>,
}
