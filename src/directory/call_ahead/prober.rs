//! Who speaks with a mail server for `call_ahead`, and what can be heard there.
//!
//! `delivery` implements it, because it knows how next hops are reached; `directory` does not know `delivery`.

use tokio::time::Instant;

use crate::config::AskedServer;
use crate::smtp::address::Address;

/// What a mail server said when it was asked about an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It would take mail for it, in these words.
    Accepted(String),
    /// It does not know the recipient.
    Unknown,
    /// It answers, but says neither: what it said instead.
    Unclear(String),
    /// It took MAIL in time, and kept back what it has to say to RCPT.
    Withheld(String),
    /// It did not take MAIL in time.
    Silent(String),
    /// It could not be asked, and why.
    Failed(String),
}

/// How long a mail server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Until {
    /// By then a smart host must have taken MAIL.
    pub asked: Instant,
    /// By then it must have answered RCPT, which may take it long where the recipient is unknown (a tarpit).
    pub answered: Instant,
}

impl Until {
    /// The same time for both.
    #[must_use]
    pub fn all(at: Instant) -> Self {
        Self { asked: at, answered: at }
    }
}

/// A future that a [`Prober`] returns.
pub type Probing<'a> = std::pin::Pin<Box<dyn Future<Output = Heard> + Send + 'a>>;

/// Asks mail servers about addresses.
pub trait Prober: Send + Sync {
    /// Asks about one address. When a smart host's share of the time to ask is over, the next one is asked beside it.
    fn probe<'a>(&'a self, server: &'a AskedServer, address: &'a Address, until: Until) -> Probing<'a>;
}
