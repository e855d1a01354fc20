//! `[[accepted_domain]]`, and domain patterns in any table.

use super::reader::Reader;
use super::units::domain_name;
use super::value_error::ValueError;
use crate::routing::accepted_domain::{AcceptedDomain, DomainType};
use crate::routing::table::{DomainPattern, DomainSet};

/// Reads one table; `None` where the domain is missing or malformed.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<AcceptedDomain> {
    reader.require("domain", "such as \"contoso.com\", or \"*.contoso.com\" for its subdomains");
    let types = &[
        ("authoritative", DomainType::Authoritative),
        ("internal-relay", DomainType::InternalRelay),
        ("external-relay", DomainType::ExternalRelay),
    ];
    let kind = reader.choice("type", types).unwrap_or(DomainType::Authoritative);
    if kind != DomainType::ExternalRelay {
        reader.require("deliver_to", "name the send connector for resolved recipients");
    }
    let deliver_to = reader.shared_name("deliver_to");
    let pattern = reader.text("domain", pattern)?;
    Some(AcceptedDomain { pattern, kind, deliver_to })
}

/// A domain, or `*.` and a domain.
pub(crate) fn pattern(text: &str) -> Result<DomainPattern, ValueError> {
    match text.strip_prefix("*.") {
        Some(parent) => domain_name(parent).map(DomainPattern::Subdomains),
        None if text.contains('*') => Err(format!("`{text}`: a `*` may only stand alone as the first label").into()),
        None => domain_name(text).map(DomainPattern::Exact),
    }
}

/// `domains` of a directory.
pub(super) fn set(reader: &mut Reader<'_>, key: &str) -> DomainSet {
    let any_or_one = |text: &str| if text == "*" { Ok(None) } else { pattern(text).map(Some) };
    let Some(written) = reader.list(key, any_or_one) else { return DomainSet::All };
    reader.require_some(key, "it would resolve nothing");
    // A `*` among others includes them all.
    written.into_iter().collect::<Option<Vec<_>>>().map_or(DomainSet::All, DomainSet::These)
}

/// Whether every domain of `inner` is in `outer`.
pub(super) fn covers(outer: &DomainPattern, inner: &DomainPattern) -> bool {
    let (DomainPattern::Exact(domain) | DomainPattern::Subdomains(domain)) = inner;
    outer == inner || (matches!(outer, DomainPattern::Subdomains(_)) && outer.covers(domain))
}

/// Whether a directory for these domains resolves the accepted domain.
pub(super) fn resolves(set: &DomainSet, domain: &DomainPattern) -> bool {
    match set {
        DomainSet::All => true,
        DomainSet::These(patterns) => patterns.iter().any(|pattern| covers(pattern, domain)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read_and_written() {
        for (text, form) in
            [("Contoso.com", "contoso.com"), ("*.contoso.com", "*.contoso.com"), ("*.Bücher.de", "*.xn--bcher-kva.de")]
        {
            assert_eq!(pattern(text).unwrap().to_string(), form);
        }
        for text in ["", "*", "*.", "a.*.b", "*contoso.com", "[192.0.2.1]", "a b"] {
            assert!(pattern(text).is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_cover_what_they_should() {
        for (outer, inner, yes) in [
            ("a.b", "a.b", true),
            ("a.b", "x.a.b", false),
            ("*.a.b", "a.b", false),
            ("*.a.b", "x.a.b", true),
            ("*.a.b", "*.a.b", true),
            ("*.a.b", "*.x.a.b", true),
            ("*.x.a.b", "*.a.b", false),
            ("x.a.b", "*.a.b", false),
        ] {
            assert_eq!(covers(&pattern(outer).unwrap(), &pattern(inner).unwrap()), yes, "{outer} {inner}");
        }
    }
}
