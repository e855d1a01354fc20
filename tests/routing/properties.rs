//! What always holds: properties of decisions and stamps over random configurations, directories and faults.
//!
//! An oracle that knows the directories' truth, and nothing of how decisions are made, judges them.

use std::collections::HashMap;
use std::sync::Arc;

use fingerpost::lookup::{Kind, Lookup, Recipient};
use fingerpost::message::header::examine;
use fingerpost::message::stamp::{Key, NewStamp, sign, verify};
use fingerpost::routing::accepted_domain::{AcceptedDomain, AcceptedDomains, DomainType};
use fingerpost::routing::address_space::{AddressSpace, AddressSpaces};
use fingerpost::routing::loops::{Rules, see, stamped};
use fingerpost::routing::table::{
    ConnectorRules, DirectoryRules, DomainSet, PlusAddressing, Proof, SourceRoutes, Table,
};
use fingerpost::routing::verdict::{Decision, Route, Verdict};
use fingerpost::smtp::address::Address;
use fingerpost::smtp::envelope::{Origin, Relay};
use fingerpost::time::UnixTime;
use proptest::collection::{hash_map, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use support::routing_setup::{Directory, NOW, RoutingSetup, address, pattern};

const DOMAINS: [&str; 6] = ["a.example", "b.example", "c.example", "x.a.example", "f.example", "g.example"];
const PATTERNS: [&str; 6] = ["a.example", "b.example", "c.example", "*.a.example", "f.example", "*.example"];
const LOCALS: [&str; 7] = ["u", "v", "u+t", "postmaster", "\"q q\"", "u%x", "u+t%x"];
const CONNECTORS: [&str; 4] = ["k0", "k1", "k2", "k3"];
const ORGANIZATIONS: [&str; 3] = ["", "p", "s"];
const DIRECTORIES: [&str; 3] = ["d0", "d1", "d2"];

fn addresses() -> impl Strategy<Value = Address> {
    (select(&LOCALS), select(&DOMAINS)).prop_map(|(local, domain)| address(&format!("{local}@{domain}")))
}

fn connector() -> impl Strategy<Value = Arc<str>> {
    select(&CONNECTORS).prop_map(Arc::from)
}

fn recipients() -> impl Strategy<Value = Lookup> {
    let kinds = [Kind::Mailbox, Kind::Group, Kind::MailUser, Kind::Contact, Kind::NoMailbox];
    let target = prop_oneof![1 => Just(None), 4 => addresses().prop_map(Some)];
    let named = prop_oneof![6 => Just(None), 1 => connector().prop_map(Some)];
    (select(kinds.to_vec()), target, named).prop_map(|(kind, target, send_connector)| {
        let (entry, rule) = ("e".into(), "r".into());
        Lookup::Found(Recipient { kind, target, mail_server: None, send_connector, entry, rule }.into())
    })
}

fn lookups() -> impl Strategy<Value = Lookup> {
    prop_oneof![
        6 => recipients(),
        2 => Just(Lookup::NotFound),
        1 => Just(Lookup::Unavailable("busy".into())),
        1 => Just(Lookup::AcceptsEverything("gw takes all".into())),
        1 => Just(Lookup::Ambiguous(["one".to_owned(), "two".to_owned()].into())),
    ]
}

/// What a cache may hold: clean answers only.
fn cached() -> impl Strategy<Value = Lookup> {
    prop_oneof![2 => recipients(), 3 => Just(Lookup::NotFound)]
}

fn answered(lookups: impl Strategy<Value = Lookup>) -> impl Strategy<Value = HashMap<String, Lookup>> {
    hash_map(addresses().prop_map(|address| address.key().to_owned()), lookups, 0..16)
}

fn directories() -> impl Strategy<Value = Directory> {
    let down = prop::bool::weighted(0.15);
    (answered(lookups()), answered(cached()), down).prop_map(|(truth, cache, down)| Directory { truth, cache, down })
}

fn directory_rules(name: &'static str) -> impl Strategy<Value = DirectoryRules> {
    let some =
        subsequence(&PATTERNS, 0..4).prop_map(|these| DomainSet::These(these.into_iter().map(pattern).collect()));
    let domains = prop_oneof![3 => Just(DomainSet::All), 1 => some];
    let plus = select(&[PlusAddressing::Off, PlusAddressing::Keep, PlusAddressing::Strip]);
    let proof = prop_oneof![3 => Just(Proof::Entry), 1 => Just(Proof::Word)];
    (domains, plus, prop::option::weighted(0.2, connector()), proof).prop_map(
        move |(domains, plus_addressing, deliver_to, proof)| DirectoryRules {
            name: name.into(),
            domains,
            deliver_to,
            mailbox_servers: HashMap::new(),
            plus_addressing,
            proof,
        },
    )
}

fn connector_rules() -> impl Strategy<Value = ConnectorRules> {
    let verify_with = prop::option::weighted(0.3, select(&DIRECTORIES).prop_map(Arc::from));
    let source_routes = prop_oneof![4 => Just(SourceRoutes::Refuse), 1 => Just(SourceRoutes::Pass)];
    (select(&ORGANIZATIONS), prop::bool::ANY, verify_with, source_routes).prop_map(
        |(organization, rewrite_target_address, verify_with, source_routes)| ConnectorRules {
            organization: organization.into(),
            rewrite_target_address,
            verify_with,
            source_routes,
        },
    )
}

fn accepted() -> impl Strategy<Value = AcceptedDomains> {
    let kinds = [DomainType::Authoritative, DomainType::InternalRelay, DomainType::ExternalRelay];
    let one = (select(kinds.to_vec()), connector().prop_map(Some));
    (subsequence(&PATTERNS, 1..6), vec(one, 6), subsequence(&PATTERNS, 0..2), 0_u64..7200).prop_map(
        |(patterns, kinds, removed, ago)| {
            let domains = patterns.into_iter().zip(kinds);
            let all =
                domains.map(|(text, (kind, deliver_to))| AcceptedDomain { pattern: pattern(text), kind, deliver_to });
            let removed = removed.into_iter().map(|text| (pattern(text), UnixTime(NOW.0 - ago)));
            AcceptedDomains::new(all, removed.collect())
        },
    )
}

fn spaces() -> impl Strategy<Value = AddressSpaces> {
    let domain = prop_oneof![1 => Just(None), 8 => addresses().prop_map(|address| Some(address.domain().clone()))];
    let space = (domain, prop::bool::ANY, 0_u32..3).prop_map(|(domain, subdomains, cost)| AddressSpace {
        domain,
        subdomains,
        cost,
    });
    vec((connector(), space), 0..8)
        .prop_map(|spaces| AddressSpaces::new(spaces.iter().map(|(connector, space)| (connector, space))))
}

fn setups() -> impl Strategy<Value = RoutingSetup> {
    let rules = (directory_rules("d0"), directory_rules("d1"), directory_rules("d2"));
    let connectors = vec(connector_rules(), CONNECTORS.len());
    (accepted(), spaces(), rules, connectors, vec(directories(), DIRECTORIES.len())).prop_map(
        |(accepted, spaces, rules, connectors, directories)| {
            let connectors = CONNECTORS.into_iter().map(Arc::from).zip(connectors).collect();
            let table = Table { accepted, spaces, directories: vec![rules.0, rules.1, rules.2], connectors };
            RoutingSetup { table, directories: DIRECTORIES.into_iter().map(str::to_owned).zip(directories).collect() }
        },
    )
}

fn origins() -> impl Strategy<Value = Origin> {
    let relay = select(&[Relay::AcceptedDomains, Relay::Anywhere, Relay::Report]);
    (select(&ORGANIZATIONS), prop::bool::ANY, relay).prop_map(|(organization, resolves_first, relay)| Origin {
        organization: organization.into(),
        resolves_first,
        relay,
        ..Origin::report()
    })
}

/// What a directory knows of an address.
#[derive(Debug, Clone, PartialEq)]
enum Whereabouts {
    Here,
    Elsewhere(Address),
    Nobody,
    Doubt,
}

/// Whose words the oracle takes.
#[derive(Clone, Copy, PartialEq)]
enum Words {
    /// The directories' own.
    Truth,
    /// The cache's where it has some.
    CacheFirst,
}

struct Oracle<'a>(&'a RoutingSetup, Words);

