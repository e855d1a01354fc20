//! A recipient's way, decided again before it is tried (DESIGN section 7, "Queue"): mail for a user who was moved while
//! it waited goes to the new side. A new decision may change the way, never refuse.

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

/// What is to be done with one recipient now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Now {
    /// It is tried this way.
    Try(Route),
    /// It is tried the old way, though a decision made now would refuse it with this.
    TryOld(Route, Reply),
    /// Its connector is gone and nothing else is known: it is held.
    Hold,
    /// A report without a way: none can be found for now (4xx), or there is none (5xx).
    NoWay(Reply),
}

/// Decides again where it may have changed since; `None`: nothing can have changed.
pub(super) async fn redecide(
    in_force: &Arc<InForce>,
    entry: &Entry,
    (queued, how): (&Queued, &Known),
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

/// The way as it would be decided now, or the reply that would refuse it; among them that the new way is one that the
/// message came by already. And who says that the address exists.
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
