//! After the dot: next hops that take part have the message, what is left is made durable, and only then the client
//! hears how it ended (DESIGN section 7, "After the dot").

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::Services;
use super::commit::{self, Fate, Kept};
use super::header::Passed;
use super::passing_on::passed_on;
use super::rcpt::part;
use super::returned::{self, ToRemember};
use super::transaction::{Accepted, Transaction};
use super::writing::Writing;
use crate::config::WhenUnreachable;
use crate::delivery::combine::{Outcome, Then, Told, combine};
use crate::delivery::cut_through::{Asked, Branches, End, Ending, Message, Vouched};
use crate::delivery::unreachable::{self, Client, Past, Unreachable};
use crate::in_force::InForce;
use crate::message::envelope::{Origin, Sender};
use crate::message::header::Identity;
use crate::report::{Action, Reported};
use crate::routing::loops::Relayed;
use crate::smtp::reply::{self, Reply};
use crate::smtp::server::Summary;
use crate::spool::SpoolError;
use crate::spool::entry::{Content, Outcome as Done, State};
use crate::time::UnixTime;
use crate::trace::{Event, What};

/// Ends a message that has come in whole: what the client is told.
///
/// # Errors
/// The refusal; nothing of the message is kept.
pub(super) async fn end(
    services: &Arc<Services>,
    session: &str,
    mut transaction: Box<Transaction>,
    summary: Summary,
) -> Result<Reply, Reply> {
    let began = Instant::now();
    let Some((mut passed, mut writing)) = transaction.content.take() else { return Err(reply::TRY_AGAIN) };
    // Said now or never: what a next hop has taken cannot be refused any more.
    let queues = |recipient: &Accepted| part(&transaction.in_force.config, &recipient.route).is_none();
    if services.pressure.is_on() && transaction.recipients.iter().any(queues) {
        return Err(reply::INSUFFICIENT_STORAGE);
    }
    returned::check(services, session, &mut transaction, &mut passed).await?;
    let content = content(&passed, &writing, summary);
    let fates = if transaction.branches.is_empty() {
        transaction.recipients.iter().map(|_| Fate::due(writing.at)).collect()
    } else {
        send(services, session, &mut transaction, (&passed, &content, &mut writing)).await?
    };
    let (fates, reported) = with_loops(fates, &passed);
    let to_remember = ToRemember::of(&passed, &fates);
    let kept = Kept { content, stamps: passed.stamps, id: writing.id, at: writing.at, fates, reported };
    let queued = kept.needs_the_spool(&transaction);
    let label = if queued { "queue" } else { "cut-through" };
    let reply = if queued {
        commit::commit(services.clone(), session.to_owned(), (transaction, kept, writing)).await?
    } else {
        commit::delivered(services, session, &transaction, kept)
    };
    to_remember.remember(services);
    services.metrics.acceptance_duration.with_label_values(&[label]).observe(began.elapsed().as_secs_f64());
    Ok(reply)
}

pub(super) fn content(passed: &Passed, writing: &Writing, summary: Summary) -> Content {
    Content {
        size: writing.size,
        header_size: writing.received_size + passed.section_size,
        ascii_header: passed.facts.ascii,
        eight_bit: summary.eight_bit,
        bare_lf: summary.bare_lf,
        identity: passed.facts.identity,
        message_id: passed.facts.message_id_shown().to_owned(),
    }
}

/// Recipients that loop are over, whatever became of the others.
fn with_loops(mut fates: Vec<Fate>, passed: &Passed) -> (Vec<Fate>, Vec<Reported>) {
    for (at, reply) in &passed.failed {
        if let Some(fate) = fates.get_mut(*at) {
            *fate = Fate::failed(reply.clone(), "".into());
        }
    }
    let reported = fates.iter().enumerate().filter_map(|(at, fate)| fate.reported(at)).collect();
    (fates, reported)
}

