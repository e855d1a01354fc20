//! Who wants a connection slot. Pure.

use std::net::IpAddr;

use crate::one_client::one_client;

/// Who wants a connection slot, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applicant {
    /// Whose transaction it is.
    pub client: Client,
    /// What this client is to us.
    pub class: Class,
    /// Whether anybody vouches for a recipient of the transaction.
    pub vouched: Vouched,
}

/// A client, as slots go round: all its connections are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client(Option<IpAddr>);

impl Applicant {
    /// The queue: nobody's transaction but ours.
    pub const QUEUE: Self = Self { client: Client::QUEUE, class: Class::Ours, vouched: Vouched::Yes };
}

impl Client {
    /// The queue.
    pub const QUEUE: Self = Self(None);

    /// The client at this address.
    #[must_use]
    pub fn at(address: IpAddr) -> Self {
        Self(Some(one_client(address)))
    }
}

/// What a client is to us (DESIGN section 3, "stranger").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The queue, or a client that is authenticated or comes in by a receive connector with an organization.
    Ours,
    /// Any other.
    Stranger,
}

impl Class {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Ours => Self::Stranger,
            Self::Stranger => Self::Ours,
        }
    }
}

/// Whether anybody vouches for a recipient of a transaction: it was resolved, verified or recently good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vouched {
    /// Somebody does.
    Yes,
    /// Nobody does: the transaction may be a harvester's.
    No,
}

/// One for transactions with somebody vouched for, and one for the others.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ByVouched<T> {
    yes: T,
    no: T,
}

impl<T> ByVouched<T> {
    pub(super) fn of(&self, vouched: Vouched) -> &T {
        match vouched {
            Vouched::Yes => &self.yes,
            Vouched::No => &self.no,
        }
    }

    pub(super) fn of_mut(&mut self, vouched: Vouched) -> &mut T {
        match vouched {
            Vouched::Yes => &mut self.yes,
            Vouched::No => &mut self.no,
        }
    }
}

impl ByVouched<usize> {
    /// Both together.
    pub(super) fn total(&self) -> usize {
        self.yes + self.no
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_address_or_a_network_of_ipv6() {
        let at = |text: &str| Client::at(text.parse().unwrap());
        for (one, other, same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
            ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("::", "0.0.0.0", false),
        ] {
            assert_eq!(at(one) == at(other), same, "{one} {other}");
            assert_ne!(at(one), Client::QUEUE);
        }
    }
}
