//! Checks the header section of an incoming message: which recipients loop (DESIGN section 6, rules 3 to 5), and which
//! fields strangers may not send. [`super::returned`] checks the bodies of messages that may have come back.

use super::Services;
use super::identity::with_tenant;
use super::returned::Remembered;
use super::transaction::{Transaction, join_reasons};
use crate::config::{Config, LoopMode};
use crate::delivery::memory::Unasked;
use crate::in_force::InForce;
use crate::message::body::BodyDigest;
use crate::message::header::{self, Facts};
use crate::message::stamp::Stamp;
use crate::routing::loops::{self, CONTENT_PASSES, Door, LoopRule, RELAYS, Relayed, Rules, Seen};
use crate::routing::relay_memory::Returned;
use crate::routing::verdict::{Route, Verdict};
use crate::smtp::address::Address;
use crate::smtp::reply::{self, Reply};
use crate::strangers::sums::Kind;
use crate::time::UnixTime;
use crate::trace::{Event, What};

/// A header section that was accepted.
pub(super) struct Passed {
    /// The section as it is stored.
    pub(super) section: Vec<u8>,
    /// Its length as received, octets.
    pub(super) section_size: u64,
    pub(super) facts: Facts,
    /// The stamps that count.
    pub(super) stamps: Vec<Stamp>,
    /// Recipients that will not be sent to, by position, and the reply in their report.
    pub(super) failed: Vec<(usize, Reply)>,
    /// How its content can be recognised when it comes again.
    pub(super) remembered: Remembered,
}

/// What the loop rules are applied to.
pub(super) struct Checked<'a> {
    pub(super) services: &'a Services,
    pub(super) in_force: &'a InForce,
    pub(super) facts: &'a Facts,
    pub(super) evidence: Evidence<'a>,
    pub(super) now: UnixTime,
}

/// What a loop can be recognised by.
#[derive(Clone, Copy)]
pub(super) enum Evidence<'a> {
    /// The header section's stamps, and the relay memory's notes of its Message-ID.
    Header(&'a Seen),
    /// The body of a message that may have come back.
    Body(&'a BodyDigest),
}

/// The result of the loop rules for one recipient.
enum Standing {
    /// No loop; it is sent by this route.
    Clear(Route),
    Looped(LoopRule),
    /// The directory's live answer leads to this refusal.
    Refused(Reply),
}

/// Checks a header section; recipients that loop are collected in [`Passed::failed`].
///
/// # Errors
/// The refusal of the whole message.
pub(super) async fn check(
    services: &Services,
    session: &str,
    transaction: &mut Transaction,
    section: &[u8],
) -> Result<Passed, Reply> {
    let tells = || transaction.tells(services, Kind::Certificate, "tenant");
    let with_tenant = with_tenant(&transaction.origin, &transaction.connector, section, tells);
    if let Some(origin) = with_tenant {
        transaction.origin = origin.into();
    }
    // MAIL was accepted because the message might have been the organisation's.
    if transaction.connector.tenant.is_some() && services.pressure.turns_away(transaction.origin.whose()) {
        return Err(reply::INSUFFICIENT_STORAGE);
    }
    let facts = header::examine(section);
    let in_force = transaction.in_force.clone();
    let rules = rules(&in_force);
    let seen = loops::see(&rules, &facts);
    for ignored in &seen.ignored {
        services.metrics.stamps_ignored.with_label_values(&[ignored.label()]).inc();
    }
    if let Some(rule) = loops::too_many_hops(&rules, &facts, &seen) {
        services.metrics.loops.with_label_values(&[rule.label()]).inc();
        if transaction.is_loop_told(services, rule) {
            tracing::warn!(rule = rule.label(), message_id = facts.message_id, "too many hops: message refused");
        }
        return Err(reply::MESSAGE_LOOP);
    }
    let (evidence, now) = (Evidence::Header(&seen), UnixTime::now());
    let checked = Checked { services, in_force: &in_force, facts: &facts, evidence, now };
    let failed = set_aside(&checked, session, transaction, (0..transaction.recipients.len()).collect()).await?;
    all_failed(&failed, transaction)?;
    let remembered = Remembered::of(services, transaction, &facts, UnixTime::steady());
    let section = match transaction.origin.is_stranger() {
        true => header::strip(section, &transaction.connector.strips(&in_force.config.server.hostname)),
        false => section.to_vec(),
    };
    Ok(Passed { section_size: section.len() as u64, section, facts, stamps: seen.valid, failed, remembered })
}

/// # Errors
/// The refusal of the message, where no recipient is left.
pub(super) fn all_failed(failed: &[(usize, Reply)], transaction: &Transaction) -> Result<(), Reply> {
    if failed.len() < transaction.recipients.len() {
        return Ok(());
    }
    let other = failed.iter().map(|(_, reply)| reply).find(|reply| **reply != reply::ROUTING_LOOP);
    Err(other.cloned().unwrap_or(reply::MESSAGE_LOOP))
}

fn rules(in_force: &InForce) -> Rules<'_> {
    Rules {
        installation: &in_force.config.server.installation,
        keys: in_force.keys.all(),
        max_received: in_force.config.loops.max_received,
        max_passes: in_force.config.loops.max_passes,
    }
}

