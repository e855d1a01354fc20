//! Makes durable what is left of a message after its next hops in the conversation, together with the report that is
//! due; only then accepts it and hands it to `delivery` (DESIGN section 8).

use std::borrow::Cow;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use super::Services;
use super::content_buffer::Writing;
use super::transaction::{Transaction, join_reasons};
use super::without_spool::cannot_keep;
use crate::delivery::dispatch::{Handover, UnderWay};
use crate::delivery::outcome::{Class, Outcome as Answer};
use crate::message::queue_id::QueueId;
use crate::message::stamp::Stamp;
use crate::report::{self, Action, Made, Reported, Stores};
use crate::routing::verdict::RouteKind;
use crate::smtp::envelope::{ChosenBy, Origin};
use crate::smtp::reply::{self, Reply};
use crate::spool::condition::Condition;
use crate::spool::entry::outline::Outlines;
use crate::spool::entry::{Content, Entry, Outcome, Queued, RecipientState, Record, Waiting, Why};
use crate::spool::{BlobDraft, Committed, Draft, Spool, SpoolError, Stored};
use crate::time::{QueueTime, UnixTime};
use crate::trace::{Event, What};

/// A message that is to be accepted.
pub(super) struct AcceptedMessage {
    pub(super) content: Content,
    pub(super) stamps: Vec<Stamp>,
    pub(super) id: QueueId,
    pub(super) at: UnixTime,
    /// What becomes of each recipient, by position.
    pub(super) fates: Vec<Fate>,
    /// What the sender may have to be told in a report.
    pub(super) reported: Vec<Reported>,
    /// How long the client waits.
    pub(super) until: Instant,
}

pub(super) struct Fate {
    pub(super) state: RecipientState,
    /// What a report says of the recipient, if the sender asked for that.
    pub(super) action: Option<Action>,
}

/// The state of a recipient that was tried once, without success or with an unknown outcome.
fn tried_once(why: Why) -> Waiting {
    Waiting { attempts: 1, tried: 1, why, ..Waiting::default() }
}

impl Fate {
    /// Queued, and due at once.
    pub(super) fn due(at: UnixTime) -> Self {
        Self { state: RecipientState::due(at), action: None }
    }

    /// Tried, and queued for another attempt.
    pub(super) fn waiting(reply: &Reply, next_attempt: UnixTime) -> Self {
        let state = RecipientState::Waiting(Waiting {
            next_attempt,
            last_error: reply.to_string(),
            ..tried_once(Why::Unreachable)
        });
        Self { state, action: None }
    }

    /// Tried with an unknown outcome (it may have arrived), and queued for another attempt.
    pub(super) fn in_doubt(reply: &Reply, next_attempt: UnixTime) -> Self {
        let waiting = Waiting { in_doubt: 1, ..tried_once(Why::InDoubt) };
        let state = RecipientState::Waiting(Waiting { next_attempt, last_error: reply.to_string(), ..waiting });
        Self { state, action: None }
    }

    /// Sent, and not answered yet; the queue gets the outcome ([`Transaction::under_way`]). If this process ends
    /// before, the next attempt is at `next_attempt`.
    pub(super) fn under_way(next_attempt: UnixTime) -> Self {
        let last_error = "it was sent; the next hop has not answered yet".to_owned();
        let state =
            RecipientState::Waiting(Waiting { next_attempt, last_error, in_doubt: 1, ..tried_once(Why::InDoubt) });
        Self { state, action: None }
    }

    /// Accepted by a next hop.
    pub(super) fn delivered(outcome: Answer) -> Self {
        let Answer { reply, next_hop, success, .. } = outcome;
        Self { state: RecipientState::Done(Outcome::Delivered { next_hop, reply }), action: success }
    }

    pub(super) fn failed(reply: Reply, next_hop: Arc<str>) -> Self {
        Self { state: RecipientState::Done(Outcome::Failed { next_hop, reply }), action: Some(Action::Failed) }
    }

