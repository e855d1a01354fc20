//! The operator's own attributes and filter (`profile = "custom"`).

use super::entry::without_prefix;
use super::{Attributes, DisabledAccounts, Entry, Rules, Unclear, away, plain_meaning, spellings};
use crate::config::CustomProfile;
use crate::directory::filter::Filter;
use crate::directory::known::{self, Claim, Meaning, Strength};
use crate::lookup::Kind;
use crate::smtp::address::Address;

impl Rules for CustomProfile {
    fn attributes(&self) -> Attributes<'_> {
        let addresses: Vec<&str> = self.addresses.iter().chain(&self.fallback).map(String::as_str).collect();
        let others = [&self.target, &self.mail_server].into_iter().filter_map(Option::as_deref);
        let read = std::iter::once("objectClass").chain(addresses.iter().copied()).chain(others).collect();
        let logins = self.login.iter().map(String::as_str).collect();
        Attributes { read, addresses: addresses.into(), logins, ..Attributes::default() }
    }

    /// If there is a prefix, values with it are searched for as well, in upper and lower case, which servers may
    /// distinguish.
    fn filters(&self, address: &Address) -> Vec<Filter<'_>> {
        let mut prefixes = vec![String::new()];
        if let Some(prefix) = &self.prefix {
            prefixes.extend([prefix.to_ascii_lowercase(), prefix.to_ascii_uppercase()]);
        }
        let written =
            |text: &String| prefixes.iter().map(|prefix| [prefix, text.as_str()].concat()).collect::<Vec<_>>();
        let texts: Vec<String> = spellings(address).iter().flat_map(written).collect();
        let (texts, names) = (&texts, self.attributes().addresses);
        texts.iter().flat_map(|text| names.iter().map(move |name| Filter::equals(name, text.clone()))).collect()
    }

    fn claims(&self, entry: &Entry) -> Vec<Claim> {
        let mut claims = Vec::new();
        for (names, strength) in [(&self.addresses, Strength::Certain), (&self.fallback, Strength::Fallback)] {
            for value in names.iter().flat_map(|name| entry.values(name)) {
                let value = value.trim();
                let bare = self.prefix.as_ref().and_then(|prefix| without_prefix(value, prefix)).unwrap_or(value);
                if let Ok(address) = Address::parse(bare.trim()) {
                    known::claim(&mut claims, address.key(), strength);
                }
            }
        }
        claims
    }

    /// Disabled accounts are unknown: the operator's filter has to exclude them.
    fn meaning(&self, entry: &Entry, _: DisabledAccounts) -> Result<Meaning, Unclear> {
        let classes: Vec<&str> = self.groups.iter().map(String::as_str).collect();
        let target = match &self.target {
            Some(name) => entry.other_target(name, &self.claims(entry))?.map(|target| (name, target)),
            None => None,
        };
        let meaning = match target {
            Some((name, target)) => away(Kind::MailUser, target, name),
            None if entry.has_class(&classes) => plain_meaning(Kind::Group, None, "a group's objectClass"),
            None => plain_meaning(Kind::Mailbox, None, "an entry with the address"),
        };
        Ok(Meaning { mail_server: self.mail_server.as_deref().and_then(|name| entry.server(name)), ..meaning })
    }

    fn narrowed<'a>(&'a self, filter: Filter<'a>) -> Filter<'a> {
        match &self.filter {
            Some(written) => Filter::Narrowed(written, Box::new(filter)),
            None => filter,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Profile;
    use crate::directory::profile::tests::{entry, said};

    fn profile() -> CustomProfile {
        CustomProfile {
            addresses: vec!["mail".to_owned(), "alias".to_owned()],
            fallback: vec!["contact".to_owned()],
            prefix: None,
            target: Some("forward".to_owned()),
            mail_server: Some("store".to_owned()),
            login: vec!["uid".to_owned()],
            groups: vec!["list".to_owned()],
            filter: Some("(objectClass=person)".to_owned()),
        }
    }

    #[test]
    fn entries_are_read_with_the_operators_attributes() {
        let own = Profile::Custom(Arc::new(profile()));
        let (mail, group) = (("mail", "a@contoso.com"), ("objectClass", "List"));
        for (attributes, expected) in [
            (&[mail][..], "mailbox"),
            (&[("alias", "A@contoso.com")], "mailbox"),
            (&[("contact", "a@contoso.com")], "mailbox"),
            (&[("mail", "b@contoso.com")], "not found"),
            (&[mail, ("store", "MBX1")], "mailbox on mbx1"),
            (&[mail, ("forward", "a@other.example")], "mail-user for a@other.example"),
            (&[mail, ("forward", "smtp:a@other.example")], "mail-user for a@other.example"),
            (&[mail, ("forward", "a@contoso.com")], "mailbox"),
            (&[mail, ("forward", "nowhere")], "unavailable"),
            (&[mail, ("forward", "NOTES:Ann Lee/Contoso@Contoso")], "mail-user"),
            (&[mail, group], "group"),
        ] {
            let entries = [entry("uid=a", attributes)];
            assert_eq!(said(&own, &entries, DisabledAccounts::Refused), expected, "{attributes:?}");
        }
        let (first, second) = (entry("uid=a", &[mail]), entry("uid=b", &[("contact", "a@contoso.com")]));
        assert_eq!(said(&own, &[second, first], DisabledAccounts::Accepted), "mailbox");
    }

    #[test]
    fn values_may_begin_with_a_prefix() {
        let prefixed =
            CustomProfile { prefix: Some("SMTP:".to_owned()), filter: None, fallback: Vec::new(), ..profile() };
        let own = Profile::Custom(Arc::new(prefixed));
        for (value, expected) in [
            ("SMTP:a@contoso.com", "mailbox"),
            ("smtp: A@contoso.com", "mailbox"),
            ("a@contoso.com", "mailbox"),
            ("sip:a@contoso.com", "not found"),
            ("X400:a@contoso.com", "not found"),
            ("smtp:smtp:a@contoso.com", "not found"),
        ] {
            assert_eq!(
                said(&own, &[entry("uid=a", &[("alias", value)])], DisabledAccounts::Accepted),
                expected,
                "{value}"
            );
        }
        let without = Profile::Custom(Arc::new(profile()));
        let value = [entry("uid=a", &[("alias", "SMTP:a@contoso.com")])];
        assert_eq!(said(&without, &value, DisabledAccounts::Accepted), "not found");
        let address = Address::parse("a@b.c").unwrap();
        assert_eq!(
            own.filter([&address]).to_string(),
            "(|(mail=a@b.c)(alias=a@b.c)(mail=smtp:a@b.c)(alias=smtp:a@b.c)(mail=SMTP:a@b.c)(alias=SMTP:a@b.c))"
        );
    }

    #[test]
    fn the_operators_filter_binds_every_search() {
        let mut own = profile();
        own.fallback.clear();
        let narrowed = Profile::Custom(Arc::new(own.clone()));
        let address = crate::smtp::address::Address::parse("a*@b.c").unwrap();
        let ours = "(|(mail=a\\2a@b.c)(alias=a\\2a@b.c))";
        assert_eq!(narrowed.filter([&address]).to_string(), format!("(&(objectClass=person){ours})"));
        assert_eq!(narrowed.everybody().to_string(), "(&(objectClass=person)(|(mail=*)(alias=*)))");
        assert_eq!(narrowed.login_filter("ann").to_string(), "(&(objectClass=person)(|(uid=ann)))");
        own.filter = None;
        assert_eq!(Profile::Custom(Arc::new(own)).filter([&address]).to_string(), ours);
    }
}
