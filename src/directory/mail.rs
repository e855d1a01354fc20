//! What is known of addresses from accepted mail: which send connector's next hop accepted it lately. Directories do
//! not depend on delivery, so `run` passes in a [`Mail`]; `hold_changes` uses it (DESIGN section 5, "doubt is
//! temporary").

use std::sync::Arc;

use crate::lookup::Lookup;
use crate::time::{QueueTime, UnixTime};

/// Knows recently accepted mail.
pub trait Mail: Send + Sync {
    /// The time by which ages are counted.
    fn now(&self) -> QueueTime;

    /// Whether mail for the address was accepted since then, at the destination in this answer of the directory.
    fn arrived(&self, address: &AnsweredAddress<'_>, since: QueueTime) -> bool;

    /// The send connector of another organisation whose next hop accepted the last mail for the address within 7 days,
    /// if this answer of the directory leads elsewhere.
    fn serves_elsewhere(&self, address: &AnsweredAddress<'_>) -> Option<Arc<str>>;
}

/// An address, and a directory's answer about it.
#[derive(Debug, Clone, Copy)]
pub struct AnsweredAddress<'a> {
    pub directory: &'a str,
    /// [`Address::key`](crate::smtp::address::Address::key).
    pub key: &'a str,
    pub answer: &'a Lookup,
}

/// Knows of no mail; its time is the steady clock's.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMail;

impl Mail for NoMail {
    fn now(&self) -> QueueTime {
        QueueTime(UnixTime::steady().0)
    }

    fn arrived(&self, _: &AnsweredAddress<'_>, _: QueueTime) -> bool {
        false
    }

    fn serves_elsewhere(&self, _: &AnsweredAddress<'_>) -> Option<Arc<str>> {
        None
    }
}
