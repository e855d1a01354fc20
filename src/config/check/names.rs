//! Duplicate names, and references to names that do not exist.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::file::ConfigTables;
use crate::config::source::{Item, Location, Problems};
use crate::config::{CallAheadConfig, DirectoryKind, RECIPIENT_MX};

/// Reports all of them.
pub(super) fn check(written: &ConfigTables, problems: &mut Problems) {
    unique("receive connector", &written.receive_connectors, |connector| &connector.name, problems);
    unique("send connector", &written.send_connectors, |connector| &connector.name, problems);
    unique("directory", &written.directories, |directory| &directory.name, problems);
    unique_domains(written, problems);
    references(written, problems);
    organizations(written, problems);
}

fn unique<T>(what: &str, items: &[Item<T>], name: impl Fn(&T) -> &Arc<str>, problems: &mut Problems) {
    let mut seen: HashMap<&str, Location> = HashMap::new();
    for item in items {
        let name = name(&item.used);
        let place = item.places.at("name");
        match seen.get(&**name) {
            // A missing or malformed name is read as empty and was reported.
            _ if name.is_empty() => {}
            Some(first) => problems.add(place, format!("a {what} called `{name}` is written at {first} already")),
            None => drop(seen.insert(name, place)),
        }
    }
}

fn unique_domains(written: &ConfigTables, problems: &mut Problems) {
    let mut seen: HashMap<_, &Item<_>> = HashMap::with_capacity(written.accepted_domains.len());
    for item in &written.accepted_domains {
        if let Some(first) = seen.get(&item.used.pattern) {
            let (domain, first) = (&item.used.pattern, first.places.at("domain"));
            problems.add(item.places.at("domain"), format!("the domain `{domain}` is written at {first} already"));
        } else {
            seen.insert(&item.used.pattern, item);
        }
    }
    if !written.names.contains("accepted_domain") {
        problems.add(&written.main, "missing [[accepted_domain]]; without one no mail is accepted");
    }
}

/// References to send connectors and directories.
fn references(written: &ConfigTables, problems: &mut Problems) {
    let directories: Vec<&str> = written.directories.iter().map(|item| &*item.used.name).collect();
    for item in &written.send_connectors {
        if let Some(name) = &item.used.verify_with {
            known("directory", &directories, &item.places.at("verify_with"), "verify_with", name, problems);
        }
    }
    let connectors: Vec<&str> = written.send_connectors.iter().map(|item| &*item.used.name).collect();
    let mut check = |place: &Location, key: &str, name: &Arc<str>| {
        known("send connector", &connectors, place, key, name, problems);
    };
    for item in &written.accepted_domains {
        if let Some(name) = &item.used.deliver_to {
            check(&item.places.at("deliver_to"), "deliver_to", name);
        }
    }
    for item in &written.directories {
        if let DirectoryKind::CallAhead(CallAheadConfig { send_connector, .. }) = &item.used.kind
            && !send_connector.is_empty()
        {
            check(&item.places.at("send_connector"), "send_connector", send_connector);
        }
        if let Some(name) = &item.used.rules.deliver_to {
            check(&item.places.at("deliver_to"), "deliver_to", name);
        }
        for (server, name) in &item.used.rules.mailbox_servers {
            // The server's name has been changed to lower case.
            let place = item.places.at_any_case(&format!("mailbox_servers.{server}"));
            check(&place, "mailbox_servers", name);
        }
    }
    let reports = &written.reports;
    if let Some(name) = reports.used.deliver_to.as_ref().filter(|name| &***name != RECIPIENT_MX) {
        check(&reports.places.at("deliver_to"), "deliver_to", name);
    }
}

/// Reports a reference to a name that does not exist.
fn known(what: &str, known: &[&str], place: &Location, key: &str, name: &Arc<str>, problems: &mut Problems) {
    if !known.contains(&&**name) {
        let near = known.iter().filter(|known| !known.is_empty());
        let near = near.min_by_key(|known| strsim::damerau_levenshtein(known, name));
        let near = near.map(|near| format!("; the nearest is `{near}`")).unwrap_or_default();
        problems.add(place, format!("`{key}`: no {what} is called `{name}`{near}"));
    }
}

/// Organisations of receive connectors: mail also has to go to the system that it comes from.
fn organizations(written: &ConfigTables, problems: &mut Problems) {
    for item in &written.receive_connectors {
        let organization = &item.used.organization;
        let known = written.send_connectors.iter().any(|connector| connector.used.organization == *organization);
        if !organization.is_empty() && !known {
            let message = format!("`organization`: no send connector has the organization \"{organization}\"");
            problems.add(item.places.at("organization"), message);
        }
    }
}
