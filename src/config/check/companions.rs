//! Directories that need another one beside them: GroupWise's, and Kerio's.

use crate::config::accepted_domain::{covers, resolves};
use crate::config::file::ConfigTables;
use crate::config::source::{Item, Problems};
use crate::config::{DirectoryConfig, DirectoryKind, Profile};
use crate::routing::accepted_domain::DomainType;
use crate::routing::table::{DomainPattern, DomainSet};

/// Reports those that stand alone.
pub(super) fn check(written: &ConfigTables, problems: &mut Problems) {
    for (at, item) in written.directories.iter().enumerate() {
        let DirectoryKind::Ldap(ldap) = &item.used.kind else { continue };
        match ldap.profile {
            Profile::GroupWise => asked_next(written, at, item, problems),
            Profile::Kerio if item.used.rules.domains == DomainSet::All => {
                let message = "`domains`: Kerio's addresses have no domain in the directory; write the domains that \
                               Kerio maps to it, such as [\"contoso.com\"]";
                problems.add(item.places.at("domains"), message);
            }
            _ => {}
        }
    }
}

/// eDirectory does not have all addresses, so a directory that has them must be asked after it about every domain.
fn asked_next(written: &ConfigTables, at: usize, item: &Item<DirectoryConfig>, problems: &mut Problems) {
    let name = &item.used.name;
    if written.send_connectors.iter().any(|connector| connector.used.verify_with.as_ref() == Some(name)) {
        let message = "`profile`: eDirectory does not know all of GroupWise's addresses, so it vouches for nobody; let \
                       `verify_with` name a directory of kind \"call-ahead\"";
        problems.add(item.places.at("profile"), message);
    }
    let asked = written.accepted_domains.iter().filter(|domain| domain.used.kind != DomainType::ExternalRelay);
    let later = &written.directories[at + 1..];
    for domain in asked.flat_map(|domain| shared(&item.used.rules.domains, &domain.used.pattern)) {
        if !later.iter().any(|other| is_call_ahead(&other.used) && resolves(&other.used.rules.domains, domain)) {
            let message = format!(
                "`profile`: eDirectory does not know all of GroupWise's addresses; add a [[directory]] of kind \
                 \"call-ahead\" after this one that resolves `{domain}` as well"
            );
            problems.add(item.places.at("profile"), message);
        }
    }
}

/// The part of an accepted domain that a directory for these domains resolves.
fn shared<'a>(domains: &'a DomainSet, accepted: &'a DomainPattern) -> Vec<&'a DomainPattern> {
    match domains {
        DomainSet::These(patterns) if !resolves(domains, accepted) => {
            patterns.iter().filter(|pattern| covers(accepted, pattern)).collect()
        }
        DomainSet::All | DomainSet::These(_) => vec![accepted],
    }
}

fn is_call_ahead(directory: &DirectoryConfig) -> bool {
    matches!(directory.kind, DirectoryKind::CallAhead(_))
}