impl Oracle<'_> {
    fn one(&self, rules: &DirectoryRules, address: &Address) -> Whereabouts {
        let directory = &self.0.directories[&*rules.name];
        let cache = directory.cache.get(address.key()).filter(|_| self.1 == Words::CacheFirst);
        let lookup = match (cache, directory.down) {
            (Some(lookup), _) => lookup,
            (None, true) => return Whereabouts::Doubt,
            (None, false) => directory.truth.get(address.key()).unwrap_or(&Lookup::NotFound),
        };
        let said = match lookup {
            Lookup::NotFound => Whereabouts::Nobody,
            Lookup::AcceptsEverything(_) | Lookup::Ambiguous(_) | Lookup::Held(_) | Lookup::Unavailable(_) => {
                Whereabouts::Doubt
            }
            Lookup::Found(recipient) => match (recipient.kind, &recipient.target) {
                (Kind::Mailbox | Kind::Group | Kind::PublicFolder, _) => Whereabouts::Here,
                (Kind::MailUser | Kind::Contact, Some(target)) => Whereabouts::Elsewhere(target.clone()),
                (Kind::MailUser | Kind::Contact, None) => Whereabouts::Here, // another kind of target: its own system's
                (Kind::NoMailbox, _) => Whereabouts::Nobody,
            },
        };
        match address.local().split_once('+') {
            Some((user, _)) if said == Whereabouts::Nobody && rules.plus_addressing != PlusAddressing::Off => {
                self.one(rules, &support::routing_setup::address(&format!("{user}@{}", address.domain())))
            }
            _ => said,
        }
    }

    fn all(&self, address: &Address) -> Whereabouts {
        let mut directories =
            self.0.table.directories.iter().filter(|one| one.domains.covers(address.domain())).peekable();
        if directories.peek().is_none() {
            return Whereabouts::Doubt;
        }
        directories
            .map(|rules| self.one(rules, address))
            .find(|said| *said != Whereabouts::Nobody)
            .unwrap_or(Whereabouts::Nobody)
    }

    fn kind(&self, address: &Address) -> Option<DomainType> {
        self.0.table.accepted.find(address.domain()).map(|domain| domain.kind)
    }

    /// The address and its targets as far as they lead from one accepted domain into another.
    fn chain(&self, address: &Address) -> Vec<Address> {
        let mut chain = vec![address.clone()];
        while let Some(last) = chain.last()
            && self.kind(last).is_some_and(|kind| kind != DomainType::ExternalRelay)
            && let Whereabouts::Elsewhere(target) = self.all(last)
            && target.domain() != last.domain()
            && self.kind(&target).is_some()
            && chain.len() < 20
        {
            chain.push(target);
        }
        chain
    }
}

