//! Routes a recipient again before an attempt (DESIGN section 7, "Queue"): mail for a user who was moved while it
//! waited goes to the new system. A new decision may change the route, but never refuses.

use std::sync::Arc;

use super::basis::Basis;
use super::queue::Known;
use crate::config::LoopMode;
use crate::in_force::InForce;
use crate::lookup::Freshness;
use crate::report::{self, UNDECIDED};
use crate::routing::doubt::KnownBy;
use crate::routing::loops;
use crate::routing::verdict::{Route, Verdict};
use crate::smtp::envelope::Relay;
use crate::smtp::reply::{ROUTING_LOOP, Reply};
use crate::spool::entry::{Entry, Queued, RecipientState};
use crate::time::UnixTime;

/// What to do with a recipient now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Now {
    Try(Route),
    /// Try the old route, although a new decision would refuse with this reply.
    TryOld(Route, Reply),
    /// Its connector is gone and there is no other route: hold it.
    Hold,
    /// A report has no route now (4xx), or will never have one (5xx).
    NoWay(Reply),
}

/// Decides again if the result may differ; `None`: it cannot.
pub(super) async fn redecide(
    in_force: &Arc<InForce>,
    entry: &Entry,
    queued: &Queued,
    how: &Known,
    now: UnixTime,
) -> Option<Now> {
    let exists = in_force.config.send_connector(&queued.route.connector).is_some();
    let again = match &queued.state {
        RecipientState::Waiting(waiting) => waiting.attempts > 0 && !how.fresh,
        RecipientState::Held(_) | RecipientState::Done(_) => true,
    };
    if exists && !again && how.basis.as_ref() == Some(&Basis::of(in_force)) {
        return None;
    }
    let (decided, _) = decide(in_force, entry, queued, Freshness::Any, now).await;
    let old = &queued.route;
    Some(match decided {
        Ok(route) if in_force.config.send_connector(&route.connector).is_some() => Now::Try(route),
        Ok(_) if exists => Now::Try(old.clone()),
        Err(reply) if exists => Now::TryOld(old.clone(), reply),
        Err(reply) if *old.connector == *UNDECIDED => Now::NoWay(reply),
        Ok(_) | Err(_) => Now::Hold,
    })
}

/// The route by a new decision, or the reply that would refuse it, for example because the message has passed that
/// route already. Also which source says that the address exists.
pub(super) async fn decide(
    in_force: &InForce,
    entry: &Entry,
    queued: &Queued,
    freshness: Freshness,
    now: UnixTime,
) -> (Result<Route, Reply>, KnownBy) {
    let address = &queued.rcpt.address;
    if entry.origin.relay == Relay::Report {
        return (report::route(in_force, address, freshness, now).await, KnownBy::Nobody);
    }
    let decision = in_force.resolver.resolve(&entry.origin, address, freshness, now).await;
    let by = KnownBy::of(&decision);
    let route = match decision.verdict {
        Verdict::Accept(route) => route,
        Verdict::Refuse(reply) => return (Err(reply), by),
    };
    let detects = in_force.config.loops.mode == LoopMode::Refuse;
    let changed = route.connector != queued.route.connector;
    let keys = in_force.keys.all();
    if changed && detects && loops::stamped(keys, &entry.stamps, address, &route, entry.received_at) {
        return (Err(ROUTING_LOOP), by);
    }
    (Ok(route), by)
}
