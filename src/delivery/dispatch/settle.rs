//! From how an attempt ended to what the queue keeps and the sender hears. Pure.

use std::sync::Arc;

use super::queue::{Known, Update};
use crate::config::Retry;
use crate::delivery::outcome::Outcome;
use crate::delivery::schedule::{self, Next, Standing};
use crate::report::{Action, Reported, UNDECIDED};
use crate::routing::verdict::Route;
use crate::smtp::reply::{Enhanced, Reply};
use crate::spool::entry::{Entry, Outcome as Done, State};
use crate::time::UnixTime;

/// How one recipient's attempt ended, everything asked that had to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// A next hop or a mailbox has it.
    Delivered,
    /// Not now.
    Deferred,
    /// Refused for good.
    Refused,
    /// The next hop does not know it, and the directory, asked live, knows another way.
    Follow(Route),
    /// Its connector is gone.
    Held(String),
}

/// One recipient's attempt.
#[derive(Clone)]
pub(super) struct Attempted {
    /// Its position.
    pub(super) recipient: usize,
    /// What was known of it.
    pub(super) known: Known,
    /// The way that was tried.
    pub(super) route: Route,
    /// What a decision made now would refuse it with, where the old way was tried all the same.
    pub(super) refused_now: Option<Reply>,
    /// What became of it there.
    pub(super) outcome: Outcome,
    /// What that comes to.
    pub(super) end: End,
}

/// What follows from one recipient's attempt.
pub(super) struct Settled {
    /// For the spool and the memory.
    pub(super) update: Update,
    /// For the sender.
    pub(super) reported: Option<Reported>,
}

/// What follows from an attempt that ended at `now`.
pub(super) fn settle(entry: &Entry, attempted: &Attempted, retry: &Retry, now: UnixTime) -> Settled {
    let Outcome { next_hop, reply, success, .. } = attempted.outcome.clone();
    let (state, action) = match &attempted.end {
        End::Delivered => (State::Done(Done::Delivered { next_hop, reply }), success),
        End::Refused => (State::Done(Done::Failed { next_hop, reply }), Some(Action::Failed)),
        End::Held(why) => (State::Held(why.clone()), None),
        End::Deferred => deferred(entry, attempted, retry, now),
        End::Follow(_) => {
            let Before { attempts, warned, ages_from } = before(entry, attempted, now);
            let last_error = format!("{reply} (the directory knows another way now)");
            (State::Waiting { attempts: attempts + 1, next_attempt: now, last_error, warned, ages_from }, None)
        }
    };
    let mut known = Known { fresh: false, ..attempted.known.clone() };
    let route = match &attempted.end {
        End::Follow(route) => {
            known = Known { fresh: true, rerouted: true, followed: true, ..known };
            route.clone()
        }
        _ => attempted.route.clone(),
    };
    let told = said(&state, attempted);
    let reported =
        action.map(|action| Reported { recipient: attempted.recipient, action, reply: told.1, next_hop: told.0 });
    Settled { update: Update { recipient: attempted.recipient, state, route, known }, reported }
}

/// The same for a message that an operator dropped meanwhile: what was not delivered is over, and nobody is told.
pub(super) fn dropped(settled: Settled) -> Settled {
    match settled.update.state {
        State::Done(Done::Delivered { .. }) => settled,
        State::Done(_) | State::Waiting { .. } | State::Held(_) => {
            let update = Update { state: State::Done(Done::Dropped), ..settled.update };
            Settled { update, reported: None }
        }
    }
}

/// Who said what in the end: in an expiry it is us.
fn said(state: &State, attempted: &Attempted) -> (Arc<str>, Reply) {
    match state {
        State::Done(Done::Failed { next_hop, reply }) => (next_hop.clone(), reply.clone()),
        State::Done(_) | State::Waiting { .. } | State::Held(_) => {
            (attempted.outcome.next_hop.clone(), attempted.outcome.reply.clone())
        }
    }
}

fn deferred(entry: &Entry, attempted: &Attempted, retry: &Retry, now: UnixTime) -> (State, Option<Action>) {
    let Before { attempts, warned, ages_from } = before(entry, attempted, now);
    let received_at = ages_from.unwrap_or(entry.received_at);
    let standing = Standing { id: entry.id, received_at, attempts: attempts + 1, warned };
    let waiting = |next_attempt, warned| {
        let last_error = last_error(attempted);
        State::Waiting { attempts: standing.attempts, next_attempt, last_error, warned, ages_from }
    };
    match schedule::next(retry, &standing, now) {
        Next::Retry(at) => (waiting(at, warned), None),
        Next::Warn(at) => (waiting(at, true), Some(Action::Delayed)),
        Next::GiveUp => {
            let reply = expired(&attempted.outcome.reply);
            (State::Done(Done::Failed { next_hop: "".into(), reply }), Some(Action::Failed))
        }
    }
}

/// How a recipient stood before this attempt.
struct Before {
    attempts: u32,
    /// Whether the sender was told of the delay.
    warned: bool,
    /// From when its age counts, where that is not when we took the message.
    ages_from: Option<UnixTime>,
}

/// A report that waits for its turn ages from its first attempt. To ask the directory for its way is none.
fn before(entry: &Entry, attempted: &Attempted, now: UnixTime) -> Before {
    let begins = entry.origin.is_strangers_report() && *attempted.route.connector != *UNDECIDED;
    let begins = begins.then_some(now);
    match entry.recipients.get(attempted.recipient).map(|queued| &queued.state) {
        Some(State::Waiting { attempts, warned, ages_from, .. }) => {
            Before { attempts: *attempts, warned: *warned, ages_from: ages_from.or(begins) }
        }
        Some(State::Held(_) | State::Done(_)) | None => Before { attempts: 0, warned: false, ages_from: begins },
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
fn expired(last: &Reply) -> Reply {
    Reply::fixed(554, Enhanced(5, 4, 7), "").saying(format!("delivery time expired; the last answer was: {last}"))
}

#[cfg(test)]
mod tests;