/// Whether a connector to the organisation of a sender that resolves first exists at all.
fn could_go_back(setup: &RoutingSetup, origin: &Origin) -> bool {
    let mut organizations = setup.table.connectors.values().map(|rules| &rules.organization);
    origin.resolves_first && !origin.organization.is_empty() && organizations.any(|name| *name == origin.organization)
}

/// Whether a 5xx of ours rests on what the directories themselves say, a domain that is not ours, or a loop.
fn justified(setup: &RoutingSetup, origin: &Origin, decision: &Decision, reply: (u16, String)) -> bool {
    let truth = Oracle(setup, Words::Truth);
    let domain = decision.address.domain();
    let chain = truth.chain(&decision.address);
    let last = &chain[chain.len() - 1];
    let back = could_go_back(setup, origin);
    match (reply.0, reply.1.as_str()) {
        (550, "5.7.1") => truth.kind(&decision.address).is_none() && origin.relay == Relay::AcceptedDomains,
        (550, "5.4.4") => truth.kind(&decision.address).is_none() && setup.table.spaces.for_foreign(domain).is_none(),
        (550, "5.1.1") => match (truth.all(last), truth.kind(last)) {
            (Whereabouts::Nobody, Some(DomainType::Authoritative)) => true,
            (Whereabouts::Nobody, Some(DomainType::InternalRelay)) => back || unknown_to_verifier(&truth, last),
            _ => false,
        },
        (550, "5.1.3") => {
            let refuses = |rules: &ConnectorRules| rules.source_routes == SourceRoutes::Refuse;
            origin.is_stranger()
                && decision.address.local().contains('%')
                && truth.kind(&decision.address).is_some()
                && setup.table.connectors.values().any(refuses)
        }
        (550, "5.4.6") => back || chain[..chain.len() - 1].contains(last),
        _ => false,
    }
}

