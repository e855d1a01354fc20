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

/// One queued message: everything that routing, delivery and reports need, without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub id: QueueId,
    /// When it was received by the wall clock, for display.
    pub received_at: UnixTime,
    /// The start of its age.
    pub queued_at: QueueTime,
    pub origin: Origin,
    pub sender: Sender,
    pub content: Content,
    /// The verified stamps it came with: a new decision must not choose a route that one of them names.
    pub stamps: Vec<Stamp>,
    /// A recipient's position identifies it in [`Change`].
    pub recipients: Vec<Queued>,
}

impl Entry {
    /// Whether every recipient is done: the message is no longer needed.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.recipients.iter().all(|recipient| matches!(recipient.state, RecipientState::Done(_)))
    }

    /// As records have it, in the format [`FORMAT`](super::header::FORMAT).
    ///
    /// # Errors
    /// None of our types fails.
    pub fn to_bytes(&self) -> postcard::Result<Vec<u8>> {
        postcard::to_allocvec(self)
    }

    /// What [`Entry::to_bytes`] of some version wrote in this format; `None`: it is not that, or this version does not
    /// read the format.
    #[must_use]
    pub fn read(format: u16, bytes: &[u8]) -> Option<Self> {
        before::read(format, bytes)
    }

    /// For operators, beside a content that is kept for them: in `aside/` and with dead letters.
    ///
    /// # Errors
    /// A value that cannot be serialised; none of our types is such.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
    }

    /// Applies a change of this message; ignored if the recipient does not exist or is done.
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

/// Properties of a message's content that are known without reading it. As stored, the content begins with our Received
/// field; stamps are added when it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// As stored, with CRLF line ends and without dot-stuffing.
    pub size: u64,
    /// Bytes of the header section as stored, without the empty line that ends it.
    pub header_size: u64,
    /// Decides whether SMTPUTF8 is needed (DESIGN section 7, SMTPUTF8).
    pub ascii_header: bool,
    /// Whether it has an 8-bit byte.
    pub eight_bit: bool,
    /// Whether it has a bare LF or CR (BDAT only).
    pub bare_lf: bool,
    /// Identifies it for stamps and the relay memory.
    pub identity: Identity,
    /// Message-ID as logs and the trace show it, at most 256 octets; empty where there is none.
    pub message_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    pub rcpt: RcptTo,
    pub route: Route,
    pub state: RecipientState,
}

/// A set of entries and changes that becomes durable in one step.
#[derive(Debug, Default)]
pub struct Record {
    /// New messages with their content: from clients, or reports.
    pub accepted: Vec<(Draft, Entry)>,
    pub changes: Vec<Change>,
}

/// A change of one recipient's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub id: QueueId,
    /// Position in [`Entry::recipients`].
    pub recipient: usize,
    pub state: RecipientState,
    /// The new route, if it was decided again.
    pub route: Option<Route>,
}
