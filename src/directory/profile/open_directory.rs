//! Apple's Open Directory with the mail service of OS X Server (`docs/directories/open-directory.md` has the sources).

use super::{Attributes, DisabledAccounts, Entry, Rules, Unclear, plain_meaning};
use crate::directory::known::Meaning;
use crate::lookup::Kind;
use crate::smtp::address::Address;

/// A user's mail settings: a property list in XML.
const SETTINGS: &str = "apple-user-mailattribute";

const ATTRIBUTES: &[&str] = &["objectClass", "mail", "uid", SETTINGS, "authAuthority"];

/// A short name may be a complete address: the mail service distinguishes virtual hosts in this way.
const ADDRESSES: [&str; 2] = ["mail", "uid"];

const GROUPS: [&str; 2] = ["apple-group", "posixgroup"];

/// `profile = "open-directory"`.
pub(super) struct OpenDirectory;

impl Rules for OpenDirectory {
    fn attributes(&self) -> Attributes<'_> {
        Attributes {
            read: ATTRIBUTES.into(),
            addresses: (&ADDRESSES).into(),
            logins: (&["uid"]).into(),
            short_names: Some("uid"),
            ..Attributes::default()
        }
    }

    fn meaning(&self, entry: &Entry, disabled: DisabledAccounts) -> Result<Meaning, Unclear> {
        let settings = entry.first(SETTINGS).unwrap_or_default();
        let state = setting(settings, "kMailAccountState").unwrap_or_default();
        let meaning = if disabled == DisabledAccounts::Refused && is_disabled(entry) {
            plain_meaning(Kind::NoMailbox, None, "refuse_disabled: authAuthority says disabled")
        } else if state.eq_ignore_ascii_case("off") {
            plain_meaning(Kind::NoMailbox, None, "kMailAccountState is Off")
        } else if state.eq_ignore_ascii_case("forward") {
            plain_meaning(Kind::MailUser, Some(forwarded_to(settings)?), "kMailAccountState is Forward")
        } else if entry.has_class(&GROUPS) {
            plain_meaning(Kind::Group, None, "a group with the address")
        } else {
            plain_meaning(Kind::Mailbox, None, "a user with the address")
        };
        let location = setting(settings, "kMailAccountLocation").filter(|location| !location.is_empty());
        Ok(Meaning { mail_server: location.map(str::to_lowercase), ..meaning })
    }
}

fn forwarded_to(settings: &str) -> Result<Address, Unclear> {
    let written = setting(settings, "kAutoForwardValue").unwrap_or_default();
    Address::parse(written).map_err(|error| Unclear(format!("kAutoForwardValue `{written}` is no address: {error}")))
}

/// `;DisabledUser;` is put before the account's previous value.
fn is_disabled(entry: &Entry) -> bool {
    entry.values("authauthority").iter().any(|value| value.to_ascii_lowercase().contains(";disableduser;"))
}

/// The text after a key: `<key>NAME</key> <string>TEXT</string>`. None of these texts has a character that XML escapes.
fn setting<'a>(settings: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = settings.split_once(&format!("<key>{name}</key>"))?;
    let (text, _) = rest.trim_start().strip_prefix("<string>")?.split_once("</string>")?;
    Some(text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Profile;
    use crate::directory::profile::tests::{entry, said};

    const OFF: &str = "<dict><key>kMailAccountState</key><string>Off</string></dict>";
    const ON: &str = "<dict>\n<key>kMailAccountState</key>\n<string>Enabled</string>\n\
                      <key>kMailAccountLocation</key>\n<string>Mail1.contoso.com</string>\n</dict>";
    const FORWARD: &str = "<dict><key>kAutoForwardValue</key><string>a@other.example</string>\
                           <key>kMailAccountState</key><string>Forward</string></dict>";
    const NOWHERE: &str = "<dict><key>kAutoForwardValue</key><string></string>\
                           <key>kMailAccountState</key><string>Forward</string></dict>";

    #[test]
    fn entries_become_recipients() {
        let (accepted, refused) = (DisabledAccounts::Accepted, DisabledAccounts::Refused);
        let mail = ("mail", "A@contoso.com");
        let disabled = ("authAuthority", ";DisabledUser;;ApplePasswordServer;0x4711");
        for (attributes, accounts, expected) in [
            (&[mail][..], accepted, "mailbox"),
            (&[("uid", "a@contoso.com")], accepted, "mailbox"),
            (&[("uid", "a"), ("mail", "ann@contoso.com")], accepted, "mailbox"),
            (&[("uid", "a"), ("mail", "ann@contoso.net")], accepted, "not found"),
            (&[("uid", "a")], accepted, "not found"),
            (&[mail, (SETTINGS, ON)], accepted, "mailbox on mail1.contoso.com"),
            (&[mail, (SETTINGS, OFF)], accepted, "no-mailbox"),
            (&[mail, (SETTINGS, FORWARD)], accepted, "mail-user for a@other.example"),
            (&[mail, (SETTINGS, NOWHERE)], accepted, "unavailable"),
            (&[mail, (SETTINGS, "no property list")], accepted, "mailbox"),
            (&[mail, ("objectClass", "apple-group")], accepted, "group"),
            (&[mail, disabled], accepted, "mailbox"),
            (&[mail, disabled], refused, "no-mailbox"),
            (&[mail, ("authAuthority", ";ApplePasswordServer;0x4711")], refused, "mailbox"),
        ] {
            let entries = [entry("uid=a", attributes)];
            assert_eq!(said(&Profile::OpenDirectory, &entries, accounts), expected, "{attributes:?}");
        }
    }
}
