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
    /// It did not answer in time.
    Silent(String),
    /// It could not be asked, and why.
    Failed(String),
}

/// A future that a [`Prober`] returns.
pub type Probing<'a> = std::pin::Pin<Box<dyn Future<Output = Heard> + Send + 'a>>;

/// Asks mail servers about addresses.
pub trait Prober: Send + Sync {
    /// Asks about one address. Every smart host has its share of the time until `until`.
    fn probe<'a>(&'a self, server: &'a AskedServer, address: &'a Address, until: Instant) -> Probing<'a>;
}
