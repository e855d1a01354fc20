//! The header section of a message on its way in: do its recipients loop (DESIGN section 6, rules 3 to 5), and what of
//! it may a stranger not assert. [`super::returned`] looks at the bodies of those that may have come back.

use super::Services;
use super::identity::with_tenant;
use super::returned::Remembered;
use super::transaction::{Transaction, join_reasons};
use crate::config::{Config, LoopMode};
use crate::in_force::InForce;
use crate::message::body::BodyDigest;
use crate::message::header::{self, Facts};
use crate::message::stamp::Stamp;
use crate::routing::loops::{self, Door, LoopRule, Relayed, Rules, Seen};
use crate::routing::verdict::{Route, Verdict};
use crate::smtp::address::Address;
use crate::smtp::reply::{self, Reply};
use crate::strangers::sums::Kind;
use crate::time::UnixTime;
use crate::trace::{Event, What};

/// A header section that may pass.
pub(super) struct Passed {
    /// What is stored of it.
    pub(super) section: Vec<u8>,
    /// Its length.
    pub(super) section_size: u64,
    /// What it shows.
    pub(super) facts: Facts,
    /// The stamps that count.
    pub(super) stamps: Vec<Stamp>,
    /// Recipients that will not be sent to, by their position, and what their report says.
    pub(super) failed: Vec<(usize, Reply)>,
    /// What tells its content when it comes again.
    pub(super) remembered: Remembered,
}

/// What a message is checked by.
pub(super) struct Checked<'a> {
    pub(super) services: &'a Services,
    pub(super) in_force: &'a InForce,
    pub(super) facts: &'a Facts,
    pub(super) evidence: Evidence<'a>,
    pub(super) now: UnixTime,
}

/// What may show a loop.
#[derive(Clone, Copy)]
pub(super) enum Evidence<'a> {
    /// The header section's stamps, and what is remembered of its Message-ID.
    Header(&'a Seen),
    /// The body of a message that was brought back.
    Body(&'a BodyDigest),
}

/// How one recipient stands after the loop rules.
enum Standing {
    /// It goes on, by this route.
    Clear(Route),
    Looped(LoopRule),
    /// The directory, asked live, gives another answer.
    Refused(Reply),
}

/// Examines a header section; recipients that loop are set aside in [`Passed::failed`].
///
/// # Errors
/// What the whole message is refused with.
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
    // MAIL was taken because the message might have been the organisation's.
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
/// What the message is refused with where nobody is left to send it to.
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

/// Which of these recipients will not be sent to. The others' routes are brought up to date where the directory was asked.
///
/// # Errors
/// The message is refused: there is doubt about one of them.
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
            // Doubt is temporary, and the message is still the client's.
            Standing::Refused(refusal) if refusal.is_transient() => return Err(refusal),
            Standing::Refused(refusal) => failed.push((at, refusal)),
        }
    }
    Ok(failed)
}

impl Checked<'_> {
    /// Whether a recipient loops; the directory is asked live before that is believed. An unresolved one may be a cached
    /// not-found that the other organisation has just sent back.
    async fn standing(&self, transaction: &Transaction, at: usize) -> Standing {
        let recipient = &transaction.recipients[at];
        let address = &recipient.rcpt.address;
        if let Evidence::Header(seen) = self.evidence
            && loops::passed_too_often(&rules(self.in_force), seen, address, self.now)
        {
            return Standing::Looped(LoopRule::Passes);
        }
        if self.looped_by(transaction, address, &recipient.route).is_none() {
            return Standing::Clear(recipient.route.clone());
        }
        // Boxed, as all that rarely happens here: what is waited for is moved about with each message.
        let asked = transaction.resolve_live(address, self.now);
        let decision = Box::pin(asked).await;
        match decision.verdict {
            Verdict::Accept(route) => match self.looped_by(transaction, address, &route) {
                None => Standing::Clear(route),
                Some(rule) => Standing::Looped(rule),
            },
            Verdict::Refuse(refusal) => {
                let because = &join_reasons(&decision.reasons);
                let detail = because.replace(address.as_str(), "");
                if transaction.is_told(self.services, (Kind::Looped, &detail), (address, &refusal)) {
                    tracing::info!(recipient = %address, reply = %refusal, because, "looped recipient refused, asked live");
                }
                Standing::Refused(refusal)
            }
        }
    }

    fn looped_by(&self, transaction: &Transaction, address: &Address, route: &Route) -> Option<LoopRule> {
        match self.evidence {
            Evidence::Header(seen) => self.looped_by_header(seen, transaction, (address, route)),
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
        (address, route): (&Address, &Route),
    ) -> Option<LoopRule> {
        if loops::stamped(self.in_force.keys.all(), &seen.valid, address, route, self.now) {
            return Some(LoopRule::Stamp);
        }
        let relayed = Relayed {
            connector: &route.connector,
            recipient: address,
            reverse_path: &transaction.sender.reverse_path,
            facts: &self.facts.identity,
            now: UnixTime::steady(),
        };
        let mut memory = self.services.memory.relays();
        let door = door_of(&self.in_force.config, &route.connector);
        loops::remembered(&mut memory, &relayed, &transaction.origin, door).then_some(LoopRule::RelayMemory)
    }

    /// Says that a recipient loops, whatever is done about it.
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

/// Through which doors what a send connector sent out comes back in (DESIGN section 6, rule 4).
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