    /// Whether it has failed for good.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self.state, RecipientState::Done(Outcome::Failed { .. }))
    }

    /// What a report says of the recipient.
    pub(super) fn reported(&self, recipient: usize) -> Option<Reported> {
        let (
            RecipientState::Done(Outcome::Delivered { next_hop, reply } | Outcome::Failed { next_hop, reply }),
            Some(action),
        ) = (&self.state, self.action)
        else {
            return None;
        };
        Some(Reported { recipient, action, reply: reply.clone(), next_hop: next_hop.clone() })
    }
}

impl AcceptedMessage {
    /// Whether anything has to be durable before the message is accepted.
    pub(super) fn needs_the_spool(&self, transaction: &Transaction) -> bool {
        let waits = |fate: &Fate| !matches!(fate.state, RecipientState::Done(_));
        self.fates.iter().any(waits) || self.reported.iter().any(|reported| self.wants(transaction, reported))
    }

    /// Whether the sender asked for this report.
    fn wants(&self, transaction: &Transaction, reported: &Reported) -> bool {
        let recipient = transaction.recipients.get(reported.recipient);
        recipient.is_some_and(|recipient| reported.action.is_wanted(recipient.rcpt.notify))
    }

    fn entry(&self, transaction: &Transaction, queued_at: QueueTime) -> Entry {
        let queued = transaction.recipients.iter().zip(&self.fates).map(|(recipient, fate)| Queued {
            rcpt: recipient.rcpt.clone(),
            route: recipient.route.clone(),
            state: fate.state.clone(),
        });
        Entry {
            id: self.id,
            received_at: self.at,
            queued_at,
            origin: (*transaction.origin).clone(),
            sender: transaction.sender.clone(),
            content: self.content.clone(),
            stamps: self.stamps.clone(),
            recipients: queued.collect(),
        }
    }
}

/// Makes a message durable, hands it to `delivery` and returns the reply. Runs in its own task: a commit cannot be
/// undone, so a durable message has to reach the queue even if the session ends meanwhile.
///
/// # Errors
/// The refusal; nothing of the message is kept.
pub(super) async fn commit(
    services: Arc<Services>,
    session: String,
    mut transaction: Box<Transaction>,
    kept: AcceptedMessage,
    writing: Writing,
) -> Result<Reply, Reply> {
    let committing = async move {
        let stored = match writing.finish().await {
            Ok(draft) => store(&services, &transaction, &kept, draft).await,
            Err(error) => Err(error),
        };
        let entries = match stored {
            Ok(entries) => entries,
            Err(error) => return without_the_spool(&services, &session, transaction, kept, &error).await,
        };
        record(&services, &session, &transaction, &kept);
        tell_reports(&services, &session, &transaction, &kept, &entries);
        for entry in entries {
            let its = entry.id == kept.id;
            let under_way = if its { std::mem::take(&mut transaction.under_way) } else { Vec::new() };
            // The receiver is dropped only when the process ends; the entry is durable and will be recovered at the
            // next start.
            let _ = services.accepted.send(Handover { entry, under_way });
        }
        Ok(Reply::queued_as(&kept.id.to_string()))
    };
    tokio::spawn(committing.in_current_span()).await.unwrap_or_else(|error| {
        tracing::error!(%error, "making a message durable failed");
        Err(reply::TRY_AGAIN)
    })
}

/// Ends a message that cannot be stored. If it were refused now, messages that next hops have, or will have in a
/// moment, would come again; so pending next hops are waited for as long as the client waits. If all accept it, nothing
/// had to be stored.
async fn without_the_spool(
    services: &Services,
    session: &str,
    mut transaction: Box<Transaction>,
    mut kept: AcceptedMessage,
    error: &SpoolError,
) -> Result<Reply, Reply> {
    let refusal = cannot_keep(services, &transaction, error);
    for UnderWay { recipients, outcomes } in std::mem::take(&mut transaction.under_way) {
        tracing::warn!(recipients = recipients.len(), "a next hop has not answered yet: its answer is waited for");
        let Ok(Ok(outcomes)) = timeout_at(kept.until, outcomes).await else { return Err(refusal) };
        for (at, outcome) in outcomes.into_iter().filter(|(_, outcome)| outcome.class == Class::Accepted) {
            kept.fates[at] = Fate::delivered(outcome);
        }
    }
    if kept.needs_the_spool(&transaction) {
        return Err(refusal);
    }
    Ok(delivered(services, session, &transaction, kept))
}

