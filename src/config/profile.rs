//! `profile` of an LDAP directory, and the further keys of the profile `custom`.

use std::sync::Arc;

use super::reader::Reader;
use super::value_error::ValueError;
use super::{CustomProfile, LdapConfig, Profile};
use crate::routing::table::PlusAddressing;

pub(super) fn read(reader: &mut Reader<'_>) -> Profile {
    let words = [
        ("active-directory", Profile::ActiveDirectory),
        ("active-directory-synced", Profile::ActiveDirectorySynced),
        ("openldap", Profile::Openldap),
        ("groupwise", Profile::GroupWise),
        ("kerio", Profile::Kerio),
        ("open-directory", Profile::OpenDirectory),
        ("domino", Profile::Domino),
        ("zimbra", Profile::Zimbra),
        ("custom", Profile::Custom(Arc::default())),
    ];
    match reader.choice("profile", &words) {
        Some(Profile::Custom(_)) => Profile::Custom(Arc::new(custom(reader))),
        Some(profile) => profile,
        None => Profile::ActiveDirectory,
    }
}

/// The default: Exchange has no subaddresses unless configured; servers used with OpenLDAP (Postfix, Dovecot, Cyrus),
/// Exchange Online and Google have them.
pub(super) fn plus_addressing_of(profile: &Profile) -> PlusAddressing {
    match profile {
        Profile::Openldap | Profile::ActiveDirectorySynced => PlusAddressing::Keep,
        _ => PlusAddressing::Off,
    }
}

/// Reports keys that the profile does not use.
pub(super) fn check(reader: &mut Reader<'_>, config: &LdapConfig) {
    let own = match &config.profile {
        Profile::Custom(own) => Some(own),
        _ => None,
    };
    // Changes are followed entry by entry, and only the server can tell whether an entry still matches a filter.
    if config.is_snapshot() && own.is_some_and(|own| own.filter.is_some()) {
        reader.problem("filter", "only for mode = \"lookup\"; write that too, or leave the filter out");
    }
    if config.refuse_disabled && (own.is_some() || config.profile == Profile::Domino) {
        reader.problem("refuse_disabled", "this profile does not know whose account is disabled; leave it out");
    }
    // A shared mailbox has a disabled account as well, and cannot be told from a disabled user.
    if config.refuse_disabled && config.profile == Profile::ActiveDirectorySynced {
        let message =
            "this profile cannot tell a leaver's account from a shared mailbox's, which is disabled too; leave it out";
        reader.problem("refuse_disabled", message);
    }
    let knows_servers = ![Profile::Kerio, Profile::ActiveDirectorySynced].contains(&config.profile)
        && own.is_none_or(|own| own.mail_server.is_some());
    if reader.has("mailbox_servers") && !knows_servers {
        let cure = if own.is_some() { "name their attribute in `attributes`" } else { "leave it out" };
        reader.problem("mailbox_servers", &format!("this profile knows no mail servers; {cure}"));
    }
}

fn custom(reader: &mut Reader<'_>) -> CustomProfile {
    reader.require("attributes", "name the attributes with addresses, such as { addresses = [\"mail\"] }");
    let filter = reader.optional("filter", filter);
    let written = reader.has("attributes");
    let mut reader = reader.inner("directory.attributes");
    if written {
        reader.require("addresses", "name the attributes whose values are addresses, such as [\"mail\"]");
        reader.require_some("addresses", "name at least one attribute");
    }
    CustomProfile {
        addresses: reader.list("addresses", attribute).unwrap_or_default(),
        fallback: reader.list("fallback", attribute).unwrap_or_default(),
        prefix: reader.optional("prefix", prefix),
        target: reader.optional("target", attribute),
        mail_server: reader.optional("mail_server", attribute),
        login: reader.list("login", attribute).unwrap_or_else(|| vec!["uid".to_owned()]),
        groups: reader.list("groups", attribute).unwrap_or_default(),
        filter,
    }
}

/// The name of an attribute or object class, in lower case (RFC 4512 1.4: `keystring`).
fn attribute(text: &str) -> Result<String, ValueError> {
    let known = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(known) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("`{text}` is not the name of an attribute or class; it has letters, digits and -, a letter first")
        .into())
}

/// The prefix of a value before the address: `smtp:`.
fn prefix(text: &str) -> Result<String, ValueError> {
    let kind = text.strip_suffix(':').unwrap_or_default();
    if !kind.is_empty() && kind.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is no prefix of addresses; it has letters and digits and ends with a colon, such as smtp:")
        .into())
}

/// A complete filter, which can be combined with another.
fn filter(text: &str) -> Result<String, ValueError> {
    let text = text.trim();
    // The parser also accepts a filter without parentheses.
    let whole = text.starts_with('(') && text.ends_with(')') && ldap3::parse_filter(text).is_ok();
    if whole {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not an LDAP filter such as (objectClass=person)").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_attributes_have_one_form() {
        assert_eq!(attribute("rfc822MailMember").as_deref(), Ok("rfc822mailmember"));
        assert_eq!(attribute("kerio-Mail-Address").as_deref(), Ok("kerio-mail-address"));
        for text in ["", "1mail", "-mail", "mail;lang-en", "mail)(uid", "mail=*", "ma il", "2.5.4.3", "größe"] {
            assert!(attribute(text).is_err(), "{text}");
        }
    }

    #[test]
    fn filters_are_whole() {
        for text in ["(objectClass=person)", " (&(a=b)(!(c=d))) ", "(|(a=b*c)(a=*))", "(a=\\2a)", "(a>=3)"] {
            assert_eq!(filter(text).as_deref(), Ok(text.trim()));
        }
        for text in
            ["", "objectClass=person", "(a=b)(c=d)", "(a=b", "a=b)", "(a=b))(|(c=d)", "((a=b))", "(a=\\zz)", "()"]
        {
            assert!(filter(text).is_err(), "{text}");
        }
    }
}
