//! Logs, counts and traces outcomes; no other code does.

use std::time::Duration;

use super::outages::Sum;
use super::queue::Queue;
use super::repeated::{self, Recorded};
use super::settle::Attempted;
use super::{Parts, QueueShared};
use crate::config::SendConnector;
use crate::metrics::Metrics;
use crate::report::dead_letter::bounds::Swept;
use crate::report::not_sent::NotSent;
use crate::report::{Reported, UNDECIDED};
use crate::smtp::envelope::Relay;
use crate::spool::entry::{Entry, Outcome, Queued, RecipientState, Why};
use crate::time::{self, Jumps, UnixTime};
use crate::trace::{Attempt, Event, What};

/// The label of mail whose connector is not decided yet.
const UNDECIDED_LABEL: &str = "undecided";

/// Records an attempt's duration.
pub(super) fn took(metrics: &Metrics, connector: &SendConnector, duration: Duration) {
    metrics.delivery_duration.with_label_values(&[&*connector.name]).observe(duration.as_secs_f64());
}

/// Records the outcomes of an attempt's recipients; the entry before and after.
pub(super) fn outcomes(shared: &QueueShared, before: &Entry, entry: &Entry, ended: &[Attempted]) {
    for attempted in ended {
        let at = attempted.recipient;
        if let (Some(was), Some(is)) = (before.recipients.get(at), entry.recipients.get(at)) {
            outcome(shared, entry, was, is, attempted);
        }
    }
}

fn outcome(shared: &QueueShared, entry: &Entry, was: &Queued, queued: &Queued, attempted: &Attempted) {
    let parts = &shared.parts;
    if let RecipientState::Done(Outcome::Failed { next_hop, reply }) = &queued.state
        && entry.origin.relay == Relay::Report
        && let Some(why) = NotSent::of(next_hop, reply)
    {
        let to = &queued.rcpt.address;
        tracing::info!(queue_id = %entry.id, %to, reason = why.as_str(), "no report is sent");
        not_sent(&parts.metrics, why);
    }
    let (what, result, said) = match &queued.state {
        RecipientState::Done(Outcome::Delivered { reply, .. }) => (What::Delivered, "delivered", reply.to_string()),
        RecipientState::Done(Outcome::Failed { reply, .. }) => (What::Failed, "failed", reply.to_string()),
        RecipientState::Waiting(waiting) => (What::Deferred, "deferred", waiting.last_error.clone()),
        RecipientState::Held(why) => {
            let message_id = &entry.content.message_id;
            let why = why.words(&queued.route.connector);
            tracing::warn!(queue_id = %entry.id, to = %queued.rcpt.address, message_id, %why, "held");
            return;
        }
        RecipientState::Done(Outcome::Dropped) => return,
    };
    let connector = label(&attempted.route.connector);
    let (queue_id, sender, to) = (entry.id, &entry.sender.reverse_path, &queued.rcpt.address);
    let (message_id, next_hop) = (&entry.content.message_id, &attempted.outcome.next_hop);
    let attempt = was.state.attempts().saturating_add(1);
    if is_told(shared, queued, attempted) {
        tracing::info!(%queue_id, %sender, %to, message_id, send_connector = %connector, %next_hop, said, attempt, "{result}");
    }
    parts.metrics.deliveries.with_label_values(&[connector, result]).inc();
    if let Some(attempt) = recorded(what, was, queued) {
        parts.trace.record(&Event { attempt, ..event(entry, what, to.as_str(), connector, &said) });
    }
}

/// Whether the log has it individually; if not, it is counted in a summary.
fn is_told(shared: &QueueShared, is: &Queued, attempted: &Attempted) -> bool {
    let RecipientState::Waiting(waiting) = &is.state else { return true };
    let connector = &attempted.route.connector;
    let told = shared.outages.lock().take(connector, waiting.why, &waiting.last_error, UnixTime::steady());
    if !told {
        shared.parts.metrics.told_as_sums.with_label_values(&["deferred"]).inc();
    }
    told
}

/// Logs summaries.
pub(super) fn sums(sums: &[Sum]) {
    for Sum { connector, why, times, said } in sums {
        let reason = if *why == Why::Undecided { "its way is not known" } else { "out of reach" };
        tracing::info!(send_connector = %label(connector), times, reason, said, "deferred: told as a sum");
    }
}