/// Hands the message to the next hops that take part, and says what becomes of each recipient.
async fn send(
    services: &Services,
    session: &str,
    transaction: &mut Transaction,
    (passed, content, writing): (&Passed, &Content, &mut Writing),
) -> Result<Vec<Fate>, Reply> {
    let in_force = transaction.in_force.clone();
    let (sender, recipients) = (&transaction.sender, &transaction.recipients);
    regroup(&mut transaction.branches, (&in_force, &transaction.origin), (sender, recipients), passed);
    let (at, identity) = (writing.at, &content.identity);
    let body = writing.body().await.map_err(|error| cannot_keep(&error))?;
    let message =
        Message { origin: &transaction.origin, sender: &transaction.sender, content, body, in_force: &in_force };
    let endings = transaction.branches.send(&message).await;
    remember(services, transaction, identity, &endings);
    let mut sorted: Vec<Option<&Ending>> = vec![None; transaction.recipients.len()];
    for ending in &endings {
        if let Some(place) = sorted.get_mut(ending.at) {
            *place = Some(ending);
        }
    }
    let going: Vec<usize> =
        (0..sorted.len()).filter(|at| !passed.failed.iter().any(|(failed, _)| failed == at)).collect();
    let outcomes: Vec<Outcome> =
        going.iter().map(|recipient| outcome(services, transaction, *recipient, sorted[*recipient])).collect();
    let (told, then) = combine(&outcomes);
    if let Told::Refused(reply) = told {
        let words = match endings.iter().find(|ending| ending.end.reply() == &reply) {
            Some(ending) => words(transaction, ending.at, &reply),
            None => reply,
        };
        tracing::info!(sender = %transaction.sender.reverse_path, reply = %words, message_id = content.message_id,
            "message refused by its next hops");
        tell_refused(services, session, transaction, (&content.message_id, &words));
        return Err(words);
    }
    let mut fates: Vec<Fate> = sorted.iter().map(|_| Fate::due(at)).collect();
    for (recipient, then) in going.into_iter().zip(then) {
        fates[recipient] = fate(transaction, recipient, (sorted[recipient], then), at);
    }
    Ok(fates)
}

/// Takes out of the branches who is not sent to, and puts everybody where the loop rules sent him.
pub(super) fn regroup(
    branches: &mut Branches,
    (in_force, origin): (&InForce, &Origin),
    (sender, recipients): (&Sender, &[Accepted]),
    passed: &Passed,
) {
    let mut parts = Vec::with_capacity(recipients.len());
    for (at, recipient) in recipients.iter().enumerate() {
        if passed.failed.iter().any(|(failed, _)| *failed == at) {
            continue;
        }
        let Some(part) = part(&in_force.config, &recipient.route) else { continue };
        let (rcpt, route, vouched) = (&recipient.rcpt, &recipient.route, Vouched::No);
        parts.push((part, Asked { at, rcpt, route, origin, sender, vouched }));
    }
    branches.regroup(&parts);
}

/// What became of one recipient, for `combine`.
fn outcome(services: &Services, transaction: &Transaction, at: usize, ending: Option<&Ending>) -> Outcome {
    let Some(ending) = ending else { return Outcome::Queued };
    match &ending.end {
        End::Accepted { .. } => Outcome::Accepted,
        End::Deferred(reply) => Outcome::Deferred(reply.clone()),
        End::Refused(reply) => Outcome::Refused(reply.clone()),
        End::CutLoose(_) => Outcome::Queued,
        End::Unreachable(why) => match policy(services, transaction, at) {
            Unreachable::Queue => Outcome::Queued,
            Unreachable::Defer => {
                tracing::info!(reason = %why, "next hop out of reach: deferred");
                Outcome::Deferred(reply::NEXT_HOP_UNREACHABLE)
            }
        },
    }
}

