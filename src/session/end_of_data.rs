//! After the end of data: next hops in the conversation get the message, what is left is made durable, and only then
//! the client gets its reply (DESIGN section 7, "After the dot").

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Services;
use super::answer::RefusedRcpt;
use super::commit::{self, AcceptedMessage, Fate};
use super::content_buffer::Writing;
use super::loop_check::Passed;
use super::rcpt::part;
use super::refused::is_unknown;
use super::returned::{self, ToRemember};
use super::transaction::{Accepted, Answer, Transaction};
use super::without_spool::{can_keep, cannot_keep};
use crate::config::{Retry, SendConnector};
use crate::delivery::branch::{InFlight, Message, Waits};
use crate::delivery::concurrently::concurrently;
use crate::delivery::cut_through::{Branches, CutThroughRecipient, Haste, Sent, WithoutAcceptance};
use crate::delivery::dispatch::UnderWay;
use crate::delivery::final_reply::{Then, final_reply};
use crate::delivery::outcome::{Class, Outcome};
use crate::delivery::refuses_everybody::Step;
use crate::delivery::slots::Vouched;
use crate::delivery::stamping::stamp;
use crate::delivery::unknown::Judged;
use crate::delivery::unreachable::Unreachable;
use crate::delivery::{memory, schedule};
use crate::in_force::InForce;
use crate::message::header::Identity;
use crate::report::Reported;
use crate::routing::doubt::{Believed, Followed};
use crate::routing::loops;
use crate::smtp::address::Address;
use crate::smtp::envelope::{Origin, Sender};
use crate::smtp::reply::{self, Reply};
use crate::smtp::server::Summary;
use crate::spool::entry::Content;
use crate::strangers::sums::Kind;
use crate::time::UnixTime;
use crate::trace::{Event, What};

/// The time for everything that follows the client's last octet; senders wait for 10 minutes (RFC 5321 4.5.3.2.6).
const END_OF_DATA: Duration = Duration::from_secs(480);

/// After this time a client gets 250 if what is left can be made durable, and if a next hop has the message or it is a
/// report of ours.
const LONG_ENOUGH: Duration = Duration::from_secs(90);

/// Ends a message that is complete; returns the client's reply.
///
/// # Errors
/// The refusal; nothing of the message is kept.
pub(super) async fn end(
    services: &Arc<Services>,
    session: &Arc<str>,
    mut transaction: Box<Transaction>,
    summary: Summary,
) -> Result<Reply, Answer> {
    let began = Instant::now();
    let Some((mut passed, mut writing)) = transaction.content.take() else { return Err(reply::TRY_AGAIN.into()) };
    // Checked before the message is sent: afterwards it cannot be refused any more.
    let queues = |recipient: &Accepted| part(&transaction.in_force.config, &recipient.route).is_none();
    if services.pressure.turns_away(transaction.origin.whose()) && transaction.recipients.iter().any(queues) {
        return Err(reply::INSUFFICIENT_STORAGE.into());
    }
    returned::check(services, session, &mut transaction, &mut passed).await?;
    if !can_keep(services) && !transaction.ends_without_spool(&passed) {
        tracing::warn!("message refused: the spool takes nothing, and something of it may have to be kept");
        return Err(reply::TRY_AGAIN.into());
    }
    let content = content(&passed, &writing, summary);
    let fates = if transaction.branches.is_empty() {
        transaction.recipients.iter().map(|_| Fate::due(UnixTime::steady())).collect()
    } else {
        send(services, session, &mut transaction, &passed, &content, &mut writing).await?
    };
    let (fates, reported) = with_loops(fates, &passed);
    let to_remember = ToRemember::of(&passed, &fates);
    let credit = transaction.credit(fates.iter().filter(|fate| !fate.has_failed()).count());
    let until = began + END_OF_DATA;
    let kept =
        AcceptedMessage { content, stamps: passed.stamps, id: writing.id, at: writing.at, fates, reported, until };
    let queued = kept.needs_the_spool(&transaction);
    let label = if queued { "queue" } else { "cut-through" };
    let reply = if queued {
        commit::commit(services.clone(), session.to_string(), transaction, kept, writing).await?
    } else {
        commit::delivered(services, session, &transaction, kept)
    };
    to_remember.remember(services);
    credit.into_iter().for_each(|credit| credit.give(services));
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
        message_id: passed.facts.message_id_shown(),
    }
}

