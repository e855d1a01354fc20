//! What the attributes of a directory mean: one small set of rules for each profile (DESIGN section 5,
//! "what counts as found"). Pure.
//!
//! `ldap` asks with [`Profile::filter`] and [`Profile::attributes`], and hands what came back to [`Profile::judge`].

use std::borrow::Cow;
use std::collections::HashMap;

use crate::config::Profile;
use crate::directory::filter::Filter;
use crate::directory::known::{self, Claim, Id, Known, Strength};
use crate::recipient::{Kind, Lookup};
use crate::smtp::address::Address;

mod active_directory;
mod openldap;
mod recipient_type;

/// One entry that a search returned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its distinguished name.
    pub dn: String,
    /// What the directory knows it by, whatever it is called; empty where it was not asked for that.
    pub id: Vec<u8>,
    /// Values by lower-case attribute name without options. Values that are not UTF-8 are left out.
    attributes: HashMap<String, Vec<String>>,
    /// What to ask for next where the server did not return all values of an attribute at once.
    rest: Vec<String>,
}

/// Whether disabled accounts receive mail (`refuse_disabled`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisabledAccounts {
    /// Like any other.
    Accepted,
    /// As good as not found.
    Refused,
}

/// What the entries say of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The answer.
    pub lookup: Lookup,
    /// The entry's recipient type and its attributes contradict each other; the type decided. For the log.
    pub at_odds: Option<String>,
}

/// The kind of recipient that Exchange calls so (`RecipientTypeDetails`), where it is known.
pub(super) fn kind_of_recipient_type(name: &str) -> Option<Kind> {
    recipient_type::named(name).map(|recipient_type| recipient_type.kind)
}

/// Why an entry cannot be judged; the answer is then `Unavailable`.
struct Unclear(String);

impl Profile {
    /// The attributes that [`Profile::judge`] looks at.
    #[must_use]
    pub fn attributes(self) -> &'static [&'static str] {
        match self {
            Self::ActiveDirectory => active_directory::ATTRIBUTES,
            Self::Openldap => openldap::ATTRIBUTES,
        }
    }

    /// A filter for the entries that may own one of these addresses. It may find more than own them:
    /// directories ignore accents and width.
    #[must_use]
    pub fn filter<'a>(self, addresses: impl IntoIterator<Item = &'a Address>) -> Filter {
        let mut filters = Vec::new();
        for text in addresses.into_iter().flat_map(spellings) {
            match self {
                Self::ActiveDirectory => filters.extend(active_directory::filters(&text)),
                Self::Openldap => filters.extend(openldap::filters(&text)),
            }
        }
        Filter::Any(filters)
    }

    /// A filter for every entry that may own an address.
    #[must_use]
    pub fn everybody(self) -> Filter {
        Filter::Any(match self {
            Self::ActiveDirectory => active_directory::ADDRESSES.map(Filter::Present).into(),
            Self::Openldap => openldap::ADDRESSES.map(Filter::Present).into(),
        })
    }

    /// A filter for the entry of somebody who logs in with this name: an address, or what the directory calls it.
    #[must_use]
    pub fn login_filter(self, name: &str) -> Filter {
        let names = match self {
            // DOMAIN\name is how Windows writes it.
            Self::ActiveDirectory => {
                let account = name.rsplit_once('\\').map_or(name, |(_, account)| account);
                vec![Filter::equals("sAMAccountName", account), Filter::equals("userPrincipalName", name)]
            }
            Self::Openldap => vec![Filter::equals("uid", name)],
        };
        match Address::parse(name) {
            Ok(address) => Filter::Any(names.into_iter().chain([self.filter([&address])]).collect()),
            Err(_) => Filter::Any(names),
        }
    }

    /// What the entries say of the address.
    #[must_use]
    pub fn judge(self, entries: &[Entry], address: &Address, disabled: DisabledAccounts) -> Judgement {
        let known: Vec<Known> = entries.iter().map(|entry| self.know(entry, disabled)).collect();
        let key = self.key(address);
        let at_odds = match known::owners(&known, &key).as_slice() {
            [Known { meaning: Ok(meaning), .. }] => meaning.at_odds.clone(),
            _ => None,
        };
        Judgement { lookup: known::lookup(&known, &key), at_odds }
    }

    /// An entry as far as mail goes: all addresses that it claims, and what it means for mail to any of them.
    #[must_use]
    pub fn know(self, entry: &Entry, disabled: DisabledAccounts) -> Known {
        let (claims, meaning) = match self {
            Self::ActiveDirectory => (active_directory::claims(entry), active_directory::meaning(entry, disabled)),
            Self::Openldap => (openldap::claims(entry), openldap::meaning(entry, disabled)),
        };
        let id = if entry.id.is_empty() { Id::of(entry.dn.to_lowercase().as_bytes()) } else { Id::of(&entry.id) };
        Known { id, dn: entry.dn.clone(), claims, meaning: meaning.map_err(|Unclear(cause)| cause) }
    }

    /// What entries claim the address by ([`Claim::key`]).
    #[must_use]
    pub fn key(self, address: &Address) -> Cow<'_, str> {
        match self {
            Self::ActiveDirectory | Self::Openldap => Cow::Borrowed(address.key()),
        }
    }
}

impl Entry {
    /// An entry without attributes.
    #[must_use]
    pub fn new(dn: impl Into<String>) -> Self {
        Self { dn: dn.into(), ..Self::default() }
    }