/// Which attempt the trace should name, if it gets a record at all.
fn recorded(what: What, was: &Queued, is: &Queued) -> Option<Option<Attempt>> {
    let number = was.state.attempts().saturating_add(1);
    if what != What::Deferred {
        return Some(Attempt::number(number));
    }
    match repeated::recorded(was, is) {
        Recorded::New => Some(Attempt::number(number)),
        Recorded::Again => Some(Some(Attempt { number, again: true, last: None })),
        Recorded::No => None,
    }
}

/// A report was made.
pub(super) fn reported(parts: &Parts, about: &Entry, report: &Entry, reported: &[Reported]) {
    let wanted = reported.iter().filter(|reported| {
        about.recipients.get(reported.recipient).is_some_and(|queued| reported.action.is_wanted(queued.rcpt.notify))
    });
    let mut actions: Vec<_> = wanted.map(|reported| reported.action).collect();
    actions.sort_unstable();
    actions.dedup();
    for action in actions {
        let action = action.as_str();
        parts.metrics.dsn.with_label_values(&[action]).inc();
        tracing::info!(queue_id = %about.id, report = %report.id, to = %about.sender.reverse_path, action, "report made");
        let detail = format!("{action}, as {}", report.id);
        let connector = report.recipients.first().map_or(UNDECIDED_LABEL, |queued| label(&queued.route.connector));
        parts.trace.record(&event(about, What::Dsn, about.sender.reverse_path.as_str(), connector, &detail));
    }
}

fn event<'a>(entry: &'a Entry, what: What, recipient: &'a str, connector: &'a str, detail: &'a str) -> Event<'a> {
    Event {
        at: UnixTime::now(),
        id: entry.id.to_string().into(),
        session: "".into(),
        what,
        sender: entry.sender.reverse_path.as_str().into(),
        recipient: recipient.into(),
        message_id: (&*entry.content.message_id).into(),
        connector: connector.into(),
        detail: detail.into(),
        sum: None,
        attempt: None,
    }
}

/// Logs a jump of the wall clock since the last call.
pub(super) fn jump(metrics: &Metrics, jumps: &mut Jumps) {
    let Some(jump) = jumps.look(time::moved()) else { return };
    let to = UnixTime::now();
    let from = UnixTime(to.0.saturating_add_signed(jump.saturating_neg()));
    metrics.clock_jumps.with_label_values::<&str>(&[]).inc();
    tracing::warn!(%from, %to, seconds = jump, "the time of day has jumped; no age and no time to try is moved by it");
}

/// A report is not sent.
pub(super) fn not_sent(metrics: &Metrics, why: NotSent) {
    metrics.reports_not_sent.with_label_values(&[why.as_str()]).inc();
}

/// Updates the number of dead letters, and returns it.
pub(super) fn dead_letters(parts: &Parts) -> usize {
    let count = parts.memory.dead_letters.count();
    parts.metrics.dead_letters.with_label_values::<&str>(&[]).set(i64::try_from(count).unwrap_or(i64::MAX));
    count
}

/// Records a sweep of the dead letters.
pub(super) fn swept(metrics: &Metrics, swept: &Swept) {
    metrics.dead_letters_leaving.with_label_values::<&str>(&[]).set(i64::try_from(swept.leaving).unwrap_or(i64::MAX));
    for (reason, removed) in [("age", swept.aged), ("number", swept.beyond)] {
        metrics.dead_letters_removed.with_label_values(&[reason]).inc_by(removed as u64);
    }
}

/// Sets the gauges of the queue.
pub(super) fn gauges(metrics: &Metrics, queue: &Queue, now: UnixTime) {
    let mut reports = 0;
    for shown in queue.shown() {
        let connector = label(shown.connector);
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.queue_messages.with_label_values(&[connector, "waiting"]).set(number(shown.waiting));
        metrics.queue_messages.with_label_values(&[connector, "held"]).set(number(shown.held));
        reports += number(shown.waiting_reports);
        let age = shown.oldest.map_or(0, |oldest| now.since(oldest.made_at()).as_secs());
        metrics.queue_oldest.with_label_values(&[connector]).set(i64::try_from(age).unwrap_or(i64::MAX));
    }
    metrics.reports_waiting.with_label_values::<&str>(&[]).set(reports);
}

fn label(connector: &str) -> &str {
    if connector == UNDECIDED { UNDECIDED_LABEL } else { connector }
}
