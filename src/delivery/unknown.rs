//! Handles a next hop's refusal of a recipient as unknown: at RCPT, at the end of data or to the queue. One rule
//! applies to all three (DESIGN section 5, "doubt is temporary"; section 7, a next hop that refuses everybody).

use std::sync::Arc;

use super::health::Change;
use super::memory::Memory;
use super::outcome::Outcome;
use super::refusal::read::is_unlisted_policy;
use super::refuses_everybody::{Key, Refusal, Source, Step, Verdict as Everybody};
use crate::routing::doubt::{self, Believed, Doubt, Followed, KnownBy, Refused};
use crate::routing::verdict::{Route, Verdict};
use crate::smtp::address::Address;
use crate::smtp::reply::Reply;

/// For operators, if a next hop refuses all recipients with an unspecific reply.
const LOOK_AT: &str = "what was changed there last: its recipient filter, its own directory, the rights and networks of its \
                       connector, a filter before it; or whether `smart_hosts` names the right server";

/// The refused recipient, and what is known since.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unknown<'a> {
    /// As received.
    pub address: &'a Address,
    /// The route that led to the refusal, and whether it is a changed answer that was followed.
    pub route: &'a Route,
    pub followed: Followed,
    /// The decision with live answers of the directories.
    pub live: &'a Verdict,
    pub by: KnownBy,
    /// Who refused, when, and the reply.
    pub next_hop: &'a Arc<str>,
    pub step: Step,
    pub said: &'a Reply,
    pub source: Source<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Judged {
    /// Try this route, once.
    Follow(Route),
    /// `451 4.3.0`, or it waits.
    Temporary,
    /// There is no such recipient.
    Believe(Believed),
    /// No decision is possible now: defer with this reply.
    Defer(Reply),
    /// The next hop refuses all recipients: for those known to exist it counts as unreachable.
    Unreachable,
}

impl Memory {
    /// Decides about a recipient that a next hop refused as unknown. While the next hop refuses all recipients nothing
    /// is recorded, so that the hour of doubt does not pass during its outage.
    pub(crate) async fn judge(&self, unknown: &Unknown<'_>) -> Judged {
        let now = self.queue_time();
        let Unknown { address, route, followed, live, by, .. } = *unknown;
        let refused = Refused::ByHop { route, followed, live };
        let mut known = self.good().known(address, by, now);
        if doubt::doubt(&refused, &known, now).rests_on_memory() {
            if self.take_in(address, by).await.is_err() {
                return Judged::Temporary;
            }
            known = self.good().known(address, by, now);
        }
        let doubt = doubt::doubt(&refused, &known, now);
        let judged = match &doubt {
            Doubt::Follow(route) => return Judged::Follow(route.clone()),
            Doubt::Defer(reply) => return Judged::Defer(reply.clone()),
            Doubt::Temporary => Judged::Temporary,
            Doubt::Believe(believed) => Judged::Believe(believed.clone()),
            Doubt::Stands => Judged::Believe(Believed::NextHop),
        };
        let refusal = Refusal { recipient: address, known: &known, source: unknown.source, step: unknown.step };
        let key = Key { connector: route.connector.clone(), next_hop: unknown.next_hop.clone() };
        if self.refuses_everybody(&key, &refusal, unknown.said) {
            return Judged::Unreachable;
        }
        let mut good = self.good();
        good.note_doubt(address, &known, &doubt, now);
        if unknown.step == Step::Dot && matches!(judged, Judged::Believe(_)) {
            good.refused_at_dot(address, route, now);
        }
        judged
    }

    /// A next hop refuses a recipient by an unknown policy: returns whether it refuses all recipients.
    pub(crate) fn refuses_by_policy(
        &self,
        address: &Address,
        route: &Route,
        outcome: &Outcome,
        step: Step,
        source: Source<'_>,
    ) -> bool {
        if !is_unlisted_policy(outcome.row) {
            return false;
        }
        let known = self.good().known(address, KnownBy::by_way(route.way), self.queue_time());
        let key = Key { connector: route.connector.clone(), next_hop: outcome.next_hop.clone() };
        self.refuses_everybody(&key, &Refusal { recipient: address, known: &known, source, step }, &outcome.reply)
    }

    fn refuses_everybody(&self, key: &Key, refusal: &Refusal<'_>, said: &Reply) -> bool {
        let Everybody::Unreachable(change) = self.everybody().refused(key, refusal) else { return false };
        if change == Change::News {
            let reason = format!("it refuses recipients that exist, one after another; last: {said}");
            tracing::error!(alert = true, send_connector = %key.connector, next_hop = %key.next_hop, reason,
                row = "refuses-everybody", look_at = LOOK_AT, "next hop cannot be used");
        }
        true
    }

    /// A next hop has accepted a recipient, at RCPT or with the message.
    pub(crate) fn taken(&self, address: &Address, route: &Route, next_hop: &Arc<str>, step: Step) {
        if next_hop.is_empty() || self.everybody().is_quiet() {
            return;
        }
        let known = self.good().known(address, KnownBy::by_way(route.way), self.queue_time());
        let key = Key { connector: route.connector.clone(), next_hop: next_hop.clone() };
        if self.everybody().accepted(&key, &known, step) == Change::News {
            tracing::info!(send_connector = %key.connector, %next_hop, "next hop takes recipients again");
        }
    }
}
