//! Interprets a clean search result: the answer for one address, and the directory's health. Pure.
//!
//! "Not found" is believed only if the same result has the probe, and no reference to a part of the directory that was
//! not searched (DESIGN section 5, "doubt is temporary").

use std::sync::Arc;

use super::search::Reply;
use crate::config::LdapConfig;
use crate::directory::known::Known;
use crate::directory::profile::DisabledAccounts;
use crate::lookup::{Kind, Lookup};
use crate::smtp::address::Address;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) lookup: Lookup,
    /// Whether "not found" from this directory can be believed, or why not.
    pub(super) health: Result<(), Arc<str>>,
    /// A contradiction between an entry's type and its attributes.
    pub(super) at_odds: Option<String>,
    pub(super) known: Vec<Known>,
}

/// Interprets a result for the address.
pub(super) fn read(config: &LdapConfig, reply: &Reply, address: &Address) -> Reading {
    let judgement = config.profile.judge(&reply.entries, address, disabled_accounts(config));
    let health = complete(reply).and_then(|()| vouched_for(config, reply));
    let lookup = match (judgement.lookup, &health) {
        (lookup, Ok(())) => lookup,
        (Lookup::NotFound, Err(doubt)) => Lookup::Unavailable(Arc::clone(doubt)),
        // This counts as not found, so it is doubted as well: without the right to read their attributes all entries
        // look like this.
        (Lookup::Found(entry), Err(doubt)) if entry.kind == Kind::NoMailbox => Lookup::Unavailable(Arc::clone(doubt)),
        (
            known @ (Lookup::Found(_)
            | Lookup::Ambiguous(_)
            | Lookup::AcceptsEverything(_)
            | Lookup::Held(_)
            | Lookup::Unavailable(_)),
            Err(_),
        ) => known,
    };
    Reading { lookup, health, at_odds: judgement.at_odds, known: judgement.known }
}

/// How disabled accounts are treated.
pub(super) fn disabled_accounts(config: &LdapConfig) -> DisabledAccounts {
    if config.refuse_disabled { DisabledAccounts::Refused } else { DisabledAccounts::Accepted }
}

/// Whether everything below the bases was searched.
pub(super) fn complete(reply: &Reply) -> Result<(), Arc<str>> {
    all_is_here(&reply.references)
}

/// Whether no reference leads to a part with recipients.
pub(super) fn all_is_here(references: &[String]) -> Result<(), Arc<str>> {
    match references.iter().find(|reference| !holds_no_recipients(reference)) {
        None => Ok(()),
        Some(reference) => Err(format!("part of the directory is at {reference}: use the global catalog").into()),
    }
}

/// Whether the probe was found and is a recipient.
fn vouched_for(config: &LdapConfig, reply: &Reply) -> Result<(), Arc<str>> {
    let Some(probe) = &config.probe else { return Ok(()) };
    match config.profile.judge(&reply.entries, probe, DisabledAccounts::Accepted).lookup {
        Lookup::Found(entry) if entry.kind == Kind::NoMailbox => Err(format!(
            "the probe {probe} is found, but not as a recipient ({}): check the rights on its attributes",
            entry.rule
        )
        .into()),
        Lookup::Found(_) | Lookup::Ambiguous(_) => Ok(()),
        Lookup::NotFound => Err(format!("the probe {probe} is not found: check base and rights").into()),
        Lookup::AcceptsEverything(cause) | Lookup::Held(cause) | Lookup::Unavailable(cause) => {
            Err(format!("the probe {probe}: {cause}").into())
        }
    }
}

