//! HCL Domino's directory (`docs/directories/domino.md` has the sources).

use super::entry::Target;
use super::{Attributes, DisabledAccounts, Entry, Rules, Unclear, away, plain_meaning};
use crate::directory::known::{Claim, Meaning};
use crate::directory::odd;
use crate::lookup::Kind;

const ATTRIBUTES: &[&str] =
    &["objectClass", "mail", "internetAddress", "uid", "mailAddress", "mailSystem", "mailServer", "groupType"];

/// `uid` has short names, which may be complete addresses.
const ADDRESSES: [&str; 3] = ["mail", "internetAddress", "uid"];

/// `mailSystem` of users with a mail file on a Domino server: Notes, and POP or IMAP. Others: other (3), Internet (5),
/// none (100).
const MAIL_SYSTEMS: [&str; 2] = ["1", "6"];

/// `mailSystem`: none.
const NO_MAIL: &str = "100";

/// Group types that receive mail: multi-purpose, and mail only. Others: access control (2), deny list (3), servers (4).
const MAIL_GROUPS: [&str; 2] = ["0", "1"];

/// `profile = "domino"`.
pub(super) struct Domino;

impl Rules for Domino {
    fn attributes(&self) -> Attributes<'_> {
        Attributes {
            read: ATTRIBUTES.into(),
            addresses: (&ADDRESSES).into(),
            logins: (&["uid", "cn"]).into(),
            short_names: Some("uid"),
            kinds_by: (&["mailSystem", "mailServer"]).into(),
            ..Attributes::default()
        }
    }

    /// The directory does not tell who is disabled: users in a deny list stay in it.
    fn meaning(&self, entry: &Entry, _: DisabledAccounts) -> Result<Meaning, Unclear> {
        let system = entry.first("mailsystem").map(str::trim);
        let on_domino = system.is_none_or(|system| MAIL_SYSTEMS.contains(&system));
        let meaning = if entry.has_class(&["dominogroup"]) {
            let takes_mail = entry.first("grouptype").is_none_or(|kind| MAIL_GROUPS.contains(&kind.trim()));
            let kind = if takes_mail { Kind::Group } else { Kind::NoMailbox };
            plain_meaning(kind, None, "dominoGroup, by its groupType")
        } else if entry.has_class(&["dominoservermailindatabase"]) {
            plain_meaning(Kind::Mailbox, None, "a mail-in database or resource")
        } else if let Some(target) = target(entry, &self.claims(entry))? {
            away(Kind::MailUser, target, "mailAddress")
        } else if on_domino && (entry.has("mailserver") || system.is_some()) {
            plain_meaning(Kind::Mailbox, None, "a person with a mail file")
        } else if let Some(system) = system.filter(|system| *system != NO_MAIL) {
            // The mail is in another system, and the forwarding address tells where.
            match entry.first("mailaddress").map(str::trim).filter(|written| !written.is_empty()) {
                None => return Err(Unclear(odd::lacks(&format!("with mailSystem {system}"), "mailAddress"))),
                // Its own address: Domino would send the mail by the domain's routing, which may lead back here.
                Some(own) if is_internet(own) => plain_meaning(Kind::NoMailbox, None, "mailSystem: another system"),
                Some(_) => away(Kind::MailUser, Target::OtherKind("Notes".to_owned()), "mailAddress"),
            }
        } else {
            let at_odds = system.is_none().then(|| odd::lacks("with an address", "mailSystem and mailServer"));
            Meaning { at_odds, ..plain_meaning(Kind::NoMailbox, None, "a person without a mail file") }
        };
        Ok(Meaning { mail_server: entry.first("mailserver").and_then(common_name), ..meaning })
    }
}

/// The forwarding address, if it is an Internet address; it may be a Notes name (`Ann Lee/Contoso@Contoso`).
fn target(entry: &Entry, own: &[Claim]) -> Result<Option<Target>, Unclear> {
    let written = entry.first("mailaddress").unwrap_or_default();
    if is_internet(written) { entry.other_target("mailaddress", own) } else { Ok(None) }
}

