//! The routing decision: the table in DESIGN section 5, row by row.
//!
//! `crate::resolve` calls [`decide`] until it has a verdict. `ask` evaluates the directories' answers (rows 5 and 6),
//! `target` follows target addresses (row 8), `walk` has what all rows share.

use std::time::Duration;

use super::accepted_domain::{Accepted, DomainType};
use super::ask::{Cause, Doubt, Finding, Owner};
use super::table::{RECIPIENT_MX, Table};
use super::target::Followed;
use super::verdict::{Answers, Decision, Reason, Route, RouteKind, Says, Step, Verdict};
use super::walk::{Decided, Exit, Walk};
use crate::smtp::address::Address;
use crate::smtp::envelope::{Origin, Relay};
use crate::smtp::reply;
use crate::time::UnixTime;

/// How long a domain that has ceased to be accepted is answered with 451 (row 0).
const RECENTLY: Duration = Duration::from_hours(1);

/// Decides where one recipient goes, or returns the question that has to be answered first.
///
/// ```
/// # use std::collections::HashMap;
/// # use fingerpost::lookup::{Answer, Fresh, Lookup};
/// # use fingerpost::routing::accepted_domain::{AcceptedDomain, AcceptedDomains, DomainType};
/// # use fingerpost::routing::decide::decide;
/// # use fingerpost::routing::table::{DirectoryRules, DomainPattern, DomainSet, PlusAddressing, Proof, Table};
/// # use fingerpost::routing::verdict::{Answers, Step, Verdict};
/// # use fingerpost::smtp::{address::Address, domain::Domain, envelope::{Origin, Relay}, reply};
/// # use fingerpost::time::UnixTime;
/// # let pattern = DomainPattern::Exact(Domain::parse("contoso.com")?);
/// # let kind = DomainType::Authoritative;
/// # let contoso = AcceptedDomain { pattern, kind, deliver_to: Some("exchange".into()) };
/// # let staff = DirectoryRules {
/// #     name: "staff".into(), domains: DomainSet::All, deliver_to: None, mailbox_servers: HashMap::new(),
/// #     plus_addressing: PlusAddressing::Off, proof: Proof::Entry,
/// # };
/// // `contoso` is an accepted domain of type authoritative, `staff` the directory that resolves it.
/// let accepted = AcceptedDomains::new([contoso], HashMap::new());
/// let table = Table { accepted, directories: vec![staff], ..Table::default() };
/// let origin = Origin { relay: Relay::AcceptedDomains, ..Origin::report() };
/// let bob = Address::parse("bob@contoso.com")?;
///
/// let mut answers = Answers::default();
/// let decision = loop {
///     match decide(&table, &origin, &bob, &answers, UnixTime(1_800_000_000)) {
///         Step::Ask(question) => {
///             assert_eq!((&*question.directory, &question.address), ("staff", &bob));
///             answers.0.push((question, Answer { lookup: Lookup::NotFound, fresh: Fresh::Live }));
///         }
///         Step::Verdict(decision) => break decision,
///     }
/// };
/// assert_eq!(decision.verdict, Verdict::Refuse(reply::USER_UNKNOWN));
/// assert_eq!(decision.row(), Some(9));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn decide(table: &Table, origin: &Origin, address: &Address, answers: &Answers, now: UnixTime) -> Step {
    let mut walk = Walk {
        table,
        origin,
        answers,
        now,
        came_with: address,
        reasons: Vec::new(),
        followed: Vec::new(),
        unconfirmed: None,
        listed: false,
    };
    match walk.verdict() {
        Ok(verdict) => Step::Verdict(Decision { address: address.clone(), verdict, reasons: walk.reasons }),
        Err(question) => Step::Ask(question),
    }
}

impl<'a> Walk<'a> {
    fn verdict(&mut self) -> Decided<Verdict> {
        let address = self.came_with;
        let Some(domain) = self.table.accepted.find(address.domain()) else {
            return Ok(self.not_accepted());
        };
        let verdict = self.accepted(address, domain.clone())?;
        match verdict {
            Verdict::Refuse(_) if address.is_postmaster() => {
                self.followed.clear(); // wherever its target led
                self.postmaster(9, address, &domain)
            }
            _ => Ok(verdict),
        }
    }

    /// Rows 0 to 2.
    fn not_accepted(&mut self) -> Verdict {
        let address = self.came_with;
        if let Some(refused) = self.recently_removed(address) {
            return refused;
        }
        let domain = address.domain();
        if self.origin.relay == Relay::AcceptedDomains {
            let says = format!("{domain} is not an accepted domain, and this client may not relay elsewhere");
            return self.refuse(1, reply::RELAYING_DENIED, says);
        }
        let connector = match self.table.spaces.for_foreign(domain) {
            Some(connector) => {
                self.row(2, format!("{domain} is not an accepted domain; {connector} has an address space for it"));
                connector.clone()
            }
            None if self.origin.relay == Relay::Report => {
                self.row(2, format!("a report to {domain}, which no address space covers: to its MX"));
                RECIPIENT_MX.into()
            }
            None => {
                let says =
                    format!("{domain} is not an accepted domain, and no send connector's address space covers it");
                return self.refuse(2, reply::NO_ROUTE, says);
            }
        };
        let (rcpt_to, next_hop_domain) = (address.clone(), domain.clone());
        Verdict::Accept(Route { connector, rcpt_to, next_hop_domain, way: RouteKind::External })
    }

