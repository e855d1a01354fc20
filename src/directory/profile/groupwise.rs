//! GroupWise's users in eDirectory (`docs/directories/groupwise.md` has the sources).
//!
//! eDirectory has each user's preferred address, and others only if GroupWise publishes them; so an address that is not
//! found may still be a user's, and GroupWise itself is asked next (`config::check::companions`).

use super::{Attributes, DisabledAccounts, Entry, Rules, Unclear, plain_meaning};
use crate::directory::known::Meaning;
use crate::lookup::Kind;

const ATTRIBUTES: &[&str] = &["objectClass", "mail", "nGWPostOffice", "loginDisabled"];

/// eDirectory's LDAP names are those of its schema without spaces and punctuation.
const GROUPS: [&str; 3] = ["groupwisedistributionlist", "groupofnames", "group"];

/// Users of other mail systems in GroupWise's address book.
const ELSEWHERE: [&str; 1] = ["groupwiseexternalentity"];

/// `profile = "groupwise"`.
pub(super) struct GroupWise;

impl Rules for GroupWise {
    fn attributes(&self) -> Attributes<'_> {
        Attributes {
            read: ATTRIBUTES.into(),
            addresses: (&["mail"]).into(),
            logins: (&["uid", "cn"]).into(),
            ..Attributes::default()
        }
    }

    fn meaning(&self, entry: &Entry, disabled: DisabledAccounts) -> Result<Meaning, Unclear> {
        let (kind, rule) = if entry.has_class(&ELSEWHERE) {
            (Kind::NoMailbox, "groupWiseExternalEntity: its mailbox is elsewhere")
        } else if disabled == DisabledAccounts::Refused && entry.says("logindisabled", "true") {
            (Kind::NoMailbox, "refuse_disabled: loginDisabled")
        } else if entry.has_class(&GROUPS) {
            (Kind::Group, "a group's objectClass")
        } else {
            (Kind::Mailbox, "an entry with the address")
        };
        let mail_server = entry.first("ngwpostoffice").and_then(common_name);
        Ok(Meaning { mail_server, ..plain_meaning(kind, None, rule) })
    }
}

/// `po1` for `cn=PO1,ou=GroupWise,o=Contoso`.
fn common_name(post_office: &str) -> Option<String> {
    let (_, value) = post_office.split(',').next()?.split_once('=')?;
    Some(value.trim().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Profile;
    use crate::directory::profile::tests::{entry, said};

    #[test]
    fn entries_become_recipients() {
        let (accepted, refused) = (DisabledAccounts::Accepted, DisabledAccounts::Refused);
        let (mail, locked) = (("mail", "A@contoso.com"), ("loginDisabled", "TRUE"));
        let class = |value: &'static str| ("objectClass", value);
        for (attributes, disabled, expected) in [
            (&[mail][..], accepted, "mailbox"),
            (&[("mail", "ann@contoso.com"), ("uid", "a"), ("nGWObjectID", "a")], accepted, "not found"),
            (&[mail, ("nGWPostOffice", "cn=PO1,ou=GroupWise,o=Contoso")], accepted, "mailbox on po1"),
            (&[mail, class("groupWiseDistributionList")], accepted, "group"),
            (&[mail, class("groupOfNames")], accepted, "group"),
            (&[mail, class("groupWiseResource")], accepted, "mailbox"),
            (&[mail, class("groupWiseExternalEntity")], accepted, "no-mailbox"),
            (&[mail, locked], accepted, "mailbox"),
            (&[mail, locked], refused, "no-mailbox"),
        ] {
            let entries = [entry("cn=a", attributes)];
            assert_eq!(said(&Profile::GroupWise, &entries, disabled), expected, "{attributes:?}");
        }
    }
}
