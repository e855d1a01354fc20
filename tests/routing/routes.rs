//! The decision table, case by case: `routes/*.toml` hold a configuration each, what its directories say, and what is to
//! become of addresses.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use fingerpost::lookup::{Freshness, Kind, Lookup, Recipient};
use fingerpost::routing::accepted_domain::{AcceptedDomain, AcceptedDomains, DomainType};
use fingerpost::routing::address_space::{AddressSpace, AddressSpaces};
use fingerpost::routing::table::{
    ConnectorRules, DirectoryRules, DomainSet, PlusAddressing, Proof, SourceRoutes, Table,
};
use fingerpost::routing::verdict::{Answers, Decision, Verdict};
use fingerpost::smtp::envelope::{Origin, Relay};
use fingerpost::time::UnixTime;
use serde::Deserialize;
use support::routing_setup::{Directory, NOW, RoutingSetup, address, pattern};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    #[serde(default)]
    accepted_domain: Vec<WrittenDomain>,
    /// Domains that were accepted, and how many seconds ago they ceased to be; negative: by a clock that was ahead.
    #[serde(default)]
    removed: HashMap<String, i64>,
    #[serde(default)]
    directory: Vec<WrittenDirectory>,
    #[serde(default)]
    send_connector: Vec<WrittenConnector>,
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenDomain {
    domain: String,
    r#type: String,
    deliver_to: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenDirectory {
    name: String,
    domains: Option<Vec<String>>,
    deliver_to: Option<String>,
    #[serde(default)]
    mailbox_servers: HashMap<String, String>,
    #[serde(default)]
    plus_addressing: String,
    /// A mail server that is asked.
    #[serde(default)]
    asked: bool,
    #[serde(default)]
    down: bool,
    /// The same address twice: ambiguous. The kind `unavailable` is a question that fails.
    #[serde(default)]
    entries: Vec<Entry>,
    /// What the cache has; the kind `not-found` is a cached not-found.
    #[serde(default)]
    cache: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    address: String,
    kind: String,
    target: Option<String>,
    mail_server: Option<String>,
    send_connector: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenConnector {
    name: String,
    #[serde(default)]
    organization: String,
    rewrite_target_address: Option<bool>,
    verify_with: Option<String>,
    #[serde(default)]
    source_routes: String,
    #[serde(default)]
    address_spaces: Vec<Space>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Space {
    domain: String,
    #[serde(default)]
    subdomains: bool,
    #[serde(default)]
    cost: u32,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct From {
    organization: String,
    resolves_first: bool,
    relay: String,
    authenticated: bool,
}

/// What is left out is not looked at, but one of `refused` and `connector` is there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    address: String,
    #[serde(default)]
    from: From,
    /// `550 5.1.1`
    refused: Option<String>,
    connector: Option<String>,
    row: Option<u8>,
    /// The address itself unless written.
    rcpt_to: Option<String>,
    /// `rcpt_to`'s domain unless written.
    next_hop_domain: Option<String>,
    way: Option<String>,
    /// `DIRECTORY any|live ADDRESS`, all of them in order.
    asked: Option<Vec<String>>,
    /// Part of what the operator reads.
    says: Option<String>,
}

fn lookup(entry: &Entry) -> Lookup {
    let kind = match entry.kind.as_str() {
        "mailbox" => Kind::Mailbox,
        "group" => Kind::Group,
        "public-folder" => Kind::PublicFolder,
        "mail-user" => Kind::MailUser,
        "contact" => Kind::Contact,
        "no-mailbox" => Kind::NoMailbox,
        "not-found" => return Lookup::NotFound,
        "unavailable" => return Lookup::Unavailable("size limit exceeded".into()),
        "accepts-everything" => return Lookup::AcceptsEverything("gw takes mail for everybody".into()),
        other => panic!("kind {other}"),
    };
    Lookup::Found(Arc::new(Recipient {
        kind,
        target: entry.target.as_deref().map(address),
        mail_server: entry.mail_server.as_deref().map(Arc::from),
        send_connector: entry.send_connector.as_deref().map(Arc::from),
        entry: format!("CN={}", entry.address).into(),
        rule: "a test".into(),
    }))
}

fn lookups(entries: &[Entry]) -> HashMap<String, Lookup> {
    let mut lookups = HashMap::new();
    for entry in entries {
        let key = address(&entry.address).key().to_owned();
        if lookups.insert(key.clone(), lookup(entry)).is_some() {
            lookups.insert(key, Lookup::Ambiguous(["CN=one".to_owned(), "CN=two".to_owned()].into()));
        }
    }
    lookups
}

fn directory(written: &WrittenDirectory) -> DirectoryRules {
    let domains = match &written.domains {
        None => DomainSet::All,
        Some(these) => DomainSet::These(these.iter().map(|text| pattern(text)).collect()),
    };
    let servers = written.mailbox_servers.iter();
    DirectoryRules {
        name: written.name.as_str().into(),
        domains,
        deliver_to: written.deliver_to.as_deref().map(Arc::from),
        mailbox_servers: servers.map(|(server, name)| (server.to_lowercase(), name.as_str().into())).collect(),
        plus_addressing: match written.plus_addressing.as_str() {
            "" | "off" => PlusAddressing::Off,
            "keep" => PlusAddressing::Keep,
            "strip" => PlusAddressing::Strip,
            other => panic!("plus_addressing {other}"),
        },
        proof: if written.asked { Proof::Word } else { Proof::Entry },
    }
}

fn accepted(written: &WrittenDomain) -> AcceptedDomain {
    let kinds = [DomainType::Authoritative, DomainType::InternalRelay, DomainType::ExternalRelay];
    let kind = kinds.into_iter().find(|kind| kind.as_str() == written.r#type);
    AcceptedDomain {
        pattern: pattern(&written.domain),
        kind: kind.unwrap_or_else(|| panic!("type {}", written.r#type)),
        deliver_to: written.deliver_to.as_deref().map(Arc::from),
    }
}

fn spaces(connectors: &[WrittenConnector]) -> AddressSpaces {
    let spaces: Vec<(Arc<str>, AddressSpace)> = connectors
        .iter()
        .flat_map(|connector| connector.address_spaces.iter().map(|space| (connector.name.as_str().into(), space)))
        .map(|(connector, Space { domain, subdomains, cost })| {
            let domain = (domain != "*").then(|| address(&format!("x@{domain}")).domain().clone());
            (connector, AddressSpace { domain, subdomains: *subdomains, cost: *cost })
        })
        .collect();
    AddressSpaces::new(spaces.iter().map(|(connector, space)| (connector, space)))
}

fn routing_setup(written: &CaseFile) -> RoutingSetup {
    let ago = |(domain, ago): (&String, &i64)| (pattern(domain), UnixTime(NOW.0.saturating_add_signed(-ago)));
    let removed = written.removed.iter().map(ago).collect();
    let connector = |written: &WrittenConnector| ConnectorRules {
        organization: written.organization.as_str().into(),
        rewrite_target_address: written.rewrite_target_address.unwrap_or(true),
        verify_with: written.verify_with.as_deref().map(Arc::from),
        source_routes: match written.source_routes.as_str() {
            "" | "refuse" => SourceRoutes::Refuse,
            "pass" => SourceRoutes::Pass,
            other => panic!("source_routes {other}"),
        },
    };
    let table = Table {
        accepted: AcceptedDomains::new(written.accepted_domain.iter().map(accepted), removed),
        spaces: spaces(&written.send_connector),
        directories: written.directory.iter().map(directory).collect(),
        connectors: written.send_connector.iter().map(|one| (one.name.as_str().into(), connector(one))).collect(),
    };
    let said =
        |one: &WrittenDirectory| Directory { truth: lookups(&one.entries), cache: lookups(&one.cache), down: one.down };
    RoutingSetup { table, directories: written.directory.iter().map(|one| (one.name.clone(), said(one))).collect() }
}

fn origin(from: &From) -> Origin {
    Origin {
        receive_connector: "internet".into(),
        organization: from.organization.as_str().into(),
        resolves_first: from.resolves_first,
        relay: match from.relay.as_str() {
            "" => Relay::AcceptedDomains,
            "anywhere" => Relay::Anywhere,
            "report" => Relay::Report,
            other => panic!("relay {other}"),
        },
        authenticated: from.authenticated,
        ..Origin::report()
    }
}

/// What is not as the case wants it.
fn differences(case: &Case, decision: &Decision, answers: &Answers) -> Vec<String> {
    let mut differences = Vec::new();
    let mut want = |what: &str, wanted: Option<&str>, found: Option<&str>| {
        if wanted.is_some() && wanted != found {
            differences.push(format!("{what}: wanted {wanted:?}, found {found:?}"));
        }
    };
    let rows = case.row.map(|row| row.to_string());
    want("row", rows.as_deref(), decision.row().map(|row| row.to_string()).as_deref());
    let asked: Vec<String> = answers.0.iter().map(|(question, _)| told(question)).collect();
    let wanted = case.asked.as_ref().map(|asked| asked.join(", "));
    want("asked", wanted.as_deref(), Some(&asked.join(", ")));
    let reasons: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
    let says = case.says.as_deref().filter(|says| !reasons.iter().any(|reason| reason.contains(says)));
    want("says", says, Some(&reasons.join(" | ")));
    match &decision.verdict {
        Verdict::Refuse(reply) => {
            let code = reply.enhanced.map(|enhanced| format!("{} {enhanced}", reply.code));
            want("refused", Some(case.refused.as_deref().unwrap_or("not at all")), code.as_deref());
        }
        Verdict::Accept(route) => {
            want("connector", Some(case.connector.as_deref().unwrap_or("none")), Some(&route.connector));
            let rcpt_to = case.rcpt_to.as_deref().unwrap_or(&case.address);
            want("rcpt_to", Some(rcpt_to), Some(route.rcpt_to.as_str()));
            let domain = address(rcpt_to).domain().clone();
            let domain = case.next_hop_domain.as_deref().unwrap_or(domain.as_str());
            want("next_hop_domain", Some(domain), Some(route.next_hop_domain.as_str()));
            let way = serde_json::to_value(route.way).unwrap_or_default();
            want("way", case.way.as_deref(), way.as_str());
        }
    }
    differences
}

fn told(question: &fingerpost::lookup::Question) -> String {
    let freshness = match question.freshness {
        Freshness::Any => "any",
        Freshness::Live => "live",
    };
    format!("{} {freshness} {}", question.directory, question.address)
}

#[test]
fn every_case_is_decided_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/routing/routes");
    let (mut cases, mut rows, mut wrong) = (0, BTreeSet::new(), Vec::new());
    for file in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let written: CaseFile =
            toml::from_str(&fs::read_to_string(&file).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let setup = routing_setup(&written);
        for case in &written.case {
            assert!(case.refused.is_some() != case.connector.is_some(), "{name}: {} wants nothing", case.address);
            let (decision, answers) = setup.decide(&origin(&case.from), &address(&case.address));
            cases += 1;
            rows.extend(decision.row());
            let differences = differences(case, &decision, &answers);
            wrong.extend(differences.iter().map(|text| format!("{name}: {}: {text}", case.address)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases >= 60, "only {cases} cases were found");
    assert_eq!(rows, (0..=11).collect(), "a row has no case");
}
