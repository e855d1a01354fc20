//! Zimbra Collaboration's own directory (`docs/directories/zimbra.md` has the sources).
//!
//! Zimbra itself forwards mail, also where it keeps no copy; a catch-all is not a recipient.

use super::{Attributes, DisabledAccounts, Entry, Rules, Unclear, plain_meaning};
use crate::directory::known::Meaning;
use crate::directory::odd;
use crate::lookup::Kind;

const ATTRIBUTES: &[&str] = &[
    "objectClass",
    "zimbraMailDeliveryAddress",
    "zimbraMailAlias",
    "zimbraOldMailAddress",
    "mail",
    "zimbraMailStatus",
    "zimbraAccountStatus",
    "zimbraMailTransport",
    "zimbraMailHost",
];

/// The attributes that Zimbra's Postfix searches, without the catch-all, and `mail`, which has the addresses of
/// distribution lists.
const ADDRESSES: [&str; 4] = ["zimbraMailDeliveryAddress", "zimbraMailAlias", "zimbraOldMailAddress", "mail"];

const GROUPS: [&str; 2] = ["zimbradistributionlist", "zimbragroup"];

/// `profile = "zimbra"`.
pub(super) struct Zimbra;

impl Rules for Zimbra {
    fn attributes(&self) -> Attributes<'_> {
        Attributes {
            read: ATTRIBUTES.into(),
            addresses: (&ADDRESSES).into(),
            logins: (&["uid"]).into(),
            kinds_by: (&["zimbraMailStatus"]).into(),
            ..Attributes::default()
        }
    }

    fn meaning(&self, entry: &Entry, disabled: DisabledAccounts) -> Result<Meaning, Unclear> {
        let (kind, rule) = if !entry.says("zimbramailstatus", "enabled") {
            (Kind::NoMailbox, "zimbraMailStatus is not enabled")
        } else if ["closed", "pending"].iter().any(|status| entry.says("zimbraaccountstatus", status)) {
            (Kind::NoMailbox, "zimbraAccountStatus is closed or pending")
        } else if disabled == DisabledAccounts::Refused && entry.says("zimbraaccountstatus", "locked") {
            (Kind::NoMailbox, "refuse_disabled: zimbraAccountStatus is locked")
        } else if entry.has_class(&GROUPS) {
            (Kind::Group, "a distribution list")
        } else if is_elsewhere(entry) {
            (Kind::NoMailbox, "zimbraMailTransport leads out of Zimbra")
        } else {
            (Kind::Mailbox, "an account or resource that takes mail")
        };
        let lacks_status = kind == Kind::NoMailbox && !entry.has("zimbramailstatus");
        let at_odds = lacks_status.then(|| odd::lacks("with an address", "zimbraMailStatus"));
        Ok(Meaning { mail_server: entry.server("zimbramailhost"), at_odds, ..plain_meaning(kind, None, rule) })
    }
}

/// A split domain: the account is here, its mail is relayed by SMTP to the other system.
fn is_elsewhere(entry: &Entry) -> bool {
    let transport = entry.first("zimbramailtransport").and_then(|transport| transport.split_once(':'));
    transport.is_some_and(|(kind, _)| ["smtp", "relay"].iter().any(|word| kind.trim().eq_ignore_ascii_case(word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Profile;
    use crate::directory::profile::tests::{entry, said};

    #[test]
    fn entries_become_recipients() {
        let (accepted, refused) = (DisabledAccounts::Accepted, DisabledAccounts::Refused);
        let (own, on) = (("zimbraMailDeliveryAddress", "a@contoso.com"), ("zimbraMailStatus", "enabled"));
        let status = |value: &'static str| ("zimbraAccountStatus", value);
        let transport = |value: &'static str| ("zimbraMailTransport", value);
        for (attributes, disabled, expected) in [
            (&[own, on][..], accepted, "mailbox"),
            (&[("zimbraMailAlias", "A@contoso.com"), on], accepted, "mailbox"),
            (&[("zimbraOldMailAddress", "a@contoso.com"), on], accepted, "mailbox"),
            (&[("mail", "a@contoso.com"), on], accepted, "mailbox"),
            (&[("zimbraMailCatchAllAddress", "@contoso.com"), on], accepted, "not found"),
            (&[("zimbraMailForwardingAddress", "a@contoso.com"), on], accepted, "not found"),
            (&[own, on, ("zimbraMailHost", "MBX1.contoso.com")], accepted, "mailbox on mbx1.contoso.com"),
            (&[own, on, ("zimbraMailForwardingAddress", "a@other.example")], accepted, "mailbox"),
            (&[own, on, ("objectClass", "zimbraCalendarResource")], accepted, "mailbox"),
            (&[own, on, ("objectClass", "zimbraDistributionList")], accepted, "group"),
            (&[own, on, ("objectClass", "zimbraGroup")], accepted, "group"),
            (&[own, ("objectClass", "zimbraDistributionList")], accepted, "no-mailbox"),
            (&[own], accepted, "no-mailbox"),
            (&[own, ("zimbraMailStatus", "disabled")], accepted, "no-mailbox"),
            (&[own, on, status("active")], refused, "mailbox"),
            (&[own, on, status("maintenance")], refused, "mailbox"),
            (&[own, on, status("lockout")], refused, "mailbox"),
            (&[own, on, status("locked")], accepted, "mailbox"),
            (&[own, on, status("locked")], refused, "no-mailbox"),
            (&[own, on, status("closed")], accepted, "no-mailbox"),
            (&[own, on, status("Pending")], accepted, "no-mailbox"),
            (&[own, on, transport("lmtp:mbx1.contoso.com:7025")], accepted, "mailbox"),
            (&[own, on, transport("smtp:ex.contoso.com:25")], accepted, "no-mailbox"),
            (&[own, on, transport("relay:[10.0.0.5]")], accepted, "no-mailbox"),
        ] {
            assert_eq!(said(&Profile::Zimbra, &[entry("uid=a", attributes)], disabled), expected, "{attributes:?}");
        }
    }
}
