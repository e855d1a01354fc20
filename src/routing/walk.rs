//! The state of one decision in progress, and the routes and refusals that all rows share.
//!
//! `decide` makes a [`Walk`] for each call; `ask` evaluates the directories' answers, `target` follows target
//! addresses.

use std::sync::Arc;

use super::accepted_domain::Accepted;
use super::loops::same_organization;
use super::table::Table;
use super::verdict::{Answers, Reason, Route, RouteKind, Says, Verdict};
use crate::lookup::{Freshness, Question};
use crate::smtp::address::Address;
use crate::smtp::envelope::Origin;
use crate::smtp::reply::{self, Reply};
use crate::time::UnixTime;

/// A result, or the question that has to be answered first.
pub(super) type Decided<T> = Result<T, Question>;

/// The state of one decision.
pub(super) struct Walk<'a> {
    pub(super) table: &'a Table,
    pub(super) origin: &'a Origin,
    pub(super) answers: &'a Answers,
    pub(super) now: UnixTime,
    /// The address as received.
    pub(super) came_with: &'a Address,
    /// See [`Decision::reasons`](super::verdict::Decision::reasons).
    pub(super) reasons: Vec<Reason>,
    /// The addresses whose targets were followed, in order.
    pub(super) followed: Vec<Address>,
    /// The first question whose answer was used without being live.
    pub(super) unconfirmed: Option<&'a Question>,
    /// Whether a directory entry has the address exactly as received.
    pub(super) listed: bool,
}

/// A route that a row chose.
pub(super) struct Exit<'a> {
    pub(super) row: u8,
    pub(super) connector: &'a Arc<str>,
    /// The address to send to: the last target that was followed, if any.
    pub(super) to: Address,
    pub(super) way: RouteKind,
    pub(super) says: Says,
}

impl<'a> Walk<'a> {
    /// Requires live answers before a recipient is refused because of what directories said (DESIGN section 5, "doubt
    /// is temporary"). If a live answer differs, the next call decides otherwise.
    pub(super) fn confirmed(&mut self) -> Decided<()> {
        self.unconfirmed
            .take()
            .map_or(Ok(()), |question| Err(Question { freshness: Freshness::Live, ..question.clone() }))
    }

    pub(super) fn row(&mut self, row: u8, says: impl Into<Says>) {
        self.reasons.push(Reason::Row { row, says: says.into() });
    }

    pub(super) fn refuse(&mut self, row: u8, reply: Reply, says: String) -> Verdict {
        self.row(row, says);
        Verdict::Refuse(reply)
    }

    /// Refuses for good, which requires live answers.
    pub(super) fn refuse_for_good(&mut self, row: u8, reply: Reply, says: String) -> Decided<Verdict> {
        self.confirmed()?;
        Ok(self.refuse(row, reply, says))
    }

    /// Accepts by a connector, unless that would return to an organisation the very address that it sent us because it
    /// does not have it (DESIGN section 5, the end of "target addresses").
    pub(super) fn leave(&mut self, exit: Exit<'a>) -> Decided<Verdict> {
        let Exit { row, connector, to, way, says } = exit;
        if self.is_strangers_source_route(connector) {
            let says = format!(
                "no entry has {}, and its local part may be a way on from there: only through a connector with \
                 source_routes = \"pass\" (`%`, `!`, `@`)",
                self.came_with
            );
            return self.refuse_for_good(row, reply::SOURCE_ROUTE, says);
        }
        let route = self.route(connector, &to, way);
        let by_target = row == 8 || !self.followed.is_empty();
        if by_target && self.goes_back(connector, &route.rcpt_to) {
            let from = &self.origin.organization;
            let says = format!("{says}; but {from} sent us {} because it does not have it", route.rcpt_to);
            return self.refuse_for_good(8, reply::ROUTING_LOOP, says);
        }
        self.row(row, says);
        Ok(Verdict::Accept(route))
    }

    /// The address in RCPT TO: the target address only if the connector rewrites.
    fn carried(&self, connector: &str, to: &Address) -> Address {
        let Some(first) = self.followed.first() else { return to.clone() };
        let rewrites = self.table.connectors.get(connector).is_none_or(|rules| rules.rewrite_target_address);
        if rewrites { to.clone() } else { first.clone() }
    }

    /// Whether the connector leads back to the organisation that sent this address, which sends us only addresses that
    /// it has not found itself. It has not been asked about any other address.
    pub(super) fn goes_back(&self, connector: &str, rcpt_to: &Address) -> bool {
        let organization = self.table.connectors.get(connector).map_or("", |rules| &rules.organization);
        let Origin { organization: from, resolves_first, .. } = self.origin;
        *resolves_first && same_organization(from, organization) && rcpt_to == self.came_with
    }

    /// Refuses because the configuration has no connector where one is needed. The configuration is checked when it is
    /// loaded, so this does not happen.
    pub(super) fn no_connector(&mut self, row: u8, domain: &Accepted<'_>) -> Verdict {
        let says = format!("{} has no send connector for this: check `deliver_to` and address_spaces", domain.pattern);
        self.refuse(row, reply::TRY_AGAIN, says)
    }

    /// Sends postmaster of an accepted domain to its `deliver_to` where `row` would refuse or relay it (RFC 5321
    /// 4.5.1).
    pub(super) fn postmaster(&mut self, row: u8, to: &Address, domain: &Accepted<'a>) -> Decided<Verdict> {
        let Some(connector) = domain.deliver_to else { return Ok(self.no_connector(row, domain)) };
        let says = format!("postmaster is always accepted: to {connector}, `deliver_to` of {}", domain.pattern);
        self.leave(Exit { row, connector, to: to.clone(), way: RouteKind::Resolved, says: says.into() })
    }

    /// The route to an address by a connector; a target that was followed makes it a redirected one.
    fn route(&self, connector: &Arc<str>, to: &Address, way: RouteKind) -> Route {
        Route {
            connector: connector.clone(),
            rcpt_to: self.carried(connector, to),
            next_hop_domain: to.domain().clone(),
            way: if self.followed.is_empty() { way } else { RouteKind::Redirected },
        }
    }
}
