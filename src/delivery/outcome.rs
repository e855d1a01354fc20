//! The outcome of one recipient: the same type from the conversation with a next hop to the client's reply or the
//! spool. Pure.
//!
//! `attempt` makes it from next hops' replies, `final_reply` and the queue's `settle` act on it.

use std::io;
use std::sync::Arc;

use crate::report::Action;
use crate::smtp::client::offers::Offers;
use crate::smtp::reply::{Enhanced, Reply, TRY_AGAIN};

/// For damaged content: shown in the queue, and in the report when it expires.
const DAMAGED: Reply =
    Reply::fixed(451, Enhanced(4, 3, 0), "the message was damaged on our disk and is not sent as it is there");

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub class: Class,
    /// The reply, or the reason why there is none.
    pub reply: Reply,
    /// Who gave it: `name[address]:port`; empty: we.
    pub next_hop: Arc<str>,
    /// What we report to a sender who asked for a report of success.
    pub success: Option<Action>,
    /// The row of the table of refusals; empty: none.
    pub row: &'static str,
}

/// The kind of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The next hop has it; at RCPT: accepts it.
    Accepted,
    /// The next hop's 4xx for this recipient or this message.
    Deferred,
    /// A 5xx: the next hop's, or ours for what it cannot take.
    Refused,
    /// The next hop says that the recipient is unknown: believed only after the directory was asked live.
    UnknownRecipient,
    /// The next hop accepts no more recipients in this transaction.
    TooManyRecipients,
    /// No next hop can be used: nothing was sent.
    Unreachable,
    /// It was given up before its end, because others would have to wait or time was short: nothing was accepted, the
    /// queue continues.
    LeftToQueue,
    /// The end of data was sent and not answered: it may have been accepted.
    InDoubt,
}

impl Outcome {
    /// With a reply of ours.
    #[must_use]
    pub fn ours(class: Class, reply: Reply) -> Self {
        Self { class, reply, next_hop: "".into(), success: None, row: "" }
    }

    /// With a next hop's reply.
    #[must_use]
    pub fn said(class: Class, reply: Reply, next_hop: &Arc<str>) -> Self {
        Self { class, reply, next_hop: next_hop.clone(), success: None, row: "" }
    }

    /// Nothing has been done.
    #[must_use]
    pub fn undone() -> Self {
        Self::ours(Class::Unreachable, TRY_AGAIN)
    }

    /// The content cannot be read. It is read again later, and waits as long as other mail.
    #[must_use]
    pub fn unreadable(error: &io::Error) -> Self {
        let is_damaged = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
        Self::ours(Class::Deferred, if is_damaged { DAMAGED } else { TRY_AGAIN })
    }

    /// A next hop's 4xx or 5xx that concerns the recipient.
    #[must_use]
    pub fn answered(reply: Reply, next_hop: &Arc<str>) -> Self {
        let class = if reply.is_permanent() { Class::Refused } else { Class::Deferred };
        Self::said(class, reply, next_hop)
    }

    /// The same with a row of the table of refusals.
    #[must_use]
    pub fn by(self, row: &'static str) -> Self {
        Self { row, ..self }
    }

    /// The row; `None`: there is none.
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

    /// The end of data was sent, and then this happened (DESIGN section 8: in this way a message can arrive twice).
    #[must_use]
    pub fn in_doubt(next_hop: &Arc<str>, why: &str) -> Self {
        let text = format!(
            "{next_hop}: outcome unknown: it may have arrived, and may arrive twice: after the final dot: {why}"
        );
        Self::said(Class::InDoubt, Reply { code: 451, enhanced: Some(Enhanced(4, 4, 2)), text: text.into() }, next_hop)
    }

    /// Whether the reply is the next hop's own, to be passed on as such.
    #[must_use]
    pub fn is_in_its_words(&self) -> bool {
        !self.next_hop.is_empty() && !matches!(self.class, Class::Unreachable | Class::LeftToQueue | Class::InDoubt)
    }
}
