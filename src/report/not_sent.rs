//! Reports that must not be sent to where a stranger's sender address points, or that can never be delivered: each is
//! counted and logged, without a dead letter. Pure.
//!
//! `delivery` checks at each attempt and ends it with one of these replies; [`super::make`] checks address literals.

use crate::smtp::address::Address;
use crate::smtp::reply::{Enhanced, NO_MAIL_SERVER, NO_SUCH_DOMAIN, NULL_MX, Reply};

/// No report is sent to an address literal: it names a host, not a domain whose owner accepts mail there.
pub const NOT_TO_LITERALS: Reply = Reply::fixed(550, Enhanced(5, 1, 2), "no report goes to an address literal");
/// No report is sent by MX to hosts with private addresses, or to ourselves.
pub const NOT_TO_PRIVATE: Reply =
    Reply::fixed(550, Enhanced(5, 4, 4), "the recipient's domain has no mail server that a report may go to");

/// Why a report is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSent {
    AddressLiteral,
    NoSuchDomain,
    /// Its domain accepts no mail (RFC 7505).
    NullMx,
    NoMailServer,
    /// Its domain's mail servers have private addresses, or are this server.
    PrivateAddress,
}

impl NotSent {
    const ALL: [Self; 5] =
        [Self::AddressLiteral, Self::NoSuchDomain, Self::NullMx, Self::NoMailServer, Self::PrivateAddress];

    /// Why no report to this address is made; `None`: it may be.
    #[must_use]
    pub fn to(address: &Address) -> Option<Self> {
        address.domain().as_ip().is_some().then_some(Self::AddressLiteral)
    }

    /// The reason, if an attempt ended with such a reply; `next_hop` gave it, empty: it is ours.
    #[must_use]
    pub fn of(next_hop: &str, reply: &Reply) -> Option<Self> {
        Self::ALL.into_iter().find(|why| next_hop.is_empty() && why.reply() == *reply)
    }

    fn reply(self) -> Reply {
        match self {
            Self::AddressLiteral => NOT_TO_LITERALS,
            Self::NoSuchDomain => NO_SUCH_DOMAIN,
            Self::NullMx => NULL_MX,
            Self::NoMailServer => NO_MAIL_SERVER,
            Self::PrivateAddress => NOT_TO_PRIVATE,
        }
    }

    /// The label of `reports_not_sent_total{reason}`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AddressLiteral => "address-literal",
            Self::NoSuchDomain => "no-such-domain",
            Self::NullMx => "null-mx",
            Self::NoMailServer => "no-mail-server",
            Self::PrivateAddress => "private-address",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::REPORTS_NOT_SENT;
    use crate::smtp::reply::USER_UNKNOWN;

    #[test]
    fn a_reason_is_known_by_our_own_reply_alone() {
        for why in NotSent::ALL {
            assert_eq!(NotSent::of("", &why.reply()), Some(why));
            assert_eq!(NotSent::of("hub[192.0.2.1]:25", &why.reply()), None, "another host's words");
        }
        assert_eq!(NotSent::of("", &USER_UNKNOWN), None);
        assert_eq!(NotSent::ALL.map(NotSent::as_str), REPORTS_NOT_SENT);
    }

    #[test]
    fn literals_are_seen_in_every_form() {
        for (address, is_literal) in [
            ("a@[192.0.2.1]", true),
            ("a@[127.0.0.1]", true),
            ("a@[IPv6:2001:db8::1]", true),
            ("a@[IPv6:::ffff:10.0.0.1]", true),
            ("a@contoso.com", false),
            ("a@localhost", false),
            ("a@127.0.0.1", false), // a name, which DNS does not have
        ] {
            assert_eq!(NotSent::to(&Address::parse(address).unwrap()).is_some(), is_literal, "{address}");
        }
    }
}
