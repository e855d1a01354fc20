//! An entry as a search returned it, and functions for profiles to read its attributes. Pure.

use std::collections::{BTreeSet, HashMap};

use super::Unclear;
use crate::directory::known::{self, Claim, Strength};
use crate::smtp::address::Address;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    pub dn: String,
    /// The directory's own identifier; empty if it was not requested.
    pub id: Vec<u8>,
    /// Values by attribute name in lower case without options. Values that are not UTF-8 are left out.
    attributes: HashMap<String, Vec<String>>,
    /// The next ranges to request of attributes that the server returned in part.
    rest: Vec<String>,
}

impl Entry {
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

    /// The next range to request, if the server returned an attribute in part.
    #[must_use]
    pub fn rest(&self) -> Option<String> {
        self.rest.last().cloned()
    }

    /// Adds further values of such attributes.
    pub fn add_rest(&mut self, more: Self) {
        for (name, values) in more.attributes {
            self.attributes.entry(name).or_default().extend(values);
        }
        self.rest.pop();
        self.rest.extend(more.rest);
    }

    /// The values of an attribute; its name in lower case.
    pub(in crate::directory) fn values(&self, name: &str) -> &[String] {
        debug_assert_eq!(name, name.to_ascii_lowercase(), "attribute names are kept in lower case");
        self.attributes.get(name).map_or(&[], Vec::as_slice)
    }

    pub(in crate::directory) fn first(&self, name: &str) -> Option<&str> {
        self.values(name).first().map(String::as_str)
    }

    /// Whether the server returned the attribute, with any values.
    pub(super) fn shows(&self, name: &str) -> bool {
        self.attributes.contains_key(name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        !self.values(name).is_empty()
    }

    /// Whether it has one of these object classes, given in lower case.
    pub(super) fn has_class(&self, classes: &[&str]) -> bool {
        self.values("objectclass").iter().any(|class| classes.contains(&class.to_ascii_lowercase().as_str()))
    }

    /// Whether the attribute's first value is this word, in any case.
    pub(super) fn says(&self, name: &str, word: &str) -> bool {
        self.first(name).is_some_and(|value| value.trim().eq_ignore_ascii_case(word))
    }

    /// The mail server in the attribute.
    pub(super) fn server(&self, name: &str) -> Option<String> {
        self.first(name).map(|host| host.trim().trim_end_matches('.').to_lowercase())
    }

    /// Adds a claim for each value of the attribute that is an address.
    pub(super) fn claim(&self, name: &str, strength: Strength, claims: &mut Vec<Claim>) {
        for address in self.values(name).iter().filter_map(|value| Address::parse(value.trim()).ok()) {
            known::claim(claims, address.key(), strength);
        }
    }

    /// Claims for the addresses in these attributes.
    pub(super) fn claims(&self, names: &[impl AsRef<str>], strength: Strength) -> Vec<Claim> {
        let mut claims = Vec::new();
        names.iter().for_each(|name| self.claim(&name.as_ref().to_ascii_lowercase(), strength, &mut claims));
        claims
    }

    /// Adds a fallback claim for each local part in the attribute, in every domain of the entry's addresses.
    pub(super) fn claim_short_names(&self, name: &str, claims: &mut Vec<Claim>) {
        let domains: BTreeSet<String> =
            claims.iter().filter_map(|claim| claim.key.rsplit_once('@')).map(|(_, domain)| domain.to_owned()).collect();
        let local_parts = self.values(name).iter().map(|value| value.trim()).filter(|value| !value.contains('@'));
        for local in local_parts {
            let whole = domains.iter().filter_map(|domain| Address::parse(&format!("{local}@{domain}")).ok());
            whole.for_each(|address| known::claim(claims, address.key(), Strength::Fallback));
        }
    }

    /// The target in the attribute; `None` also if it is one of the entry's own addresses.
    pub(super) fn other_target(&self, name: &str, own: &[Claim]) -> Result<Option<Target>, Unclear> {
        let is_own = |target: &Target| match target {
            Target::Address(target) => own.iter().any(|claim| claim.key == target.key()),
            Target::OtherKind(_) => false,
        };
        Ok(self.target(name)?.filter(|target| !is_own(target)))
    }

    /// The target in the attribute: an address, with or without `SMTP:`, or one of another kind.
    pub(super) fn target(&self, name: &str) -> Result<Option<Target>, Unclear> {
        let targets = self.values(name);
        let (first, others) = match targets {
            [] => return Ok(None),
            [first, others @ ..] => (first, others),
        };
        if !others.is_empty() {
            return Err(Unclear(format!("{name} has {} values", targets.len())));
        }
        if let Some(kind) = other_kind(first) {
            return Ok(Some(Target::OtherKind(kind.to_ascii_uppercase())));
        }
        let written = without_prefix(first, "smtp:").unwrap_or(first).trim();
        let target = Address::parse(written).map(Target::Address);
        target.map(Some).map_err(|error| Unclear(format!("{name} is no SMTP address: `{first}`: {error}")))
    }
}

/// The target of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Address(Address),
    /// An address of this kind, such as `GWISE`, `NOTES` or `X400`: the entry's own system has a connector for it.
    OtherKind(String),
}

/// The kind of a proxy address other than SMTP's: `GWISE` of `GWISE:dom.po.user`.
pub(in crate::directory) fn other_kind(proxy: &str) -> Option<&str> {
    let (kind, rest) = proxy.trim().split_once(':')?;
    let is_kind =
        kind.starts_with(|c: char| c.is_ascii_alphabetic()) && kind.chars().all(|c| c.is_ascii_alphanumeric());
    (is_kind && !rest.trim().is_empty() && !kind.eq_ignore_ascii_case("smtp")).then_some(kind)
}

/// The value without the prefix, which may be in any case.
pub(super) fn without_prefix<'a>(value: &'a str, prefix: &str) -> Option<&'a str> {
    match value.split_at_checked(prefix.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(prefix) => Some(rest),
        _ => None,
    }
}
