//! Accepted domains: which pattern matches a domain, and which domains were accepted until lately.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::Arc;

use super::table::DomainPattern;
use crate::fast_map::FastMap;
use crate::smtp::domain::Domain;
use crate::time::UnixTime;

/// Exchange's three types of accepted domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DomainType {
    /// All its recipients are in the directories.
    Authoritative,
    /// Shared: recipients that are not in the directories are relayed.
    InternalRelay,
    /// Everything is relayed without asking the directories.
    ExternalRelay,
}

impl DomainType {
    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authoritative => "authoritative",
            Self::InternalRelay => "internal-relay",
            Self::ExternalRelay => "external-relay",
        }
    }
}

/// An accepted domain as the configuration has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedDomain {
    pub pattern: DomainPattern,
    pub kind: DomainType,
    /// The send connector for resolved recipients; `None` is possible for external-relay only.
    pub deliver_to: Option<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted<'a> {
    pub pattern: DomainPattern,
    pub kind: DomainType,
    /// The send connector for resolved recipients; `None` is possible for external-relay only.
    pub deliver_to: Option<&'a Arc<str>>,
}

/// All accepted domains, by pattern. Most specific wins: the exact domain, then the nearest parent's `*.`.
///
/// There may be a hundred thousand, so they are stored in a few large blocks of memory. Many small allocations, made
/// while the configuration is read, would keep pages of the reader's own memory in use: the allocator returns whole
/// pages only.
#[derive(Debug, Clone, Default)]
pub struct AcceptedDomains {
    /// All names without `*.`, concatenated in the order of the configuration.
    names: Box<str>,
    /// In the order of the configuration; the first is the domain of `<postmaster>`.
    all: Box<[Entry]>,
    /// Indexes into `all`, sorted by name.
    by_name: Box<[usize]>,
    common: Box<[Common]>,
    /// Domains that were accepted, and until when (row 0).
    pub removed: FastMap<DomainPattern, UnixTime>,
}

/// One accepted domain in its compact form.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Where its name ends in `names`; the next one begins there.
    end: usize,
    /// Index into `common`.
    common: usize,
}

/// Properties that many accepted domains share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Common {
    form: Form,
    kind: DomainType,
    deliver_to: Option<Arc<str>>,
}

/// How a pattern's name matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Form {
    /// That domain only.
    Exact,
    /// Its subdomains only.
    Subdomains,
}

impl AcceptedDomains {
    #[must_use]
    pub fn new(
        domains: impl IntoIterator<Item = impl Borrow<AcceptedDomain>>,
        removed: HashMap<DomainPattern, UnixTime>,
    ) -> Self {
        let (mut names, mut all) = (String::new(), Vec::new());
        let (mut common, mut ranks) = (Vec::new(), HashMap::new());
        for domain in domains {
            let AcceptedDomain { pattern, kind, deliver_to } = domain.borrow();
            let (name, form) = parts(pattern);
            names.push_str(name);
            let of = Common { form, kind: *kind, deliver_to: deliver_to.clone() };
            let rank = *ranks.entry(of).or_insert_with_key(|of| {
                common.push(of.clone());
                common.len() - 1
            });
            all.push(Entry { end: names.len(), common: rank });
        }
        let mut domains = Self {
            names: names.into(),
            all: all.into(),
            by_name: Box::default(),
            common: common.into(),
            removed: removed.into_iter().collect(),
        };
        let mut by_name: Vec<usize> = (0..domains.all.len()).collect();
        by_name.sort_unstable_by_key(|at| domains.key(*at));
        domains.by_name = by_name.into();
        domains
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// All of them, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = Accepted<'_>> {
        (0..self.all.len()).filter_map(|at| {
            let (name, form) = self.key(at);
            let name = Domain::parse(name).ok()?; // it was parsed when the configuration was read
            Some(self.accepted(at, pattern(name, form)))
        })
    }