/// Recipients that loop have failed, whatever became of the others.
fn with_loops(mut fates: Vec<Fate>, passed: &Passed) -> (Vec<Fate>, Vec<Reported>) {
    for (at, reply) in &passed.failed {
        if let Some(fate) = fates.get_mut(*at) {
            *fate = Fate::failed(reply.clone(), "".into());
        }
    }
    let reported = fates.iter().enumerate().filter_map(|(at, fate)| fate.reported(at)).collect();
    (fates, reported)
}

/// Sends the message to the next hops in the conversation; returns what becomes of each recipient.
async fn send(
    services: &Services,
    session: &Arc<str>,
    transaction: &mut Transaction,
    passed: &Passed,
    content: &Content,
    writing: &mut Writing,
) -> Result<Vec<Fate>, Answer> {
    let until = Instant::now() + END_OF_DATA;
    let mut outcomes = hand_out(services, transaction, passed, content, writing, until).await?;
    remember(services, transaction, &content.identity, &outcomes);
    doubt(services, transaction, passed, &mut outcomes, until).await;
    // A message that is under way may arrive: if it were refused, it would come again.
    let under_way = Outcome::ours(Class::Accepted, reply::RECIPIENT_OK);
    let going: Vec<usize> =
        (0..outcomes.len()).filter(|at| !passed.failed.iter().any(|(failed, _)| failed == at)).collect();
    let combined: Vec<_> = going
        .iter()
        .map(|recipient| {
            let accepted = &transaction.recipients[*recipient];
            let outcome = outcomes[*recipient].as_ref();
            let outcome = outcome.or_else(|| transaction.is_under_way(*recipient).then_some(&under_way));
            let otherwise = match outcome {
                Some(Outcome { class: Class::Unreachable, .. }) => {
                    transaction.when_unreachable(services, &accepted.rcpt.address, &accepted.route)
                }
                _ => Unreachable::Queue, // nobody looks at it
            };
            (outcome, otherwise)
        })
        .collect();
    let then = match final_reply(&combined) {
        Ok(then) => then,
        Err(answer) => {
            let refused = refused(services, session, transaction, content, going[answer], &outcomes);
            return Err(refused);
        }
    };
    // The time of the attempt is now, however long the client took to send the message.
    let now = UnixTime::steady();
    let mut fates: Vec<Fate> = (0..outcomes.len()).map(|recipient| transaction.untold(recipient, now)).collect();
    for (recipient, then) in going.into_iter().zip(then) {
        if let Some(outcome) = outcomes[recipient].take() {
            fates[recipient] = fate(transaction, recipient, outcome, then, now);
        }
    }
    Ok(fates)
}

/// The next hops' outcomes by recipient. `None` for those that are under way and those whose connector queues.
async fn hand_out(
    services: &Services,
    transaction: &mut Transaction,
    passed: &Passed,
    content: &Content,
    writing: &mut Writing,
    until: Instant,
) -> Result<Vec<Option<Outcome>>, Reply> {
    let in_force = transaction.in_force.clone();
    let (sender, recipients) = (&transaction.sender, &transaction.recipients);
    regroup(&mut transaction.branches, &in_force, &transaction.origin, sender, recipients, passed);
    let body = writing.body().await.map_err(|error| cannot_keep(services, transaction, &error))?;
    let stranger = transaction.origin.is_stranger();
    let without_acceptance = if stranger { WithoutAcceptance::No } else { WithoutAcceptance::Yes };
    let haste = Haste { after: Instant::now() + LONG_ENOUGH, without_acceptance, until };
    let fields = |connector: &SendConnector, named: &[(&Address, &Address)]| {
        stamp(&in_force, connector, &content.identity, named)
    };
    let (origin, sender, waits) = (&*transaction.origin, &transaction.sender, Waits::ClientUntil(until));
    let message = Message { origin, sender, content, body, fields: &fields, waits, is_ours: &|| true };
    let Sent { outcomes: mut sent, in_flight } = transaction.branches.send(&message, haste).await;
    for in_flight in in_flight {
        transaction.follow(in_flight);
    }
    let mut outcome_of = |number: usize| {
        let at = sent.iter().position(|(at, _)| *at == number)?;
        Some(sent.swap_remove(at).1)
    };
    Ok(transaction.recipients.iter().map(|recipient| outcome_of(recipient.number)).collect())
}