/// Whether a reference leads to a part of Active Directory without recipients: configuration, schema, DNS zones.
fn holds_no_recipients(reference: &str) -> bool {
    let path = reference.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map(|(_, path)| path);
    let dn = path.unwrap_or_default().to_ascii_lowercase();
    ["cn=configuration,", "cn=schema,", "dc=domaindnszones,", "dc=forestdnszones,"]
        .iter()
        .any(|prefix| dn.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;
    use crate::config::{CacheConfig, HoldChanges, LdapMode, Profile};
    use crate::directory::profile::Entry;

    fn config(probe: Option<&str>) -> LdapConfig {
        LdapConfig {
            urls: Vec::new(),
            profile: Profile::ActiveDirectory,
            base: Vec::new(),
            bind_dn: String::new(),
            password_file: None,
            start_tls: false,
            ca: None,
            certificate: None,
            timeout: Duration::from_secs(5),
            probe: probe.map(|probe| Address::parse(probe).unwrap()),
            cache: CacheConfig { found: Duration::ZERO, not_found: Duration::ZERO, entries: 0 },
            refuse_disabled: false,
            mode: LdapMode::Lookup,
            hold_changes: HoldChanges { share_millionths: 20_000, at_least: 50, within: Duration::from_hours(1) },
            mailbox_servers: HashMap::new(),
        }
    }

    fn entry(address: &str, kind: &str) -> Entry {
        let mut entry = Entry::new(format!("CN={address}"));
        entry.add("proxyAddresses", [format!("SMTP:{address}")]);
        entry.add("msExchRecipientTypeDetails", [kind.to_owned()]);
        entry
    }

    #[derive(Debug, PartialEq)]
    enum Outcome {
        Found,
        NotFound,
        Unavailable(&'static str),
    }
    use Outcome::{Found, NotFound, Unavailable};

    #[test]
    fn a_not_found_needs_the_probe_and_no_foreign_reference() {
        let asked = Address::parse("a@contoso.com").unwrap();
        let (a, nobody) = (entry("a@contoso.com", "1"), entry("a@contoso.com", "65536"));
        let (probe, bare) = (entry("probe@contoso.com", "1"), entry("probe@contoso.com", "65536"));
        let local = "ldap://contoso.com/CN=Configuration,DC=contoso,DC=com";
        let zones = "ldap://DomainDnsZones.contoso.com/DC=DomainDnsZones,DC=contoso,DC=com";
        let child = "ldap://emea.contoso.com/DC=emea,DC=contoso,DC=com";
        let with = Some("probe@contoso.com");
        for (probe, entries, references, expected) in [
            (with, vec![a.clone(), probe.clone()], vec![], Found),
            (with, vec![probe.clone()], vec![], NotFound),
            (with, vec![], vec![], Unavailable("check base and rights")),
            (with, vec![a.clone()], vec![], Found),
            (with, vec![nobody.clone(), probe.clone()], vec![], Found),
            (with, vec![nobody.clone()], vec![], Unavailable("check base and rights")),
            (with, vec![bare.clone()], vec![], Unavailable("rights on its attributes")),
            (with, vec![nobody, bare], vec![], Unavailable("rights on its attributes")),
            (with, vec![probe.clone()], vec![local, zones], NotFound),
            (with, vec![probe.clone()], vec![local, child], Unavailable("use the global catalog")),
            (with, vec![a.clone(), probe], vec![child], Found),
            (None, vec![], vec![], NotFound),
            (None, vec![a], vec![], Found),
            (None, vec![], vec!["ldap://elsewhere"], Unavailable("use the global catalog")),
        ] {
            let reply = Reply { entries, references: references.into_iter().map(str::to_owned).collect() };
            let reading = read(&config(probe), &reply, &asked);
            match (&reading.lookup, &expected) {
                (Lookup::Found(_), Found) | (Lookup::NotFound, NotFound) => {}
                (Lookup::Unavailable(cause), Unavailable(words)) => assert!(cause.contains(words), "{cause}"),
                _ => panic!("{reply:?}: {reading:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn the_probe_may_be_asked_for_itself() {
        let probe = Address::parse("Probe@contoso.com").unwrap();
        let reply = Reply { entries: vec![entry("probe@contoso.com", "1")], references: Vec::new() };
        let reading = read(&config(Some("probe@contoso.com")), &reply, &probe);
        assert!(matches!(reading.lookup, Lookup::Found(_)));
        assert_eq!(reading.health, Ok(()));
    }
}
