//! What one recipient was told in a conversation with a next hop, and how the connection stands after it.

use std::time::Duration;

use tokio::time::Instant;

use super::HandedResult;
use super::connection::Connection;
use super::trouble::Trouble;
use crate::delivery::refusal::{Meaning, Step};
use crate::smtp::reply::{Enhanced, Reply};

/// What one recipient was told.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is over.
    Final(HandedResult),
    /// It goes in another transaction with the same next hop.
    Again(Reply),
    /// Another next hop may take it.
    Trouble(Trouble),
}

/// How the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Ready for MAIL.
    Ready,
    /// Of no more use.
    Closed,
    /// It came from the pool and was dead already: nothing was said, nobody was told anything.
    Unused,
}

/// How long a next hop may take over its replies to the whole message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// So long over each: a store delivers to one recipient after another (RFC 2033).
    ForEach(Duration),
    /// So long over all of them: somebody is waiting for us.
    InAll(Duration),
}

impl Patience {
    /// How long the next reply may take; the first was waited for since `began`.
    pub(super) fn left(self, began: Instant) -> Duration {
        match self {
            Self::ForEach(limit) => limit,
            Self::InAll(limit) => limit.saturating_sub(began.elapsed()),
        }
    }
}

/// What a reply to RCPT that is not a yes comes to; `others` were accepted before it in this transaction.
pub(super) fn to_rcpt(connection: &Connection, reply: Reply, means: Meaning, others: usize) -> Answer {
    match means {
        Meaning::TooManyRecipients if others == 0 => {
            // Not even one: another transaction would end the same way.
            let text = reply.text;
            Answer::Final(HandedResult::Deferred(Reply { code: 452, enhanced: Some(Enhanced(4, 5, 3)), text }))
        }
        Meaning::TooManyRecipients => Answer::Again(reply),
        Meaning::UnknownRecipient => Answer::Final(HandedResult::UnknownRecipient(reply)),
        Meaning::PassedOn | Meaning::FinalReply | Meaning::SenderRefused => Answer::Final(verdict(reply)),
        Meaning::Positive
        | Meaning::Unreachable(_)
        | Meaning::FaultBetweenUs
        | Meaning::OurMistake
        | Meaning::OutOfStep => Answer::Trouble(Trouble::said(connection, Step::Rcpt, &reply, means)),
    }
}

/// 4xx or 5xx, as it was said.
pub(super) fn verdict(reply: Reply) -> HandedResult {
    if reply.is_permanent() { HandedResult::Refused(reply) } else { HandedResult::Deferred(reply) }
}