/// Handles recipients that a next hop accepted at RCPT and refuses as unknown now (Exchange's filter on mailbox servers
/// does that). Their directories are asked concurrently; a recipient without an answer by `until` is deferred.
async fn doubt(
    services: &Services,
    transaction: &mut Transaction,
    passed: &Passed,
    outcomes: &mut [Option<Outcome>],
    until: Instant,
) {
    let mut unknown = Vec::new();
    for (at, outcome) in outcomes.iter_mut().enumerate() {
        let Some(outcome) = outcome else { continue };
        let Accepted { rcpt, route, .. } = &transaction.recipients[at];
        match outcome.class {
            Class::Refused if transaction.refuses_everybody(services, &rcpt.address, route, outcome) => {
                outcome.class = Class::Unreachable; // the envelope was said again, and it goes on refusing
            }
            Class::UnknownRecipient => unknown.push((at, outcome)),
            _ => {}
        }
    }
    if unknown.is_empty() {
        return;
    }
    let questions = unknown.iter().map(|(at, outcome)| {
        let Accepted { rcpt, route, .. } = &transaction.recipients[*at];
        let (address, followed, step) = (&rcpt.address, Followed::NotYet, Step::Dot);
        timeout_at(until, transaction.judge(services, RefusedRcpt { address, route, followed, outcome, step }))
    });
    let judged = Box::pin(concurrently(questions.collect())).await;
    for ((at, outcome), judged) in unknown.into_iter().zip(judged) {
        let judged = judged.map_or(Judged::Temporary, |(judged, _)| judged);
        obey(judged, transaction, passed, at, outcome);
    }
}

/// Applies the judgement about a recipient that a next hop refused as unknown at the end of data.
fn obey(judged: Judged, transaction: &mut Transaction, passed: &Passed, at: usize, outcome: &mut Outcome) {
    match judged {
        Judged::Follow(route) => {
            // A route that the message has passed already is left to the queue.
            let (keys, now) = (transaction.in_force.keys.all(), UnixTime::now());
            let recipient = &mut transaction.recipients[at];
            if !loops::stamped(keys, &passed.stamps, &recipient.rcpt.address, &route, now) {
                recipient.route = route;
            }
            outcome.class = Class::LeftToQueue;
        }
        Judged::Temporary => *outcome = Outcome::ours(Class::Deferred, reply::UNKNOWN_JUST_NOW),
        Judged::Defer(reply) => *outcome = Outcome::ours(Class::Deferred, reply),
        Judged::Unreachable => outcome.class = Class::Unreachable,
        Judged::Believe(Believed::Ourselves(reply)) => *outcome = Outcome::ours(Class::Refused, reply),
        Judged::Believe(Believed::NextHop) => {}
    }
}

/// The reply where no next hop has the message and the client keeps it.
fn refused(
    services: &Services,
    session: &Arc<str>,
    transaction: &Transaction,
    content: &Content,
    recipient: usize,
    outcomes: &[Option<Outcome>],
) -> Answer {
    let Some(outcome) = &outcomes[recipient] else { return reply::TRY_AGAIN.into() };
    let words = transaction.words(&transaction.recipients[recipient].route, outcome);
    if tell_refused(services, session, transaction, &content.message_id, &words) {
        let (sender, message_id) = (&transaction.sender.reverse_path, &content.message_id);
        tracing::info!(%sender, reply = %words, said = %outcome.reply,
            row = outcome.row_name(), message_id, "message refused by its next hops");
    }
    if !is_unknown(&words) {
        return words.into();
    }
    let unknown = |at: &usize| {
        let route = &transaction.recipients[*at].route;
        outcomes[*at].as_ref().is_some_and(|outcome| is_unknown(&transaction.words(route, outcome)))
    };
    let unknown: Vec<usize> = (0..outcomes.len()).filter(unknown).collect();
    transaction.paced_at_dot(services, session, &unknown, words)
}

/// Removes recipients that are not sent to from the branches, and moves those whose route the loop rules changed.
pub(super) fn regroup(
    branches: &mut Branches,
    in_force: &InForce,
    origin: &Origin,
    sender: &Sender,
    recipients: &[Accepted],
    passed: &Passed,
) {
    let mut parts = Vec::with_capacity(recipients.len());
    for (at, recipient) in recipients.iter().enumerate() {
        if passed.failed.iter().any(|(failed, _)| *failed == at) {
            continue;
        }
        let Some(part) = part(&in_force.config, &recipient.route) else { continue };
        let Accepted { number, rcpt, route, .. } = recipient;
        let (at, otherwise, vouched) = (*number, Unreachable::Queue, Vouched::Yes);
        parts.push((part, CutThroughRecipient { at, rcpt, route, origin, sender, otherwise, vouched }));
    }
    branches.regroup(&parts);
}

