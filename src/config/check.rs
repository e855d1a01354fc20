//! Turns the configuration as written into the [`Config`] that is used: resolves references, fills in defaults that
//! depend on other tables, and checks every rule of DESIGN section 4.
//!
//! The server, the commands and `reload` load through here. Files that a configuration names (certificates, keys,
//! passwords, recipients) are not opened here, but by the code that uses them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::file::{self, ConfigTables};
use super::reader::Context;
use super::send_connector::recipient_mx;
use super::source::{Item, Places};
use super::{Config, DirectoryConfig, DirectoryKind, SendConnector};
use crate::routing::accepted_domain::AcceptedDomains;
use crate::routing::address_space::AddressSpaces;
use crate::routing::table::{ConnectorRules, DomainPattern, DomainSet, Table};
use crate::time::UnixTime;

mod call_ahead;
mod clients;
mod companions;
mod doors;
mod domains;
mod names;
mod warnings;

pub use super::source::{Problem, render};

/// Domains that were accepted, and until when.
pub type Removed = HashMap<DomainPattern, UnixTime>;

/// Reads a configuration file and everything it includes. `removed` are domains that were accepted until less than an
/// hour ago (row 0 of the decision table); those that are accepted now are ignored.
///
/// # Errors
/// All problems at once, in the order of files and lines.
pub fn load(path: &Path, removed: &Removed) -> Result<Config, Vec<Problem>> {
    attempt(path, None).outcome.map(|config| with_removed(config, removed))
}

/// Like [`load`], with the main file's content in memory: `path` says where relative paths start.
///
/// # Errors
/// All problems at once, in the order of files and lines.
pub fn load_text(text: &str, path: &Path) -> Result<Config, Vec<Problem>> {
    attempt(path, Some(text)).outcome
}

/// The result of loading, and the files that it depends on, as in [`Config::files`].
pub(crate) struct Attempt {
    pub(crate) outcome: Result<Config, Vec<Problem>>,
    pub(crate) files: Vec<PathBuf>,
}

