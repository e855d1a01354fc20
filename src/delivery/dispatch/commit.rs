//! Makes an attempt's result durable: its outcomes and the report that they cause are one record (DESIGN section 8).
//!
//! While a record cannot be made durable the attempt keeps its slot: so a message that a next hop has accepted is not
//! sent again, and no further messages are delivered whose outcome could not be stored.

use std::time::Duration;

use super::queue::{Dropping, Heard, Update};
use super::settle::{self, Attempted, Settled};
use super::{QueueShared, record};
use crate::delivery::outcome::Class;
use crate::in_force::InForce;
use crate::report::not_sent::NotSent;
use crate::report::{self, Made, Reported, Stores};
use crate::smtp::envelope::Relay;
use crate::spool::SpoolError;
use crate::spool::entry::{Change, Entry, HeldFor, Outcome, RecipientState, Record};
use crate::time::{Moment, UnixTime};

/// The longest wait before a record is tried again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How often a failed report is read for the dead-letter folder, for some seconds in all. Then only its envelope is
/// stored, so that a lost disk block does not hold up the connector.
const READINGS: u32 = 4;

/// What is left to do for an attempt's record.
struct Due {
    /// To be reported. Emptied if no report is to be sent, so that a report in the dead-letter folder is not put there
    /// again.
    reported: Vec<Reported>,
    /// How often reading a dead letter's content has failed.
    readings: u32,
}

/// Settles an attempt, makes it durable and logs it. `false`: the program was stopped before it was durable.
pub(super) async fn commit(shared: &QueueShared, in_force: &InForce, entry: &Entry, ended: Vec<Attempted>) -> bool {
    if ended.is_empty() {
        return true;
    }
    let now = shared.now();
    let mut settled: Vec<Settled> = ended.iter().map(|attempted| settled(in_force, entry, attempted, now)).collect();
    if shared.queue.lock().is_dropped(entry.id) {
        settled = settled.into_iter().map(settle::dropped).collect();
    }
    let about = as_settled(entry, &settled);
    let reported: Vec<Reported> = settled.iter().filter_map(|settled| settled.reported.clone()).collect();
    let mut due = Due { reported: reported.clone(), readings: 0 };
    let mut wait = Duration::from_secs(1);
    let condition = shared.parts.spool.condition();
    let mut is_over = false;
    let report = loop {
        match try_commit(shared, in_force, entry, &about, &settled, &mut due).await {
            Ok(report) => break report,
            Err(error) => {
                tracing::error!(queue_id = %entry.id, %error, "an outcome cannot be made durable; it is written again in {wait:?}");
            }
        }
        tokio::select! {
            biased;
            // Another node has our mail: what was delivered still counts, if it is written now. The program stops for the
            // same reason.
            _ = condition.ended(), if !is_over => is_over = true,
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(LONGEST_WAIT),
            () = shared.stopping.cancelled() => return false,
        }
    };
    record::outcomes(shared, entry, &about, &ended);
    if let Some(report) = &report {
        record::reported(&shared.parts, &about, report, &reported);
    }
    let mut queue = shared.queue.lock();
    for attempted in &ended {
        if let Some(heard) = heard(attempted) {
            let rules = super::rules(&in_force.config, &attempted.route.connector, shared.parts.outbound.share());
            queue.heard(&attempted.route, heard, rules, now.day);
        }
    }
    queue.update(entry.id, settled.into_iter().map(|settled| settled.update).collect());
    if let Some(report) = report {
        queue.insert(report, None);
    }
    true
}

fn settled(in_force: &InForce, entry: &Entry, attempted: &Attempted, now: Moment) -> Settled {
    settle::settle(entry, attempted, super::retry(&in_force.config, &attempted.route.connector), now)
}

/// Whether a next hop answered; `None`: none was tried.
pub(super) fn heard(attempted: &Attempted) -> Option<Heard> {
    match attempted.outcome.class {
        Class::LeftToQueue | Class::InDoubt => None,
        Class::Unreachable => Some(Heard::Nothing),
        Class::Accepted | Class::Deferred | Class::Refused | Class::UnknownRecipient | Class::TooManyRecipients => {
            (!attempted.outcome.next_hop.is_empty()).then_some(Heard::Answer)
        }
    }
}

/// The entry with its new states.
fn as_settled(entry: &Entry, settled: &[Settled]) -> Entry {
    let mut entry = entry.clone();
    for update in settled.iter().map(|settled| &settled.update) {
        if let Some(queued) = entry.recipients.get_mut(update.recipient) {
            queued.state = update.state.clone();
            queued.route = update.route.clone();
        }
    }
    entry
}

