//! The end of a message: it is made durable, with a report about recipients that will not be sent to, and only then
//! accepted and handed to `delivery` (DESIGN section 8).

use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use tracing::Instrument;

use super::Services;
use super::header::Passed;
use super::transaction::Transaction;
use super::writing::Written;
use crate::message::queue_id::QueueId;
use crate::report::{self, Action, Reported};
use crate::routing::verdict::Way;
use crate::smtp::reply::{self, Reply};
use crate::smtp::server::Summary;
use crate::spool::entry::{Content, Entry, Outcome, Queued, Record, State};
use crate::spool::{Committed, Draft, Spool, SpoolError};
use crate::time::UnixTime;
use crate::trace::{Event, What};

/// Makes a message durable, hands it to `delivery` and returns its id. In a task of its own: once begun the commit cannot
/// be taken back, so what is durable reaches the queue even if the session ends meanwhile.
///
/// # Errors
/// What the client is told; nothing of the message is kept.
pub(super) async fn commit(
    services: Arc<Services>,
    session: String,
    transaction: Transaction,
    summary: Summary,
) -> Result<String, Reply> {
    let committing = async move { commit_and_hand_over(&services, &session, transaction, summary).await };
    tokio::spawn(committing.in_current_span()).await.unwrap_or_else(|error| {
        tracing::error!(%error, "making a message durable failed");
        Err(reply::TRY_AGAIN)
    })
}

async fn commit_and_hand_over(
    services: &Services,
    session: &str,
    mut transaction: Transaction,
    summary: Summary,
) -> Result<String, Reply> {
    let began = Instant::now();
    if services.pressure.is_on() {
        return Err(reply::INSUFFICIENT_STORAGE);
    }
    let Some((passed, writing)) = transaction.content.take() else { return Err(reply::TRY_AGAIN) };
    let entries = match writing.finish().await {
        Ok(written) => store(services, &transaction, &passed, (written, summary)).await,
        Err(error) => Err(error),
    };
    let entries = entries.map_err(|error| {
        tracing::error!(%error, sender = %transaction.sender.reverse_path, "message refused: it cannot be made durable");
        match error {
            SpoolError::Full { .. } => reply::INSUFFICIENT_STORAGE,
            SpoolError::Io(_) => reply::TRY_AGAIN,
        }
    })?;
    let id = entries.first().map(|entry| entry.id.to_string()).unwrap_or_default();
    tell(services, session, &transaction, &entries);
    services.metrics.acceptance_duration.with_label_values(&["queue"]).observe(began.elapsed().as_secs_f64());
    for entry in entries {
        // The receiver goes only when the process does; the entry is durable and is recovered at the next start.
        let _ = services.accepted.send(entry);
    }
    Ok(id)
}

/// Commits the message, and the report that is due, in one record; returns what `delivery` is to have.
async fn store(
    services: &Services,
    transaction: &Transaction,
    passed: &Passed,
    (written, summary): (Written, Summary),
) -> Result<Vec<Entry>, SpoolError> {
    let entry = entry(transaction, passed, &written, summary);
    let mut record = Record::default();
    let mut entries = vec![entry.clone()];
    let report = make_report(services, transaction, &written.draft, (&entry, passed)).await?;
    record.accepted.push((written.draft, entry));
    if let Some((draft, report)) = report {
        entries.push(report.clone());
        record.accepted.push((draft, report));
    }
    services.spool.commit(record).await?;
    Ok(entries)
}

