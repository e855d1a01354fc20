//! The interface by which `call_ahead` asks a mail server, and the possible results.
//!
//! `delivery` implements it, because it can connect to next hops; `directory` does not depend on `delivery`.

use tokio::time::Instant;

use crate::config::AskedServer;
use crate::smtp::address::Address;

/// The result of asking a mail server about an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// RCPT was accepted, with this text.
    Accepted(String),
    /// RCPT was refused: the recipient is unknown.
    Unknown,
    /// It gave another reply, with this text.
    Unclear(String),
    /// It accepted MAIL in time, but has not answered RCPT.
    Withheld(String),
    /// It did not accept MAIL in time.
    Silent(String),
    /// It could not be asked, for this reason.
    Failed(String),
}

/// Time limits for a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Until {
    /// When a smart host must have accepted MAIL.
    pub asked: Instant,
    /// When it must have answered RCPT, which it may delay for an unknown recipient (a tarpit).
    pub answered: Instant,
}

impl Until {
    /// The same limit for both.
    #[must_use]
    pub fn all(at: Instant) -> Self {
        Self { asked: at, answered: at }
    }
}

pub type Probing<'a> = futures_util::future::BoxFuture<'a, Heard>;

/// Asks mail servers about addresses.
pub trait Prober: Send + Sync {
    /// Asks about one address. If a smart host has not answered in its share of the time, the next one is asked
    /// concurrently.
    fn probe<'a>(&'a self, server: &'a AskedServer, address: &'a Address, until: Until) -> Probing<'a>;
}