impl Transaction {
    /// Detaches a branch whose next hop has not answered in time: the queue gets its outcome.
    fn follow(&mut self, in_flight: InFlight) {
        let (told, outcomes) = oneshot::channel();
        let positions: Vec<(usize, usize)> = (self.recipients.iter().enumerate())
            .filter(|(_, recipient)| in_flight.recipients.contains(&recipient.number))
            .map(|(at, recipient)| (recipient.number, at))
            .collect();
        self.under_way.push(UnderWay { recipients: positions.iter().map(|(_, at)| *at).collect(), outcomes });
        tokio::spawn(async move {
            let landed = in_flight.land().await.into_iter().filter_map(|(number, outcome)| {
                let (_, at) = positions.iter().find(|(of, _)| *of == number)?;
                Some((*at, outcome))
            });
            // The queue has ended, and the process with it.
            let _ = told.send(landed.collect());
        });
    }

    /// Whether the recipient's next hop has the message and has not answered yet.
    pub(super) fn is_under_way(&self, at: usize) -> bool {
        self.under_way.iter().any(|branch| branch.recipients.contains(&at))
    }

    /// What becomes of a recipient without an outcome.
    fn untold(&self, at: usize, now: UnixTime) -> Fate {
        if self.is_under_way(at) { Fate::under_way(now.plus(self.after_doubt(at))) } else { Fate::due(now) }
    }

    fn retry(&self, at: usize) -> &Retry {
        let connector = self.in_force.config.send_connector(&self.recipients[at].route.connector);
        connector.map_or(&Retry::DEFAULT, |connector| &connector.retry)
    }

    /// How long to wait after a first attempt with an unknown outcome.
    fn after_doubt(&self, at: usize) -> Duration {
        schedule::after_doubt(self.retry(at), 1, 1)
    }
}

/// What becomes of one recipient of an accepted message.
fn fate(transaction: &Transaction, at: usize, outcome: Outcome, then: Then, now: UnixTime) -> Fate {
    match (outcome.class, then) {
        (Class::Accepted, _) => Fate::delivered(outcome),
        (Class::Refused | Class::UnknownRecipient, Then::Report) => Fate::failed(outcome.reply, outcome.next_hop),
        (Class::LeftToQueue | Class::Refused | Class::UnknownRecipient, _) => Fate::waiting(&outcome.reply, now),
        (Class::InDoubt, _) => Fate::in_doubt(&outcome.reply, now.plus(transaction.after_doubt(at))),
        (Class::Deferred | Class::TooManyRecipients | Class::Unreachable, _) => {
            Fate::waiting(&outcome.reply, now.plus(transaction.retry(at).first))
        }
    }
}

/// Counts and traces a message that its next hops refused. Returns whether any of its recipients was logged
/// individually.
fn tell_refused(services: &Services, session: &str, transaction: &Transaction, message_id: &str, said: &Reply) -> bool {
    let mut told = false;
    let result = if said.is_permanent() { "failed" } else { "deferred" };
    for recipient in &transaction.recipients {
        let connector = &*recipient.route.connector;
        services.metrics.deliveries.with_label_values(&[connector, result]).inc();
        if transaction.is_told(services, Kind::RefusedRecipient, "", &recipient.rcpt.address, said) {
            told = true;
            services.trace.record(&Event {
                recipient: recipient.rcpt.address.as_str().into(),
                message_id: message_id.into(),
                connector: connector.into(),
                detail: said.to_string().into(),
                ..transaction.event(session, What::Refused)
            });
        }
    }
    told
}

/// Notes for later decisions what next hops accepted and refused.
fn remember(services: &Services, transaction: &Transaction, identity: &Identity, outcomes: &[Option<Outcome>]) {
    let accepted = transaction.recipients.iter().zip(outcomes).filter_map(|(recipient, outcome)| {
        let has_it = outcome.as_ref().is_some_and(|outcome| outcome.class == Class::Accepted);
        has_it.then_some((&recipient.rcpt.address, &recipient.route))
    });
    let stranger = memory::stranger(&transaction.origin, Some(&transaction.connector));
    services.memory.accepted(&transaction.sender.reverse_path, identity, stranger, accepted);
    for (recipient, outcome) in transaction.recipients.iter().zip(outcomes) {
        if let Some(Outcome { class: Class::Accepted, next_hop, .. }) = outcome {
            services.memory.taken(&recipient.rcpt.address, &recipient.route, next_hop, Step::Dot);
        }
        outcome.iter().for_each(|outcome| services.memory.refused(&recipient.rcpt.address, outcome));
    }
}