/// Returns the recipients that will not be sent to. Where the directory was asked, the others' routes are updated.
///
/// # Errors
/// The refusal of the message: one of them is in doubt.
pub(super) async fn set_aside(
    checked: &Checked<'_>,
    session: &str,
    transaction: &mut Transaction,
    recipients: Vec<usize>,
) -> Result<Vec<(usize, Reply)>, Reply> {
    let mut failed = Vec::new();
    for at in recipients {
        let standing = checked.standing(transaction, at).await;
        let enforced = checked.in_force.config.loops.mode == LoopMode::Refuse;
        match standing {
            Standing::Clear(route) => transaction.recipients[at].route = route,
            Standing::Looped(rule) => {
                checked.record(session, transaction, at, rule);
                if enforced || rule.is_hop_count() {
                    failed.push((at, reply::ROUTING_LOOP));
                }
            }
            Standing::Refused(_) if !enforced => {}
            // A doubt is temporary, and the client still has the message.
            Standing::Refused(refusal) if refusal.is_transient() => return Err(refusal),
            Standing::Refused(refusal) => failed.push((at, refusal)),
        }
    }
    Ok(failed)
}

impl Checked<'_> {
    /// Whether a recipient loops; before that is believed the directory is asked live. An unresolved recipient may rest
    /// on a cached "not found", and the other organisation has just sent the mail back.
    async fn standing(&self, transaction: &Transaction, at: usize) -> Standing {
        let recipient = &transaction.recipients[at];
        let address = &recipient.rcpt.address;
        if let Evidence::Header(seen) = self.evidence
            && loops::passed_too_often(&rules(self.in_force), seen, address, self.now)
        {
            return Standing::Looped(LoopRule::Passes);
        }
        match self.looped(transaction, address, &recipient.route).await {
            Ok(None) => return Standing::Clear(recipient.route.clone()),
            Ok(Some(_)) => {}
            Err(Unasked) => return Standing::Refused(reply::LOOP_UNCERTAIN),
        }
        // Boxed because it is rarely needed: large futures are moved about with each message.
        let asked = transaction.resolve_live(address, self.now);
        let decision = Box::pin(asked).await;
        match decision.verdict {
            Verdict::Accept(route) => match self.looped(transaction, address, &route).await {
                Ok(None) => Standing::Clear(route),
                Ok(Some(rule)) => Standing::Looped(rule),
                Err(Unasked) => Standing::Refused(reply::LOOP_UNCERTAIN),
            },
            Verdict::Refuse(refusal) => {
                let because = &join_reasons(&decision.reasons);
                let detail = because.replace(address.as_str(), "");
                if transaction.is_told(self.services, Kind::Looped, &detail, address, &refusal) {
                    tracing::info!(recipient = %address, reply = %refusal, because, "looped recipient refused, asked live");
                }
                Standing::Refused(refusal)
            }
        }
    }

    /// Which rule finds a loop, by what this node knows, or by what has come back to all of them.
    async fn looped(
        &self,
        transaction: &Transaction,
        address: &Address,
        route: &Route,
    ) -> Result<Option<LoopRule>, Unasked> {
        let rule = self.looped_by(transaction, address, route);
        let Some(returned) = self.returned(transaction, address, route).filter(|_| rule.is_none()) else {
            return Ok(rule);
        };
        // Boxed because it is rarely needed.
        let is_loop = Box::pin(self.services.memory.is_loop(returned)).await?;
        Ok(is_loop.then_some(LoopRule::RelayMemory))
    }

    /// What other nodes are asked about: a message that has come back to this one, too seldom for a loop.
    fn returned(&self, transaction: &Transaction, address: &Address, route: &Route) -> Option<Returned> {
        let names = self.services.memory.names()?;
        match self.evidence {
            Evidence::Header(_) => {
                let relayed = self.relayed(transaction, address, route);
                let times = self.returns(&relayed, transaction, route);
                (times > 0).then(|| Returned { hash: names.relay(&relayed), times, loops_at: RELAYS })
            }
            Evidence::Body(body) => {
                let head = self.facts.head()?;
                let mut memory = self.services.memory.relays();
                let content = memory.content_key(&route.connector, address, memory.head_key(&head));
                let times = memory.count_contents(content, body, UnixTime::steady()) + 1;
                let hash = names.content(&route.connector, address, &head, body);
                Some(Returned { hash, times, loops_at: CONTENT_PASSES })
            }
        }
    }

    fn relayed<'b>(&'b self, transaction: &'b Transaction, address: &'b Address, route: &'b Route) -> Relayed<'b> {
        Relayed {
            connector: &route.connector,
            recipient: address,
            reverse_path: &transaction.sender.reverse_path,
            facts: &self.facts.identity,
            now: UnixTime::steady(),
        }
    }

    /// How often it has come back to this node.
    fn returns(&self, relayed: &Relayed<'_>, transaction: &Transaction, route: &Route) -> usize {
        let door = door_of(&self.in_force.config, &route.connector);
        loops::returns(&mut self.services.memory.relays(), relayed, &transaction.origin, door)
    }

    fn looped_by(&self, transaction: &Transaction, address: &Address, route: &Route) -> Option<LoopRule> {
        match self.evidence {
            Evidence::Header(seen) => self.looped_by_header(seen, transaction, address, route),
            Evidence::Body(body) => {
                let head = self.facts.head()?;
                let mut memory = self.services.memory.relays();
                let key = memory.content_key(&route.connector, address, memory.head_key(&head));
                loops::content_remembered(&mut memory, key, body, UnixTime::steady()).then_some(LoopRule::RelayMemory)
            }
        }
    }

    fn looped_by_header(
        &self,
        seen: &Seen,
        transaction: &Transaction,
        address: &Address,
        route: &Route,
    ) -> Option<LoopRule> {
        if loops::stamped(self.in_force.keys.all(), &seen.valid, address, route, self.now) {
            return Some(LoopRule::Stamp);
        }
        let returns = self.returns(&self.relayed(transaction, address, route), transaction, route);
        (returns >= RELAYS).then_some(LoopRule::RelayMemory)
    }

    /// Logs that a recipient loops, whatever is done about it.
    fn record(&self, session: &str, transaction: &Transaction, at: usize, rule: LoopRule) {
        let recipient = &transaction.recipients[at];
        let (address, connector) = (&recipient.rcpt.address, &*recipient.route.connector);
        self.services.metrics.loops.with_label_values(&[rule.label()]).inc();
        if !transaction.is_loop_told(self.services, rule) {
            return;
        }
        let rule = rule.label();
        tracing::warn!(rule, recipient = %address, send_connector = %connector, message_id = self.facts.message_id,
            mode = ?self.in_force.config.loops.mode, "routing loop");
        self.services.trace.record(&Event {
            recipient: address.as_str().into(),
            message_id: (&*self.facts.message_id).into(),
            connector: connector.into(),
            detail: rule.into(),
            ..transaction.event(session, What::Looped)
        });
    }
}

/// The receive connectors by which mail that a send connector sent out would come back (DESIGN section 6, rule 4).
fn door_of<'a>(config: &'a Config, connector: &str) -> Door<'a> {
    let organization = config.send_connector(connector).map_or("", |connector| &connector.organization);
    let receives =
        |connector: &crate::config::ReceiveConnector| loops::same_organization(&connector.organization, organization);
    if config.receive_connectors.iter().any(|connector| receives(connector)) {
        Door::Of(organization)
    } else {
        Door::Any
    }
}
