//! Checks accepted domains: each needs a directory that has its recipients, and a send connector for other recipients
//! that does not lead back.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::accepted_domain::{covers, resolves};
use crate::config::file::ConfigTables;
use crate::config::source::{Item, Problems};
use crate::routing::accepted_domain::{AcceptedDomain, AcceptedDomains, DomainType};
use crate::routing::address_space::AddressSpaces;
use crate::routing::table::{DomainPattern, DomainSet};
use crate::smtp::domain::Domain;

use super::{Removed, element, spaces};

/// Reports everything that is wrong with them.
pub(super) fn check(written: &ConfigTables, problems: &mut Problems) {
    let spaces = spaces(&written.send_connectors);
    let accepted = AcceptedDomains::new(written.accepted_domains.iter().map(|item| &item.used), Removed::new());
    for item in &written.accepted_domains {
        match item.used.kind {
            DomainType::Authoritative => resolved(written, item, problems),
            DomainType::InternalRelay => {
                resolved(written, item, problems);
                relayed(written, item, &accepted, &spaces, problems);
            }
            DomainType::ExternalRelay => relayed(written, item, &accepted, &spaces, problems),
        }
    }
    directories(written, problems);
    verifiers(written, problems);
}

/// A domain that no directory resolves has no recipients.
fn resolved(written: &ConfigTables, item: &Item<AcceptedDomain>, problems: &mut Problems) {
    if written.directories.is_empty() && written.names.contains("directory") {
        return;
    }
    if !written.directories.iter().any(|directory| resolves(&directory.used.rules.domains, &item.used.pattern)) {
        let cure = "add a [[directory]] or the domain to one's `domains`, or make the type \"external-relay\"";
        let domain = &item.used.pattern;
        problems.add(item.places.at("domain"), format!("no directory knows the recipients of `{domain}`; {cure}"));
    }
}

/// A relayed domain needs a connector for that, and not the one it came from.
fn relayed(
    written: &ConfigTables,
    item: &Item<AcceptedDomain>,
    accepted: &AcceptedDomains,
    spaces: &AddressSpaces,
    problems: &mut Problems,
) {
    let organization = |name: &str| {
        let connector = written.send_connectors.iter().find(|connector| &*connector.used.name == name)?;
        Some(&connector.used.organization).filter(|organization| !organization.is_empty())
    };
    for domain in samples(written, item, accepted) {
        let shown = &item.used.pattern;
        let Some(relay) = spaces.for_accepted(&domain) else {
            let message =
                format!("no send connector's address space covers `{shown}`, which is relayed (`*` does not count)");
            problems.add(item.places.at("type"), message);
            return;
        };
        let resolved = item.used.deliver_to.as_deref().and_then(organization);
        if resolved.is_some() && resolved == organization(relay) {
            let message = format!(
                "unresolved recipients of `{shown}` would go to `{relay}`, which has the organization of `deliver_to`"
            );
            problems.add(item.places.at("deliver_to"), message);
            return;
        }
        if item.used.deliver_to.as_ref() == Some(relay) {
            let message = format!(
                "unresolved recipients of `{shown}` would go to `{relay}` as well, where resolved ones go; give them a \
                 send connector of their own"
            );
            problems.add(item.places.at("deliver_to"), message);
            return;
        }
    }
}

/// `verify_with` excludes a directory from resolving: reports where that is probably a mistake.
fn verifiers(written: &ConfigTables, problems: &mut Problems) {
    let relays = relays(written);
    for item in written.send_connectors.iter().filter(|item| item.used.verify_with.is_some()) {
        let name = &item.used.name;
        if !relays.contains(name) {
            let message = format!(
                "`verify_with`: `{name}` carries no unresolved recipients; it belongs to the connector whose address \
                 space covers an internal-relay domain"
            );
            problems.add(item.places.at("verify_with"), message);
        }
    }
    for item in &written.directories {
        let set_apart = matches!(&item.used.rules.domains, DomainSet::These(domains) if domains.is_empty());
        let ways = ["deliver_to", "mailbox_servers"].into_iter().find(|key| item.places.has(key));
        if let Some(key) = ways.filter(|_| set_apart && !item.places.has("domains")) {
            let name = &item.used.name;
            let message = format!(
                "`{key}`: directory `{name}` resolves nobody, because a verify_with names it; write its `domains` if it \
                 is to"
            );
            problems.add(item.places.at(key), message);
        }
    }
}

/// The send connectors for unresolved recipients of shared domains.
pub(super) fn relays(written: &ConfigTables) -> BTreeSet<Arc<str>> {
    let spaces = spaces(&written.send_connectors);
    let accepted = AcceptedDomains::new(written.accepted_domains.iter().map(|item| &item.used), Removed::new());
    let shared = written.accepted_domains.iter().filter(|item| item.used.kind == DomainType::InternalRelay);
    let domains = shared.flat_map(|item| samples(written, item, &accepted));
    domains.filter_map(|domain| spaces.for_accepted(&domain).cloned()).collect()
}

/// Sample domains for which this pattern is the most specific one; address spaces may treat them differently.
fn samples(written: &ConfigTables, item: &Item<AcceptedDomain>, accepted: &AcceptedDomains) -> Vec<Domain> {
    let parent = match &item.used.pattern {
        DomainPattern::Exact(domain) => return vec![domain.clone()],
        DomainPattern::Subdomains(parent) => parent,
    };
    // No host has this label, so that no address space for a single subdomain matches.
    let below = |domain: &Domain| Domain::parse(&format!("_.{domain}")).ok();
    let written_spaces = written.send_connectors.iter().flat_map(|connector| &connector.used.address_spaces);
    let inside =
        written_spaces.filter_map(|space| space.domain.clone()).flat_map(|domain| [below(&domain), Some(domain)]);
    let ours = |domain: &Domain| accepted.find(domain).is_some_and(|found| found.pattern == item.used.pattern);
    std::iter::once(below(parent)).chain(inside).flatten().filter(ours).collect()
}

/// Directory domains that are not accepted, probably by mistake.
fn directories(written: &ConfigTables, problems: &mut Problems) {
    for item in &written.directories {
        let DomainSet::These(patterns) = &item.used.rules.domains else { continue };
        for (at, pattern) in patterns.iter().enumerate() {
            let meets = |domain: &Item<AcceptedDomain>| {
                covers(pattern, &domain.used.pattern) || covers(&domain.used.pattern, pattern)
            };
            if !written.accepted_domains.iter().any(meets) {
                let message = format!("`{pattern}` is not an accepted domain");
                problems.add(item.places.at(&element("domains", at)), message);
            }
        }
    }
}