/// The reply to a message that its next hops have accepted for all recipients.
pub(super) fn delivered(services: &Services, session: &str, transaction: &Transaction, kept: AcceptedMessage) -> Reply {
    record(services, session, transaction, &kept);
    Reply::delivered_as(&kept.id.to_string())
}

/// Commits the message and the report that is due in one record; returns the entries for `delivery`.
async fn store(
    services: &Services,
    transaction: &Transaction,
    kept: &AcceptedMessage,
    draft: Draft,
) -> Result<Vec<Entry>, SpoolError> {
    let entry = kept.entry(transaction, services.spool.queue_time());
    let mut record = Record::default();
    let mut entries = Vec::new();
    let report = make_report(services, transaction, &draft, &entry, &kept.reported).await?;
    // A message whose recipients are all finished is contained in its report only.
    if !entry.is_finished() {
        entries.push(entry.clone());
        record.accepted.push((draft, entry));
    }
    if let Some((draft, report)) = report {
        entries.push(report.clone());
        record.accepted.push((draft, report));
    }
    services.spool.commit(record).await?;
    Ok(entries)
}

async fn make_report(
    services: &Services,
    transaction: &Transaction,
    draft: &Draft,
    entry: &Entry,
    reported: &[Reported],
) -> Result<Option<(Draft, Entry)>, SpoolError> {
    if reported.is_empty() {
        return Ok(None);
    }
    let spool = WithDraft { spool: &*services.spool, draft };
    let memory = &services.memory;
    let stores = Stores { spool: &spool, waiting: &memory.reports, dead_letters: &memory.dead_letters };
    Ok(match report::make(&transaction.in_force, stores, entry, reported, UnixTime::now()).await? {
        Made::Report(report) => Some(*report),
        Made::Nothing => None,
        Made::NotSent(why) => {
            services.metrics.reports_not_sent.with_label_values(&[why.as_str()]).inc();
            None
        }
    })
}

/// The spool for the author of a report: the reported message can be read although it is not committed yet.
struct WithDraft<'a> {
    spool: &'a dyn Spool,
    draft: &'a Draft,
}

impl Spool for WithDraft<'_> {
    fn new_id(&self) -> QueueId {
        self.spool.new_id()
    }

    fn queue_time(&self) -> QueueTime {
        self.spool.queue_time()
    }

    fn create_as(&self, id: QueueId) -> Result<BlobDraft, SpoolError> {
        self.spool.create_as(id)
    }

    fn commit(&self, record: Record) -> Committed<'_> {
        self.spool.commit(record)
    }

    fn open(&self, id: QueueId) -> Result<Stored, SpoolError> {
        if id == self.draft.id() { Ok(self.draft.stored()) } else { self.spool.open(id) }
    }

    fn entry(&self, id: QueueId) -> Result<Option<Entry>, SpoolError> {
        self.spool.entry(id)
    }

    fn open_recipients(&self, id: QueueId) -> Vec<usize> {
        self.spool.open_recipients(id)
    }

    fn live_messages(&self) -> usize {
        self.spool.live_messages()
    }

    fn ids_after(&self, id: Option<QueueId>, most: usize) -> Vec<QueueId> {
        self.spool.ids_after(id, most)
    }

    fn condition(&self) -> Condition {
        self.spool.condition()
    }

    fn recovered(&self) -> Outlines {
        Outlines::default()
    }
}