    /// Adds an attribute as the server returned it: the name in any case and with options (RFC 4512 2.5.2).
    pub fn add(&mut self, description: &str, values: impl IntoIterator<Item = String>) {
        let (name, options) = description.split_once(';').unwrap_or((description, ""));
        if let Some((_, last)) = options.to_ascii_lowercase().strip_prefix("range=").and_then(|r| r.split_once('-')) {
            let next = last.parse::<u64>().ok().map(|last| format!("{name};range={}-*", last.saturating_add(1)));
            self.rest.extend(next);
        }
        self.attributes.entry(name.to_ascii_lowercase()).or_default().extend(values);
    }

    /// What to ask for next where the server kept values back.
    #[must_use]
    pub fn rest(&self) -> Option<String> {
        self.rest.last().cloned()
    }

    /// Takes the values in that were kept back.
    pub fn add_rest(&mut self, more: Self) {
        for (name, values) in more.attributes {
            self.attributes.entry(name).or_default().extend(values);
        }
        self.rest.pop();
        self.rest.extend(more.rest);
    }

    /// The attribute's values; the name in lower case.
    pub(super) fn values(&self, name: &str) -> &[String] {
        debug_assert_eq!(name, name.to_ascii_lowercase(), "attribute names are kept in lower case");
        self.attributes.get(name).map_or(&[], Vec::as_slice)
    }

    pub(super) fn first(&self, name: &str) -> Option<&str> {
        self.values(name).first().map(String::as_str)
    }

    fn has(&self, name: &str) -> bool {
        !self.values(name).is_empty()
    }

    /// Whether it has one of these object classes, given in lower case.
    fn has_class(&self, classes: &[&str]) -> bool {
        self.values("objectclass").iter().any(|class| classes.contains(&class.to_ascii_lowercase().as_str()))
    }

    /// Puts the attribute's values that are addresses among the claims.
    fn claim(&self, name: &str, strength: Strength, claims: &mut Vec<Claim>) {
        for address in self.values(name).iter().filter_map(|value| Address::parse(value.trim()).ok()) {
            known::claim(claims, address.key(), strength);
        }
    }

    /// The one target address that the attribute holds, with or without `SMTP:`.
    fn target(&self, name: &str) -> Result<Option<Address>, Unclear> {
        let targets = self.values(name);
        let (first, others) = match targets {
            [] => return Ok(None),
            [first, others @ ..] => (first, others),
        };
        let written = without_smtp(first).unwrap_or(first).trim();
        match Address::parse(written) {
            Ok(target) if others.is_empty() => Ok(Some(target)),
            Ok(_) => Err(Unclear(format!("{name} has {} values", targets.len()))),
            Err(error) => Err(Unclear(format!("{name} `{first}` is no SMTP address: {error}"))),
        }
    }
}

/// How the address may stand in the directory: with the domain's A-labels and, where that differs, its U-labels.
fn spellings(address: &Address) -> Vec<String> {
    let mut spellings = vec![address.key().to_owned()];
    let (unicode, valid) = idna::domain_to_unicode(address.domain().as_str());
    if valid.is_ok() && unicode != address.domain().as_str() {
        spellings.push(format!("{}@{unicode}", address.local_key()));
    }
    spellings
}

/// What stands behind `smtp:`, in any case.
fn without_smtp(value: &str) -> Option<&str> {
    match value.split_at_checked(5) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("smtp:") => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn filters_ask_for_every_address_in_every_spelling() {
        let (a, b) = (address("Alice@contoso.com"), address("u@bücher.example"));
        for (profile, written) in [
            (
                Profile::ActiveDirectory,
                "(|(proxyAddresses=smtp:alice@contoso.com)(mail=alice@contoso.com)\
                 (proxyAddresses=smtp:u@xn--bcher-kva.example)(mail=u@xn--bcher-kva.example)\
                 (proxyAddresses=smtp:u@b\\c3\\bccher.example)(mail=u@b\\c3\\bccher.example))",
            ),
            (
                Profile::Openldap,
                "(|(mail=alice@contoso.com)(mailAlternateAddress=alice@contoso.com)\
                 (mailLocalAddress=alice@contoso.com)(mail=u@xn--bcher-kva.example)\
                 (mailAlternateAddress=u@xn--bcher-kva.example)(mailLocalAddress=u@xn--bcher-kva.example)\
                 (mail=u@b\\c3\\bccher.example)(mailAlternateAddress=u@b\\c3\\bccher.example)\
                 (mailLocalAddress=u@b\\c3\\bccher.example))",
            ),
        ] {
            assert_eq!(profile.filter([&a, &b]).to_string(), written);
        }
    }

    #[test]
    fn who_logs_in_is_looked_for_by_every_name_of_theirs() {
        for (profile, name, written) in [
            (Profile::Openldap, "ann", "(|(uid=ann))"),
            (Profile::Openldap, "a)(uid=*", "(|(uid=a\\29\\28uid\\3d\\2a))"),
            (
                Profile::Openldap,
                "ann@a.b",
                "(|(uid=ann@a.b)(|(mail=ann@a.b)(mailAlternateAddress=ann@a.b)(mailLocalAddress=ann@a.b)))",
            ),
            (Profile::ActiveDirectory, "CONTOSO\\ann", "(|(sAMAccountName=ann)(userPrincipalName=CONTOSO\\5cann))"),
            (
                Profile::ActiveDirectory,
                "ann@a.b",
                "(|(sAMAccountName=ann@a.b)(userPrincipalName=ann@a.b)(|(proxyAddresses=smtp:ann@a.b)(mail=ann@a.b)))",
            ),
        ] {
            assert_eq!(profile.login_filter(name).to_string(), written);
        }
    }
}
