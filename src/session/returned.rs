//! Detects messages that come back as new ones, without our header fields (DESIGN section 6, rule 4), by From, Date,
//! Subject and the beginning of the body.
//!
//! Every message that goes to a connector with an organization is remembered by the first three, which is cheap. Only
//! if one of these comes again by a connector on which a loop would come in, its body is digested, before anything of
//! it is sent on.

use super::Services;
use super::commit::Fate;
use super::loop_check::{Checked, Evidence, Passed, all_failed, set_aside};
use super::transaction::Transaction;
use crate::config::Protocol;
use crate::delivery::rcpt_in_flight::ComesFrom;
use crate::message::body::{Beginning, BodyDigest};
use crate::message::header::Facts;
use crate::routing::relay_memory::ContentKey;
use crate::smtp::reply::Reply;
use crate::spool::entry::{Outcome, RecipientState};
use crate::time::UnixTime;

/// The keys under which a message's recipients are remembered, and whether it seems to have come back.
#[derive(Default)]
pub(super) struct Remembered {
    /// Recipients whose connector has an organization, by position.
    keys: Vec<(usize, ContentKey)>,
    back: Option<Back>,
}

/// A message that may have come back.
struct Back {
    recipients: Vec<usize>,
    body: Body,
}

/// The state of its body.
enum Body {
    Reading(Beginning),
    /// Its digest, and whether the message is refused.
    Checked(BodyDigest, Result<(), Reply>),
}

impl Remembered {
    /// Looks up which recipients may have had this message before; called once the header section is accepted.
    pub(super) fn of(services: &Services, transaction: &Transaction, facts: &Facts, now: UnixTime) -> Self {
        let Some(head) = facts.head() else { return Self::default() };
        let config = &transaction.in_force.config;
        let (mut keys, mut known) = (Vec::with_capacity(transaction.recipients.len()), Vec::new());
        let mut memory = services.memory.relays();
        let head = memory.head_key(&head);
        for (at, recipient) in transaction.recipients.iter().enumerate() {
            let connector = &recipient.route.connector;
            if config.send_connector(connector).is_none_or(|connector| connector.organization.is_empty()) {
                continue;
            }
            let key = memory.content_key(connector, &recipient.rcpt.address, head);
            if memory.count_heads(key, now) > 0 {
                known.push(at);
            }
            keys.push((at, key));
        }
        drop(memory);
        known.retain(|at| is_brought_back(services, transaction, *at));
        let came_back = !known.is_empty();
        let back = came_back.then(|| Back { recipients: known, body: Body::Reading(Beginning::default()) });
        Self { keys, back }
    }

    /// Whether the message is refused already, so that the rest can be dropped.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self.back, Some(Back { body: Body::Checked(_, Err(_)), .. }))
    }

    /// Takes the next piece of the body.
    pub(super) fn take(&mut self, piece: &[u8]) {
        if let Some(Back { body: Body::Reading(beginning), .. }) = &mut self.back {
            beginning.take(piece);
        }
    }
}

/// Whether it comes in where a loop would: by a receive connector of the send connector's organisation, or from one of
/// its smart hosts.
fn is_brought_back(services: &Services, transaction: &Transaction, at: usize) -> bool {
    let route = transaction.recipients.get(at).map(|recipient| &recipient.route.connector);
    let connector = route.and_then(|connector| transaction.in_force.config.send_connector(connector));
    connector.is_some_and(|connector| {
        let addresses = match &connector.protocol {
            Protocol::Smtp(smtp) => services.outbound.known_addresses(smtp),
            Protocol::Maildir(_) => Vec::new(),
        };
        ComesFrom::of(&transaction.origin, connector, &addresses) == ComesFrom::NextHop
    })
}

/// Called before anything is sent on: recipients that loop are collected in [`Passed::failed`]. A second call has the
/// same result.
///
/// # Errors
/// The refusal of the whole message.
pub(super) async fn check(
    services: &Services,
    session: &str,
    transaction: &mut Transaction,
    passed: &mut Passed,
) -> Result<(), Reply> {
    let Some(Back { recipients, body }) = &mut passed.remembered.back else { return Ok(()) };
    let digest = match body {
        Body::Checked(_, verdict) => return verdict.clone(),
        Body::Reading(beginning) => beginning.digest(),
    };
    let in_force = transaction.in_force.clone();
    let evidence = Evidence::Body(&digest);
    let checked = Checked { services, in_force: &in_force, facts: &passed.facts, evidence, now: UnixTime::now() };
    let recipients = recipients.iter().copied().filter(|at| !passed.failed.iter().any(|(failed, _)| failed == at));
    let verdict = match Box::pin(set_aside(&checked, session, transaction, recipients.collect())).await {
        Ok(looped) => {
            passed.failed.extend(looped);
            all_failed(&passed.failed, transaction)
        }
        Err(refusal) => Err(refusal),
    };
    *body = Body::Checked(digest, verdict.clone());
    verdict
}

/// What is to be remembered of a message once it is accepted.
pub(super) struct ToRemember(Vec<(ContentKey, Option<BodyDigest>)>);

impl ToRemember {
    /// For recipients that have not failed.
    pub(super) fn of(passed: &Passed, fates: &[Fate]) -> Self {
        let Remembered { keys, back } = &passed.remembered;
        let failed = |at: usize| {
            matches!(
                fates.get(at),
                Some(Fate { state: RecipientState::Done(Outcome::Failed { .. } | Outcome::Dropped), .. })
            )
        };
        let body = |at: usize| match back {
            Some(Back { recipients, body: Body::Checked(digest, _) }) if recipients.contains(&at) => Some(*digest),
            _ => None,
        };
        Self(keys.iter().filter(|(at, _)| !failed(*at)).map(|(at, key)| (*key, body(*at))).collect())
    }

    /// Called once the message is accepted.
    pub(super) fn remember(self, services: &Services) {
        if self.0.is_empty() {
            return;
        }
        let now = UnixTime::steady();
        let mut memory = services.memory.relays();
        for (key, body) in self.0 {
            memory.note_content(key, body.as_ref(), now);
        }
    }
}