fn policy(services: &Services, transaction: &Transaction, at: usize) -> Unreachable {
    let recipient = &transaction.recipients[at];
    let when = part(&transaction.in_force.config, &recipient.route)
        .map_or(WhenUnreachable::Queue, |part| part.cut_through.when_unreachable);
    let client = if transaction.origin.is_stranger() { Client::Stranger } else { Client::Known };
    let past = match transaction.recently_good(services, |good, now| good.is_good(&recipient.rcpt.address, now)) {
        true => Past::Good,
        false => Past::Nothing,
    };
    unreachable::policy(when, recipient.route.way, client, past)
}

/// What becomes of one recipient of a message that is accepted.
fn fate(transaction: &Transaction, at: usize, (ending, then): (Option<&Ending>, Then), taken: UnixTime) -> Fate {
    let Some(ending) = ending else { return Fate::due(taken) };
    let next_hop = ending.next_hop.clone();
    match (&ending.end, then) {
        (End::Accepted { reply, dsn }, _) => Fate {
            state: State::Done(Done::Delivered { next_hop, reply: reply.clone() }),
            // RFC 3461 5.2.1: a next hop with DSN reports success itself.
            action: (!dsn).then_some(Action::Relayed),
        },
        (End::Refused(reply), Then::Report) => Fate::failed(reply.clone(), next_hop),
        (End::Deferred(reply) | End::Unreachable(reply), _) => {
            let retry = transaction.in_force.config.send_connector(&transaction.recipients[at].route.connector);
            let first = retry.map_or(std::time::Duration::ZERO, |connector| connector.retry.first);
            Fate::waiting(reply, taken.plus(first))
        }
        (End::CutLoose(reply) | End::Refused(reply), _) => Fate::waiting(reply, taken),
    }
}

/// Counts and traces a message that its next hops refused.
fn tell_refused(services: &Services, session: &str, transaction: &Transaction, (message_id, said): (&str, &Reply)) {
    let result = if said.is_permanent() { "failed" } else { "deferred" };
    for recipient in &transaction.recipients {
        let connector = &*recipient.route.connector;
        services.metrics.deliveries.with_label_values(&[connector, result]).inc();
        services.trace.record(&Event {
            recipient: recipient.rcpt.address.as_str().into(),
            message_id: message_id.into(),
            connector: connector.into(),
            detail: said.to_string().into(),
            ..transaction.event(session, What::Refused)
        });
    }
}

/// A final reply, as the client hears it.
fn words(transaction: &Transaction, at: usize, reply: &Reply) -> Reply {
    let connector = &transaction.recipients[at].route.connector;
    match transaction.in_force.config.send_connector(connector) {
        Some(connector) => passed_on(reply, connector, &transaction.origin),
        None => reply.clone(),
    }
}

/// Notes what next hops accepted: for the relay memory (DESIGN section 6, rule 4), and as recently good.
fn remember(services: &Services, transaction: &Transaction, identity: &Identity, endings: &[Ending]) {
    let now = UnixTime::now();
    let accepted = || endings.iter().filter(|ending| matches!(ending.end, End::Accepted { .. }));
    let mut memory = services.relay_memory.lock().unwrap_or_else(PoisonError::into_inner);
    for recipient in accepted().filter_map(|ending| transaction.recipients.get(ending.at)) {
        memory.note(&Relayed {
            connector: &recipient.route.connector,
            recipient: &recipient.rcpt.address,
            reverse_path: &transaction.sender.reverse_path,
            facts: identity,
            now,
        });
    }
    drop(memory);
    let mut good = services.recently_good.lock().unwrap_or_else(PoisonError::into_inner);
    for recipient in accepted().filter_map(|ending| transaction.recipients.get(ending.at)) {
        good.accepted(&recipient.rcpt.address, &recipient.route.connector, now);
    }
}

/// What the client hears when the message cannot be kept.
pub(super) fn cannot_keep(error: &SpoolError) -> Reply {
    tracing::error!(%error, "message refused: it cannot be kept");
    match error {
        SpoolError::Full { .. } => reply::INSUFFICIENT_STORAGE,
        SpoolError::Io(_) => reply::TRY_AGAIN,
    }
}