    /// Row 0, if it applies.
    pub(super) fn recently_removed(&mut self, address: &Address) -> Option<Verdict> {
        let removed = self.table.accepted.removed_at(address.domain())?;
        // A removal far in the future comes from a clock that was wrong.
        if self.now.since(removed) >= RECENTLY || removed.since(self.now) >= RECENTLY {
            return None;
        }
        let says =
            format!("{} was an accepted domain until {removed}: refused for good after an hour", address.domain());
        Some(self.refuse(0, reply::DOMAIN_RECENTLY_REMOVED, says))
    }

    /// Rows 3 to 11; repeated for each target address in another accepted domain.
    fn accepted(&mut self, mut address: &'a Address, mut domain: Accepted<'a>) -> Decided<Verdict> {
        loop {
            if domain.kind == DomainType::ExternalRelay {
                return self.external_relay(address, &domain);
            }
            match self.find(address)? {
                Finding::Here(owner) => return self.resolved(owner, &domain),
                Finding::Elsewhere(owner, target) => match self.target(owner, target, &domain)? {
                    Followed::To(next, in_domain) => (address, domain) = (next, in_domain),
                    Followed::Verdict(verdict) => return Ok(verdict),
                },
                Finding::Nobody => return self.unresolved(address, &domain),
                Finding::Doubt(Doubt { row, reply, says, .. }) => {
                    if !address.is_postmaster() {
                        return Ok(self.refuse(row, reply, says));
                    }
                    self.row(row, says);
                    return self.postmaster(row, address, &domain);
                }
            }
        }
    }

    /// Rows 3 and 4.
    fn external_relay(&mut self, to: &Address, domain: &Accepted<'a>) -> Decided<Verdict> {
        let Some(connector) = self.table.spaces.for_accepted(to.domain()) else {
            return Ok(self.no_connector(4, domain));
        };
        let back = self.followed.is_empty() && self.goes_back(connector, to) && !to.is_postmaster();
        if back {
            let from = &self.origin.organization;
            let says =
                format!("{} is {from}'s (external-relay), and {from} sent us this: it would circle", to.domain());
            return self.refuse_for_good(3, reply::ROUTING_LOOP, says);
        }
        let says = format!("{} is external-relay: to {connector} by its address space", domain.pattern);
        self.leave(Exit { row: 4, connector, to: to.clone(), way: RouteKind::External, says: says.into() })
    }

    /// Row 7.
    fn resolved(&mut self, owner: Owner<'a>, domain: &Accepted<'a>) -> Decided<Verdict> {
        let Some((connector, why)) = owner.connector(domain) else {
            return Ok(self.no_connector(7, domain));
        };
        let says = Says::Resolved {
            domain: domain.pattern.clone(),
            of_type: domain.kind,
            kind: owner.recipient.kind,
            connector: connector.clone(),
            why,
        };
        self.leave(Exit { row: 7, connector, to: owner.address, way: RouteKind::Resolved, says })
    }

    /// Rows 9 to 11.
    fn unresolved(&mut self, to: &Address, domain: &Accepted<'a>) -> Decided<Verdict> {
        let shared = domain.kind == DomainType::InternalRelay;
        if to.is_postmaster() {
            return self.postmaster(if shared { 11 } else { 9 }, to, domain);
        }
        if !shared {
            let says = format!("{} is authoritative, and no directory has {to}", domain.pattern);
            return self.refuse_for_good(9, reply::USER_UNKNOWN, says);
        }
        let Some(connector) = self.table.spaces.for_accepted(to.domain()) else {
            return Ok(self.no_connector(11, domain));
        };
        if self.followed.is_empty() && self.goes_back(connector, to) {
            let from = &self.origin.organization;
            let says = format!("no directory has {to}, and {from}, which shares the domain, does not have it either");
            return self.refuse_for_good(10, reply::USER_UNKNOWN, says);
        }
        let way = match self.vouched(connector, to)? {
            Vouched::By(way) => way,
            Vouched::Refused(verdict) => return Ok(verdict),
        };
        let says = format!("{} is internal-relay, and no directory has {to}: to {connector}", domain.pattern);
        self.leave(Exit { row: 11, connector, to: to.clone(), way, says: says.into() })
    }

    /// Row 11's second half: the answer of the connector's `verify_with`.
    fn vouched(&mut self, connector: &str, to: &Address) -> Decided<Vouched> {
        let rules = self.table.connectors.get(connector);
        let Some(name) = rules.and_then(|rules| rules.verify_with.as_ref()) else {
            return Ok(Vouched::By(RouteKind::Relayed));
        };
        let Some(directory) = self.table.directories.iter().find(|directory| directory.name == *name) else {
            let says = format!("{connector} verifies with {name}, which is not configured");
            return Ok(Vouched::Refused(self.refuse(11, reply::DIRECTORY_UNAVAILABLE, says)));
        };
        match self.look_up(directory, to)? {
            Finding::Here(_) | Finding::Elsewhere(..) => {
                self.reasons.push(Reason::Note(format!("{name} vouches for {to}")));
                Ok(Vouched::By(RouteKind::RelayedVerified))
            }
            Finding::Nobody => {
                let says =
                    format!("no directory has {to}, and {name}, which {connector} verifies with, does not either");
                self.refuse_for_good(11, reply::USER_UNKNOWN, says).map(Vouched::Refused)
            }
            Finding::Doubt(Doubt { cause: Cause::AcceptsEverything, says, .. }) => {
                self.reasons.push(Reason::Note(format!("{says}: relayed without its word")));
                Ok(Vouched::By(RouteKind::Relayed))
            }
            Finding::Doubt(Doubt { cause: Cause::Fault, reply, says, .. }) => {
                Ok(Vouched::Refused(self.refuse(11, reply, says)))
            }
        }
    }
}

/// Whether `verify_with` has an unresolved recipient.
enum Vouched {
    By(RouteKind),
    Refused(Verdict),
}
