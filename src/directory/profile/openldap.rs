//! OpenLDAP and similar directories: `mail`, and the attributes of Sendmail's LDAP routing
//! (draft-lachman-laser-ldap-mail-routing-02) as far as they fit.
//!
//! `mailRoutingAddress`, unless it is one of the entry's own addresses, is a target; `mailHost` is the mail server that
//! `mailbox_servers` matches.

use super::{Attributes, DisabledAccounts, Entry, Rules, Unclear, away, plain_meaning};
use crate::directory::known::Meaning;
use crate::lookup::Kind;

const ATTRIBUTES: &[&str] = &[
    "objectClass",
    "mail",
    "mailAlternateAddress",
    "mailLocalAddress",
    "mailRoutingAddress",
    "mailHost",
    "accountStatus",
    "pwdAccountLockedTime",
];

/// Each value of these is an address of the entry; `mail` comes first, because it explains best.
const ADDRESSES: [&str; 3] = ["mail", "mailAlternateAddress", "mailLocalAddress"];

/// Object classes of groups (RFC 4519, and those that mail servers add), in lower case.
const GROUPS: [&str; 6] =
    ["groupofnames", "groupofuniquenames", "groupofurls", "mailgroup", "nismailalias", "rfc822mailgroup"];

/// The value of `pwdAccountLockedTime` if an administrator locked the account (draft-behera-ldap-password-policy
/// 5.3.3).
const LOCKED_FOR_GOOD: &str = "000001010000Z";

/// `profile = "openldap"`.
pub(super) struct Openldap;

impl Rules for Openldap {
    fn attributes(&self) -> Attributes<'_> {
        Attributes {
            read: ATTRIBUTES.into(),
            addresses: (&ADDRESSES).into(),
            logins: (&["uid"]).into(),
            ..Attributes::default()
        }
    }

    fn meaning(&self, entry: &Entry, disabled: DisabledAccounts) -> Result<Meaning, Unclear> {
        let target = entry.other_target("mailroutingaddress", &self.claims(entry))?;
        let meaning = if disabled == DisabledAccounts::Refused && is_disabled(entry) {
            plain_meaning(Kind::NoMailbox, None, "refuse_disabled: the account is locked")
        } else if let Some(target) = target {
            away(Kind::MailUser, target, "mailRoutingAddress")
        } else if entry.has_class(&GROUPS) {
            plain_meaning(Kind::Group, None, "a group's objectClass")
        } else {
            plain_meaning(Kind::Mailbox, None, "an entry with the address")
        };
        Ok(Meaning { mail_server: entry.server("mailhost"), ..meaning })
    }
}

/// qmail-ldap's `accountStatus`: any value but `active` refuses mail.
fn is_disabled(entry: &Entry) -> bool {
    let inactive = entry.first("accountstatus").is_some_and(|status| !status.eq_ignore_ascii_case("active"));
    inactive || entry.first("pwdaccountlockedtime") == Some(LOCKED_FOR_GOOD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Profile;
    use crate::directory::profile::tests::{entry, said};
    use crate::lookup::Lookup;
    use crate::smtp::address::Address;

    #[test]
    fn entries_become_recipients() {
        let accepted = DisabledAccounts::Accepted;
        let refused = DisabledAccounts::Refused;
        let (mail, host) = (("mail", "a@contoso.com"), ("mailHost", "EX1.contoso.com"));
        let away = ("mailRoutingAddress", "a@other.example");
        let locked = ("pwdAccountLockedTime", LOCKED_FOR_GOOD);
        for (attributes, disabled, expected) in [
            (&[mail][..], accepted, "mailbox"),
            (&[("mailAlternateAddress", "A@Contoso.com")], accepted, "mailbox"),
            (&[("mailLocalAddress", "a@contoso.com")], accepted, "mailbox"),
            (&[("mail", "b@contoso.com")], accepted, "not found"),
            (&[("uid", "a@contoso.com")], accepted, "not found"),
            (&[mail, host], accepted, "mailbox on ex1.contoso.com"),
            (&[mail, away], accepted, "mail-user for a@other.example"),
            (&[mail, host, away], accepted, "mail-user for a@other.example on ex1.contoso.com"),
            (&[mail, ("mailRoutingAddress", "A@contoso.com")], accepted, "mailbox"),
            (
                &[mail, ("mailLocalAddress", "a2@contoso.com"), ("mailRoutingAddress", "a2@contoso.com")],
                accepted,
                "mailbox",
            ),
            (&[mail, ("objectClass", "groupOfNames")], accepted, "group"),
            (&[mail, locked], accepted, "mailbox"),
            (&[mail, locked], refused, "no-mailbox"),
            (&[mail, ("accountStatus", "disabled")], refused, "no-mailbox"),
            (&[mail, ("accountStatus", "Active")], refused, "mailbox"),
        ] {
            assert_eq!(said(&Profile::Openldap, &[entry("uid=a", attributes)], disabled), expected, "{attributes:?}");
        }
    }

    /// The six cases of Sendmail's cf/README, "LDAP ROUTING". Which hosts are local is configured by `mailbox_servers`,
    /// not in the entry, so local and remote ones are told apart later.
    #[test]
    fn sendmails_six_cases() {
        let (local, remote) = (("mailHost", "mx.contoso.com."), ("mailHost", "EX1.contoso.com"));
        let routing = ("mailRoutingAddress", "a@store.contoso.com");
        for (attributes, expected) in [
            (&[local, routing][..], "mail-user for a@store.contoso.com on mx.contoso.com"),
            (&[local], "mailbox on mx.contoso.com"),
            (&[remote, routing], "mail-user for a@store.contoso.com on ex1.contoso.com"),
            (&[remote], "mailbox on ex1.contoso.com"),
            (&[routing], "mail-user for a@store.contoso.com"),
            (&[], "mailbox"),
        ] {
            let all = [&[("mailLocalAddress", "a@contoso.com")], attributes].concat();
            let entries = [entry("uid=a", &all)];
            assert_eq!(said(&Profile::Openldap, &entries, DisabledAccounts::Accepted), expected, "{attributes:?}");
        }
        // An address of a whole domain (`@contoso.com`) would make every address known.
        let catch_all = [entry("uid=a", &[("mailLocalAddress", "@contoso.com")])];
        assert_eq!(said(&Profile::Openldap, &catch_all, DisabledAccounts::Accepted), "not found");
    }

    #[test]
    fn two_entries_or_two_targets_are_no_answer() {
        let address = Address::parse("a@contoso.com").unwrap();
        let judge = |entries: &[Entry]| Profile::Openldap.judge(entries, &address, DisabledAccounts::Accepted).lookup;
        let mut one = Entry::new("uid=a");
        one.add("mail", ["a@contoso.com".to_owned()]);
        let mut two = Entry::new("uid=b");
        two.add("mailLocalAddress", ["A@contoso.com".to_owned()]);
        assert_eq!(judge(&[two, one.clone()]), Lookup::Ambiguous(["uid=a".to_owned(), "uid=b".to_owned()].into()));
        one.add("mailRoutingAddress", ["x@y.z".to_owned(), "x2@y.z".to_owned()]);
        assert!(matches!(judge(&[one]), Lookup::Unavailable(_)));
    }
}
