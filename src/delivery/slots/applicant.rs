//! The transaction that wants a connection slot. Pure.

use std::net::IpAddr;

use crate::one_client::one_client;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applicant {
    pub client: Client,
    pub class: Class,
    pub vouched: Vouched,
}

/// A client for the purpose of turns; all its connections count as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client(Option<IpAddr>);

impl Applicant {
    pub const QUEUE: Self = Self { client: Client::QUEUE, class: Class::Ours, vouched: Vouched::Yes };
}

impl Client {
    pub const QUEUE: Self = Self(None);

    #[must_use]
    pub fn at(address: IpAddr) -> Self {
        Self(Some(one_client(address)))
    }
}

/// Whether a client is a stranger (DESIGN section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The queue, or a client that is authenticated or comes in by a receive connector with an organization.
    Ours,
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

/// Whether there is evidence that a recipient of the transaction exists: it was resolved, verified or recently good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vouched {
    Yes,
    /// There is none: the client may be harvesting addresses.
    No,
}

/// One value for transactions with [`Vouched::Yes`], and one for the others.
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
