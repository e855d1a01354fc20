//! Interprets the attributes of a directory, by one small set of rules for each profile (DESIGN section 5, "what counts
//! as found"). Pure.
//!
//! `ldap` searches with [`Profile::filter`] and [`Profile::attributes`], and passes the entries to [`Profile::judge`].
//! Each profile has a file in `profile/`: a table of attributes, and its `Rules`.

use std::borrow::Cow;

use crate::config::Profile;
use crate::directory::filter::Filter;
use crate::directory::known::{self, Claim, Id, Known, Meaning, Strength};
use crate::lookup::{Kind, Lookup};
use crate::smtp::address::Address;

mod active_directory;
mod active_directory_synced;
mod custom;
mod domino;
mod entry;
mod groupwise;
mod kerio;
mod legacy_name;
mod open_directory;
mod openldap;
mod recipient_type;
mod zimbra;

pub use entry::Entry;
use entry::Target;
pub(super) use entry::other_kind;

/// `refuse_disabled`: whether disabled accounts receive mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisabledAccounts {
    Accepted,
    /// They count as not found.
    Refused,
}

/// The answer of entries about an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub lookup: Lookup,
    /// The contradiction between the entry's recipient type and its attributes, for the log; the type was used.
    pub at_odds: Option<String>,
    pub known: Vec<Known>,
}

/// Our kind for Exchange's `RecipientTypeDetails` of this name; `None`: unknown.
pub(super) fn kind_of_recipient_type(name: &str) -> Option<Kind> {
    recipient_type::named(name).map(|recipient_type| recipient_type.kind)
}

/// Why an entry cannot be interpreted; the answer is then `Unavailable`.
struct Unclear(String);

/// A profile's attributes, by what they are for.
#[derive(Default)]
struct Attributes<'a> {
    /// All that are read.
    read: Cow<'a, [&'a str]>,
    /// Those whose values are addresses.
    addresses: Cow<'a, [&'a str]>,
    /// Those with login names, beside addresses.
    logins: Cow<'a, [&'a str]>,
    /// The one with local parts that are valid in the domains of the entry's addresses ([`Entry::claim_short_names`]).
    short_names: Option<&'a str>,
    /// Those of which each possible owner of an address has at least one; empty: `addresses`.
    marks: Cow<'a, [&'a str]>,
    /// Those by which entries are found; empty: `marks`. If no entry shows one of them, "not found" is not believed.
    found_by: Cow<'a, [&'a str]>,
    /// Those that tell recipients from other entries. If no entry shows one of them, `no-mailbox` is not believed.
    kinds_by: Cow<'a, [&'a str]>,
}

impl<'a> Attributes<'a> {
    fn marks(&self) -> &[&'a str] {
        if self.marks.is_empty() { &self.addresses } else { &self.marks }
    }

    fn found_by(&self) -> &[&'a str] {
        if self.found_by.is_empty() { self.marks() } else { &self.found_by }
    }
}

/// What a profile defines.
trait Rules {
    fn attributes(&self) -> Attributes<'_>;

    /// The addresses that an entry claims.
    fn claims(&self, entry: &Entry) -> Vec<Claim> {
        let attributes = self.attributes();
        let mut claims = entry.claims(&attributes.addresses, Strength::Certain);
        if let Some(name) = attributes.short_names {
            entry.claim_short_names(name, &mut claims);
        }
        claims
    }

    /// Its kind and target.
    fn meaning(&self, entry: &Entry, disabled: DisabledAccounts) -> Result<Meaning, Unclear>;

