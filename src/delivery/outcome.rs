//! What became of one recipient: the one word for it from the conversation with a next hop to the sender's reply or the
//! spool. Pure.
//!
//! `attempt` makes it of what next hops say, `final_reply` and the queue's `settle` act on it.

use std::io;
use std::sync::Arc;

use crate::report::Action;
use crate::smtp::client::offers::Offers;
use crate::smtp::reply::{Enhanced, Reply, TRY_AGAIN};

/// Content that is not what was written: what the queue shows, and the sender reads when it expires.
const DAMAGED: Reply =
    Reply::fixed(451, Enhanced(4, 3, 0), "the message was damaged on our disk and is not sent as it is there");

/// What became of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub class: Class,
    /// What was said, or why nothing was.
    pub reply: Reply,
    /// Who said it: `name[address]:port`; empty: ourselves.
    pub next_hop: Arc<str>,
    /// What a sender who asked to hear of success is told by us.
    pub success: Option<Action>,
    /// The row of the table of refusals that it was read by; empty: none.
    pub row: &'static str,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The next hop has it; at RCPT: takes it.
    Accepted,
    /// The next hop's 4xx for this recipient or this message.
    Deferred,
    /// A 5xx: the next hop's, or ours for what it cannot take.
    Refused,
    /// The next hop does not know the recipient: believed only after the directory was asked live.
    UnknownRecipient,
    /// The next hop takes no more recipients in this transaction.
    TooManyRecipients,
    /// No next hop can be used: nothing has arrived anywhere.
    Unreachable,
    /// It was given up before its end, for the others' sake or for want of time: nothing has arrived, the queue goes on.
    LeftToQueue,
    /// The end of data was sent and not answered: it may have arrived.
    InDoubt,
}

impl Outcome {
    /// What we say ourselves.
    #[must_use]
    pub fn ours(class: Class, reply: Reply) -> Self {
        Self { class, reply, next_hop: "".into(), success: None, row: "" }
    }

    /// What a next hop says.
    #[must_use]
    pub fn said(class: Class, reply: Reply, next_hop: &Arc<str>) -> Self {
        Self { class, reply, next_hop: next_hop.clone(), success: None, row: "" }
    }

    /// Nothing was done.
    #[must_use]
    pub fn undone() -> Self {
        Self::ours(Class::Unreachable, TRY_AGAIN)
    }

    /// The content cannot be read. That is no answer to anybody: it is read again later, and waits as long as other mail.
    #[must_use]
    pub fn unreadable(error: &io::Error) -> Self {
        let is_damaged = error.kind() == io::ErrorKind::InvalidData;
        Self::ours(Class::Deferred, if is_damaged { DAMAGED } else { TRY_AGAIN })
    }

    /// A next hop's 4xx or 5xx that is the recipient's own.
    #[must_use]
    pub fn answered(reply: Reply, next_hop: &Arc<str>) -> Self {
        let class = if reply.is_permanent() { Class::Refused } else { Class::Deferred };
        Self::said(class, reply, next_hop)
    }

    /// The same, read by this row.
    #[must_use]
    pub fn by(self, row: &'static str) -> Self {
        Self { row, ..self }
    }

    /// The row of the table of refusals that it was read by.
    #[must_use]
    pub fn row_name(&self) -> Option<&'static str> {
        (!self.row.is_empty()).then_some(self.row)
    }

    /// A next hop has the message. With DSN it reports success itself (RFC 3461 5.2.1).
    #[must_use]
    pub fn relayed(reply: Reply, next_hop: &Arc<str>, offers: &Offers) -> Self {
        let success = (!offers.dsn).then_some(Action::Relayed);
        Self { success, ..Self::said(Class::Accepted, reply, next_hop) }
    }

    /// The end of data was sent, and then this happened (DESIGN section 8: this is how a message can arrive twice).
    #[must_use]
    pub fn in_doubt(next_hop: &Arc<str>, why: &str) -> Self {
        let text = format!(
            "{next_hop}: outcome unknown: it may have arrived, and may arrive twice: after the final dot: {why}"
        );
        Self::said(Class::InDoubt, Reply { code: 451, enhanced: Some(Enhanced(4, 4, 2)), text: text.into() }, next_hop)
    }

    /// Whether the words are the next hop's own, to be passed on as such.
    #[must_use]
    pub fn is_in_its_words(&self) -> bool {
        !self.next_hop.is_empty() && !matches!(self.class, Class::Unreachable | Class::LeftToQueue | Class::InDoubt)
    }
}
