//! Accepted domains: which pattern an address falls under, and which domains were accepted lately.

use std::collections::HashMap;
use std::sync::Arc;

use super::table::DomainPattern;
use crate::fast_map::FastMap;
use crate::smtp::domain::Domain;
use crate::time::UnixTime;

/// Exchange's three types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DomainType {
    /// All its recipients are in our directories.
    Authoritative,
    /// Shared: what the directories do not have is relayed.
    InternalRelay,
    /// Relayed without asking the directories.
    ExternalRelay,
}

impl DomainType {
    /// As the configuration writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authoritative => "authoritative",
            Self::InternalRelay => "internal-relay",
            Self::ExternalRelay => "external-relay",
        }
    }
}

/// One accepted domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedDomain {
    /// The domain or pattern.
    pub pattern: DomainPattern,
    /// Its type.
    pub kind: DomainType,
    /// The send connector for resolved recipients; external-relay may have none.
    pub deliver_to: Option<Arc<str>>,
}

/// All accepted domains, by pattern. Most specific wins: the exact domain, then the nearest parent's `*.`.
#[derive(Debug, Clone, Default)]
pub struct AcceptedDomains {
    /// In the order in which they were written; the first one is `<postmaster>`'s.
    pub all: Vec<AcceptedDomain>,
    /// Index of `all` by pattern.
    pub by_pattern: FastMap<DomainPattern, usize>,
    /// Domains that were accepted, and when they ceased to be (row 0).
    pub removed: FastMap<DomainPattern, UnixTime>,
}

impl AcceptedDomains {
    /// Indexes the domains of a configuration.
    #[must_use]
    pub fn new(all: Vec<AcceptedDomain>, removed: HashMap<DomainPattern, UnixTime>) -> Self {
        let by_pattern = all.iter().enumerate().map(|(at, domain)| (domain.pattern.clone(), at)).collect();
        Self { all, by_pattern, removed: removed.into_iter().collect() }
    }

    /// The most specific accepted domain that covers `domain`.
    #[must_use]
    pub fn find(&self, domain: &Domain) -> Option<&AcceptedDomain> {
        let at = lookup(&self.by_pattern, domain)?;
        self.all.get(*at)
    }

    /// When `domain` ceased to be accepted, if it did lately.
    #[must_use]
    pub fn removed_at(&self, domain: &Domain) -> Option<UnixTime> {
        lookup(&self.removed, domain).copied()
    }

    /// Whose postmaster `<postmaster>` alone is (RFC 5321 4.5.1): the first accepted domain's. Where all are patterns it
    /// is that of our own host name, if one covers it, else of a host so called below the first pattern.
    #[must_use]
    pub fn postmaster(&self, hostname: &Domain) -> Domain {
        if let Some(first) = self.first() {
            return first.clone();
        }
        let parent = self.all.iter().find_map(|domain| match &domain.pattern {
            DomainPattern::Subdomains(parent) => Some(parent),
            DomainPattern::Exact(_) => None,
        });
        let label = hostname.as_str().split('.').next().unwrap_or_default();
        let covered = parent.filter(|_| self.find(hostname).is_none());
        covered.and_then(|parent| Domain::parse(&format!("{label}.{parent}")).ok()).unwrap_or_else(|| hostname.clone())
    }

    /// The first accepted domain that is no pattern.
    #[must_use]
    pub fn first(&self) -> Option<&Domain> {
        self.all.iter().find_map(|domain| match &domain.pattern {
            DomainPattern::Exact(domain) => Some(domain),
            DomainPattern::Subdomains(_) => None,
        })
    }
}

/// The most specific pattern's value.
fn lookup<'a, T>(map: &'a FastMap<DomainPattern, T>, domain: &Domain) -> Option<&'a T> {
    if let Some(value) = map.get(&DomainPattern::Exact(domain.clone())) {
        return Some(value);
    }
    let subdomains = |parent| Domain::parse(parent).ok().map(DomainPattern::Subdomains);
    domain.parents().filter_map(subdomains).find_map(|pattern| map.get(&pattern))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(patterns: &[&str]) -> AcceptedDomains {
        let pattern = |text: &str| match text.strip_prefix("*.") {
            Some(parent) => DomainPattern::Subdomains(Domain::parse(parent).unwrap()),
            None => DomainPattern::Exact(Domain::parse(text).unwrap()),
        };
        let domain =
            |text: &&str| AcceptedDomain { pattern: pattern(text), kind: DomainType::Authoritative, deliver_to: None };
        AcceptedDomains::new(patterns.iter().map(domain).collect(), HashMap::new())
    }

    #[test]
    fn the_most_specific_pattern_wins() {
        let domains = accepted(&["*.a.example", "*.b.a.example", "a.example", "x.b.a.example", "bücher.example"]);
        for (domain, pattern) in [
            ("a.example", Some("a.example")),
            ("c.a.example", Some("*.a.example")),
            ("b.a.example", Some("*.a.example")),
            ("y.b.a.example", Some("*.b.a.example")),
            ("x.b.a.example", Some("x.b.a.example")),
            ("z.x.b.a.example", Some("*.b.a.example")),
            ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
            ("xa.example", None),
            ("[192.0.2.1]", None),
        ] {
            let found = domains.find(&Domain::parse(domain).unwrap()).map(|found| found.pattern.to_string());
            assert_eq!(found.as_deref(), pattern, "{domain}");
        }
        assert_eq!(domains.first().map(Domain::as_str), Some("a.example"));
    }

    #[test]
    fn postmaster_alone_is_at_a_domain_that_is_accepted() {
        for (patterns, hostname, postmaster) in [
            (&["*.b.example", "a.example", "c.example"][..], "mx.x.example", "a.example"),
            (&["*.b.example", "*.x.example"], "mx.x.example", "mx.x.example"),
            (&["*.b.example", "*.c.example"], "mx.x.example", "mx.b.example"),
            (&["*.b.example"], "b.example", "b.b.example"),
        ] {
            let (domains, hostname) = (accepted(patterns), Domain::parse(hostname).unwrap());
            let at = domains.postmaster(&hostname);
            assert_eq!(at.as_str(), postmaster, "{patterns:?}");
            assert!(domains.find(&at).is_some(), "{patterns:?}");
        }
    }
}