    /// The accepted domain with exactly this pattern.
    #[must_use]
    pub fn get(&self, pattern: &DomainPattern) -> Option<Accepted<'_>> {
        let (name, form) = parts(pattern);
        Some(self.accepted(self.rank(name, form)?, pattern.clone()))
    }

    /// Whether exactly this pattern is accepted.
    #[must_use]
    pub fn has(&self, pattern: &DomainPattern) -> bool {
        let (name, form) = parts(pattern);
        self.rank(name, form).is_some()
    }

    #[must_use]
    pub fn find(&self, domain: &Domain) -> Option<Accepted<'_>> {
        if let Some(at) = self.rank(domain.as_str(), Form::Exact) {
            return Some(self.accepted(at, DomainPattern::Exact(domain.clone())));
        }
        let (parent, at) = domain.parents().find_map(|parent| Some((parent, self.rank(parent, Form::Subdomains)?)))?;
        Some(self.accepted(at, DomainPattern::Subdomains(Domain::parse(parent).ok()?)))
    }

    /// When `domain` ceased to be accepted; `None` also where that was never or long ago.
    #[must_use]
    pub fn removed_at(&self, domain: &Domain) -> Option<UnixTime> {
        if self.removed.is_empty() {
            return None;
        }
        if let Some(at) = self.removed.get(&DomainPattern::Exact(domain.clone())) {
            return Some(*at);
        }
        let subdomains = |parent| Domain::parse(parent).ok().map(DomainPattern::Subdomains);
        domain.parents().filter_map(subdomains).find_map(|pattern| self.removed.get(&pattern)).copied()
    }

    /// The domain that `<postmaster>` without one stands for (RFC 5321 4.5.1): the first accepted domain that is no
    /// pattern. Where all are patterns: our own host name if one covers it, else our first label below the first
    /// pattern's domain.
    #[must_use]
    pub fn postmaster(&self, hostname: &Domain) -> Domain {
        if let Some(first) = self.first() {
            return first;
        }
        let parent = self.first_of(Form::Subdomains);
        let label = hostname.as_str().split('.').next().unwrap_or_default();
        let covered = parent.filter(|_| self.find(hostname).is_none());
        covered.and_then(|parent| Domain::parse(&format!("{label}.{parent}")).ok()).unwrap_or_else(|| hostname.clone())
    }

    #[must_use]
    pub fn first(&self) -> Option<Domain> {
        self.first_of(Form::Exact)
    }

    fn first_of(&self, form: Form) -> Option<Domain> {
        let mut keys = (0..self.all.len()).map(|at| self.key(at));
        keys.find(|(_, its)| *its == form).and_then(|(name, _)| Domain::parse(name).ok())
    }

    /// Name and form of the entry at this index.
    fn key(&self, at: usize) -> (&str, Form) {
        let begin = at.checked_sub(1).map_or(0, |before| self.all[before].end);
        let entry = self.all[at];
        (&self.names[begin..entry.end], self.common[entry.common].form)
    }

    fn rank(&self, name: &str, form: Form) -> Option<usize> {
        let at = self.by_name.binary_search_by_key(&(name, form), |at| self.key(*at)).ok()?;
        Some(self.by_name[at])
    }

    fn accepted(&self, at: usize, pattern: DomainPattern) -> Accepted<'_> {
        let Common { kind, deliver_to, .. } = &self.common[self.all[at].common];
        Accepted { pattern, kind: *kind, deliver_to: deliver_to.as_ref() }
    }
}

/// Name and form of a pattern.
fn parts(pattern: &DomainPattern) -> (&str, Form) {
    match pattern {
        DomainPattern::Exact(domain) => (domain.as_str(), Form::Exact),
        DomainPattern::Subdomains(parent) => (parent.as_str(), Form::Subdomains),
    }
}

fn pattern(name: Domain, form: Form) -> DomainPattern {
    match form {
        Form::Exact => DomainPattern::Exact(name),
        Form::Subdomains => DomainPattern::Subdomains(name),
    }
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
        AcceptedDomains::new(patterns.iter().map(domain), HashMap::new())
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
        assert_eq!(domains.first().as_ref().map(Domain::as_str), Some("a.example"));
    }

    #[test]
    fn each_is_found_as_it_was_written() {
        let kinds = [DomainType::Authoritative, DomainType::InternalRelay, DomainType::ExternalRelay];
        let connectors = [Some(Arc::from("one")), Some("other".into()), None];
        // Names with a common beginning or end, and the same name with and without `*.`.
        let pattern = |at: usize| match at % 3 {
            0 => DomainPattern::Exact(Domain::parse(&format!("d{at}.example")).unwrap()),
            1 => DomainPattern::Exact(Domain::parse(&format!("d{}.example.org", at / 3)).unwrap()),
            _ => DomainPattern::Subdomains(Domain::parse(&format!("d{}.example", at - 2)).unwrap()),
        };
        let written: Vec<AcceptedDomain> = (0..1000)
            .map(|at| AcceptedDomain {
                pattern: pattern(at),
                kind: kinds[at % 5 % 3],
                deliver_to: connectors[at % 7 % 3].clone(),
            })
            .collect();
        let domains = AcceptedDomains::new(&written, HashMap::new());
        let same = |found: &Accepted<'_>, written: &AcceptedDomain| {
            (&found.pattern, found.kind, found.deliver_to)
                == (&written.pattern, written.kind, written.deliver_to.as_ref())
        };
        assert_eq!(domains.count(), written.len());
        assert!(domains.iter().zip(&written).all(|(found, written)| same(&found, written)));
        for one in &written {
            assert!(domains.get(&one.pattern).is_some_and(|found| same(&found, one)), "{one:?}");
            assert!(domains.has(&one.pattern));
        }
        for other in ["d", "d1.example", "d0.exampl", "d0.example.or", "d1000.example", "d0.example.orgx", "z"] {
            assert!(!domains.has(&DomainPattern::Exact(Domain::parse(other).unwrap())), "{other}");
        }
        assert!(!domains.has(&DomainPattern::Subdomains(Domain::parse("d1.example.org").unwrap())));
        assert_eq!(domains.common.len(), 2 * 9, "what is the same stands there once");
    }

    #[test]
    fn none_and_one_are_found_as_well() {
        let (none, one, host) = (accepted(&[]), accepted(&["*.a.example"]), Domain::parse("mx.a.example").unwrap());
        assert_eq!((none.count(), none.iter().count(), none.first()), (0, 0, None));
        assert_eq!((none.find(&host), none.postmaster(&host)), (None, host.clone()));
        assert_eq!((one.count(), one.iter().count(), one.first()), (1, 1, None));
        assert!(one.find(&host).is_some() && one.find(&Domain::parse("a.example").unwrap()).is_none());
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
