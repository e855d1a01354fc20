//! Reports that may not go where a stranger said they should, or that nobody can ever get: each is a count and a line in
//! the log, and no dead letter. Pure.
//!
//! `delivery` finds out at each attempt and ends it with one of these replies; [`super::make`] sees literals at once.

use crate::smtp::address::Address;
use crate::smtp::reply::{Enhanced, NO_MAIL_SERVER, NO_SUCH_DOMAIN, NULL_MX, Reply};

/// A report does not go to an address literal: it names a host, and no domain whose owner ever said that mail is taken
/// there.
pub const NOT_TO_LITERALS: Reply = Reply::fixed(550, Enhanced(5, 1, 2), "no report goes to an address literal");
/// By MX a report does not go to hosts within, nor back to us.
pub const NOT_TO_PRIVATE: Reply =
    Reply::fixed(550, Enhanced(5, 4, 4), "the recipient's domain has no mail server that a report may go to");

/// Why no report is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSent {
    /// It is for an address literal.
    AddressLiteral,
    /// Its domain does not exist.
    NoSuchDomain,
    /// Its domain says that it takes no mail (RFC 7505).
    NullMx,
    /// Its domain has neither MX nor address.
    NoMailServer,
    /// Its domain's mail servers have private addresses, or are ourselves.
    PrivateAddress,
}

impl NotSent {
    const ALL: [Self; 5] =
        [Self::AddressLiteral, Self::NoSuchDomain, Self::NullMx, Self::NoMailServer, Self::PrivateAddress];

    /// Why a report for this address is not even made.
    #[must_use]
    pub fn to(address: &Address) -> Option<Self> {
        address.domain().as_ip().is_some().then_some(Self::AddressLiteral)
    }

    /// Whether an attempt that ended with this reply did so for such a reason; `next_hop`: who said it, empty: we.
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

    /// As `reports_not_sent_total{reason}` has it.
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
