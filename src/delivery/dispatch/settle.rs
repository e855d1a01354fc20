//! From the results of an attempt to recipients' new states and reports. Pure.

use std::sync::Arc;

use super::queue::{Known, Update};
use crate::config::Retry;
use crate::delivery::outcome::{Class, Outcome};
use crate::delivery::schedule::{self, AfterDeferral, Standing};
use crate::report::{Action, Reported, UNDECIDED};
use crate::routing::verdict::Route;
use crate::smtp::reply::{Enhanced, Reply};
use crate::spool::entry::outline::{self, Outline};
use crate::spool::entry::{Entry, HeldFor, Outcome as Done, RecipientState, Waiting, Why};
use crate::time::{Moment, QueueTime, UnixTime};

/// The result of one recipient's attempt, after directories were asked where necessary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AttemptOutcome {
    Delivered,
    Deferred,
    Refused,
    /// The next hop says that it is unknown, and the directory's live answer gives another route.
    Follow(Route),
    /// Its connector is gone.
    Held,
}

#[derive(Clone)]
pub(super) struct Attempted {
    pub(super) recipient: usize,
    pub(super) known: Known,
    pub(super) route: Route,
    /// The reply with which a new decision would refuse it, if the old route was tried.
    pub(super) refused_now: Option<Reply>,
    pub(super) outcome: Outcome,
    /// Whether it counts towards its expiry: a next hop of its connector was really tried since its last attempt.
    pub(super) counts: bool,
    /// The value of [`Outbound::tries`](crate::delivery::attempt::Outbound::tries) at its end.
    pub(super) tries: u32,
    pub(super) end: AttemptOutcome,
}

/// A recipient's new state, and what is reported.
pub(super) struct Settled {
    pub(super) update: Update,
    pub(super) reported: Option<Reported>,
}

/// Settles an attempt that ended at `now`.
pub(super) fn settle(entry: &Entry, attempted: &Attempted, retry: &Retry, now: Moment) -> Settled {
    let Outcome { next_hop, reply, success, .. } = attempted.outcome.clone();
    let (state, action) = match &attempted.end {
        AttemptOutcome::Delivered => (RecipientState::Done(Done::Delivered { next_hop, reply }), success),
        AttemptOutcome::Refused => (RecipientState::Done(Done::Failed { next_hop, reply }), Some(Action::Failed)),
        AttemptOutcome::Held => (RecipientState::Held(HeldFor::NoConnector), None),
        AttemptOutcome::Deferred => deferred(entry, attempted, retry, now),
        AttemptOutcome::Follow(_) => {
            let before = before(entry, attempted, now.queue);
            let last_error = format!("{reply} (the directory knows another way now)");
            let (attempts, tried) = (before.attempts + 1, before.tried + 1);
            let waiting = Waiting { attempts, tried, next_attempt: now.day, last_error, followed: true, ..before };
            (RecipientState::Waiting(waiting), None)
        }
    };
    let mut known = Known { fresh: false, ..attempted.known.clone() };
    let route = match &attempted.end {
        AttemptOutcome::Follow(route) => {
            known = Known { fresh: true, ..known };
            route.clone()
        }
        _ => attempted.route.clone(),
    };
    let told = said(&state, attempted);
    let reported =
        action.map(|action| Reported { recipient: attempted.recipient, action, reply: told.1, next_hop: told.0 });
    Settled { update: Update { recipient: attempted.recipient, state, route, known }, reported }
}

/// Adjusts a recovered message: a due time too far ahead, which comes from another clock, becomes now.
pub(super) fn after_start<'a>(outline: &mut Outline, retry: impl Fn(&str) -> &'a Retry, now: UnixTime) {
    for open in &mut outline.open {
        if let outline::Standing::Waits(waits) = &mut open.standing {
            waits.due = schedule::after_start(retry(&open.connector), waits, now);
        }
    }
}

/// Adjusts a message that was read because it is due. Its due time may have been written by another clock: if it is too
/// far ahead, the hint was right.
pub(super) fn after_reading<'a>(entry: &mut Entry, retry: impl Fn(&str) -> &'a Retry, now: UnixTime) {
    for queued in &mut entry.recipients {
        if let RecipientState::Waiting(waiting) = &mut queued.state
            && schedule::after_start(retry(&queued.route.connector), &(&*waiting).into(), now) != waiting.next_attempt
        {
            waiting.next_attempt = now;
        }
    }
}

