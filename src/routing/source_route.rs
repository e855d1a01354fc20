//! Local parts that are a way on from where the mail goes, written by strangers: an open relay by two hops.
//!
//! A next hop trusts us, as it trusts its own, and may read `victim%elsewhere.example@ours` as "to us, then to
//! victim@elsewhere.example": Postfix does by default for its own domains (`allow_percent_hack`, `swap_bangpath`, and
//! `resolve_dequoted_address` for a quoted `@`), others did long before (RFC 1123 5.2.16 for `%`, RFC 976 for `!`). `walk`
//! asks before a recipient leaves. `/` (X.400, Domino) leads nowhere by itself: that is the next hop's business.

use super::table::SourceRoutes;
use super::walk::Walk;
use crate::smtp::address::Address;

/// Whether some servers read the local part as a way on. Quotes do not help: they are taken off there too.
fn is_source_route(address: &Address) -> bool {
    address.local_key().contains(['%', '!', '@'])
}

impl Walk<'_> {
    /// Whether it is a stranger's word alone that would go out through this connector. Where an entry has the address as
    /// it was received, it is the operator's; where one has only what stands before its tag, or a mail server was merely
    /// asked, nobody has looked at all of it.
    pub(super) fn is_strangers_source_route(&self, connector: &str) -> bool {
        let rules = self.table.connectors.get(connector);
        let refused = rules.is_none_or(|rules| rules.source_routes == SourceRoutes::Refuse);
        refused && !self.listed && self.origin.is_stranger() && is_source_route(self.came_with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_on_is_known_in_any_dress() {
        for (address, is) in [
            ("victim%elsewhere.example@contoso.com", true),
            ("elsewhere.example!victim@contoso.com", true),
            ("\"victim@elsewhere.example\"@contoso.com", true),
            ("\"victim%elsewhere.example\"@contoso.com", true),
            ("\"vic tim\\@elsewhere.example\"@contoso.com", true),
            ("alice+x%elsewhere.example@contoso.com", true),
            ("a%b%c@contoso.com", true),
            ("%@contoso.com", true),
            ("alice@contoso.com", false),
            ("John_Doe/Sales/Contoso@contoso.com", false),
            ("/C=US/A=IBMX400/P=EMAIL/S=Doe/@contoso.com", false),
            ("SRS0=HHH=TT=elsewhere.example=victim@contoso.com", false),
            ("bounce+victim=elsewhere.example@contoso.com", false),
            ("IMCEAEX-_O=CONTOSO_OU=EXCHANGE+20GROUP_CN=A@contoso.com", false),
            ("\"a b\"@contoso.com", false),
        ] {
            assert_eq!(is_source_route(&Address::parse(address).unwrap()), is, "{address}");
        }
    }
}