/// How the client has identified itself, for the trace.
fn proof(origin: &Origin) -> String {
    let certificate = match &origin.chosen_by {
        ChosenBy::Certificate(name) => format!(", certificate {name}"),
        ChosenBy::Network => String::new(),
    };
    certificate + if origin.authenticated { ", authenticated" } else { "" }
}

/// Logs, counts and traces an accepted message, and the outcomes so far.
fn record(services: &Services, session: &str, transaction: &Transaction, kept: &AcceptedMessage) {
    let connector = &*transaction.connector.name;
    let (id, size) = (kept.id.to_string(), kept.content.size);
    tracing::info!(queue_id = %id, sender = %transaction.sender.reverse_path, recipients = transaction.recipients.len(),
        size, message_id = kept.content.message_id, "message accepted");
    if let Some(client) = transaction.origin.client {
        services.memory.clients().took(client, kept.at);
    }
    services.metrics.messages_received.with_label_values(&[connector]).inc();
    services.metrics.received_bytes.with_label_values(&[connector]).inc_by(size);
    let event = |what| Event {
        id: (&*id).into(),
        message_id: (&*kept.content.message_id).into(),
        ..transaction.event(session, what)
    };
    let detail = format!("{size} octets{}", proof(&transaction.origin)).into();
    services.trace.record(&Event { detail, ..event(What::Received) });
    for (at, (recipient, fate)) in transaction.recipients.iter().zip(&kept.fates).enumerate() {
        let what = match recipient.route.way {
            RouteKind::Resolved | RouteKind::Redirected => What::Resolved,
            RouteKind::Relayed | RouteKind::RelayedVerified | RouteKind::External => What::Relayed,
        };
        let about = |what, detail| Event {
            recipient: recipient.rcpt.address.as_str().into(),
            connector: (&*recipient.route.connector).into(),
            detail,
            ..event(what)
        };
        services.trace.record(&about(what, join_reasons(&recipient.reasons).into()));
        let (what, result, said) = match &fate.state {
            RecipientState::Done(Outcome::Delivered { reply, .. }) => {
                (What::Delivered, "delivered", reply.to_string().into())
            }
            RecipientState::Done(Outcome::Failed { reply, .. }) => (What::Failed, "failed", reply.to_string().into()),
            RecipientState::Waiting(_) if transaction.is_under_way(at) => continue,
            RecipientState::Waiting(Waiting { attempts: 1.., last_error, .. }) => {
                (What::Deferred, "deferred", Cow::from(last_error))
            }
            RecipientState::Waiting(_) | RecipientState::Held(_) | RecipientState::Done(Outcome::Dropped) => continue,
        };
        let send_connector = &*recipient.route.connector;
        tracing::info!(queue_id = %id, to = %recipient.rcpt.address, %send_connector, said = &*said, "{result}");
        services.metrics.deliveries.with_label_values(&[send_connector, result]).inc();
        services.trace.record(&about(what, said));
    }
}

/// Logs and traces the report about it.
fn tell_reports(
    services: &Services,
    session: &str,
    transaction: &Transaction,
    kept: &AcceptedMessage,
    entries: &[Entry],
) {
    let about = kept.id.to_string();
    for report in entries.iter().filter(|entry| entry.id != kept.id) {
        let wanted = kept.reported.iter().filter(|reported| kept.wants(transaction, reported));
        let mut actions: Vec<_> = wanted.map(|reported| reported.action).collect();
        actions.sort_unstable();
        actions.dedup();
        for action in actions {
            services.metrics.dsn.with_label_values(&[action.as_str()]).inc();
        }
        tracing::info!(queue_id = %about, report = %report.id, "report made");
        services.trace.record(&Event {
            id: (&*about).into(),
            message_id: (&*kept.content.message_id).into(),
            detail: format!("report {}", report.id).into(),
            ..transaction.event(session, What::Dsn)
        });
    }
}

#[cfg(test)]
pub(super) mod tests;
