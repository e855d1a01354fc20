//! The differences between two configurations, one line each, for people. `reload` logs them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::Config;
use crate::routing::accepted_domain::AcceptedDomains;

/// The changes from `old` to `new`.
pub(super) fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut found = Vec::new();
    domains(&old.routing.accepted, &new.routing.accepted, &mut found);
    named("receive connector", &old.receive_connectors, &new.receive_connectors, |item| &item.name, &mut found);
    named("directory", &old.directories, &new.directories, |item| &item.name, &mut found);
    named("send connector", &old.send_connectors, &new.send_connectors, |item| &item.name, &mut found);
    let order = |config: &Config| config.directories.iter().map(|item| item.name.clone()).collect::<Vec<_>>();
    let (before, after) = (order(old), order(new));
    if before != after && before.iter().all(|name| after.contains(name)) && before.len() == after.len() {
        found.push("directories: asked in another order".to_owned());
    }
    for (table, same) in [
        ("server", old.server == new.server),
        ("admin", old.admin == new.admin),
        ("reports", old.reports == new.reports),
        ("loop_detection", old.loops == new.loops),
        ("spool", (old.min_free, old.max_messages) == (new.min_free, new.max_messages)),
        ("trace", old.trace == new.trace),
    ] {
        if !same {
            found.push(format!("[{table}]: changed"));
        }
    }
    found
}

fn domains(old: &AcceptedDomains, new: &AcceptedDomains, found: &mut Vec<String>) {
    for domain in new.iter() {
        let pattern = &domain.pattern;
        match old.get(pattern) {
            None => found.push(format!("accepted domain {pattern}: added")),
            Some(before) if before != domain => found.push(format!("accepted domain {pattern}: changed")),
            Some(_) => {}
        }
    }
    let removed = old.iter().filter(|domain| !new.has(&domain.pattern));
    found.extend(removed.map(|domain| format!("accepted domain {}: removed", domain.pattern)));
}

fn named<T: PartialEq>(
    what: &str,
    old: &[Arc<T>],
    new: &[Arc<T>],
    name: impl Fn(&T) -> &Arc<str>,
    found: &mut Vec<String>,
) {
    let before: HashMap<_, _> = old.iter().map(|item| (name(item), item)).collect();
    let after: HashMap<_, _> = new.iter().map(|item| (name(item), item)).collect();
    for item in new {
        match before.get(name(item)) {
            None => found.push(format!("{what} {}: added", name(item))),
            Some(earlier) if *earlier != item => found.push(format!("{what} {}: changed", name(item))),
            Some(_) => {}
        }
    }
    let removed = old.iter().filter(|item| !after.contains_key(name(item)));
    found.extend(removed.map(|item| format!("{what} {}: removed", name(item))));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::check::load_text;

    const MINIMAL: &str = include_str!("../../conf/minimal.toml");

    fn config(text: &str) -> Config {
        load_text(text, Path::new("/etc/fingerpost/fingerpost.toml")).unwrap()
    }

    #[test]
    fn changes_are_told_one_by_one() {
        let old = config(MINIMAL);
        let spool = format!("{MINIMAL}\n[spool]\nmin_free = \"2GiB\"\n");
        let domain = format!("{MINIMAL}\n[[accepted_domain]]\ndomain = \"a.b\"\ndeliver_to = \"exchange\"\n");
        let door = MINIMAL.replace("name = \"internet\"", "name = \"inside\"");
        for (new, expected) in [
            (MINIMAL.to_owned(), &[][..]),
            (spool, &["[spool]: changed"]),
            (domain, &["accepted domain a.b: added"]),
            (MINIMAL.replace("dc2", "dc3"), &["directory ad: changed"]),
            (MINIMAL.replace("exchange.contoso.local", "ex2"), &["send connector exchange: changed"]),
            (door, &["receive connector inside: added", "receive connector internet: removed"]),
            (
                MINIMAL.replace("type       = \"internal-relay\"", "").replace("mx.", "mx2."),
                &["accepted domain contoso.com: changed", "[server]: changed"],
            ),
        ] {
            assert_eq!(changes(&old, &config(&new)), expected);
        }
    }
}