    /// Filters for entries that may own the address; any may match.
    fn filters(&self, address: &Address) -> Vec<Filter<'_>> {
        let (texts, attributes) = (spellings(address), self.attributes());
        let names = &attributes.addresses;
        let whole = texts.iter().flat_map(|text| names.iter().map(|name| Filter::equals(name, text.as_str())));
        whole.chain(attributes.short_names.map(|name| Filter::equals(name, address.local_key()))).collect()
    }

    /// Filters for the entry with this login name; any may match.
    fn login_filters(&self, name: &str) -> Vec<Filter<'_>> {
        self.attributes().logins.iter().map(|attribute| Filter::equals(attribute, name)).collect()
    }

    /// The key that entries claim the address by.
    fn key<'a>(&self, address: &'a Address) -> Cow<'a, str> {
        Cow::Borrowed(address.key())
    }

    /// Whether entries may claim this text, which is not an address, beside short names.
    fn is_name(&self, _: &str) -> bool {
        false
    }

    /// Combines a filter with the operator's own.
    fn narrowed<'a>(&'a self, filter: Filter<'a>) -> Filter<'a> {
        filter
    }
}

impl Profile {
    fn rules(&self) -> &dyn Rules {
        match self {
            Self::ActiveDirectory => &active_directory::ActiveDirectory,
            Self::ActiveDirectorySynced => &active_directory_synced::ActiveDirectorySynced,
            Self::Openldap => &openldap::Openldap,
            Self::GroupWise => &groupwise::GroupWise,
            Self::Kerio => &kerio::Kerio,
            Self::OpenDirectory => &open_directory::OpenDirectory,
            Self::Domino => &domino::Domino,
            Self::Zimbra => &zimbra::Zimbra,
            Self::Custom(own) => &**own,
        }
    }

    /// The attributes that [`Profile::judge`] needs.
    #[must_use]
    pub fn attributes(&self) -> Vec<&str> {
        self.rules().attributes().read.into_owned()
    }

    /// A filter for the entries that may own one of these addresses. It may find more: directories ignore accents and
    /// width.
    #[must_use]
    pub fn filter<'a>(&self, addresses: impl IntoIterator<Item = &'a Address>) -> Filter<'_> {
        let rules = self.rules();
        rules.narrowed(Filter::Any(addresses.into_iter().flat_map(|address| rules.filters(address)).collect()))
    }

    /// One filter for each attribute.
    #[must_use]
    pub fn each_filter(&self, address: &Address) -> Vec<Filter<'_>> {
        let rules = self.rules();
        rules.filters(address).into_iter().map(|filter| rules.narrowed(filter)).collect()
    }

    /// A filter for every entry that may own an address.
    #[must_use]
    pub fn everybody(&self) -> Filter<'_> {
        let rules = self.rules();
        rules.narrowed(Filter::Any(rules.attributes().marks().iter().copied().map(Filter::Present).collect()))
    }

    /// Attributes of which some entry has to show at least one before "not found" is believed.
    #[must_use]
    pub fn found_by(&self) -> Vec<&str> {
        self.rules().attributes().found_by().to_vec()
    }

    /// The same for an entry without mailbox and target.
    #[must_use]
    pub fn kinds_by(&self) -> Vec<&str> {
        self.rules().attributes().kinds_by.into_owned()
    }

    /// A filter for the entry with this login name: an address, or the directory's own name.
    #[must_use]
    pub fn login_filter(&self, name: &str) -> Filter<'_> {
        let rules = self.rules();
        let mut filters = rules.login_filters(name);
        if let Ok(address) = Address::parse(name) {
            filters.extend(rules.filters(&address));
        }
        rules.narrowed(Filter::Any(filters))
    }

    /// The answer of the entries about the address.
    #[must_use]
    pub fn judge(&self, entries: &[Entry], address: &Address, disabled: DisabledAccounts) -> Judgement {
        let known: Vec<Known> = entries.iter().map(|entry| self.know(entry, disabled)).collect();
        let key = self.key(address);
        let at_odds = match known::owners(&known, &key).as_slice() {
            [Known { meaning: Ok(meaning), .. }] => meaning.at_odds.clone(),
            _ => None,
        };
        Judgement { lookup: known::lookup(&known, &key), at_odds, known }
    }

    /// Interprets an entry: its addresses, kind and target.
    #[must_use]
    pub fn know(&self, entry: &Entry, disabled: DisabledAccounts) -> Known {
        let rules = self.rules();
        let meaning = rules.meaning(entry, disabled).map_err(|Unclear(cause)| cause);
        let id = if entry.id.is_empty() { Id::of(entry.dn.to_lowercase().as_bytes()) } else { Id::of(&entry.id) };
        Known { id, dn: entry.dn.clone(), claims: rules.claims(entry), meaning }
    }

    /// The key that entries claim the address by ([`Claim::key`]).
    #[must_use]
    pub fn key<'a>(&self, address: &'a Address) -> Cow<'a, str> {
        self.rules().key(address)
    }

    /// Whether this text, which is not an address, has the form of a name that entries claim beside their addresses:
    /// Exchange's legacy names.
    #[must_use]
    pub fn is_name(&self, text: &str) -> bool {
        self.rules().is_name(text)
    }
}