fn unknown_to_verifier(truth: &Oracle<'_>, address: &Address) -> bool {
    let table = &truth.0.table;
    let connector = table.spaces.for_accepted(address.domain()).and_then(|name| table.connectors.get(name));
    let name = connector.and_then(|rules| rules.verify_with.clone());
    let verifier = table.directories.iter().find(|rules| Some(&rules.name) == name.as_ref());
    verifier.is_some_and(|rules| truth.one(rules, address) == Whereabouts::Nobody)
}

fn route(decision: &Decision) -> Option<&Route> {
    match &decision.verdict {
        Verdict::Accept(route) => Some(route),
        Verdict::Refuse(_) => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    /// `RoutingSetup::decide` fails where a decision asks without end.
    #[test]
    fn every_refusal_for_good_is_justified(setup in setups(), origin in origins(), address in addresses()) {
        let (decision, _) = setup.decide(&origin, &address);
        if let Verdict::Refuse(reply) = &decision.verdict && reply.is_permanent() {
            let code = (reply.code, reply.enhanced.map_or(String::new(), |enhanced| enhanced.to_string()));
            prop_assert!(justified(&setup, &origin, &decision, code), "{decision:#?}");
        }
        prop_assert!(!decision.reasons.is_empty());
    }

    #[test]
    fn a_strangers_way_on_leaves_only_where_an_entry_has_it_or_the_connector_passes_it(
        setup in setups(), origin in origins(), local in select(&["u%x", "u+t%x"]), domain in select(&DOMAINS),
    ) {
        let address = address(&format!("{local}@{domain}"));
        let (decision, _) = setup.decide(&origin, &address);
        let ours = setup.table.accepted.find(address.domain()).is_some();
        if let Some(route) = route(&decision) && ours && origin.is_stranger() {
            let passes = setup.table.connectors[&route.connector].source_routes == SourceRoutes::Pass;
            let has = |rules: &DirectoryRules| {
                let Directory { truth, cache, .. } = &setup.directories[&*rules.name];
                let found = |lookups: &HashMap<String, Lookup>| matches!(lookups.get(address.key()), Some(Lookup::Found(_)));
                rules.proof == Proof::Entry && (found(truth) || found(cache))
            };
            prop_assert!(passes || setup.table.directories.iter().any(has), "{decision:#?}");
        }
    }

    #[test]
    fn doubt_is_neither_relayed_nor_refused_for_good(
        setup in setups(), origin in origins(), address in addresses(),
    ) {
        let oracle = Oracle(&setup, Words::CacheFirst);
        let in_doubt = |address: &Address| {
            let looked_up = matches!(oracle.kind(address), Some(DomainType::Authoritative | DomainType::InternalRelay));
            looked_up && !address.is_postmaster() && oracle.all(address) == Whereabouts::Doubt
        };
        if in_doubt(&address) {
            let (decision, _) = setup.decide(&origin, &address);
            prop_assert!(matches!(&decision.verdict, Verdict::Refuse(reply) if reply.is_transient()), "{decision:#?}");
        }
    }

    #[test]
    fn postmaster_of_an_accepted_domain_is_never_refused(
        setup in setups(), origin in origins(), domain in select(&DOMAINS),
    ) {
        let (decision, _) = setup.decide(&origin, &address(&format!("Postmaster@{domain}")));
        if setup.table.accepted.find(decision.address.domain()).is_some() {
            prop_assert!(route(&decision).is_some(), "{decision:#?}");
        }
    }

    #[test]
    fn nothing_unresolved_goes_back_where_it_was_not_found(
        setup in setups(), origin in origins(), address in addresses(),
    ) {
        let (decision, _) = setup.decide(&origin, &address);
        let accepted = setup.table.accepted.find(address.domain()).is_some() && !address.is_postmaster();
        if let Some(route) = route(&decision) && accepted && decision.row() != Some(7) {
            let organization = &setup.table.connectors[&route.connector].organization;
            let back = origin.resolves_first && !organization.is_empty() && *organization == origin.organization;
            prop_assert!(!(back && route.rcpt_to == address), "{decision:#?}");
        }
    }

    #[test]
    fn a_stamped_recipient_does_not_take_its_connector_again_within_the_hour(
        setup in setups(), origins in (origins(), origins()), address in addresses(), age in 0_u64..7200,
    ) {
        let (decision, _) = setup.decide(&origins.0, &address);
        let Some(first) = route(&decision) else { return Ok(()) };
        let mail = "Message-ID: <1@a>\r\nDate: d\r\nFrom: u@a.example\r\n";
        let identity = examine(mail.as_bytes()).identity;
        let recipients = &[&address, &first.rcpt_to];
        let stamp = NewStamp { installation: "mx", via: &first.connector, time: NOW, recipients, identity: &identity };
        let keys = &[[2; 32], [1; 32]].map(Key::new);
        let facts = examine(format!("Received: by them\r\n{}{mail}", sign(&keys[1], &stamp)).as_bytes());
        let seen = see(&Rules { installation: "mx", keys, max_received: 50, max_passes: 8 }, &facts);
        for back in recipients {
            let (decision, _) = setup.decide(&origins.1, back);
            if let Some(again) = route(&decision) && again.connector == first.connector {
                let looped = stamped(keys, &seen.valid, back, again, UnixTime(NOW.0 + age));
                prop_assert_eq!(looped, age <= 3600);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_stamp_verifies_and_no_change_of_it_does(
        installation in "[a-z.]{1,20}|\\PC{0,40}",
        via in "\\PC{0,200}",
        time in any::<u64>(),
        recipients in vec("[a-z0-9]{1,20}", 1..20),
        (position, byte) in (any::<prop::sample::Index>(), b'!'..=b'~'),
    ) {
        let mail = examine(b"Message-ID: <1@a>\r\nFrom: a\r\n");
        let recipients: Vec<Address> = recipients.iter().map(|local| address(&format!("{local}@a.example"))).collect();
        let recipients: Vec<&Address> = recipients.iter().collect();
        let (identity, time) = (&mail.identity, UnixTime(time));
        let stamp = NewStamp { installation: &installation, via: &via, time, recipients: &recipients, identity };
        let keys = [Key::new([1; 32])];
        let field = sign(&keys[0], &stamp);
        prop_assert!(field.lines().all(|line| line.len() < 78));
        let value = examine(field.as_bytes()).stamps.remove(0);
        let read = |value: &str| verify(&keys, &installation, &mail.values, value);
        let verified = read(&value).unwrap();
        prop_assert_eq!((&verified.via, verified.time), (&via, time));
        prop_assert!(recipients.iter().all(|recipient| verified.names(&keys, recipient)));

        let mut changed = value.clone().into_bytes();
        let at = position.index(changed.len());
        if changed[at] != b' ' && changed[at] != byte {
            changed[at] = byte;
            prop_assert!(read(std::str::from_utf8(&changed).unwrap()).is_err(), "{at} {byte}: {value}");
            changed.remove(at);
            prop_assert!(read(std::str::from_utf8(&changed).unwrap()).is_err(), "without {at}: {value}");
        }
    }
}
