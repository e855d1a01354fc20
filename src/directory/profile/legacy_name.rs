//! Exchange's legacy names, which are no addresses: `/o=Contoso/ou=.../cn=Recipients/cn=alice`, which stand in
//! `legacyExchangeDN` and, after a move, as `X500:` in `proxyAddresses`. Pure.
//!
//! Replies to old messages, and old address books, have them encapsulated in an address (IMCEAEX: Internet Mail
//! Connector Encapsulated Addressing; MS-OXCMAIL and Microsoft's KB 2807779 show the coding).

use crate::smtp::address::Address;

const PREFIX: &str = "imceaex-";

/// The key of the name in an encapsulated address: `_` stands for `/`, `+XX` for an octet. `None`: the address is none.
pub(super) fn decoded(address: &Address) -> Option<String> {
    let coded = address.local_key().strip_prefix(PREFIX)?;
    let mut octets = Vec::with_capacity(coded.len());
    let mut rest = coded.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'_' => b'/',
            b'+' => 16 * hex(rest.next()?)? + hex(rest.next()?)?,
            plain => plain,
        });
    }
    let name = String::from_utf8(octets).ok()?;
    is_one(&name).then(|| key(&name))
}

/// Whether a text is such a name.
pub(super) fn is_one(text: &str) -> bool {
    text.starts_with('/')
}

/// The comparable form of such a name.
pub(super) fn key(name: &str) -> String {
    name.trim().to_lowercase()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_names_are_read() {
        for (local, name) in [
            (
                "IMCEAEX-_O=CONTOSO_OU=FIRST+20GROUP_CN=RECIPIENTS_CN=ALICE",
                Some("/o=contoso/ou=first group/cn=recipients/cn=alice"),
            ),
            (
                "imceaex-_o=Contoso_ou=Exchange+20+28FYDIBOHF23SPDLT+29_cn=a+2eb",
                Some("/o=contoso/ou=exchange (fydibohf23spdlt)/cn=a.b"),
            ),
            ("IMCEAEX-_o=x_cn=a+5Fb+2B", Some("/o=x/cn=a_b+")),
            ("IMCEAEX-_o=x_cn=jos+C3+A9", Some("/o=x/cn=josé")),
            ("IMCEAEX-_o=x_cn=a+2", None),
            ("IMCEAEX-_o=x_cn=a+zz", None),
            ("IMCEAEX-_o=x_cn=a+FF", None),
            ("IMCEAEX-alice", None),
            ("IMCEAEX-", None),
            ("IMCEAFAX-Alice+40+2B1", None),
            ("alice", None),
        ] {
            let address = Address::parse(&format!("{local}@contoso.com")).unwrap();
            assert_eq!(decoded(&address).as_deref(), name, "{local}");
        }
    }

    #[test]
    fn they_are_names_where_exchange_may_be() {
        use crate::config::Profile;
        let name = "/o=contoso/cn=alice";
        assert!([Profile::ActiveDirectory, Profile::ActiveDirectorySynced].iter().all(|profile| profile.is_name(name)));
        assert!(!Profile::Openldap.is_name(name) && !Profile::ActiveDirectory.is_name("alice"));
    }
}
