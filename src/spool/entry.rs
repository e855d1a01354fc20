//! A queued message's envelope and state, and the records that change them. Pure; `store` writes them.

use serde::{Deserialize, Serialize};

use super::Draft;
use crate::message::header::Identity;
use crate::message::queue_id::QueueId;
use crate::message::stamp::Stamp;
use crate::routing::verdict::Route;
use crate::smtp::envelope::{Origin, RcptTo, Sender};
use crate::time::{QueueTime, UnixTime};

pub(super) mod before;
pub mod outline;
mod state;

pub use state::{HeldFor, Outcome, RecipientState, Waiting, Why};

/// One queued message: all that `decide`, delivery and reports need, without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub id: QueueId,
    /// When we took it, for people.
    pub received_at: UnixTime,
    /// From when its age counts.
    pub queued_at: QueueTime,
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
        self.recipients.iter().all(|recipient| matches!(recipient.state, RecipientState::Done(_)))
    }

    /// For a person to read, beside a content that is kept for him: in `aside/` and with dead letters.
    ///
    /// # Errors
    /// What cannot be written; none of our types is such.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
    }

    /// Puts a change of this message in. One for a recipient that it has not, or that is over, is left out.
    pub fn apply(&mut self, change: &Change) {
        let recipient = self.recipients.get_mut(change.recipient);
        if let Some(recipient) = recipient.filter(|recipient| !matches!(recipient.state, RecipientState::Done(_))) {
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
    pub state: RecipientState,
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
    pub state: RecipientState,
    /// Its new way, where it was decided again.
    pub route: Option<Route>,
}