fn entry(transaction: &Transaction, passed: &Passed, written: &Written, summary: Summary) -> Entry {
    let mut recipients: Vec<Queued> = transaction
        .recipients
        .iter()
        .map(|recipient| Queued {
            rcpt: recipient.rcpt.clone(),
            route: recipient.route.clone(),
            state: State::due(written.at),
        })
        .collect();
    for (at, reply) in &passed.failed {
        if let Some(queued) = recipients.get_mut(*at) {
            queued.state = State::Done(Outcome::Failed { next_hop: "".into(), reply: reply.clone() });
        }
    }
    Entry {
        id: written.draft.id,
        received_at: written.at,
        origin: (*transaction.origin).clone(),
        sender: transaction.sender.clone(),
        content: Content {
            size: written.size,
            header_size: written.received_size + passed.section_size,
            ascii_header: passed.facts.ascii,
            eight_bit: summary.eight_bit,
            bare_lf: summary.bare_lf,
            identity: passed.facts.identity,
            message_id: passed.facts.message_id_shown().to_owned(),
        },
        stamps: passed.stamps.clone(),
        recipients,
    }
}

/// The one report about recipients that will not be sent to (DESIGN section 6, rule 3).
async fn make_report(
    services: &Services,
    transaction: &Transaction,
    draft: &Draft,
    (entry, passed): (&Entry, &Passed),
) -> Result<Option<(Draft, Entry)>, SpoolError> {
    if passed.failed.is_empty() {
        return Ok(None);
    }
    let reported: Vec<Reported> = passed
        .failed
        .iter()
        .map(|(recipient, reply)| Reported {
            recipient: *recipient,
            action: Action::Failed,
            reply: reply.clone(),
            next_hop: "".into(),
        })
        .collect();
    let spool = WithDraft { spool: &*services.spool, draft };
    report::make(&transaction.in_force, &spool, entry, &reported, UnixTime::now()).await
}

/// The spool as a report's maker sees it: the message it is about can be read, though it is not committed yet.
struct WithDraft<'a> {
    spool: &'a dyn Spool,
    draft: &'a Draft,
}

impl Spool for WithDraft<'_> {
    fn create(&self) -> Result<Draft, SpoolError> {
        self.spool.create()
    }

    fn commit(&self, record: Record) -> Committed<'_> {
        self.spool.commit(record)
    }

    fn open(&self, id: QueueId) -> Result<File, SpoolError> {
        if id != self.draft.id {
            return self.spool.open(id);
        }
        File::open(&self.draft.path).map_err(|e| SpoolError::Io(format!("{}: {e}", self.draft.path.display())))
    }

    fn recovered(&self) -> Vec<Entry> {
        Vec::new()
    }
}

/// Logs, counts and traces a message that was accepted.
fn tell(services: &Services, session: &str, transaction: &Transaction, entries: &[Entry]) {
    let Some(entry) = entries.first() else { return };
    let connector = &*transaction.connector.name;
    let (id, size) = (entry.id.to_string(), entry.content.size);
    tracing::info!(queue_id = id, sender = %entry.sender.reverse_path, recipients = entry.recipients.len(), size,
        message_id = entry.content.message_id, "message accepted");
    services.metrics.messages_received.with_label_values(&[connector]).inc();
    services.metrics.received_bytes.with_label_values(&[connector]).inc_by(size);
    let event = |what| Event {
        id: id.clone(),
        message_id: entry.content.message_id.clone(),
        ..transaction.event(session, what)
    };
    services.trace.record(Event { detail: format!("{size} octets"), ..event(What::Received) });
    for recipient in &transaction.recipients {
        let what = match recipient.route.way {
            Way::Resolved | Way::Redirected => What::Resolved,
            Way::Relayed | Way::RelayedVerified | Way::External => What::Relayed,
        };
        services.trace.record(Event {
            recipient: recipient.rcpt.address.as_str().to_owned(),
            connector: recipient.route.connector.to_string(),
            detail: recipient.because.clone(),
            ..event(what)
        });
    }
    for report in entries.iter().skip(1) {
        services.metrics.dsn.with_label_values(&["failed"]).inc();
        tracing::info!(queue_id = %report.id, about = id, "report made");
        services.trace.record(Event { detail: format!("report {}", report.id), ..event(What::Dsn) });
    }
}