fn is_internet(written: &str) -> bool {
    !written.contains(['/', '%']) && written.contains('@')
}

/// `mail1` for `CN=MAIL1,O=Contoso`, `CN=MAIL1/O=Contoso` and `MAIL1/Contoso`.
fn common_name(server: &str) -> Option<String> {
    let first = server.split([',', '/']).next()?.trim().to_lowercase();
    let name = first.strip_prefix("cn=").unwrap_or(&first);
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Profile;
    use crate::directory::profile::tests::{entry, said};

    #[test]
    fn entries_become_recipients() {
        let (mail, server) = (("mail", "a@contoso.com"), ("mailServer", "CN=MAIL1,O=Contoso"));
        let system = |value: &'static str| ("mailSystem", value);
        let class = |value: &'static str| ("objectClass", value);
        let group = |value: &'static str| ("groupType", value);
        let away = |value: &'static str| ("mailAddress", value);
        for (attributes, expected) in [
            (&[mail, server][..], "mailbox on mail1"),
            (&[mail, server, system("1")], "mailbox on mail1"),
            (&[mail, system("6")], "mailbox"),
            (&[mail, server, system("100")], "no-mailbox on mail1"),
            (&[mail, system("5")], "unavailable"),
            (&[mail, system("3")], "unavailable"),
            (&[mail, server, system("5")], "unavailable"),
            (&[mail], "no-mailbox"),
            (&[("internetAddress", "A@contoso.com"), system("1")], "mailbox"),
            (&[("uid", "a@contoso.com"), system("1")], "mailbox"),
            (&[("uid", "a"), ("mail", "ann@contoso.com"), system("1")], "mailbox"),
            (&[("uid", "a"), ("mail", "ann@contoso.net"), system("1")], "not found"),
            (&[("uid", "a"), system("1")], "not found"),
            (&[mail, system("5"), away("a@other.example")], "mail-user for a@other.example"),
            (&[mail, system("1"), away("a@other.example")], "mail-user for a@other.example"),
            (&[mail, system("1"), away("a@contoso.com")], "mailbox"),
            (&[mail, system("1"), away("Ann Lee/Contoso@Contoso")], "mailbox"),
            (&[mail, system("1"), away("Ann Lee")], "mailbox"),
            (&[mail, system("3"), away("Ann Lee/Contoso@Contoso")], "mail-user"),
            (&[mail, system("5"), away("a@contoso.com")], "no-mailbox"),
            (&[mail, system("3"), away("SMTP:A@Contoso.com")], "no-mailbox"),
            (&[mail, server, system("5"), away("a@contoso.com")], "no-mailbox on mail1"),
            (&[mail, system("5"), away(" ")], "unavailable"),
            (&[mail, system("5"), away("@contoso.com")], "unavailable"),
            (&[mail, class("dominoGroup")], "group"),
            (&[mail, class("dominoGroup"), group("0")], "group"),
            (&[mail, class("dominoGroup"), group("1")], "group"),
            (&[mail, class("dominoGroup"), group("3")], "no-mailbox"),
            (&[mail, class("dominoServerMailInDatabase"), server], "mailbox on mail1"),
        ] {
            let entries = [entry("CN=a", attributes)];
            assert_eq!(said(&Profile::Domino, &entries, DisabledAccounts::Accepted), expected, "{attributes:?}");
        }
        let (whole, short) = (entry("CN=a", &[mail, system("1")]), [("uid", "a"), ("mail", "ann@contoso.com"), server]);
        let both = [entry("CN=b", &short), whole];
        assert_eq!(said(&Profile::Domino, &both, DisabledAccounts::Accepted), "mailbox", "the whole address decides");
    }

    #[test]
    fn servers_are_named_in_three_ways() {
        for written in ["CN=MAIL1,O=Contoso", "CN=Mail1/O=Contoso", "Mail1/Contoso", "mail1"] {
            assert_eq!(common_name(written).as_deref(), Some("mail1"), "{written}");
        }
        assert_eq!(common_name(""), None);
    }
}