/// Makes everything durable, and returns the report that was made.
async fn try_commit(
    shared: &QueueShared,
    in_force: &InForce,
    before: &Entry,
    about: &Entry,
    settled: &[Settled],
    due: &mut Due,
) -> Result<Option<Entry>, SpoolError> {
    if about.origin.relay == Relay::Report {
        keep_dead_letter(shared, in_force, about, &mut due.readings)?;
    }
    let memory = &shared.parts.memory;
    let stores = Stores { spool: &*shared.parts.spool, waiting: &memory.reports, dead_letters: &memory.dead_letters };
    let made = match report::make(in_force, stores, about, &due.reported, UnixTime::now()).await? {
        Made::Report(report) => Some(*report),
        Made::Nothing => None,
        Made::NotSent(why) => {
            record::not_sent(&shared.parts.metrics, why);
            None
        }
    };
    if made.is_none() {
        due.reported.clear();
    }
    let report = made.as_ref().map(|(_, entry)| entry.clone());
    let changes = settled.iter().map(|settled| change(before, &settled.update)).collect();
    shared.parts.spool.commit(Record { accepted: made.into_iter().collect(), changes }).await?;
    Ok(report)
}

/// The durable part of an update; includes the route only if it changed.
pub(super) fn change(before: &Entry, update: &Update) -> Change {
    let old = before.recipients.get(update.recipient).map(|queued| &queued.route);
    let route = (old != Some(&update.route)).then(|| update.route.clone());
    Change { id: before.id, recipient: update.recipient, state: update.state.clone(), route }
}

/// Makes durable that recipients get another route and are not tried here; they wait there.
pub(super) async fn move_elsewhere(shared: &QueueShared, entry: &Entry, elsewhere: Vec<Update>) {
    let stands = |update: &&Update| {
        let queued = entry.recipients.get(update.recipient);
        queued.is_some_and(|queued| queued.state == update.state && queued.route == update.route)
    };
    let changes: Vec<Change> =
        elsewhere.iter().filter(|update| !stands(update)).map(|update| change(entry, update)).collect();
    if let Err(error) = shared.parts.spool.commit(Record { accepted: Vec::new(), changes }).await {
        tracing::error!(queue_id = %entry.id, %error, "another way cannot be made durable; it is decided again later");
        return; // whoever holds them frees them
    }
    shared.queue.lock().update(entry.id, elsewhere);
    shared.wake.notify_one();
}

/// Stores a failed report in the dead-letter folder before its failure is durable, unless it could never be delivered,
/// or must not be sent.
fn keep_dead_letter(
    shared: &QueueShared,
    in_force: &InForce,
    report: &Entry,
    readings: &mut u32,
) -> Result<(), SpoolError> {
    let failed = |state: &RecipientState| match state {
        RecipientState::Done(Outcome::Failed { next_hop, reply }) => NotSent::of(next_hop, reply).is_none(),
        RecipientState::Done(_) | RecipientState::Waiting(_) | RecipientState::Held(_) => false,
    };
    if !report.recipients.iter().any(|queued| failed(&queued.state)) {
        return Ok(());
    }
    let state_dir = &in_force.config.server.state_dir;
    let content = match read(shared, report) {
        Ok(content) => content,
        Err(error) => {
            *readings += 1;
            if *readings < READINGS {
                return Err(error);
            }
            tracing::error!(queue_id = %report.id, %error, "a report that failed cannot be read; only its envelope is kept");
            // It leaves the log; even if the disk can read it again later, the content should not be lost with it.
            if let Ok(content) = shared.parts.spool.open(report.id) {
                shared.parts.spool.keep_damaged(report, &content);
            }
            format!("This report could not be read: {error}\nIts envelope is in {}.json.\n", report.id).into_bytes()
        }
    };
    let letters = &shared.parts.memory.dead_letters;
    letters
        .keep(state_dir, report, &mut content.as_slice())
        .map_err(|error| SpoolError::Io(format!("dead letter {} below {}: {error}", report.id, state_dir.display())))?;
    if record::dead_letters(&shared.parts) > in_force.config.reports.max_dead_letters {
        shared.too_many_dead_letters.notify_one();
    }
    Ok(())
}

/// A report's content; reports always fit into memory.
fn read(shared: &QueueShared, report: &Entry) -> Result<Vec<u8>, SpoolError> {
    let read = shared.parts.spool.open(report.id)?.whole();
    read.map_err(|error| SpoolError::Io(format!("report {}: {error}", report.id)))
}

/// Makes a drop durable: recipients end without a report, those in an attempt when it ends.
pub(super) async fn drop_recipients(shared: &QueueShared, dropping: &Dropping) -> Result<(), SpoolError> {
    if dropping.recipients.is_empty() && dropping.under_way.is_empty() {
        return Ok(());
    }
    let id = dropping.entry.id;
    let dropped =
        |&recipient: &usize| Change { id, recipient, state: RecipientState::Done(Outcome::Dropped), route: None };
    let to_be_dropped =
        |&recipient: &usize| Change { id, recipient, state: RecipientState::Held(HeldFor::Drop), route: None };
    let changes = dropping.recipients.iter().map(dropped).chain(dropping.under_way.iter().map(to_be_dropped)).collect();
    let committed = shared.parts.spool.commit(Record { accepted: Vec::new(), changes }).await;
    match &committed {
        Ok(()) => shared.queue.lock().dropped(dropping),
        Err(_) => shared.queue.lock().undo_drop(dropping, UnixTime::steady()),
    }
    committed
}
