//! Active Directory without Exchange whose mailboxes are in Exchange Online or at Google: reads what is synchronized
//! there (`docs/directories/active-directory-synced.md` has the sources, and the limits).
//!
//! Such a directory does not tell who has a mailbox: a user with an address is assumed to have one.

use std::borrow::Cow;

use super::active_directory::{self, ActiveDirectory};
use super::{Attributes, DisabledAccounts, Entry, Rules, Unclear, plain_meaning};
use crate::directory::filter::Filter;
use crate::directory::known::{Claim, Meaning, Strength};
use crate::directory::odd;
use crate::lookup::Kind;
use crate::smtp::address::Address;

const ATTRIBUTES: &[&str] = &["objectClass", "proxyAddresses", "mail", "legacyExchangeDN"];

/// `profile = "active-directory-synced"`.
pub(super) struct ActiveDirectorySynced;

impl Rules for ActiveDirectorySynced {
    fn attributes(&self) -> Attributes<'_> {
        Attributes {
            read: ATTRIBUTES.into(),
            addresses: (&["proxyAddresses", "mail"]).into(),
            logins: ActiveDirectory.attributes().logins,
            ..Attributes::default()
        }
    }

    fn filters(&self, address: &Address) -> Vec<Filter<'_>> {
        ActiveDirectory::filters_of(address)
    }

    fn login_filters(&self, name: &str) -> Vec<Filter<'_>> {
        ActiveDirectory::login_filters_of(name)
    }

    fn key<'a>(&self, address: &'a Address) -> Cow<'a, str> {
        ActiveDirectory.key(address)
    }

    fn is_name(&self, text: &str) -> bool {
        ActiveDirectory.is_name(text)
    }

    /// `proxyAddresses` decides. `mail` counts if no entry has the address there: it is all that Google needs, and
    /// administrators' accounts have their owner's address in it.
    fn claims(&self, entry: &Entry) -> Vec<Claim> {
        let mut claims = active_directory::certain_claims(entry);
        entry.claim("mail", Strength::Fallback, &mut claims);
        claims
    }

    fn meaning(&self, entry: &Entry, _: DisabledAccounts) -> Result<Meaning, Unclear> {
        let (kind, rule) = if !entry.has("objectclass") {
            return Err(Unclear(odd::lacks("with an address", "objectClass")));
        } else if entry.has_class(&["group"]) {
            (Kind::Group, "a group with an address")
        } else if entry.has_class(&["computer"]) {
            (Kind::NoMailbox, "a computer")
        } else if entry.has_class(&["user"]) {
            (Kind::Mailbox, "a user with an address; licences are not in the directory")
        } else {
            (Kind::NoMailbox, "neither user nor group")
        };
        Ok(plain_meaning(kind, None, rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Profile;
    use crate::directory::profile::tests::{entry, said};

    #[test]
    fn entries_become_recipients() {
        let (proxy, mail) = (("proxyAddresses", "SMTP:A@contoso.com"), ("mail", "a@contoso.com"));
        let class = |value: &'static str| ("objectClass", value);
        for (attributes, expected) in [
            (&[proxy, class("user")][..], "mailbox"),
            (&[mail, class("user")], "mailbox"),
            (&[("proxyAddresses", "smtp:a@contoso.com"), ("mail", "b@contoso.com"), class("user")], "mailbox"),
            (&[proxy, class("user"), ("userAccountControl", "514")], "mailbox"),
            (&[proxy, class("user"), ("targetAddress", "SMTP:a@contoso.mail.onmicrosoft.com")], "mailbox"),
            (&[mail, class("group")], "group"),
            (&[proxy, class("contact")], "no-mailbox"),
            (&[proxy, class("contact"), ("targetAddress", "SMTP:a@b.c")], "no-mailbox"),
            (&[proxy, class("user"), class("computer")], "no-mailbox"),
            (&[mail, class("container")], "no-mailbox"),
            (&[mail], "unavailable"),
            (&[("userPrincipalName", "a@contoso.com"), class("user")], "not found"),
            (&[("proxyAddresses", "x400:a@contoso.com"), class("user")], "not found"),
        ] {
            let entries = [entry("CN=a", attributes)];
            assert_eq!(
                said(&Profile::ActiveDirectorySynced, &entries, DisabledAccounts::Accepted),
                expected,
                "{attributes:?}"
            );
        }
        let both = [entry("CN=admin", &[mail, class("user")]), entry("CN=a", &[proxy, class("user")])];
        assert_eq!(said(&Profile::ActiveDirectorySynced, &both, DisabledAccounts::Accepted), "mailbox");
        let contact = entry("CN=c", &[proxy, class("contact")]);
        let both = [contact, entry("CN=a", &[mail, class("user")])];
        assert_eq!(said(&Profile::ActiveDirectorySynced, &both, DisabledAccounts::Accepted), "mailbox", "no outvoting");
    }
}