/// Loads without removed domains.
pub(crate) fn attempt(path: &Path, text: Option<&str>) -> Attempt {
    // Reading takes many times the memory of the result; a thread of its own gives it back when it ends.
    let apart = std::thread::scope(|scope| scope.spawn(|| attempt_here(path, text)).join());
    apart.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn attempt_here(path: &Path, text: Option<&str>) -> Attempt {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let variables: Option<fn(&str) -> Option<String>> = Some(|name| std::env::var(name).ok());
    match file::read(path, text, Context { credentials, variables, ..Context::default() }) {
        Err((problems, files)) => Attempt { outcome: Err(problems), files },
        Ok((written, context)) => Attempt { files: written.files.clone(), outcome: check(written, context) },
    }
}

/// Adds the domains that ceased to be accepted.
pub(crate) fn with_removed(mut config: Config, removed: &Removed) -> Config {
    let accepted = &config.routing.accepted;
    let gone = removed.iter().filter(|(pattern, _)| !accepted.has(pattern));
    let removed = gone.map(|(pattern, at)| (pattern.clone(), *at)).collect();
    // It has no other owner yet, so that a hundred thousand domains are not copied.
    let mut routing = Arc::unwrap_or_clone(config.routing);
    routing.accepted.removed = removed;
    config.routing = Arc::new(routing);
    config
}

fn check(mut written: ConfigTables, mut context: Context) -> Result<Config, Vec<Problem>> {
    set_verifiers_apart(&mut written);
    call_ahead::name_servers(&mut written);
    let problems = &mut context.problems;
    names::check(&written, problems);
    call_ahead::check(&written, problems);
    doors::check(&written, problems);
    clients::check(&written, problems);
    domains::check(&written, problems);
    companions::check(&written, problems);
    let server = &written.server;
    if written.cluster.is_some() && server.used.installation == server.used.hostname.to_string() {
        let message = "[cluster] needs [server] installation, one name that all nodes write: by it each knows the others' \
                       stamps, and without it a loop over two nodes is not noticed";
        problems.add(server.places.at("installation"), message);
    }
    let warnings = warnings::find(&written);
    clients::leave_out_organizations(&mut written);
    if context.problems.is_empty() { Ok(assemble(written, warnings)) } else { Err(context.problems.into_sorted()) }
}

/// A directory named by a `verify_with` has the other organisation's recipients: it resolves no domain, unless its
/// `domains` are written.
fn set_verifiers_apart(written: &mut ConfigTables) {
    let verifies = |name: &Arc<str>| {
        written.send_connectors.iter().any(|connector| connector.used.verify_with.as_ref() == Some(name))
    };
    let verifiers: Vec<bool> =
        written.directories.iter().map(|item| verifies(&item.used.name) && !item.places.has("domains[0]")).collect();
    for (item, verifier) in written.directories.iter_mut().zip(verifiers) {
        if verifier {
            item.used.rules.domains = DomainSet::These(Vec::new());
        }
    }
}

/// The tables without their places.
fn used<T>(items: Vec<Item<T>>) -> impl Iterator<Item = T> {
    items.into_iter().map(|item| item.used)
}

fn spaces(connectors: &[Item<SendConnector>]) -> AddressSpaces {
    let pairs =
        connectors.iter().flat_map(|item| item.used.address_spaces.iter().map(|space| (&item.used.name, space)));
    AddressSpaces::new(pairs)
}

fn assemble(written: ConfigTables, warnings: Vec<String>) -> Config {
    let spaces = spaces(&written.send_connectors);
    let accepted = AcceptedDomains::new(used(written.accepted_domains), Removed::new());
    let send_connectors: Vec<_> =
        used(written.send_connectors).chain(std::iter::once(recipient_mx())).map(Arc::new).collect();
    let longest = written.cluster.as_ref().map_or(Duration::MAX, |_| Duration::from_mins(1));
    let directories: Vec<_> = used(written.directories).map(|found| remembering(found, longest)).collect();
    let rules = |connector: &Arc<SendConnector>| {
        let rules = ConnectorRules {
            organization: connector.organization.clone(),
            rewrite_target_address: connector.rewrite_target_address,
            verify_with: connector.verify_with.clone(),
            source_routes: connector.source_routes,
        };
        (connector.name.clone(), rules)
    };
    let server = written.server.used;
    let mut cluster = written.cluster;
    for cluster in cluster.iter_mut().filter(|cluster| cluster.node.is_empty()) {
        cluster.node = server.hostname.to_string();
    }
    let first = accepted.first().unwrap_or_else(|| server.hostname.clone());
    let reports = written.reports.used.used(&first);
    let routing = Table {
        accepted,
        spaces,
        directories: directories.iter().map(|directory| directory.rules.clone()).collect(),
        connectors: send_connectors.iter().map(rules).collect(),
    };
    Config {
        server,
        admin: written.admin.used,
        receive_connectors: used(written.receive_connectors).map(Arc::new).collect(),
        routing: Arc::new(routing),
        directories,
        send_connectors,
        reports,
        loops: written.loops,
        min_free: written.spool.0,
        max_messages: written.spool.1,
        trace: written.trace,
        cluster,
        hash: written.hash,
        warnings,
        files: written.files,
    }
}

/// A directory whose answers, if it is asked by LDAP, are remembered for so long at most: with `[cluster]` a minute, so that
/// nodes do not differ for longer.
fn remembering(mut directory: DirectoryConfig, longest: Duration) -> Arc<DirectoryConfig> {
    if let DirectoryKind::Ldap(ldap) = &mut directory.kind {
        ldap.cache = ldap.cache.at_most(longest);
    }
    Arc::new(directory)
}

/// The key of a list's element in [`Places`].
fn element(key: &str, at: usize) -> String {
    format!("{key}[{at}]")
}

/// A warning that begins with its place.
fn warning(places: &Places, key: &str, message: &str) -> String {
    format!("{}: {message}", places.at(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RECIPIENT_MX;
    use crate::smtp::domain::Domain;

    const MINIMAL: &str = include_str!("../../conf/minimal.toml");

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    #[test]
    fn tables_for_decisions_are_made() {
        let config = load_text(MINIMAL, Path::new("/etc/fingerpost/fingerpost.toml")).unwrap();
        let table = &config.routing;
        assert_eq!(table.spaces.for_accepted(&domain("contoso.com")).map(|name| &**name), Some("groupwise"));
        assert_eq!(table.spaces.for_foreign(&domain("a.example")), None);
        assert_eq!(table.directories.len(), 1);
        let mut connectors: Vec<_> = table.connectors.keys().map(|name| &**name).collect();
        connectors.sort_unstable();
        assert_eq!(connectors, ["exchange", "groupwise", RECIPIENT_MX]);
        assert_eq!(&*table.connectors["groupwise"].organization, "secondary");
        assert_eq!(&*config.send_connectors.last().unwrap().name, RECIPIENT_MX);
        assert_eq!(config.reports.from.as_str(), "postmaster@contoso.com");
        assert_eq!(config.server.installation, "mx.contoso.com");
        assert_eq!(config.admin.token_file, Path::new("/var/lib/fingerpost/admin.token"));
        assert_eq!(config.files, [Path::new("/etc/fingerpost/fingerpost.toml")]);
        assert_eq!(config.hash.len(), 64);
    }

    #[test]
    fn domains_that_are_back_are_not_removed() {
        let config = load_text(MINIMAL, Path::new("/x.toml")).unwrap();
        let removed = ["contoso.com", "gone.example"].map(|text| (DomainPattern::Exact(domain(text)), UnixTime(7)));
        let config = with_removed(config, &Removed::from(removed));
        assert_eq!(config.routing.accepted.removed_at(&domain("gone.example")), Some(UnixTime(7)));
        assert_eq!(config.routing.accepted.removed_at(&domain("contoso.com")), None);
        assert!(config.routing.accepted.find(&domain("contoso.com")).is_some());
    }

    #[test]
    fn a_file_that_is_not_there_is_one_problem() {
        let problems = load(Path::new("/nowhere/x.toml"), &Removed::new()).unwrap_err();
        assert_eq!((problems.len(), problems[0].line), (1, 0));
        assert!(problems[0].message.starts_with("cannot be read"), "{problems:?}");
    }
}