/// A meaning without mail server and contradiction.
fn plain_meaning(kind: Kind, target: Option<Address>, rule: &str) -> Meaning {
    Meaning { kind, target, mail_server: None, rule: rule.to_owned(), at_odds: None }
}

/// The meaning of an entry with a target. A target that is not an SMTP address is left to the entry's own system.
fn away(kind: Kind, target: Target, rule: &str) -> Meaning {
    match target {
        Target::Address(target) => plain_meaning(kind, Some(target), rule),
        Target::OtherKind(other) => {
            let rule = format!("{rule}, a target of kind {other}: its own system has the connector");
            plain_meaning(kind, None, &rule)
        }
    }
}

/// The forms in which the directory may have the address: with the domain as A-labels, and as U-labels if they differ.
fn spellings(address: &Address) -> Vec<String> {
    let mut spellings = vec![address.key().to_owned()];
    let (unicode, valid) = idna::domain_to_unicode(address.domain().as_str());
    if valid.is_ok() && unicode != address.domain().as_str() {
        spellings.push(format!("{}@{unicode}", address.local_key()));
    }
    spellings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    /// An entry with these values.
    pub(super) fn entry(dn: &str, attributes: &[(&str, &str)]) -> Entry {
        let mut entry = Entry::new(dn);
        attributes.iter().for_each(|(name, value)| entry.add(name, [(*value).to_owned()]));
        entry
    }

    /// The answer of the entries about `a@contoso.com`, as text for tables.
    pub(super) fn said(profile: &Profile, entries: &[Entry], disabled: DisabledAccounts) -> String {
        match profile.judge(entries, &address("a@contoso.com"), disabled).lookup {
            Lookup::Found(found) => {
                let target = found.target.as_ref().map(|target| format!(" for {target}")).unwrap_or_default();
                let server = found.mail_server.as_ref().map(|server| format!(" on {server}")).unwrap_or_default();
                format!("{}{target}{server}", found.kind.as_str())
            }
            Lookup::NotFound => "not found".to_owned(),
            Lookup::Ambiguous(_) => "ambiguous".to_owned(),
            Lookup::Unavailable(_) => "unavailable".to_owned(),
            Lookup::AcceptsEverything(_) | Lookup::Held(_) => unreachable!("nothing in an entry says so"),
        }
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
                "(|(uid=ann@a.b)(mail=ann@a.b)(mailAlternateAddress=ann@a.b)(mailLocalAddress=ann@a.b))",
            ),
            (Profile::ActiveDirectory, "CONTOSO\\ann", "(|(sAMAccountName=ann)(userPrincipalName=CONTOSO\\5cann))"),
            (
                Profile::ActiveDirectory,
                "ann@a.b",
                "(|(sAMAccountName=ann@a.b)(userPrincipalName=ann@a.b)(proxyAddresses=smtp:ann@a.b)(mail=ann@a.b))",
            ),
        ] {
            assert_eq!(profile.login_filter(name).to_string(), written);
        }
    }
}
