//! What mail says of addresses: which send connector's next hop took it lately. Directories come before delivery and
//! know nothing of it, so `run` hands in a [`Mail`]; `hold_changes` asks it (DESIGN section 5, "doubt is temporary").

use std::sync::Arc;

use crate::lookup::Lookup;
use crate::time::{QueueTime, UnixTime};

/// Knows whose mail was accepted lately.
pub trait Mail: Send + Sync {
    /// The time by which ages are counted.
    fn now(&self) -> QueueTime;

    /// Whether mail for the address with that key was accepted since, on the way that this answer of the directory means.
    fn arrived(&self, address: &AnsweredAddress<'_>, since: QueueTime) -> bool;

    /// The send connector of another organisation whose next hop accepted the last mail for it within 7 days, where this
    /// answer of the directory means another one.
    fn serves_elsewhere(&self, address: &AnsweredAddress<'_>) -> Option<Arc<str>>;
}

/// An address, and an answer of the directory about it.
#[derive(Debug, Clone, Copy)]
pub struct AnsweredAddress<'a> {
    /// The directory's name.
    pub directory: &'a str,
    /// [`Address::key`](crate::smtp::address::Address::key).
    pub key: &'a str,
    /// What it says.
    pub answer: &'a Lookup,
}

/// Nothing is known of any mail; the time is that of the steady clock.
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
