//! What a next hop's outcome means for the client, at RCPT and at the end of data: the reply, whether an unknown
//! recipient is believed, and what is done about a recipient whose next hop is unreachable.

use super::Services;
use super::rcpt::part;
use super::transaction::Transaction;
use super::upstream_reply::passed_on;
use crate::config::WhenUnreachable;
use crate::delivery::outcome::{Class, Outcome};
use crate::delivery::refuses_everybody::{Source, Step};
use crate::delivery::unknown::{Judged, Unknown};
use crate::delivery::unreachable::{self, Client, Past, Unreachable};
use crate::routing::doubt::{Followed, KnownBy};
use crate::routing::recently_good::RecentlyGood;
use crate::routing::verdict::{Reason, Route, Verdict};
use crate::smtp::address::Address;
use crate::smtp::envelope::RcptTo;
use crate::smtp::reply::{self, Reply};
use crate::time::{QueueTime, UnixTime};

/// A recipient that its next hop refuses as unknown.
#[derive(Debug, Clone, Copy)]
pub(super) struct RefusedRcpt<'a> {
    pub(super) address: &'a Address,
    pub(super) route: &'a Route,
    pub(super) followed: Followed,
    pub(super) outcome: &'a Outcome,
    pub(super) step: Step,
}

impl Transaction {
    /// Whether a next hop that refuses a recipient by an unknown policy refuses all recipients.
    pub(super) fn refuses_everybody(
        &self,
        services: &Services,
        address: &Address,
        route: &Route,
        outcome: &Outcome,
    ) -> bool {
        services.memory.refuses_by_policy(address, route, outcome, Step::Rcpt, self.source())
    }

    /// Where this transaction's message comes from.
    pub(super) fn source(&self) -> Source<'_> {
        Source { reverse_path: &self.sender.reverse_path, client: self.origin.client }
    }

    /// Whether the refusal of a recipient as unknown by its next hop is believed; asks the directory live.
    pub(super) async fn judge(&self, services: &Services, refused: RefusedRcpt<'_>) -> (Judged, Vec<Reason>) {
        let RefusedRcpt { address, route, followed, outcome, step } = refused;
        let now = UnixTime::now();
        let live = self.resolve_live(address, now).await;
        let unknown = Unknown {
            address,
            route,
            followed,
            live: &live.verdict,
            by: KnownBy::of(&live),
            next_hop: &outcome.next_hop,
            step,
            said: &outcome.reply,
            source: self.source(),
        };
        (services.memory.judge(&unknown).await, live.reasons)
    }

    /// The client's reply for an outcome; a next hop's own reply is passed on.
    pub(super) fn words(&self, route: &Route, outcome: &Outcome) -> Reply {
        let connector = self.in_force.config.send_connector(&route.connector);
        match (outcome.class, connector) {
            (Class::Unreachable, _) => reply::NEXT_HOP_UNREACHABLE,
            (Class::InDoubt, _) => reply::OUTCOME_UNKNOWN,
            (Class::TooManyRecipients, Some(connector)) if outcome.is_in_its_words() => {
                let full = reply::TOO_MANY_RECIPIENTS.saying(outcome.reply.text.clone());
                passed_on(&full, connector, &self.origin)
            }
            (_, Some(connector)) if outcome.is_in_its_words() => passed_on(&outcome.reply, connector, &self.origin),
            _ => outcome.reply.clone(),
        }
    }

    /// What is done about a recipient whose next hop is unreachable.
    pub(super) fn when_unreachable(&self, services: &Services, address: &Address, route: &Route) -> Unreachable {
        self.otherwise(route, || self.recently_good(services, |good, now| good.is_good(address, now)))
    }

    /// The same with the caller's way to find out whether the recipient is recently good.
    pub(super) fn otherwise(&self, route: &Route, is_good: impl FnOnce() -> bool) -> Unreachable {
        let when =
            part(&self.in_force.config, route).map_or(WhenUnreachable::Queue, |part| part.cut_through.when_unreachable);
        let client = if self.origin.is_stranger() { Client::Stranger } else { Client::Known };
        unreachable::policy(when, route.way, client, || if is_good() { Past::Good } else { Past::Nothing })
    }

    /// Whether its next hop has just refused it as unknown after the end of data, and a live answer of the directory
    /// agrees.
    pub(super) async fn is_refused_at_dot(&self, services: &Services, rcpt: &RcptTo, route: &Route) -> bool {
        if !self.recently_good(services, |good, now| good.is_refused_at_dot(&rcpt.address, route, now)) {
            return false;
        }
        // Another node may have had a success since.
        let by = KnownBy::by_way(route.way);
        if services.memory.take_in(&rcpt.address, by).await.is_err()
            || !self.recently_good(services, |good, now| good.is_refused_at_dot(&rcpt.address, route, now))
        {
            return false;
        }
        let asked = self.resolve_live(&rcpt.address, UnixTime::now());
        let live = Box::pin(asked).await;
        matches!(live.verdict, Verdict::Accept(still) if still == *route)
    }

    /// Calls `look` with the recently good addresses and the queue's time.
    pub(super) fn recently_good<T>(
        &self,
        services: &Services,
        look: impl FnOnce(&mut RecentlyGood, QueueTime) -> T,
    ) -> T {
        look(&mut services.memory.good(), services.memory.queue_time())
    }
}
