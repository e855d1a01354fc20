//! Source routes in local parts (`victim%elsewhere.example@ours`), by which strangers could use a next hop as an open
//! relay.
//!
//! A next hop trusts us, as it trusts its own, and may read `victim%elsewhere.example@ours` as "to us, then to
//! victim@elsewhere.example": Postfix does by default for its own domains (`allow_percent_hack`, `swap_bangpath`, and
//! `resolve_dequoted_address` for a quoted `@`), older servers as well (RFC 1123 5.2.16 for `%`, RFC 976 for `!`).
//! `walk` checks each accepted recipient. `/` (X.400, Domino) is not a source route by itself and is left to the next
//! hop.

use super::table::SourceRoutes;
use super::walk::Walk;
use crate::smtp::address::Address;

/// Whether some servers read the local part as a source route. Quotes do not protect: those servers remove them too.
fn is_source_route(address: &Address) -> bool {
    address.local_key().contains(['%', '!', '@'])
}

impl Walk<'_> {
    /// Whether a stranger's source route would go out through this connector. It is the operator's, not the stranger's,
    /// where a directory entry has the address as received; an entry for the address without its tag, or a mail
    /// server's answer, does not cover the whole local part.
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