/// The same for a message that an operator dropped meanwhile: recipients that were not delivered end without a report.
pub(super) fn dropped(settled: Settled) -> Settled {
    match settled.update.state {
        RecipientState::Done(Done::Delivered { .. }) => settled,
        RecipientState::Done(_) | RecipientState::Waiting(_) | RecipientState::Held(_) => {
            let update = Update { state: RecipientState::Done(Done::Dropped), ..settled.update };
            Settled { update, reported: None }
        }
    }
}

/// The final reply and who gave it; an expiry is our reply.
fn said(state: &RecipientState, attempted: &Attempted) -> (Arc<str>, Reply) {
    match state {
        RecipientState::Done(Done::Failed { next_hop, reply }) => (next_hop.clone(), reply.clone()),
        RecipientState::Done(_) | RecipientState::Waiting(_) | RecipientState::Held(_) => {
            (attempted.outcome.next_hop.clone(), attempted.outcome.reply.clone())
        }
    }
}

fn deferred(entry: &Entry, attempted: &Attempted, retry: &Retry, now: Moment) -> (RecipientState, Option<Action>) {
    let before = before(entry, attempted, now.queue);
    let queued_at = before.ages_from.unwrap_or(entry.queued_at);
    let (why, tries) = (why(attempted), attempted.tries);
    let (attempts, tried) = (before.attempts + 1, before.tried + u32::from(attempted.counts));
    let in_doubt = before.in_doubt + u32::from(why == Why::InDoubt);
    let standing = Standing {
        id: entry.id,
        queued_at,
        attempts,
        tried,
        warned: before.warned,
        in_doubt: (why == Why::InDoubt).then_some(in_doubt),
    };
    let waiting = |wait, warned| {
        let (next_attempt, last_error) = (now.day.plus(wait), last_error(attempted));
        RecipientState::Waiting(Waiting {
            attempts,
            tried,
            next_attempt,
            why,
            last_error,
            warned,
            in_doubt,
            tries,
            ..before
        })
    };
    match schedule::next(retry, &standing, now) {
        AfterDeferral::Retry(wait) => (waiting(wait, standing.warned), None),
        AfterDeferral::Warn(wait) => (waiting(wait, true), Some(Action::Delayed)),
        AfterDeferral::GiveUp => {
            let reply = expired(&attempted.outcome.reply, in_doubt);
            (RecipientState::Done(Done::Failed { next_hop: "".into(), reply }), Some(Action::Failed))
        }
    }
}

/// Why the recipient waits after this attempt.
fn why(attempted: &Attempted) -> Why {
    match attempted.outcome.class {
        _ if *attempted.route.connector == *UNDECIDED => Why::Undecided,
        Class::Unreachable | Class::LeftToQueue => Why::Unreachable,
        Class::InDoubt => Why::InDoubt,
        Class::Accepted | Class::Refused | Class::UnknownRecipient | Class::TooManyRecipients | Class::Deferred => {
            Why::Deferred
        }
    }
}

/// The recipient's state before this attempt. A report that waits for its turn ages from its first attempt; routing it
/// is not an attempt.
fn before(entry: &Entry, attempted: &Attempted, now: QueueTime) -> Waiting {
    let begins = entry.origin.is_strangers_report() && *attempted.route.connector != *UNDECIDED;
    let begins = begins.then_some(now);
    match entry.recipients.get(attempted.recipient).map(|queued| &queued.state) {
        Some(RecipientState::Waiting(waiting)) => {
            Waiting { ages_from: waiting.ages_from.or(begins), ..waiting.clone() }
        }
        Some(RecipientState::Held(_) | RecipientState::Done(_)) | None => {
            Waiting { ages_from: begins, ..Waiting::default() }
        }
    }
}

fn last_error(attempted: &Attempted) -> String {
    let mut text = attempted.outcome.reply.to_string();
    if !attempted.outcome.next_hop.is_empty() {
        text = format!("{}: {text}", attempted.outcome.next_hop);
    }
    if let Some(refused) = &attempted.refused_now {
        text.push_str(&format!(" (the old way was tried: a decision made now says {refused})"));
    }
    text
}

/// RFC 3463 3.5, X.4.7: delivery time expired.
fn expired(last: &Reply, in_doubt: u32) -> Reply {
    let may_be_there = if in_doubt > 0 { " it may have arrived all the same;" } else { "" };
    let text = format!("delivery time expired;{may_be_there} the last answer was: {last}");
    Reply::fixed(554, Enhanced(5, 4, 7), "").saying(text)
}

#[cfg(test)]
mod tests;
