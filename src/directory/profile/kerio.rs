//! Kerio Connect's extension of Active Directory and Open Directory (`docs/directories/kerio.md` has the sources).
//!
//! Kerio's names have no domain: Kerio maps the directory to one. So local parts are compared, and the configuration
//! has the domains (`config::check::companions`).

use std::borrow::Cow;

use super::{Attributes, DisabledAccounts, Entry, Rules, Unclear, plain_meaning};
use crate::directory::filter::Filter;
use crate::directory::known::{self, Claim, Meaning, Strength};
use crate::lookup::Kind;
use crate::smtp::address::Address;

const ATTRIBUTES: &[&str] =
    &["objectClass", "sAMAccountName", "uid", "kerio-Mail-Address", "kerio-Mail-Active", "kerio-Mail-AccountEnabled"];

/// Attributes of Kerio's extension: an entry with none of them is not a user of Kerio's.
const MARKS: [&str; 3] = ["kerio-Mail-Address", "kerio-Mail-Active", "kerio-Mail-AccountEnabled"];

/// Attributes with local parts: the user's name in Active Directory or Open Directory, and further addresses.
const NAMES: [&str; 3] = ["sAMAccountName", "uid", "kerio-Mail-Address"];

const GROUPS: [&str; 3] = ["group", "apple-group", "posixgroup"];

/// `profile = "kerio"`.
pub(super) struct Kerio;

impl Rules for Kerio {
    fn attributes(&self) -> Attributes<'_> {
        Attributes {
            read: ATTRIBUTES.into(),
            addresses: (&["kerio-Mail-Address"]).into(),
            logins: (&["sAMAccountName", "uid"]).into(),
            marks: (&MARKS).into(),
            ..Attributes::default()
        }
    }

    fn filters(&self, address: &Address) -> Vec<Filter<'_>> {
        let by_name = NAMES.iter().map(|name| Filter::equals(name, address.local_key()));
        by_name.chain([Filter::equals("kerio-Mail-Address", address.key())]).collect()
    }

    fn key<'a>(&self, address: &'a Address) -> Cow<'a, str> {
        Cow::Borrowed(address.local_key())
    }

    /// A group has an address only if Kerio gave it one; a user's own name always is one.
    fn claims(&self, entry: &Entry) -> Vec<Claim> {
        let mut claims = Vec::new();
        if !MARKS.iter().any(|mark| entry.has(&mark.to_ascii_lowercase())) {
            return claims;
        }
        let names = if entry.has_class(&GROUPS) { &NAMES[2..] } else { &NAMES[..] };
        for value in names.iter().flat_map(|name| entry.values(&name.to_ascii_lowercase())) {
            let local = value.trim().split('@').next().unwrap_or_default();
            // Any domain can be used to check that it is a local part and to get its comparable form.
            if let Ok(address) = Address::parse(&format!("{local}@kerio.invalid")) {
                known::claim(&mut claims, address.local_key(), Strength::Certain);
            }
        }
        claims
    }

    fn meaning(&self, entry: &Entry, disabled: DisabledAccounts) -> Result<Meaning, Unclear> {
        let (kind, rule) = if is_off(entry, "kerio-mail-active") {
            (Kind::NoMailbox, "kerio-Mail-Active is off")
        } else if disabled == DisabledAccounts::Refused && is_off(entry, "kerio-mail-accountenabled") {
            (Kind::NoMailbox, "refuse_disabled: kerio-Mail-AccountEnabled is off")
        } else if entry.has_class(&GROUPS) {
            (Kind::Group, "a group with kerio-Mail-Address")
        } else {
            (Kind::Mailbox, "a user with attributes of Kerio's")
        };
        Ok(plain_meaning(kind, None, rule))
    }
}

/// `FALSE` in Active Directory, `0` in Open Directory.
fn is_off(entry: &Entry, name: &str) -> bool {
    entry.says(name, "false") || entry.says(name, "0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Profile;
    use crate::directory::profile::tests::{entry, said};

    #[test]
    fn entries_become_recipients() {
        let (accepted, refused) = (DisabledAccounts::Accepted, DisabledAccounts::Refused);
        let (name, short) = (("sAMAccountName", "A"), ("uid", "a"));
        let address = |value: &'static str| ("kerio-Mail-Address", value);
        let active = |value: &'static str| ("kerio-Mail-Active", value);
        let enabled = |value: &'static str| ("kerio-Mail-AccountEnabled", value);
        let group = ("objectClass", "group");
        for (attributes, accounts, expected) in [
            (&[name, active("TRUE")][..], accepted, "mailbox"),
            (&[short, enabled("1")], accepted, "mailbox"),
            (&[name], accepted, "not found"),
            (&[name, ("mail", "a@contoso.com")], accepted, "not found"),
            (&[("sAMAccountName", "ann"), address("a")], accepted, "mailbox"),
            (&[("sAMAccountName", "ann"), address("A@contoso.com")], accepted, "mailbox"),
            (&[("sAMAccountName", "ann"), address("b")], accepted, "not found"),
            (&[name, active("FALSE")], accepted, "no-mailbox"),
            (&[name, active("0")], accepted, "no-mailbox"),
            (&[name, active("TRUE"), enabled("FALSE")], accepted, "mailbox"),
            (&[name, active("TRUE"), enabled("FALSE")], refused, "no-mailbox"),
            (&[group, address("a"), active("TRUE")], accepted, "group"),
            (&[group, name, active("TRUE")], accepted, "not found"),
        ] {
            let entries = [entry("CN=a", attributes)];
            assert_eq!(said(&Profile::Kerio, &entries, accounts), expected, "{attributes:?}");
        }
    }

    #[test]
    fn local_parts_are_asked_for() {
        let address = Address::parse("A*@contoso.com").unwrap();
        assert_eq!(
            Profile::Kerio.filter([&address]).to_string(),
            "(|(sAMAccountName=a\\2a)(uid=a\\2a)(kerio-Mail-Address=a\\2a)(kerio-Mail-Address=a\\2a@contoso.com))"
        );
        assert_eq!(Profile::Kerio.key(&address), "a*");
    }
}
